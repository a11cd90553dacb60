"""The one place that imports timm: `from surgdino.backbone.timm_import import timm`.

timm imports torchvision unconditionally, and the published torchvision build cannot be imported beside a CPU build of
torch: its compiled operators do not load, and its Python side then fails with "operator torchvision::nms does not
exist". We use none of these operators, so where they cannot be loaded it is enough that their schemas exist.
"""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from pathlib import Path

import torch

# The operators that torchvision's Python side attaches rules to while it is being imported.
_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


@cache
def make_torchvision_importable() -> torch.library.Library | None:
    """Let `import torchvision` succeed beside any build of torch; does nothing where it already would."""
    if "torchvision" in sys.modules or compiled_operators_load():
        return None
    definitions = torch.library.Library("torchvision", "DEF")
    for schema in _SCHEMAS:
        definitions.define(schema)
    return definitions  # torch drops the definitions when this object dies: the cache keeps it


def compiled_operators_load() -> bool:
    """Whether torchvision's operators were built for the torch that is here; True where it is not installed."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return True  # not installed: timm's own ImportError says so
    for library in sorted(Path(spec.origin).parent.glob("_C*.so")):
        try:
            torch.ops.load_library(str(library))
        except OSError:
            return False
        return True
    return False


make_torchvision_importable()

import timm  # noqa: E402 - only after the guard

__all__ = ["make_torchvision_importable", "timm"]
