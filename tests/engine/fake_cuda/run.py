"""Train toy networks on the fake device, and print what made the host wait.

    python -m tests.engine.fake_cuda.run simdinov2/plain dino/all

A case is METHOD/CHANGE; each prints one line of JSON: `{"case": ..., "logged": [[kind, line, what, times], ...],
"unlogged": [...], "save": [...], "probe": [...]}`, of a step that writes a line, of one that does not, of saving and of
measuring.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.engine.fake_cuda.device import FakeCuda  # before anything that imports torch

# isort: split
import numpy as np

import surgdino
from surgdino.backbone.vit import build_backbone
from surgdino.config import shipped
from surgdino.crops.augment.build import transforms
from surgdino.engine.plan import TrainPlan
from surgdino.engine.probing.frames import MaskLabels, TaskLabels
from surgdino.engine.saving import save
from surgdino.engine.settings import HardwareSettings
from surgdino.engine.step import train_step
from surgdino.engine.train import measure, open_session
from tests.engine.methods.test_training import section
from tests.engine.test_guides import facts_of
from tests.engine.test_guides import section as section_of_guides
from tests.engine.test_training import TOY, plan_in

ROTARY = {
    **TOY,
    "timm": "vit_small_patch16_dinov3",
    "timm_kwargs": {**TOY["timm_kwargs"], "patch_size": 8, "img_size": 32},
}
# Every effect on every crop but those that workers keep for themselves.
EFFECTS = {name: {"p": 1.0} for name, kind in transforms().items() if kind.has_batch_form()}
PAINTED = {"on": "gpu", "horizontal_flip": 0.5, "transforms": EFFECTS}
CHANGES: dict[str, dict[str, Any]] = {
    "plain": {},
    "all": {"accumulate": 2, "activation_checkpointing": True, "low_rank": 2, "frozen_blocks": 1, "pull": 1.0},
    "half": {"precision": "fp16"},
    "rotary": {"model": ROTARY},
    "stretched": {"model": ROTARY, "rope_rescale": 2.0},
    "probed": {"probe": {"every": 100}},
    "averaged": {"probe": {"every": 100}, "ship_alpha": 0.5},
    "painted": {"augment": PAINTED, "accumulate": 2},
    "anchored": {"gram": 1.0, "gram_scale": 2, "accumulate": 2},
    "guided": {"guides": section_of_guides(), "accumulate": 2},
}


def main(cases: list[str]) -> None:
    """Print the waits of every case."""
    warnings.filterwarnings("ignore", message="Accessing the data pointer of FakeTensor")
    with FakeCuda(Path(surgdino.__file__).parent) as device:
        for case in cases:
            with tempfile.TemporaryDirectory() as folder:
                method, change = case.split("/")
                found = waits_of(device, plan_of(method, CHANGES[change], Path(folder)))
            print(json.dumps({"case": case, **found}), flush=True)


def waits_of(device: FakeCuda, plan: TrainPlan) -> dict[str, list[list[Any]]]:
    """What the host waits for in the second step, which writes a line, in the third, which does not, and to save.

    The first step makes what is made once a run.
    """
    with contextlib.redirect_stdout(sys.stderr):
        session = open_session(plan, warn=lambda sentence: None)
    device.waits.clear()
    measure(session)
    found = {"probe": seen(device)}
    for batch, step in zip(session.batches(), ("first", "logged", "unlogged"), strict=False):
        device.waits.clear()
        train_step(session, batch)
        found[step] = seen(device)
    device.waits.clear()
    with session.writer:
        save(session)
    return {**found, "save": seen(device)}


def seen(device: FakeCuda) -> list[list[Any]]:
    return [[*wait, times] for wait, times in sorted(device.waits.items())]


def plan_of(method: str, changes: dict[str, Any], folder: Path) -> TrainPlan:
    """The plan of the engine's tests, on a GPU."""
    changes = dict(changes)
    model, checkpointing = changes.pop("model", TOY), changes.pop("activation_checkpointing", False)
    augment = changes.pop("augment", {"horizontal_flip": 0.5})
    precision = changes.pop("precision", "bf16")
    guides = changes.pop("guides", {})
    changes.setdefault("probe", None)
    plan = plan_in(folder, log_every=2, head_warmup_steps=0, **changes)
    if plan.probe is not None:
        frames = plan.probe.frames
        shown = np.arange(len(frames)) % 2
        frames.labels = [TaskLabels("phase", ("a", "b"), np.ones(len(frames), bool), shown)]
        frames.masks = masks_of(len(frames), plan)
    hardware = shipped(
        HardwareSettings, "hardware/cuda", loader_workers=0, activation_checkpointing=checkpointing, precision=precision
    )
    backbone = build_backbone(model, drop_path=plan.train.drop_path)
    parts = {"backbone": backbone, "model": model, "method": section(method), "hardware": hardware, "augment": augment}
    return replace(plan, **parts, guides=guides, facts=facts_of())


def masks_of(frames: int, plan: TrainPlan) -> MaskLabels:
    """Of every frame, of two classes."""
    side = plan.crops.largest.global_size // plan.backbone.patch_size
    cover = np.random.default_rng(0).random((frames, 2, side, side)) > 0.6
    masks: list[Any] = [None] * frames
    known = {(side, side): (cover, np.ones((frames, 2), bool))}
    return MaskLabels(("u", "v"), np.arange(frames), masks, [(0, 0, 1, 1)] * frames, known)


if __name__ == "__main__":
    main(sys.argv[1:])
