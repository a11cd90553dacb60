"""Heads that tell the class of every pixel from patch tokens, one file each, discovered by file name: `task.head=NAME`.

B images of H x W pixels, N = h * w patches in row-major order, D the backbone's width, C classes. A head's module has
    layers     (depth of the backbone) -> the blocks whose tokens it reads, -1 being the last
    IMAGES     whether it looks at the images too
    DEFAULTS   of the `train` section, over a frozen backbone
    build      (D, layers read, C, width) -> nn.Module with
        forward    (tokens [B, N, D * layers], (h, w), normalised images [B, 3, H, W] or None) -> logits [B, C, h', w']
                   over the same field of view, at a resolution of its own
"""

from __future__ import annotations

import math
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

from surgdino.errors import SurgdinoError, nearest
from surgdino.paths import names_in

# What a fresh head believes of any pixel (Lin et al. 2017, section 4.1). A class that no training picture is labelled
# for stays there, and is then seen nowhere instead of everywhere.
_PRIOR = 0.1


def head_names() -> list[str]:
    """What `task.head` takes."""
    return names_in(Path(__file__).parent, ".py")


def open_head(name: str) -> Any:
    """The module of that name.

    Raises:
        SurgdinoError: no such head.
    """
    if name not in head_names():
        raise SurgdinoError(f"there is no task.head={name}", fix=nearest(name, head_names()))
    return import_module(f"{__name__}.{name}")


def believe_little(layer: nn.Linear | nn.Conv2d) -> None:
    """Initialise a head's last layer so that every class is unlikely everywhere."""
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.constant_(layer.bias, math.log(_PRIOR / (1 - _PRIOR)))  # type: ignore[arg-type]
