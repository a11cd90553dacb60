"""What stands in for a reader's data: films in the public layouts, drawn by surgdino, and weights that say nothing."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from surgdino.backbone.checkpoint import save_backbone
from surgdino.backbone.vit import build_backbone
from surgdino.config import shipped_settings
from surgdino.datasets.synthetic.cholec80 import write_cholec80
from surgdino.datasets.synthetic.workflow import write_workflow

_SIZE = (96, 64)


def cholec80(folder: Path) -> Path:
    """Eight videos of Cholec80: four to train on by the split 40-8-32, one to validate, three to test."""
    for first, videos in ((1, 4), (41, 1), (49, 3)):
        write_cholec80(folder, videos=videos, seconds=16, size=_SIZE, first=first, public_ids=True)
    return folder


def own_videos(folder: Path) -> Path:
    """Six films of one's own, two of them in parts, and a spreadsheet as Excel saves it in a German office."""
    write_cholec80(folder.with_name("made"), videos=6, seconds=12, size=_SIZE, annotations=False)
    folder.mkdir()
    rows = ["Video;Start;Phase"]
    for number in range(1, 7):
        (folder.with_name("made") / f"videos/video{number:02d}.mp4").rename(folder / f"OP{number:02d}.mp4")
        rows += [f"OP{number:02d};00:00:00;access", f"OP{number:02d};00:00:04;resection"]
        rows += [f"OP{number:02d};00:00:0{7 + number % 3};closure"]
    (folder / "labels.csv").write_bytes(("\r\n".join(rows) + "\r\n").encode("utf-8-sig"))
    return folder


def weights(path: Path) -> Path:
    """A file of the toy model's random weights under timm's names."""
    torch.manual_seed(0)
    save_file(build_backbone(shipped_settings("model", "vit_toy")).vit.state_dict(), str(path))
    return path


def clinic(folder: Path) -> Path:
    """Six films with a label file each, in AutoLaparo's layout."""
    write_workflow(folder, "autolaparo", videos=6, seconds=8, public_ids=True)
    return folder


def run(folder: Path) -> Path:
    """What a finished run holds for others: the checkpoint of a toy model."""
    torch.manual_seed(0)
    facts = {"operations": ["camma/5"], "datasets": [{"name": "cholec80", "operations": ["camma/5"]}]}
    save_backbone(folder / "checkpoint", build_backbone(shipped_settings("model", "vit_toy")).eval(), facts)
    return folder


STAND_INS = {"cholec80": cholec80, "own_videos": own_videos, "weights": weights, "clinic": clinic, "run": run}
ENDINGS = {"weights": ".safetensors"}
