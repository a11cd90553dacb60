"""Phases of a run, such as the one at high resolution that ends DINOv2's pretraining: their settings, their positions.

A phase is a whole schedule of its own: learning rate after its warm-up, weight decay and the teacher's momentum run
their course in it, as DINOv2's do in its phase at 518 px, compressed (Oquab et al. 2023, arXiv 2304.07193). It begins
as a resumed run does, from the state in which the one before it ended: so a run that was stopped there is no other run,
for any number of processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from surgdino.backbone.low_rank import merged
from surgdino.backbone.positions import Grid, interpolated, on_grid
from surgdino.config import typed
from surgdino.crops.loader import check_sizes
from surgdino.crops.multicrop import MultiCrop
from surgdino.crops.settings import CropSettings
from surgdino.engine.guide import open_guide
from surgdino.engine.phase_settings import CHANGED, fixed, overlaid, phase_entry
from surgdino.engine.plan import Phase, TrainPlan
from surgdino.engine.settings import PretrainSettings
from surgdino.errors import SurgdinoError

_ENDS = {"lr": "min_lr", "weight_decay": "weight_decay_end", "momentum": "momentum_end"}


def open_phases(
    entries: Sequence[Mapping[str, Any]] | None,
    crops: CropSettings,
    train: PretrainSettings,
    augment: Mapping[str, Any],
    guides: Mapping[str, Mapping[str, Any]],
    patch_size: int | None,
) -> tuple[Phase, ...]:
    """The phases that a `phases` setting describes, each as it changes the sections of the command.

    Args:
        patch_size: of the model; None: not known yet.

    Raises:
        SurgdinoError: a setting that a phase does not have or cannot change, steps that do not add up to train.steps.
    """
    if entries is None:
        return ()
    if not entries:
        raise SurgdinoError("phases is empty", fix="give one, such as phases=[{steps: 1000}], or leave it out")
    phases: list[Phase] = []
    start = seen = 0
    for k, entry in enumerate(entries):
        place = f"phases[{k}]"
        given = phase_entry(entry, place)
        try:
            own = Phase(
                start=start,
                stop=start + given.steps,
                seen=seen,
                crops=typed(CropSettings, {**asdict(crops), **given.crops}, "crops"),
                train=_train(train, given.train),
                augment=overlaid(augment, given.augment),
                guides=_guides(guides, given.guide),
            )
            check_sizes(own.crops, patch_size)
            MultiCrop(own.crops, own.augment)
        except SurgdinoError as fault:
            where = place if fault.place is None else f"{place}, {fault.place}"
            raise fault.but(place=where) from fault
        phases.append(own)
        start, seen = own.stop, seen + own.steps * own.train.batch_size
    if train.steps not in (None, start):
        raise SurgdinoError(
            "the phases do not add up",
            place="phases",
            expected=f"train.steps={train.steps} in all",
            found=start,
            fix="change a phase's steps, or use train.steps=null",
        )
    return tuple(phases)


def _train(train: PretrainSettings, given: Mapping[str, Any]) -> PretrainSettings:
    base = asdict(train)
    # What is constant in the command (recipes write min_lr: ${train.lr}) is so in a phase that gives it another value.
    constant = {end: given[key] for key, end in _ENDS.items() if key in given and base[key] == base[end] is not None}
    own = typed(PretrainSettings, {**base, **constant, **given}, "train")
    for key in given:
        if key not in CHANGED:
            raise fixed(f"train.{key}")
    return own


def _guides(guides: Mapping[str, Mapping[str, Any]], given: Mapping[str, Mapping[str, Any]]) -> Any:
    for name, values in given.items():
        for key in values:
            if name not in guides or key != "weight":
                raise fixed(f"guide.{name}.{key}")
    own = overlaid(guides, given)
    for name in given:
        open_guide(name, own[name])
    return own


def begun(plan: TrainPlan, saved: Mapping[str, Any] | None) -> TrainPlan:
    """The plan as it is in the phase that a run goes on with; its backbone has the positions of that phase's crops.

    Args:
        plan: of the whole run; its backbone is as the run began with.
        saved: the state that the run goes on from; None for one that begins.
    """
    phase = plan.phase_at(saved["step"] if saved else 0)
    return replace(plan.during(phase), backbone=on_grid(plan.backbone, grid_in(plan, phase), phase.train.drop_path))


def grid_in(plan: TrainPlan, phase: Phase) -> Grid:
    """Of the learned positions in a phase: they grow with the global crops, once at its beginning, and never shrink.

    Smaller crops save time in training, and what is learnt from them is worth more at the usual size.
    """
    backbone = plan.backbone
    if backbone.vit.pos_embed is None:
        return backbone.grid
    sides = [each.crops.side // backbone.patch_size for each in plan.phases if each.start <= phase.start]
    rows, columns = (max(side, *sides, 0) for side in backbone.grid)
    return rows, columns


def carried_over(saved: dict[str, Any], plan: TrainPlan) -> tuple[dict[str, Any], bool]:
    """A saved state as the phase of its next step begins with it, and whether positions were interpolated for that.

    Its grid is that of the phase of its last step. The teacher of then is what anchors, where nothing did before.

    Args:
        plan: of the whole run.
    """
    before, now = (grid_in(plan, plan.phase_at(step)) for step in (max(saved["step"] - 1, 0), saved["step"]))
    prefix = "backbone."
    teacher = {name.removeprefix(prefix): v for name, v in saved["teacher"].items() if name.startswith(prefix)}
    saved = {**saved, "anchor": saved.get("anchor") or merged(teacher)}
    if now == before:
        return saved, False
    parts = ("student", "teacher", "anchor", "initial", "initial_backbone")
    return {**saved, **{part: interpolated(saved[part], plan.backbone.vit, before, now) for part in parts}}, True
