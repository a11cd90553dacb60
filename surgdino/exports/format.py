"""What a format is: it writes a backbone into a folder and reads it again with the other program alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from surgdino import discovery
from surgdino.backbone.checkpoint import LoadedBackbone
from surgdino.backbone.timm_import import timm
from surgdino.backbone.vit import Features
from surgdino.errors import SurgdinoError

PACKAGE = "surgdino.exports.formats"


class Format(ABC):
    """A way to write a backbone.

    Attributes:
        NEEDS: packages beside ours, which `pip install 'surgdino[NAME]'` brings.
        USE: Python that loads the folder `FOLDER` and computes features of `images`, for the card.
    """

    NEEDS: tuple[str, ...] = ()
    USE: str

    @abstractmethod
    def write(self, model: LoadedBackbone, folder: Path) -> None:
        """Write the files into an empty folder."""

    @abstractmethod
    def read(self, folder: Path) -> Callable[[Tensor], Features]:
        """What the other program makes of them: [B, 3, S, S] -> class and patch tokens, for any B."""


def open_format(name: str) -> Format:
    """The format of this name.

    Raises:
        SurgdinoError: there is none, or a package that it needs is not installed.
    """
    module = discovery.load(PACKAGE, name, "format")
    found: Format = discovery.defined(module, Format)()  # type: ignore[type-abstract]
    missing = [package for package in found.NEEDS if find_spec(package) is None]
    if missing:
        raise SurgdinoError(
            f"format={name} needs packages that are not installed",
            found=", ".join(missing),
            fix=f"install them: pip install 'surgdino[{name}]'",
        )
    return found


def timm_options(model: LoadedBackbone) -> dict[str, Any]:
    """What timm makes the model with, so that it takes pictures of any size as ours does."""
    return {**model.info["timm_kwargs"], "dynamic_img_size": True}


def features_of(vit: Any, images: Tensor) -> Features:
    """Class and patch tokens of a timm model."""
    tokens = vit.forward_features(images)
    return Features(tokens[:, 0], tokens[:, vit.num_prefix_tokens :])


class Plain(nn.Module):
    """timm's own model, strict in its weights and without anything of ours: images -> class and patch tokens."""

    def __init__(self, model: LoadedBackbone) -> None:
        super().__init__()
        self.vit: Any = timm.create_model(model.info["timm"], num_classes=0, **timm_options(model)).eval()
        self.vit.load_state_dict({name: value.cpu() for name, value in model.backbone.vit.state_dict().items()})

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 3, S, S] -> [B, D], [B, N, D]."""
        cls, patches = features_of(self.vit, images)
        return cls, patches


def largest_difference(model: LoadedBackbone, reads: Callable[[Tensor], Features]) -> float:
    """Of any feature, as a share of the largest one, over batches of one and three random pictures of the usual size.

    A share, since features of trained weights can be in the tens, where fp32 alone differs in the fourth digit behind
    the point between one kernel and another.
    """
    side, worst = model.info["image_size"], 0.0
    drawn = torch.Generator().manual_seed(0)
    for count in (1, 3):
        images = torch.randn(count, 3, side, side, generator=drawn)
        with torch.no_grad():
            here, there = model(images), reads(images)
        for ours, theirs in ((here.cls, there.cls), (here.patches, there.patches)):
            if ours.shape != theirs.shape:
                return float("inf")
            worst = max(worst, float((ours - theirs).abs().max() / ours.abs().max()))
    return worst
