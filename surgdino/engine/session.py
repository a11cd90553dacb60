"""A session: everything that is alive between the first step and the last, opened, resumed and saved."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from surgdino import distributed
from surgdino.backbone.heap import keep_freed_memory
from surgdino.crops.loader import Batch, make_loader
from surgdino.engine import precision
from surgdino.engine.measuring import ProbeHistory
from surgdino.engine.methods import open_method
from surgdino.engine.monitor import Monitor
from surgdino.engine.optim import make_optimizer
from surgdino.engine.parallel.across import Across
from surgdino.engine.parallel.networks import share_out
from surgdino.engine.plan import TrainPlan, TrainResult
from surgdino.engine.retention import Retention, prepare
from surgdino.engine.saving.save import resume, saved_state
from surgdino.engine.saving.shipping import initial_weights
from surgdino.engine.teacher import Network, make_teacher
from surgdino.errors import SurgdinoError


@dataclass
class Session:
    """A run in the making: `step` steps are done; it was last saved and measured at `saved` and `measured`.

    `initial` are the backbone's weights at step 0, timm's names, where what is shipped holds a share of them.
    """

    plan: TrainPlan
    method: ModuleType
    settings: Any
    device: torch.device
    autocast: Callable
    student: Network
    teacher: Network
    parallel: nn.Module
    across: Across
    optimizer: torch.optim.Optimizer
    retention: Retention
    initial: dict[str, Tensor]
    monitor: Monitor
    steps: int
    step: int = 0
    saved: int = -1
    measured: int = -1
    resumed_from: int | None = None
    probes: ProbeHistory = field(default_factory=ProbeHistory)

    @property
    def momentum(self) -> tuple[float, float]:
        """The teacher's, at the start and at the end: the run's own where set, else the method's."""
        train, method = self.plan.train, self.settings
        start = method.momentum if train.momentum is None else train.momentum
        return start, method.momentum_end if train.momentum_end is None else train.momentum_end


def open_session(plan: TrainPlan, say: Callable[[str], None]) -> Session:
    """Build everything that a plan asks for, and take up the run that its folder holds, if any.

    Raises:
        SurgdinoError: settings that cannot be, or others than the run in the folder began with.
    """
    across = Across()
    _check(plan, across)
    precision.set_threads(plan.hardware)
    device = precision.choose_device(plan.hardware)
    if device.type == "cpu":
        keep_freed_memory()
    method, settings = open_method(plan.method)
    method.check_batch(settings, plan.train.batch_size)
    torch.manual_seed(plan.train.seed)
    student = Network(plan.backbone, method.build_head(settings, plan.backbone.embed_dim)).to(device).train()
    initial = initial_weights(student.backbone, plan.train.ship_alpha)
    prepare(student.backbone, plan.train)
    student.backbone.set_grad_checkpointing(plan.hardware.activation_checkpointing)
    teacher = make_teacher(student)
    saved = saved_state(plan, across, say)
    if saved is not None:  # before they are shared out, so that the saved state knows nothing of processes
        student.load_state_dict(saved["student"])
        teacher.load_state_dict(saved["teacher"])
    parallel = share_out(student, teacher, shard=plan.hardware.shard, device=device)
    steps = plan.train.total_steps(len(plan.store))
    session = Session(
        plan=plan,
        method=method,
        settings=settings,
        device=device,
        autocast=partial(precision.autocast, device, precision.choose_dtype(plan.hardware, device)),
        student=student,
        teacher=teacher,
        parallel=parallel,
        across=across,
        optimizer=make_optimizer(student, plan.train),
        retention=Retention.of(student.backbone, plan.train, None if saved is None else saved["initial"]),
        initial=initial if saved is None else saved["initial_backbone"],
        monitor=Monitor(
            plan.folder,
            every=plan.train.log_every,
            last_step=steps,
            images=plan.train.batch_size,
            collapse=partial(method.signs_of_collapse, settings=settings, images=plan.train.batch_size),
            say=say,
            across=across,
        ),
        steps=steps,
    )
    if saved is not None:
        resume(session, saved)
    return session


def _check(plan: TrainPlan, across: Across) -> None:
    places = across.world * plan.train.accumulate
    if plan.train.batch_size % places:
        raise SurgdinoError(
            "the batch cannot be shared out evenly",
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


def batches(session: Session) -> Iterator[Batch]:
    """The batches from the session's step to its last, time spent waiting for them counted."""
    plan = session.plan
    source = make_loader(
        plan.store,
        plan.crops,
        plan.augment,
        batch_size=plan.train.batch_size,
        seed=plan.train.seed,
        workers=precision.loader_workers(plan.hardware, len(os.sched_getaffinity(0)) // distributed.local_world_size()),
        start_step=session.step,
        steps=session.steps,
        patch_size=session.student.backbone.patch_size,
        mask_probability=session.settings.mask_probability,
        mask_ratio=session.settings.mask_ratio,
        rank=session.across.rank,
        world=session.across.world,
        pin_memory=session.device.type == "cuda",
    )
    source = iter(source)
    while True:
        with session.monitor.waiting():
            batch = next(source, None)
        if batch is None:
            return
        yield batch


def result_of(session: Session, status: Literal["finished", "stopped", "already finished"]) -> TrainResult:
    """What the caller gets."""
    monitor, plan = session.monitor, session.plan
    return TrainResult(
        status=status,
        step=session.step,
        steps=session.steps,
        resumed_from=session.resumed_from,
        skipped=monitor.skipped,
        first=monitor.first,
        last=monitor.last,
        probes=session.probes,
        collapse=session.method.collapse_values(session.settings, plan.train.batch_size),
        images_per_second=monitor.images_per_second(),
        warnings=monitor.warnings,
        checkpoint=plan.folder / "checkpoint",
        metrics=monitor.file,
    )
