"""Methods, one file each, discovered by file name.

Symbols: B images of the global batch, in W processes of K micro-batches of b = B / (W K) images; D the backbone width.
A method is a module with
    Settings            a frozen dataclass of its `method` section. The loop reads `momentum`, `momentum_end`,
                        `mask_probability`, `mask_ratio`, and `group_size`: how many consecutive images of the global
                        batch a group term couples, None for all B. A method that couples none leaves `group_size` and
                        `group_features` out
    build_head          (settings, embed_dim) -> nn.Module, what sits on the backbone; its buffers are the teacher's own
    check_batch         (settings, images) raises where a global batch of that size cannot be used; images = B
    teacher_outputs     (teacher, views, settings) -> Outputs of one micro-batch, no gradient: raw projections, and
                        `features` [2b, D], the backbone's class tokens, for the monitor
    make_targets        (outputs, teacher, settings, across, progress) -> [Targets], once a step, from the list of this
                        process's K Outputs. Whatever looks at the whole batch (Sinkhorn-Knopp, centres and their
                        update) happens here, through `across.sum` and `across.gather_views`; progress is step / steps
                        in [0, 1]
    group_features      (student, views, targets, settings) -> {name: [2, b, ...]}, what `student_loss` completes under
                        these names; called without gradient, and only where a group spans several micro-batches. It
                        must run the global crops as `student_loss` does, so that the same paths are dropped
    student_loss        (student, views, targets, settings, pool) -> (loss, terms) of one micro-batch. Means over images
                        are means over its b images. A group term is computed over `pool.complete(name, own)`, which has
                        all B images in global order, and enters the loss times `pool.share`, the terms without (the
                        loop takes means over micro-batches and processes; see surgdino.engine.methods.parts.pool)
    collapse_values     (settings, images) -> the terms of a collapsed run; images = B
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
