"""Fifty steps whose losses are kept in tests/engine/golden/<method>.json: what a change must not move unnoticed.

    python -m tests.engine.golden_losses                   # compares, and says by how much they moved
    python -m tests.engine.golden_losses renew simdinov2   # writes the file anew; the commit says why

The clips are drawn, not decoded, so that no codec's version enters.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import numpy as np
import torch

from surgdino.backbone.vit import build_backbone
from surgdino.config import shipped, shipped_settings
from surgdino.crops.settings import CropSettings
from surgdino.datasets.synthetic.cholec80 import Operation
from surgdino.engine.plan import TrainPlan
from surgdino.engine.settings import HardwareSettings, PretrainSettings
from surgdino.engine.train import train
from surgdino.frames.content import Content
from tests.engine.teachers import toy_teacher

FOLDER = Path(__file__).parent / "golden"
STEPS, SIDE = 50, 96
WARMUP = {"head_warmup_steps": 5, "warmup_steps": 5}


class DrawnClips:
    """The frame store's interface over two generated operations, a frame every half second."""

    def __init__(self) -> None:
        self.shown: list[tuple[int, float, np.ndarray, Content]] = []
        for number in range(2):
            clip = Operation(np.random.default_rng([7, number]), frames=40, fps=2, size=(SIDE, SIDE))
            (x, y), radius = clip.scene.centre, clip.scene.radius
            box = tuple(int(np.clip(v, 0, SIDE)) for v in (x - radius, y - radius, x + radius, y + radius))
            content = Content("disc", box, x, y, radius)
            for i, image in enumerate(clip.images()):
                if not clip.black[i] and not clip.outside[i]:
                    self.shown.append((number, clip.times[i], image, content))

    def __len__(self) -> int:
        return len(self.shown)

    def read(self, i: int) -> np.ndarray:
        return self.shown[i][2]

    def content(self, i: int) -> Content:
        return self.shown[i][3]

    def video_id(self, i: int) -> str:
        return f"clip{self.shown[i][0]}"

    operation = video_id

    def time(self, i: int) -> float:
        return self.shown[i][1]


def plan_of(method: str, folder: Path) -> TrainPlan:
    model = shipped_settings("model", "vit_toy")
    torch.manual_seed(0)
    return TrainPlan(
        backbone=build_backbone(model, drop_path=0.1),
        model=model,
        method=small(shipped_settings("method", method)),
        store=DrawnClips(),
        augment=shipped_settings("augment", "surgical"),
        crops=shipped(CropSettings, "crops", global_size=32, local_size=16, local_count=2, ratio=(3 / 4, 4 / 3)),
        train=shipped(PretrainSettings, "pretrain", "train", steps=STEPS, batch_size=16, log_every=1, **WARMUP),
        hardware=shipped(HardwareSettings, "hardware/cpu", precision="fp32", loader_workers=0, threads=1),
        folder=folder,
        progress=False,
    )


def small(method: dict) -> dict:
    """The shipped settings with a head that fits the toy."""
    sizes = {"head_hidden": 128, "head_out": 64, "prototypes": 128}
    sizes["teachers"] = [toy_teacher()]
    return {key: sizes.get(key, value) for key, value in method.items()}


def losses_of(method: str) -> list[dict[str, float]]:
    """The loss, its terms and the gradient norm of every step."""
    with tempfile.TemporaryDirectory() as folder:
        result = train(plan_of(method, Path(folder)))
        rows = [json.loads(line) for line in result.metrics.read_text().splitlines()]
    wanted = [*result.first]
    return [{term: row[term] for term in wanted} for row in rows if "loss" in row]


def machine_kind() -> dict[str, str]:
    """What decides on the last bit: the processor and the libraries that compute."""
    names = [line.partition(":")[2].strip() for line in _cpu_info() if line.startswith("model name")]
    packages = {name: version(name) for name in ("torch", "timm", "numpy", "opencv-python-headless", "albumentations")}
    return {"cpu": names[0] if names else "unknown", "capability": torch.backends.cpu.get_cpu_capability(), **packages}


def _cpu_info() -> list[str]:
    file = Path("/proc/cpuinfo")
    return file.read_text().splitlines() if file.exists() else []


def moved(expected: list[dict[str, float]], found: list[dict[str, float]]) -> float:
    """The largest relative deviation of the loss."""
    return max(abs(f["loss"] / e["loss"] - 1) for e, f in zip(expected, found, strict=True))


def main(words: list[str]) -> None:
    renew, names = words[:1] == ["renew"], words[1:] or [path.stem for path in sorted(FOLDER.glob("*.json"))]
    for name in names:
        file, found = FOLDER / f"{name}.json", losses_of(name)
        if file.exists():
            print(f"{name}: the loss moved by {moved(json.loads(file.read_text())['steps'], found):.3g} at most")
        if renew:
            file.parent.mkdir(exist_ok=True)
            steps = ",\n".join(f"  {json.dumps(step)}" for step in found)
            file.write_text(f'{{\n"machine": {json.dumps(machine_kind())},\n"steps": [\n{steps}\n]\n}}\n')
            print(f"{file} written")


if __name__ == "__main__":
    main(sys.argv[1:])
