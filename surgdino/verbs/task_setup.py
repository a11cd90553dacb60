"""What a task is computed with: the backbone it starts from, and the context that its functions are given."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from surgdino import checkpoint, distributed
from surgdino.backbone.heap import keep_freed_memory
from surgdino.backbone.preprocess import Preprocess
from surgdino.backbone.vit import Backbone
from surgdino.datasets.card import Card
from surgdino.datasets.manifest import Manifest
from surgdino.engine import precision
from surgdino.engine.plan import HardwareSettings
from surgdino.errors import SurgdinoError
from surgdino.tasks.context import TaskContext
from surgdino.tasks.features.cache import FeatureCache
from surgdino.tasks.labelled_frames import LabelledFrames
from surgdino.tasks.training.cut import Cutter
from surgdino.tasks.training.settings import TrainSettings
from surgdino.tasks.training.tuning import Tuning
from surgdino.verbs.pretrain import start_from

_ON_GPU, _ON_CPU = 128, 32  # pictures in a batch where nothing is learned


@dataclass(frozen=True)
class Start:
    """A backbone to begin with.

    Attributes:
        backbone: on the CPU, in evaluation mode.
        model: what stands for it in the `model` section.
        info: what is known of its past: `operations`, `chosen_on`, `seen`, and where it came from.
        image_size: at which it should be used.
    """

    backbone: Backbone
    model: Mapping[str, Any]
    info: Mapping[str, Any]
    image_size: int


def start(model: Mapping[str, Any], path: str | None, console: Console) -> Start:
    """The backbone of a checkpoint, or of `model=` with its natural-image weights (at random, said plainly, without).

    Raises:
        SurgdinoError: both a checkpoint and weights, no checkpoint there, or one that cannot be read.
    """
    if path is None:
        backbone, weights = start_from(model, 0.0, console)
        side = min(224, backbone.grid[0] * backbone.patch_size)
        return Start(backbone.eval(), model, weights or {}, side - side % backbone.patch_size)
    if model.get("weights") is not None:
        raise SurgdinoError(
            "two backbones to start from",
            found=f"checkpoint={path} and model.weights={model['weights']}",
            fix="give one of them",
        )
    loaded = checkpoint.load(path)
    steps = f", {loaded.info['steps']} steps" if loaded.info.get("steps") else ""
    past = ", ".join(filter(None, (str(loaded.info.get("dataset") or ""), str(loaded.info.get("name")))))
    console.print(f"[bold]backbone[/bold] {path} ({past}{steps})", soft_wrap=True, highlight=False)
    keys = ("name", "timm", "timm_kwargs", "patch_size", "mean", "std")
    known = {**{key: loaded.info.get(key) for key in keys}, "weights": None}
    return Start(loaded.backbone, known, loaded.info, loaded.preprocess.image_size)


def check_image_size(size: int, backbone: Backbone) -> int:
    """A side in pixels that divides into the backbone's patches.

    Raises:
        SurgdinoError: it does not.
    """
    patch = backbone.patch_size
    if size < patch or size % patch:
        raise SurgdinoError(
            "the images do not divide into patches",
            place="image_size",
            expected=f"a multiple of {patch}",
            found=size,
            fix=f"use image_size={max(round(size / patch), 1) * patch}",
        )
    return size


@dataclass(frozen=True)
class Described:
    """What a task is, whoever trained it: the part of the context that does not depend on the machine."""

    task: str
    card: Card
    classes: tuple[str, ...]
    settings: Any
    tuning: Tuning
    preprocess: Preprocess
    train: TrainSettings = field(default_factory=TrainSettings)


def build_context(
    what: Described,
    backbone: Backbone,
    hardware: HardwareSettings,
    features: Path,
    *,
    parts: Mapping[str, LabelledFrames] | None = None,
    manifest: Manifest | None = None,
    cutter: Cutter | None = None,
    say: Callable[[str], None] = print,
) -> TaskContext:
    """The context of a task on this machine.

    Args:
        what: task, settings, classes, preprocessing.
        backbone: moved to the device.
        features: folder of the feature cache.
        cutter: for training; None takes pictures whole, as they are.
    """
    precision.set_threads(hardware)
    device = precision.choose_device(hardware)
    if device.type == "cpu":
        keep_freed_memory()
    backbone = backbone.to(device).eval()
    cache = _feature_cache(features, backbone, what.preprocess, hardware, device, say)
    return TaskContext(
        task=what.task,
        card=what.card,
        classes=what.classes,
        settings=what.settings,
        train=what.train,
        tuning=what.tuning,
        backbone=backbone,
        preprocess=what.preprocess,
        device=torch.device(device),
        autocast=cache.autocast,
        features=cache,
        cutter=cutter or Cutter(what.preprocess.image_size),
        workers=cache.workers,
        batch_images=cache.batch_size,
        parts=parts or {},
        manifest=manifest,
        say=say,
    )


def _feature_cache(
    folder: Path,
    backbone: Backbone,
    preprocess: Preprocess,
    hardware: HardwareSettings,
    device: torch.device,
    say: Callable[[str], None],
) -> FeatureCache:
    """What the frozen features are kept in, and how this machine computes them."""
    dtype = precision.choose_dtype(hardware, device)
    cores = len(os.sched_getaffinity(0)) // distributed.local_world_size()
    return FeatureCache(
        folder=folder,
        backbone=backbone,
        preprocess=preprocess,
        autocast=partial(precision.autocast, device, dtype),
        precision=str(dtype).removeprefix("torch."),
        workers=precision.loader_workers(hardware, cores),
        batch_size=_ON_GPU if device.type == "cuda" else _ON_CPU,
        rank=distributed.rank(),
        world=distributed.world_size(),
        say=say,
        tick=ExtractionBar(silent=not distributed.is_main()),
    )


class ExtractionBar:
    """A progress bar that appears with the first pictures and goes with the last."""

    def __init__(self, *, silent: bool) -> None:
        self._silent = silent
        self._bar: Progress | None = None

    def __call__(self, done: int, total: int) -> None:
        """`done` of `total` pictures went through the backbone."""
        if self._silent:
            return
        if self._bar is None:
            columns = (TextColumn("[bold]features"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._bar.add_task("", total=total)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=done, total=total)
        if done >= total:
            self._bar.stop()
            self._bar = None
