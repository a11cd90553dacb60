"""Does adaptation pay? Linear probes on operations that pretraining never saw, before, during and after.

    python benchmarks/adaptation.py --data DATA --weights vit_tiny_patch16_224.safetensors --out OUT
    python benchmarks/adaptation.py --data DATA --weights FILE --out OUT --operations VID73 --seeds 0,1 train.lr=1e-3
    python benchmarks/adaptation.py --smoke --out OUT       # generated sets and a toy model: does it all run?

DATA holds `cholec80/` (videos alone suffice), `cholect50/` (at least three operations) and, where there is one,
`kvasir-seg/` with `images/` and `masks/`. Each CholecT50 operation is left out in turn: the backbone is pretrained on
the Cholec80 videos and the other operations' frames, linear probes are fitted on the other operations' labels, and
scored on the one left out. Settings are those of `surgdino pretrain recipe=cpu_lab` unless others are given as
key=value, `guide=[time,order]` among them; `data.recordings=excerpts` says that those of Cholec80 are cut, and tell no
time in the operation. Everything is appended to OUT/probes.jsonl; what stands there is not computed again, so other
probes (--kvasir, --probe-size) want another OUT, and other settings another --name.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from linear_probes import FIXED, MaskedImages, ProbeFrames, masked_images, probe, probe_frames

from surgdino.backbone.checkpoint import save_backbone
from surgdino.backbone.preprocess import Preprocess
from surgdino.backbone.vit import Backbone, build_backbone
from surgdino.backbone.weights import load_weights
from surgdino.cli.compose import compose
from surgdino.config import plain, typed
from surgdino.crops.settings import CropSettings
from surgdino.datasets.card import Recordings, load_card
from surgdino.datasets.manifest import Manifest
from surgdino.datasets.open import open_dataset
from surgdino.engine.guide import needed
from surgdino.engine.pairs import batches
from surgdino.engine.plan import TrainPlan
from surgdino.engine.saving import shipped
from surgdino.engine.settings import HardwareSettings, PretrainSettings
from surgdino.engine.step import train_step
from surgdino.engine.train import open_session
from surgdino.frames.store import FrameStore, StoreSettings, build_store
from surgdino.inputs.datasets import RunDataset
from surgdino.inputs.facts import facts_of
from surgdino.metrics.intervals import paired_difference

MEASURES = (
    "instrument_ap",
    "phase_accuracy",
    "instrument_ap_with_patches",
    "phase_accuracy_with_patches",
    "instrument_ap_aligned",
    "phase_accuracy_aligned",
    "instrument_ap_aligned_with_patches",
    "phase_accuracy_aligned_with_patches",
    *FIXED,
    "kvasir_dice",
)


def main(words: Sequence[str] | None = None) -> None:
    """Run what is missing, and print the table of all that is there."""
    a = parse(words)
    if a.smoke:
        smoke_data(a)
    torch.set_num_threads(a.threads)
    a.out.mkdir(parents=True, exist_ok=True)
    cfg = settings(a)
    preprocess = Preprocess(a.probe_size, tuple(cfg["model"]["mean"]), tuple(cfg["model"]["std"]))
    labelled = opened("cholect50", a.data)
    labelled_store = stored(labelled, cfg, a.out)
    frames = probe_frames(labelled, labelled_store, preprocess)
    polyps = masked_images(a.data / "kvasir-seg", a.kvasir, preprocess)
    bench = Bench(a, cfg, frames, polyps, Journal(a.out / "probes.jsonl"))
    unlabelled = opened("cholec80", a.data)
    videos = (*stored(unlabelled, cfg, a.out).videos, *labelled_store.videos)
    sources = [source(unlabelled, cfg["data"]["recordings"]), source(labelled, None)]
    for held in a.operations or sorted(set(frames.operation.tolist())):
        # By operation, not by video: Cholec80 may hold the same one under another name.
        store = FrameStore([video for video in videos if video.operation != labelled[held].operation])
        facts = facts_of(needed(cfg.get("guide", {})), store, sources, cfg["data"]["table"])
        for seed in a.seeds:
            adapt(bench, store, facts, held, seed)
    for line in table(bench.journal.rows, a.name):
        print(line)


@dataclass(frozen=True)
class Bench:
    """What all runs of a call share."""

    arguments: argparse.Namespace
    cfg: dict[str, Any]
    frames: ProbeFrames
    polyps: MaskedImages | None
    journal: Journal


def adapt(bench: Bench, store: FrameStore, facts: Mapping[str, np.ndarray], held: str, seed: int) -> None:
    """One run: pretrain on `store`, which lacks operation `held`, and probe both networks at the steps asked for."""
    a, journal, frames = bench.arguments, bench.journal, bench.frames
    initial = {"run": "step 0", "held": held, "seed": 0, "step": 0, "weights": "initial"}
    if not journal.has(initial):
        journal.add({**initial, **probe(started(bench.cfg, a.weights, 0), frames, bench.polyps, held)})
    run = {"run": a.name, "held": held, "seed": seed}
    if journal.has({**run, "finished": True}):
        return
    begun, folder = time.perf_counter(), a.out / f"{a.name}-{held}-{seed}"
    for step, final, networks in pretrained(bench.cfg, a.weights, store, facts, seed, folder, a.at):
        row = {**run, "step": step, "final": final, "seconds": round(time.perf_counter() - begun)}
        facts = {"steps": step, "seed": seed, "operations": sorted({video.operation for video in store.videos})}
        for name, backbone in networks.items():
            save_backbone(folder / f"{name}-{step}", backbone, {**facts, "weights_of": name})
            # Polyps cost as much as all else together, so they are asked of the weights that the recipe ships.
            polyps = bench.polyps if final and name == bench.cfg["train"]["ship"] else None
            journal.add({**row, "weights": name, **probe(backbone, frames, polyps, held)})
    journal.add({**run, "finished": True, "settings": a.overrides, "frames": len(store)})


def pretrained(
    cfg: dict[str, Any],
    weights: Path | None,
    store: FrameStore,
    facts: Mapping[str, np.ndarray],
    seed: int,
    folder: Path,
    at: Iterable[int],
) -> Iterator[tuple[int, bool, dict[str, Backbone]]]:
    """(step, whether it is the last, name -> backbone) at the steps asked for and at the end."""
    train = replace(typed(PretrainSettings, cfg["train"], "train"), seed=seed)
    plan = TrainPlan(
        backbone=started(cfg, weights, seed, train.drop_path),
        model=cfg["model"],
        method=cfg["method"],
        store=store,
        augment=cfg["augment"],
        crops=typed(CropSettings, cfg["crops"], "crops"),
        train=train,
        hardware=typed(HardwareSettings, cfg["hardware"], "hardware"),
        folder=folder,
        progress=False,
        guides=cfg.get("guide", {}),
        facts=facts,
    )
    folder.mkdir(parents=True, exist_ok=True)
    session = open_session(plan, print)
    with session.monitor:
        for batch in batches(session):
            train_step(session, batch)
            if session.step in (*at, session.steps):
                networks = {k: shipped(v, session.initial, plan.train.ship_alpha) for k, v in session.networks.items()}
                yield session.step, session.step == session.steps, networks
                session.student.train()


def started(cfg: dict[str, Any], weights: Path | None, seed: int, drop_path: float = 0.0) -> Backbone:
    """The backbone as it came."""
    torch.manual_seed(seed)
    backbone = build_backbone(cfg["model"], drop_path=drop_path)
    if weights is not None:
        load_weights(backbone, weights)
    return backbone


def opened(name: str, data: Path) -> Manifest:
    """A dataset by its folder's name."""
    return open_dataset(load_card(name), data / name)


def source(manifest: Manifest, recordings: Recordings | None) -> RunDataset:
    """What guides learn from a dataset; its recordings are as its card says where nothing else is said."""
    card = load_card(manifest.dataset)
    settings = StoreSettings.of(fps=card.fps or 1)
    return RunDataset(card, manifest, frozenset(), "", Path(), settings, recordings or card.recordings)


def stored(manifest: Manifest, cfg: Mapping[str, Any], out: Path) -> FrameStore:
    """Its frames."""
    wanted = StoreSettings.of(fps=cfg["data"]["fps"], short_side=cfg["data"]["short_side"])
    return build_store(manifest, out / "store", wanted, workers=1, progress=False)


class Journal:
    """The rows of a JSON-lines file, kept beside it in memory."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def add(self, row: dict[str, Any]) -> None:
        """Append a row; the file is whole after each."""
        self.rows.append(row)
        with self.file.open("a") as stream:
            stream.write(json.dumps(row) + "\n")
        print({key: value for key, value in row.items() if key != "settings"}, flush=True)

    def has(self, row: Mapping[str, Any]) -> bool:
        """Whether a row says all of this."""
        return any(all(each.get(key) == value for key, value in row.items()) for each in self.rows)


def table(rows: Sequence[Mapping[str, Any]], run: str) -> Iterator[str]:
    """A Markdown table of what the last step gained over step 0, by operation, with its interval over operations."""
    start = {row["held"]: row for row in rows if row["run"] == "step 0"}
    # A run that was interrupted and begun again has rows of both; the later ones count.
    last = {(r["held"], r["seed"], r["weights"]): r for r in rows if r["run"] == run and r.get("final")}
    ends = list(last.values())
    yield "| weights | measure | operation | step 0 | after (mean of seeds) | seeds | difference |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for weights in ("student", "teacher"):
        for measure in (m for m in MEASURES if any(m in row for row in ends if row["weights"] == weights)):
            before, after = {}, {}
            for held in sorted({row["held"] for row in ends}):
                values = [row[measure] for row in ends if row["held"] == held and row["weights"] == weights]
                before[held], after[held] = start[held][measure], float(np.mean(values))
                each = ", ".join(f"{100 * value:.1f}" for value in values)
                yield _row(weights, measure, held, before[held], after[held], each)
            gain = paired_difference(after, before).difference
            ends_of = f"interval {100 * gain.low:+.1f} to {100 * gain.high:+.1f}, " if gain.n > 1 else ""
            means = [float(np.mean(list(side.values()))) for side in (before, after)]
            yield _row(weights, measure, "all", means[0], means[1], f"{ends_of}n = {gain.n}")


def _row(weights: str, measure: str, held: str, before: float, after: float, each: str) -> str:
    words = (weights, measure, held, f"{100 * before:.1f}", f"{100 * after:.1f}", each)
    return f"| {' | '.join(words)} | {100 * (after - before):+.1f} |"


def settings(a: argparse.Namespace) -> dict[str, Any]:
    """The configuration of `surgdino pretrain` with the recipe and the overrides."""
    return plain(compose("pretrain", [f"recipe={a.recipe}", f"data.root={a.data}", *a.overrides]))


def smoke_data(a: argparse.Namespace) -> None:
    """Generated sets in the place of DATA, and a toy model without weights in that of the recipe's."""
    from surgdino.datasets.synthetic.cholec80 import write_cholec80
    from surgdino.datasets.synthetic.cholect50 import write_cholect50

    a.data, a.weights, a.probe_size = a.out / "data", None, 32
    write_cholec80(a.data / "cholec80", videos=2, seconds=8, size=(160, 96), seed=0)
    write_cholect50(a.data / "cholect50", videos=(1, 2, 4), frames=24, size=(160, 96), seed=0)
    toy = "model=vit_toy crops.global_size=32 crops.local_size=16 crops.local_count=2 method.head_hidden=64"
    short = "method.head_out=32 train.steps=4 train.batch_size=8 train.head_warmup_steps=1 hardware.loader_workers=0"
    a.overrides = [*toy.split(), *short.split(), *a.overrides]


def _names(text: str) -> list[str]:
    return text.split(",")


def numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--weights", type=Path, help="of the natural-image backbone")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipe", default="cpu_lab")
    parser.add_argument("--name", default="recipe", help="of this set of runs, in the journal")
    parser.add_argument("--operations", type=_names, help="to leave out in turn, VID68,VID73; all of them if not said")
    parser.add_argument("--seeds", type=numbers, default=[0, 1, 2])
    parser.add_argument("--at", type=numbers, default=[], help="steps at which to probe, beside the last: 20,40")
    parser.add_argument("--kvasir", type=int, help="how many of the Kvasir-SEG images; all if not said")
    parser.add_argument("--probe-size", type=int, default=224, help="pixels")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as `surgdino pretrain` takes them")
    a = parser.parse_intermixed_args(words)
    if not a.smoke and (a.data is None or a.weights is None):
        parser.error("--data and --weights are needed, or --smoke")
    return a


if __name__ == "__main__":
    main()
