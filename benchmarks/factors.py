"""What guides, Gram anchoring, neighbours and distillation add to an adaptation: one factor at a time, paired.

    python benchmarks/factors.py --data DATA --weights vit_tiny_patch16_224.safetensors --out OUT [--arms time,order]
    python benchmarks/factors.py --smoke --out OUT          # generated sets and a toy model: does it all run?

Data, probes, journal and settings (key=value) are those of `adaptation.py`. An arm is the baseline with one setting
changed; a change is against the baseline of the same operation and seed. What stands in OUT/probes.jsonl is not
computed again. The protocol is in docs/experiments_log.md, the result in docs/experiments.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from adaptation import Journal, numbers, opened, pretrained, settings, smoke_data, source, started, stored
from linear_probes import FIXED, masked_images, probe, probe_frames

from surgdino.backbone.preprocess import Preprocess
from surgdino.engine.guide import needed
from surgdino.frames.store import FrameStore
from surgdino.inputs.facts import facts_of
from surgdino.runs.lock import FolderLock

BASELINE = "baseline"
ARMS: dict[str, list[str]] = {
    BASELINE: [],
    "time": ["guide=time"],
    "time_strong": ["guide=time", "guide.time.weight=0.5"],
    "order": ["guide=order"],
    "operation": ["guide=operation"],
    "centre": ["guide=centre"],
    "gram": ["train.gram=1.0"],
    "neighbours": ["crops.pair=neighbours", "crops.pair_every=25"],
}
MEASURES = (*FIXED, "kvasir_dice")


def main() -> None:
    """Run what is missing, and print the table of all that is there."""
    a = parse()
    if a.smoke:
        smoke_data(a)
    torch.set_num_threads(1)
    a.out.mkdir(parents=True, exist_ok=True)
    with FolderLock(a.out):
        journal = Journal(a.out / "probes.jsonl")
        measure(a, journal)
    for line in table(journal.rows):
        print(line)


def measure(a: argparse.Namespace, journal: Journal) -> None:
    """The runs that are not there yet, seed by seed."""
    words = {arm: {**vars(a), "overrides": [*a.overrides, *ARMS[arm]]} for arm in a.arms}
    cfgs = {arm: settings(argparse.Namespace(**words[arm])) for arm in a.arms}
    cfg = cfgs[a.arms[0]]
    preprocess = Preprocess(a.probe_size, tuple(cfg["model"]["mean"]), tuple(cfg["model"]["std"]))
    labelled, unlabelled = opened("cholect50", a.data), opened("cholec80", a.data)
    labelled_store = stored(labelled, cfg, a.out)
    videos = (*stored(unlabelled, cfg, a.out).videos, *labelled_store.videos)
    frames = probe_frames(labelled, labelled_store, preprocess)
    polyps = masked_images(a.data / "kvasir-seg", a.kvasir, preprocess)
    sources = [source(unlabelled, "excerpts"), source(labelled, None)]
    operations = sorted(set(frames.operation.tolist()))
    for held in operations:
        key = {"arm": "step 0", "held": held, "seed": 0}
        if not journal.has(key):
            journal.add({**key, **probe(started(cfg, a.weights, 0), frames, polyps, held)})
    for seed, arm, held in product(a.seeds, a.arms, operations):
        key = {"arm": arm, "held": held, "seed": seed}
        if journal.has(key):
            continue
        chosen = cfgs[arm]
        store = FrameStore([video for video in videos if video.operation != labelled[held].operation])
        facts = facts_of(needed(chosen.get("guide", {})), store, sources, None)
        run = pretrained(chosen, a.weights, store, facts, seed, a.out / f"{arm}-{held}-{seed}", ())
        *_, (_, _, networks) = run
        journal.add({**key, **probe(networks[chosen["train"]["ship"]], frames, polyps, held)})


def table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Markdown: every arm's mean over operations, its change against the baseline, and each seed's by operation."""
    found = {(row["arm"], row["held"], row["seed"]): row for row in rows}
    yield "| arm | measure | value | change | by operation, each seed's |"
    yield "| --- | --- | --- | --- | --- |"
    for arm, name in product(dict.fromkeys(row["arm"] for row in rows), MEASURES):
        mine = {key[1:]: row[name] for key, row in found.items() if key[0] == arm and name in row}
        base = {key[1:]: row[name] for key, row in found.items() if key[0] == BASELINE and name in row}
        held = sorted({key[0] for key in mine})
        if not held:
            continue
        change = {key: 100 * (mine[key] - base[key]) for key in sorted(mine.keys() & base.keys())}
        by = [[v for key, v in change.items() if key[0] == each] for each in held]
        value = 100 * np.mean([np.mean([v for key, v in mine.items() if key[0] == each]) for each in held])
        mean = f"{np.mean([np.mean(each) for each in by]):+.1f}" if all(by) else ""
        each = " / ".join(", ".join(f"{v:+.1f}" for v in values) for values in by)
        yield f"| {arm} | {name} | {value:.1f} | {mean} | {each} |"


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--weights", type=Path, help="of the natural-image backbone")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipe", default="cpu_lab")
    parser.add_argument("--arms", type=lambda text: text.split(","), default=list(ARMS))
    parser.add_argument("--seeds", type=numbers, default=[0, 1, 2])
    parser.add_argument("--kvasir", type=int, help="how many of the Kvasir-SEG images; all if not said")
    parser.add_argument("--probe-size", type=int, default=224, help="pixels")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as `surgdino pretrain` takes them")
    a = parser.parse_intermixed_args()
    if not a.smoke and (a.data is None or a.weights is None):
        parser.error("--data and --weights are needed, or --smoke")
    for arm in set(a.arms) - set(ARMS):
        parser.error(f"no arm {arm}; there are {', '.join(ARMS)}")
    return a


if __name__ == "__main__":
    main()
