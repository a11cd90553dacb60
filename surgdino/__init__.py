"""surgdino: adapt a vision backbone to one's own surgical video, and measure whether it paid.

Every verb of the command line is a function here, with the same keys and a typed result: `surgdino.pretrain(...)`,
`finetune`, `evaluate`, `predict`, ...; `surgdino.load(run)` gives the trained model. See docs/python.md.
"""

from __future__ import annotations

import secrets  # noqa: F401  numpy imports it late; who watches which files `load` opens shall not find this name
import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from surgdino.api.calls import (
        benchmark,
        compare,
        curate,
        evaluate,
        export,
        finetune,
        merge,
        predict,
        pretrain,
        report,
        score,
        share,
        show,
        verify,
    )
    from surgdino.api.models import BackboneModel, TaskModel, load
    from surgdino.backbone.checkpoint import LoadedBackbone
    from surgdino.errors import SurgdinoError

__version__ = "0.1.0"
__all__ = [
    "BackboneModel",
    "LoadedBackbone",
    "SurgdinoError",
    "TaskModel",
    "__version__",
    "benchmark",
    "compare",
    "curate",
    "evaluate",
    "export",
    "finetune",
    "load",
    "merge",
    "predict",
    "pretrain",
    "report",
    "score",
    "share",
    "show",
    "verify",
]
_FROM = {
    "LoadedBackbone": "surgdino.backbone.checkpoint",
    "SurgdinoError": "surgdino.errors",
    **dict.fromkeys(("BackboneModel", "TaskModel", "load"), "surgdino.api.models"),
}
_ROOMS = ("report", "show", "verify")  # packages of ours that have a verb's name


def __getattr__(name: str) -> Any:
    """Imported when somebody asks for it: `import surgdino` stays instant."""
    if name in _ROOMS:
        return import_module(f"surgdino.{name}")
    if name in __all__:
        return getattr(import_module(_FROM.get(name, "surgdino.api.calls")), name)
    raise AttributeError(f"module 'surgdino' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Room(ModuleType):
    """Called, it is the verb."""

    def __call__(self, *words: Any, **settings: Any) -> Any:
        verb = getattr(import_module("surgdino.api.calls"), self.__name__.rpartition(".")[2])
        return verb(*words, **settings)


class _Package(ModuleType):
    """Has `surgdino.report(...)` work before and after the package `surgdino.report` is imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _ROOMS and isinstance(value, ModuleType):
            value.__class__ = _Room
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
