"""One optimiser step: the teacher's targets, the student's gradients, the updates of both.

Symbols: W processes of K micro-batches; see surgdino.engine.processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from surgdino.crops.loader import Batch
from surgdino.engine.anchor import anchor_tokens
from surgdino.engine.memory import OutOfMemoryError, within_memory
from surgdino.engine.method import Targets
from surgdino.engine.methods.parts.views import Views, seed_step, to_views
from surgdino.engine.optim import apply_gradients, rates_at, set_rates
from surgdino.engine.parallel import Copies, whole_backbone
from surgdino.engine.processes import Pool, reaches_beyond
from surgdino.engine.session import Session
from surgdino.errors import SurgdinoError


def train_step(session: Session, batch: Batch) -> None:
    """One optimiser step on this process's share of a batch: targets, gradients, student, teacher, log."""
    train, phase = session.plan.train, session.phase
    fresh = train if phase.start == 0 else replace(train, head_warmup_steps=0)  # later the head has learnt
    rates = rates_at(session.step - phase.start, phase.steps, fresh, session.momentum)
    session.retention.set_trainable(rates.backbone_learns)
    with its_memory(session):  # changes gradients alone
        views = anchored(session, micro_batches(session, batch))
        targets = compute_targets(session, views)
        terms = compute_gradients(session, views, targets, pools(session, views, targets))
    if (guides := session.student.guides) is not None:
        guides.settle(session.processes)
    with its_memory(session, whole=False):  # the first moments
        set_rates(session.optimizer, rates)
        update = apply_gradients(session.optimizer, train.clip, session.loss_scale)
        session.retention.pull_back(session.optimizer, update.skipped)
        session.teacher.follow(session.student, rates.momentum)
    session.step += 1
    session.monitor.record(session.step, terms, update, rates, torch.cat([each.features for each in targets]))


def its_memory(session: Session, whole: bool = True) -> AbstractContextManager[None]:
    """`within_memory`, with what a step asks for, and what to change where that is too much.

    Args:
        whole: whether the session is as it was after the step before, so that it can be saved.
    """
    plan, world = session.plan, session.processes.world
    train, crops = plan.train, plan.crops.largest
    share = train.batch_size // world
    more = next((k for k in range(train.accumulate + 1, share + 1) if share % k == 0), None)
    views = f"2 x {crops.global_size} + {crops.local_count} x {crops.local_size} px"
    settings = [f"train.accumulate={more} (hardware.fit=true finds it)"] if more else []
    if not plan.hardware.activation_checkpointing:
        settings.append("hardware.activation_checkpointing=true")
    kept = session.step if whole and world == 1 else max(session.saved, 0)  # several cannot save where one fails
    go_on = f"the same command with it continues from step {kept}; or begin anew with smaller crops or a smaller model"
    return within_memory(
        session.device,
        OutOfMemoryError if whole else SurgdinoError,
        place=f"step {session.step + 1}",
        asked=f"{share // train.accumulate} images of {views} at a time ({plan.model['name']})",
        fix=f"use {' and '.join(settings)}: {go_on}" if settings else go_on,
    )


def micro_batches(session: Session, batch: Batch) -> list[Views]:
    """This process's share of the step as K micro-batches on the device."""
    model, count = session.plan.model, session.plan.train.accumulate
    images = len(batch.index) // count
    batch = batch.painted(session.device)
    parts = [slice(k * images, (k + 1) * images) for k in range(count)]
    return [to_views(batch, session.device, model["mean"], model["std"], part) for part in parts]


def anchored(session: Session, views: Sequence[Views]) -> list[Views]:
    """With the frozen backbone's patch tokens, where one anchors the student's."""
    every = session.plan.train.gram_every
    if session.anchor is None:
        return list(views)
    if every and session.step and session.step % every == 0:
        session.anchor.load_state_dict(whole_backbone(session.teacher).state_dict())
    with session.hardware.autocast():
        return [replace(micro, anchor=anchor_tokens(session.anchor, micro)) for micro in views]


def compute_targets(session: Session, views: Sequence[Views]) -> list[Targets]:
    """The teacher's targets, one for each micro-batch."""
    with session.hardware.autocast(), torch.no_grad():
        return session.teacher.targets(views, session.processes, session.step / session.steps)


def pools(session: Session, views: Sequence[Views], targets: Sequence[Targets]) -> list[Pool]:
    """What each micro-batch knows of the rest of the batch: nothing where no term spans several micro-batches."""
    processes, count, batch = session.processes, len(views), session.plan.train.batch_size
    student, places = session.student, processes.world * count
    spans = reaches_beyond(student.group_size, batch // places, batch)
    if not spans and (student.guides is None or not student.guides.couple):
        return [Pool()] * count
    seen = _gather_groups(session, views, targets) if count > 1 else None
    return [Pool(places if spans else 1, processes.rank * count + k, seen, processes) for k in range(count)]


def _gather_groups(session: Session, views: Sequence[Views], targets: Sequence[Targets]) -> dict[str, Tensor]:
    """Features of all groups by name, [2, B, ...]: a first pass without gradient, with the same paths dropped."""
    features = []
    for k, (micro, target) in enumerate(zip(views, targets, strict=True)):
        _seed(session, k)
        with session.hardware.autocast(), torch.no_grad():
            features.append(session.student.ahead(micro, target))
    together = {name: torch.cat([each[name] for each in features], dim=1) for name in features[0]}
    return {name: session.processes.gather_views(whole) for name, whole in together.items()}


def compute_gradients(
    session: Session, views: Sequence[Views], targets: Sequence[Targets], pools: Sequence[Pool]
) -> dict[str, Tensor]:
    """Gradients of the loss, averaged over micro-batches and processes; its terms, averaged over micro-batches."""
    count, copies = len(views), session.wrapped if isinstance(session.wrapped, Copies) else None
    means: dict[str, Tensor] = {}
    if session.student.guides is not None:
        session.student.guides.begin()
    for k in range(count):
        _seed(session, k)
        with copies.no_sync() if copies and k < count - 1 else nullcontext():
            with session.hardware.autocast():
                loss, terms = session.loss(views[k], targets[k], pools[k])
            scale = session.loss_scale
            (loss / count if scale is None else scale.scaled(loss / count)).backward()
        means = {name: means.get(name, 0.0) + value / count for name, value in terms.items()}
    if copies:
        copies.finish()
    return means


def _seed(session: Session, micro_batch: int) -> None:
    seed_step(session.plan.train.seed, session.step, session.processes.rank, micro_batch)
