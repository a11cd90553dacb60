"""The passes of a step: the teacher's over all micro-batches, then the student's, forward and backward, one by one.

Symbols: W processes of K micro-batches; see surgdino.engine.pool.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from surgdino.crops.loader import Batch
from surgdino.engine.methods.parts.pool import Pool, reaches_beyond
from surgdino.engine.methods.parts.views import Views, seed_step, to_views
from surgdino.engine.parallel.networks import without_exchange

if TYPE_CHECKING:
    from surgdino.engine.session import Session


def micro_batches(session: Session, batch: Batch) -> list[Views]:
    """This process's share of the step as K micro-batches on the device."""
    model, count = session.plan.model, session.plan.train.accumulate
    images = len(batch.index) // count
    parts = [slice(k * images, (k + 1) * images) for k in range(count)]
    return [to_views(batch, session.device, model["mean"], model["std"], part) for part in parts]


def teach(session: Session, views: list[Views]) -> tuple[list[Any], Tensor]:
    """The teacher's targets, one a micro-batch, and its backbone's class tokens [2B/W, D] for the monitor."""
    method, settings, progress = session.method, session.settings, session.step / session.steps
    with session.autocast(), torch.no_grad():
        outputs = [session.teacher(method.teacher_outputs, micro, settings) for micro in views]
        targets = method.make_targets(outputs, session.teacher, settings, session.across, progress)
    return targets, torch.cat([output.features for output in outputs])


def pools(session: Session, views: list[Views], targets: list[Any]) -> list[Pool]:
    """What each micro-batch may know of the rest of the batch: nothing, where no group reaches beyond one."""
    across, count, batch = session.across, len(views), session.plan.train.batch_size
    group_size = getattr(session.settings, "group_size", 1)
    if not reaches_beyond(group_size, batch // (across.world * count), batch):
        return [Pool()] * count
    seen = _look_ahead(session, views, targets) if count > 1 else None
    return [Pool(across.world * count, across.rank * count + k, seen, across) for k in range(count)]


def _look_ahead(session: Session, views: list[Views], targets: list[Any]) -> dict[str, Tensor]:
    """[2, B, ...] of what groups couple: the passes to come, once without gradient, with the same paths dropped."""
    features = []
    for k, (micro, target) in enumerate(zip(views, targets, strict=True)):
        _seed(session, k)
        with session.autocast(), torch.no_grad():
            features.append(session.student(session.method.group_features, micro, target, session.settings))
    together = {name: torch.cat([each[name] for each in features], dim=1) for name in features[0]}
    return {name: session.across.gather_views(whole) for name, whole in together.items()}


def learn(session: Session, views: list[Views], targets: list[Any], pools: list[Pool]) -> dict[str, Tensor]:
    """Gradients of the loss, averaged over micro-batches and processes; its terms, averaged over micro-batches."""
    count = len(views)
    means: dict[str, Tensor] = {}
    for k in range(count):
        _seed(session, k)
        with without_exchange(session.parallel) if k < count - 1 else nullcontext():
            with session.autocast():
                loss, terms = session.parallel(
                    session.method.student_loss, views[k], targets[k], session.settings, pools[k]
                )
            (loss / count).backward()
        means = {name: means.get(name, 0.0) + value / count for name, value in terms.items()}
    return means


def _seed(session: Session, micro_batch: int) -> None:
    seed_step(session.plan.train.seed, session.step, session.across.rank, micro_batch)
