"""Opening a session: everything that a plan describes is built, and a run that its folder holds is resumed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from surgdino import console
from surgdino.backbone.heap import keep_freed_memory
from surgdino.engine import precision
from surgdino.engine.method import open_method
from surgdino.engine.monitor import Monitor
from surgdino.engine.optim import make_optimizer
from surgdino.engine.parallel.across import Across
from surgdino.engine.parallel.networks import parallelize
from surgdino.engine.retention import Retention, prepare
from surgdino.engine.saving.save import initial_weights, resume, saved_state
from surgdino.engine.session import Session
from surgdino.engine.settings import TrainPlan
from surgdino.errors import SurgdinoError


def open_session(plan: TrainPlan, warn: Callable[[str], None] = console.warn) -> Session:
    """Build what a plan describes, and resume the run that its folder holds, if any.

    Args:
        warn: prints a sentence.

    Raises:
        SurgdinoError: unusable settings, or other settings than the run in the folder began with.
    """
    across = Across()
    _check_batch(plan, across)
    precision.set_threads(plan.hardware)
    device = precision.choose_device(plan.hardware)
    if device.type == "cpu":
        keep_freed_memory()
    kind, settings = open_method(plan.method)
    torch.manual_seed(plan.train.seed)
    student = kind(settings, plan.backbone).to(device).train()
    student.check_batch(plan.train.batch_size)
    initial = initial_weights(student.backbone, plan.train.ship_alpha)
    prepare(student.backbone, plan.train)
    student.backbone.set_grad_checkpointing(plan.hardware.activation_checkpointing)
    teacher = student.make_teacher()
    saved = saved_state(plan, across, warn)
    if saved is not None:  # before they are parallelised: the saved state is the same for any number of processes
        student.load_state_dict(saved["student"])
        teacher.load_state_dict(saved["teacher"])
    wrapped = parallelize(student, teacher, shard=plan.hardware.shard, device=device)
    steps = plan.train.total_steps(len(plan.store))
    session = Session(
        plan=plan,
        device=device,
        autocast=partial(precision.autocast, device, precision.choose_dtype(plan.hardware, device)),
        student=student,
        teacher=teacher,
        wrapped=wrapped,
        across=across,
        optimizer=make_optimizer(student, plan.train),
        retention=Retention.of(student.backbone, plan.train, None if saved is None else saved["initial"]),
        initial=initial if saved is None else saved["initial_backbone"],
        monitor=Monitor(
            plan.folder,
            every=plan.train.log_every,
            last_step=steps,
            images=plan.train.batch_size,
            collapse=partial(student.collapse_warning, images=plan.train.batch_size),
            warn=warn,
            across=across,
        ),
        steps=steps,
    )
    if saved is not None:
        resume(session, saved)
    return session


def _check_batch(plan: TrainPlan, across: Across) -> None:
    places = across.world * plan.train.accumulate
    if plan.train.batch_size % places:
        raise SurgdinoError(
            "the batch cannot be split evenly",
            place="train.batch_size",
            expected=f"a multiple of {across.world} processes x train.accumulate={plan.train.accumulate}",
            found=plan.train.batch_size,
            fix=f"use train.batch_size={max(plan.train.batch_size // places, 1) * places}",
        )
    if len(plan.store) < plan.train.batch_size:
        raise SurgdinoError(
            "fewer frames than a batch holds",
            place="train.batch_size",
            expected=f"at most the store's {len(plan.store)} frames",
            found=plan.train.batch_size,
            fix="lower train.batch_size or raise data.fps",
        )
