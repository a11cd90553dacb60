"""What a task's functions are given: the data, the backbone, and where to compute."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from surgdino import distributed
from surgdino.backbone.preprocess import Preprocess, normalize
from surgdino.backbone.vit import Backbone
from surgdino.datasets.card import Card
from surgdino.engine.hardware import Hardware, loader_workers
from surgdino.engine.settings import HardwareSettings
from surgdino.frames.engines import LOCAL
from surgdino.tasks.features.cache import FeatureCache
from surgdino.tasks.features.elsewhere import Elsewhere
from surgdino.tasks.labelled_frames import LabelledFrames
from surgdino.tasks.settings import HeadTraining, Tuning
from surgdino.tasks.training.cut import Cutter

_ON_GPU, _ON_CPU = 128, 32  # pictures in a batch where nothing is learned


@dataclass(frozen=True)
class View:
    """A way to look at a frame: at `scale` times the input's side, and `mirrored` left to right."""

    scale: float = 1.0
    mirrored: bool = False


@dataclass(frozen=True)
class TaskContext:
    """Everything around a task; `build_context` makes one.

    Attributes:
        card: of the dataset.
        classes: what `Task.classes` gave; of a saved task, as it was trained.
        train: the user's `train` section; what is None there comes from the task and its stages.
        tuning: how much of the backbone learns.
        backbone: on `device`, in evaluation mode; its parameters know whether they learn.
        preprocess: size and normalisation of the backbone's input.
        hardware: what it computes on.
        features: of frames, cached.
        cutter: cuts and augments training pictures; for `FrameImages`.
        workers: processes that read pictures.
        batch_images: pictures in a batch where nothing is learned.
        view: how it looks at the frames.
        parts: `train`, `val`, `test` -> labelled frames; what the split lacks is missing, all are where nothing is
            trained.
    """

    card: Card
    classes: tuple[str, ...]
    train: HeadTraining
    tuning: Tuning
    backbone: Backbone
    preprocess: Preprocess
    hardware: Hardware
    features: FeatureCache
    cutter: Cutter
    workers: int = 0
    batch_images: int = 32
    view: View = field(default_factory=View)
    parts: Mapping[str, LabelledFrames] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """Where the backbone is."""
        return self.hardware.device

    @property
    def on_gpu(self) -> bool:
        """Whether that is a GPU: what it is given is pinned then."""
        return self.device.type == "cuda"

    @property
    def autocast(self) -> Callable[[], torch.autocast]:
        """Makes the context in which the networks compute."""
        return self.hardware.autocast

    @property
    def image_size(self) -> int:
        """Side in pixels of the backbone's input."""
        return self.preprocess.image_size

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a picture as the backbone takes it."""
        return 3, self.image_size, self.image_size

    @property
    def width(self) -> int:
        """D, of the backbone's tokens."""
        return self.backbone.embed_dim

    @property
    def grid(self) -> int:
        """Patches along a side of the input; N is its square."""
        return self.image_size // self.backbone.patch_size

    @property
    def learns(self) -> bool:
        """Whether any of the backbone learns."""
        return self.tuning != "frozen"

    def normalize(self, images: Tensor) -> Tensor:
        """uint8 [B, 3, H, W] -> the backbone's input, on the images' device."""
        return normalize(images, self.preprocess.mean, self.preprocess.std)

    def seen(self, view: View) -> TaskContext:
        """The same, looking at the frames in another way; the input's side stays a multiple of the patch's."""
        patch = self.backbone.patch_size
        side = max(round(self.image_size * view.scale / patch), 1) * patch
        preprocess = replace(self.preprocess, image_size=side, mirrored=view.mirrored)
        return replace(self, preprocess=preprocess, features=replace(self.features, preprocess=preprocess), view=view)

    def alone(self) -> TaskContext:
        """The same for one process, while the others wait elsewhere."""
        return replace(self, features=self.features.alone())


def build_context(
    backbone: Backbone,
    hardware: HardwareSettings,
    features: Path,
    *,
    preprocess: Preprocess,
    cutter: Cutter | None = None,
    engine: str = LOCAL,
    processes: int = 0,
    **task: Any,
) -> TaskContext:
    """The context of a task on this machine.

    Args:
        backbone: moved to the device.
        features: folder of the feature cache.
        cutter: for training; None takes pictures whole, as they are.
        engine, processes: where a frozen backbone computes features; see `Elsewhere`.
        task: the other fields: `card`, `classes`, `train`, `tuning`, `parts`.
    """
    here = Hardware.of(hardware)
    there = Elsewhere.of(engine if task.get("tuning") == "frozen" else LOCAL, hardware, here, processes)
    cache = feature_cache(backbone, here, loader_workers(hardware), there, folder=features, preprocess=preprocess)
    here.announce(hardware, cache.backbone, verb="" if cutter is None else "finetune")
    backbone.set_grad_checkpointing(hardware.activation_checkpointing)
    return TaskContext(
        backbone=cache.backbone,
        preprocess=preprocess,
        hardware=here,
        features=cache,
        cutter=cutter or Cutter(preprocess.image_size),
        workers=cache.workers,
        batch_images=cache.batch_size,
        **task,
    )


def feature_cache(
    backbone: Backbone,
    hardware: Hardware,
    workers: int,
    elsewhere: Elsewhere | None,
    *,
    folder: Path,
    preprocess: Preprocess,
) -> FeatureCache:
    """The features of a backbone, which is moved to the device and stops learning."""
    return FeatureCache(
        folder=folder.absolute(),
        backbone=backbone.to(hardware.device).eval(),
        preprocess=preprocess,
        autocast=hardware.autocast,
        precision=str(hardware.dtype).removeprefix("torch."),
        workers=workers,
        batch_size=_ON_GPU if hardware.device.type == "cuda" else _ON_CPU,
        rank=distributed.rank(),
        world=distributed.world_size(),
        elsewhere=elsewhere,
    )
