"""What a task's functions are given: the data, the backbone, the settings, and where to compute."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from surgdino.backbone.preprocess import Preprocess, normalize
from surgdino.backbone.vit import Backbone
from surgdino.datasets.card import Card
from surgdino.datasets.manifest import Manifest
from surgdino.tasks.features.cache import FeatureCache
from surgdino.tasks.labelled_frames import LabelledFrames
from surgdino.tasks.training.cut import Cutter
from surgdino.tasks.training.settings import TrainSettings
from surgdino.tasks.training.tuning import Tuning


@dataclass(frozen=True)
class TaskContext:
    """Everything around a task.

    Attributes:
        task: its name.
        card: of the dataset.
        classes: what the task module's `classes` gave; of a saved task, as it was trained.
        settings: the task module's `Settings`.
        train: the user's `train` section; what is None there comes from the task and its stages.
        tuning: how much of the backbone learns.
        backbone: on `device`, in evaluation mode, its parameters told whether they learn.
        preprocess: size and normalisation of the backbone's input.
        device, autocast: where it computes; `with context.autocast():`.
        features: of frames, cached.
        cutter: cuts and augments training pictures; for `ImageSource`.
        workers: processes that read pictures.
        batch_images: pictures in a batch where nothing is learned.
        parts: `train`, `val`, `test` -> labelled frames; what the split lacks is missing, all are where nothing is
            trained.
        manifest: of the whole split; None where a video without a dataset is predicted.
        say: prints a sentence.
    """

    task: str
    card: Card
    classes: tuple[str, ...]
    settings: Any
    train: TrainSettings
    tuning: Tuning
    backbone: Backbone
    preprocess: Preprocess
    device: torch.device
    autocast: Callable[[], Any]
    features: FeatureCache
    cutter: Cutter
    workers: int = 0
    batch_images: int = 32
    parts: Mapping[str, LabelledFrames] = field(default_factory=dict)
    manifest: Manifest | None = None
    say: Callable[[str], None] = print

    @property
    def image_size(self) -> int:
        """Side in pixels of the backbone's input."""
        return self.preprocess.image_size

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

    def alone(self) -> TaskContext:
        """The same for one process, while the others wait elsewhere."""
        return replace(self, features=self.features.alone())
