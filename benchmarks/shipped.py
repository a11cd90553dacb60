"""What finished backbones are worth on one operation that they have not seen, by the fixed probes.

    python benchmarks/shipped.py --data DATA --out OUT --held VID73 --sizes 224,448 start=FILE whole=RUN ...

DATA is as for `adaptation.py`. Each NAME=PATH is a run or checkpoint of ours, or a file of natural-image weights that
fits `--model`. The probes are those of docs/experiments.md: class and mean patch token, fitted on the other operations
of CholecT50 with one penalty fixed beforehand; Dice on polyps. It refuses a backbone that has seen the operation. What
stands in OUT/shipped.jsonl is not computed again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from adaptation import Journal, numbers, opened, stored
from linear_probes import FIXED, masked_images, probe, probe_frames

from surgdino.backbone.settings import ModelSettings
from surgdino.cli.compose import compose
from surgdino.config import plain, typed
from surgdino.inputs.backbone import starting_backbone


def main() -> None:
    """Measure what is missing, and print the table of all that is there."""
    a = parse()
    torch.set_num_threads(1)
    a.out.mkdir(parents=True, exist_ok=True)
    journal = Journal(a.out / "shipped.jsonl")
    cfg = plain(compose("pretrain", ["recipe=cpu_lab", f"model={a.model}", f"data.root={a.data}"]))
    labelled = opened("cholect50", a.data)
    store = stored(labelled, cfg, a.out)
    for name, path in a.backbones:
        natural = {**cfg["model"], "weights": str(path) if path.is_file() else None}
        start = starting_backbone(typed(ModelSettings, natural, "model"), None if path.is_file() else str(path))
        if labelled[a.held].operation in start.info.get("operations", ()):
            raise SystemExit(f"{name}: it has seen {labelled[a.held].operation}, which is measured on")
        for size in a.sizes:
            key = {"backbone": name, "held": a.held, "size": size}
            if not journal.has(key):
                preprocess = start.preprocess(size)
                frames = probe_frames(labelled, store, preprocess)
                polyps = masked_images(a.data / "kvasir-seg", a.kvasir, preprocess)
                journal.add({**key, **probe(start.backbone, frames, polyps, a.held)})
    measures = (*FIXED, "kvasir_dice")
    print(f"| backbone | held out | px | {' | '.join(measures)} |\n| --- | --- | --- |{' --- |' * len(measures)}")
    for row in journal.rows:
        values = (f"{100 * row[name]:.1f}" if name in row else "" for name in measures)
        print(f"| {row['backbone']} | {row['held']} | {row['size']} | {' | '.join(values)} |")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--held", required=True, help="the operation to measure on: VID73")
    parser.add_argument("--model", default="vit_tiny_patch16", help="of files of natural-image weights")
    parser.add_argument("--sizes", type=numbers, default=[224], help="pixels: 224,448")
    parser.add_argument("--kvasir", type=int, help="how many of the Kvasir-SEG images; all if not said")
    parser.add_argument("backbones", nargs="+", type=_named, metavar="NAME=PATH")
    return parser.parse_args()


def _named(text: str) -> tuple[str, Path]:
    name, _, path = text.partition("=")
    return name, Path(path)


if __name__ == "__main__":
    main()
