"""Does a backbone learn more from a curated archive? Linear probes on operations that pretraining never saw.

    python benchmarks/curation_pays.py --data DATA --weights vit_tiny_patch16_224.safetensors --out OUT [key=value ...]

DATA holds `cholec80/` and `cholect50/`. Two archives are made of them, for each CholecT50 operation left out in turn: a
clean one, every recording once, and one with known faults: every recording again at another size and quality, three
with a picture that stands for 40 s, one at a fifth of its speed beside its two others. Each is learnt from as it is
(uniform), without what comes twice (deduplicated), that and drawn evenly over its clusters (balanced), and from the
frames near those of the labelled operations (retrieved); the clean one also drawn evenly alone (weighted); for the same
number of steps. Settings are those of
`surgdino pretrain recipe=cpu_lab` unless others are given. What stands in OUT/probes.jsonl is not computed again.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from adaptation import Journal, numbers, opened, settings, stored
from curation import encode
from linear_probes import probe, probe_frames

from surgdino.backbone.checkpoint import load
from surgdino.backbone.preprocess import Preprocess
from surgdino.cli.main import main as surgdino
from surgdino.runs.lock import FolderLock

_STILL, _SLOWER, _LINES = 40, 5, 360  # seconds; times; of a copy
ARMS = {
    "uniform": None,
    "deduplicated": ["balance.into=none"],
    "balanced": ["balance.into=weights"],
    "weighted": ["balance.into=weights", "duplicates.along_quantile=null", "duplicates.across_quantile=null"],
    "retrieved": ["balance.into=none", "like={wanted}"],
}
RUNS = [("skewed", arm) for arm in ARMS if arm != "weighted"]
RUNS += [("clean", arm) for arm in ("uniform", "balanced", "weighted")]
MEASURES = ("instrument_ap", "phase_accuracy", "instrument_ap_with_patches", "phase_accuracy_with_patches")


def write_archive(data: Path, archive: Path, held: str, skewed: bool) -> None:
    """All recordings but those of operation `held`; with copies, idle stretches and a slowed one where `skewed`."""
    archive.mkdir(parents=True, exist_ok=True)
    films = archive.parent / "films"
    for place, video in enumerate(sorted((data / "cholec80" / "videos").glob("*.mp4"))):
        kinds: dict[str, dict[str, Any]] = {"a": {"height": None, "crf": 18}}
        if skewed:
            kinds["b"] = {"height": _LINES, "crf": 30}
        if skewed and place < 3:
            kinds["c"] = {"height": None, "crf": 20, "still": _STILL}
        if skewed and place == 3:
            kinds["d"] = {"height": None, "crf": 20, "slower": _SLOWER}
        for kind, how in kinds.items():
            film = films / f"{kind}-{video.stem}.mp4"
            film.parent.mkdir(exist_ok=True)
            encode(video, film, **how)
            link(film, archive / film.name)
    for folder in sorted((data / "cholect50" / "videos").iterdir()):
        if folder.name != held:
            copy_pictures(folder, archive / f"a-{folder.name}", 95, None)
            if skewed:
                copy_pictures(folder, archive / f"b-{folder.name}", 50, _LINES)


def link(file: Path, target: Path) -> None:
    """The same file in another folder."""
    if not target.exists():
        target.hardlink_to(file)


def copy_pictures(folder: Path, target: Path, quality: int, lines: int | None) -> None:
    """A folder of frames, written again."""
    if target.exists():
        return
    target.mkdir()
    for file in sorted(folder.iterdir()):
        picture = cv2.imread(str(file))
        if lines is not None:
            picture = cv2.resize(picture, None, fx=(s := lines / len(picture)), fy=s, interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(target / f"{file.stem}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, quality])


def learnt(a: argparse.Namespace, kind: str, arm: str, held: str, seed: int) -> Path:
    """The run folder of one arm; its curation is made where it is not there."""
    archive, store = a.out / f"{kind}-{held}", a.out / "store"
    write_archive(a.data, archive, held, kind == "skewed")
    of = ["dataset=folder", f"data.root={archive}", f"data.store={store}", "run.names=plain"]
    start = ["model=vit_tiny_patch16", f"model.weights={a.weights}"]
    if (words := ARMS[arm]) is not None:
        curation = a.out / f"curation-{kind}-{arm}-{held}"
        wanted = a.out / f"wanted-{held}"
        for folder in sorted((a.data / "cholect50" / "videos").iterdir()):
            if folder.name != held and arm == "retrieved":
                wanted.mkdir(exist_ok=True)
                copy_pictures(folder, wanted / folder.name, 95, None)
        if not (curation / "curation.parquet").exists():
            words = [word.format(wanted=wanted) for word in words]
            if surgdino(["curate", *of, *start, f"run.dir={curation}", *words]) != 0:
                raise SystemExit(f"curating {curation} failed")
        of.append(f"data.curation={curation}")
    run = a.out / f"{kind}-{arm}-{held}-{seed}"
    words = ["pretrain", "recipe=cpu_lab", *of, *start, f"train.seed={seed}", f"run.dir={run}", *a.overrides]
    if surgdino(words) != 0:
        raise SystemExit(f"{run} failed")
    return run


def table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Change against the uniform archive of the same kind, operation and seed, in points, a line an arm and measure."""
    found = {(r["archive"], r["arm"], r["held"], r["seed"]): r for r in rows}
    yield "| archive | arm | measure | value | change by operation | mean | each seed's |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for (kind, arm), name in product(RUNS, MEASURES):
        mine = {key[2:]: row[name] for key, row in found.items() if key[:2] == (kind, arm)}
        base = {key[2:]: row[name] for key, row in found.items() if key[:2] == (kind, "uniform")}
        change = {key: 100 * (mine[key] - base[key]) for key in sorted(mine.keys() & base.keys())}
        if not change:
            continue
        held = sorted({key[0] for key in change})
        by = [float(np.mean([v for k, v in change.items() if k[0] == each])) for each in held]
        seeds = [", ".join(f"{v:+.1f}" for k, v in change.items() if k[0] == each) for each in held]
        value = 100 * float(np.mean([np.mean([v for k, v in mine.items() if k[0] == each]) for each in held]))
        words = (kind, arm, name, f"{value:.1f}", ", ".join(f"{v:+.1f}" for v in by), f"{np.mean(by):+.1f}")
        yield f"| {' | '.join(words)} | {' / '.join(seeds)} |"


def main() -> None:
    """Run what is missing, and print the table of all that is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True, help="of vit_tiny_patch16")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=numbers, default=[0, 1, 2])
    parser.add_argument("--probe-size", type=int, default=224, help="pixels")
    parser.add_argument("--recipe", default="cpu_lab", help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as `surgdino pretrain` takes them")
    a = parser.parse_intermixed_args()
    torch.set_num_threads(1)
    a.out.mkdir(parents=True, exist_ok=True)
    cfg = settings(a)
    labelled = opened("cholect50", a.data)
    preprocess = Preprocess(a.probe_size, tuple(cfg["model"]["mean"]), tuple(cfg["model"]["std"]))
    frames = probe_frames(labelled, stored(labelled, cfg, a.out), preprocess)
    journal = Journal(a.out / "probes.jsonl")
    with FolderLock(a.out):
        for seed, held, (kind, arm) in product(a.seeds, sorted(set(frames.operation.tolist())), RUNS):
            key = {"archive": kind, "arm": arm, "held": held, "seed": seed}
            if not journal.has(key):
                backbone = load(learnt(a, kind, arm, held, seed) / "checkpoint").backbone
                journal.add({**key, **probe(backbone, frames, None, held)})
    for line in table(journal.rows):
        print(line)


if __name__ == "__main__":
    main()
