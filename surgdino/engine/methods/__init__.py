"""Methods, one file each, discovered by file name.

A method is a module with
    Settings            a frozen dataclass of its `method` section; the loop reads `momentum`, `momentum_end`,
                        `mask_probability` and `mask_ratio` of it
    build_head          (settings, embed_dim) -> nn.Module, what sits on the backbone
    check_batch         (settings, images) raises where a batch of that size cannot be used
    teacher_targets     (teacher, views, settings) -> Targets, no gradient
    student_loss        (student, views, targets, settings) -> (loss, terms)
    collapse_values     (settings, images) -> the terms of a collapsed run
    signs_of_collapse   (terms, settings, images) -> a sentence, or None
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from surgdino.config import typed
from surgdino.errors import SurgdinoError, nearest
from surgdino.paths import names_in


def method_names() -> list[str]:
    """Every method there is."""
    return names_in(Path(__file__).parent, ".py")


def open_method(section: Mapping[str, Any]) -> tuple[ModuleType, Any]:
    """The module that a `method` section names, and its settings, checked.

    Raises:
        SurgdinoError: no such method, or a setting it does not have.
    """
    name = str(section.get("name"))
    if name not in method_names():
        raise SurgdinoError(f"there is no method={name}", fix=nearest(name, method_names()))
    module = import_module(f"{__name__}.{name}")
    return module, typed(module.Settings, section, "method")
