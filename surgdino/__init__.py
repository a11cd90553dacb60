"""surgdino: adapt a vision backbone to one's own surgical video, and measure whether it paid."""

from __future__ import annotations

import secrets  # noqa: F401  numpy imports it late; who watches which files `load` opens shall not find this name
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from surgdino.backbone.checkpoint import LoadedBackbone, load

__version__ = "0.1.0"
__all__ = ["LoadedBackbone", "__version__", "load"]


def __getattr__(name: str):
    """`surgdino.load` imports torch only when somebody asks for it, so that `surgdino --help` stays instant."""
    if name in ("load", "LoadedBackbone"):
        from surgdino.backbone import checkpoint

        return getattr(checkpoint, name)
    raise AttributeError(f"module 'surgdino' has no attribute {name!r}")
