"""The training loop: a session is opened, trained, measured on the way, and saved."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from surgdino import console, distributed
from surgdino.backbone.positions import rescale_rotary
from surgdino.backbone.vit import Backbone, build_backbone
from surgdino.console import Bar, bar
from surgdino.engine.fitting import fit
from surgdino.engine.guide import open_guides
from surgdino.engine.hardware import Hardware, compiles, days_on_cpu
from surgdino.engine.log import summary
from surgdino.engine.loss_scale import LossScale
from surgdino.engine.measure import measure
from surgdino.engine.memory import OutOfMemoryError, within_memory
from surgdino.engine.method import Method, Targets, open_method
from surgdino.engine.monitor import Monitor
from surgdino.engine.optim import make_optimizer
from surgdino.engine.pairs import batches
from surgdino.engine.parallel import parallelize
from surgdino.engine.phases import begun, carried_over
from surgdino.engine.plan import Phase, TrainPlan, TrainResult
from surgdino.engine.processes import ProcessGroup
from surgdino.engine.retention import Retention
from surgdino.engine.same_run import changes, check_settings
from surgdino.engine.saving import (
    initial_weights,
    restoring,
    resume,
    save,
    saved_state,
    saving_due,
    ship_best,
)
from surgdino.engine.session import Session
from surgdino.engine.step import train_step
from surgdino.engine.stop import Stop, stop_signals
from surgdino.engine.tuning import prepare
from surgdino.errors import SurgdinoError

_SMALLER_NETWORKS = (
    "end other programs on the device, or use a smaller model or several processes with hardware.shard=true"
)


def train(plan: TrainPlan) -> TrainResult:
    """Train from where the run folder stands to the last step, or to the first SIGTERM or Ctrl-C.

    Raises:
        SurgdinoError: unusable settings, a resumed run that began with others, a full disk, or no finite gradient for
            many steps; what was saved before stands.
    """
    session = open_session(plan)
    resumed_from = session.resumed_from
    if ended(session):
        if plan.train.until == "probe":
            ship_best(session)
        return session.result("already finished")
    with stop_signals() as stop, bar("training", session.steps, shown=plan.progress) as progress:
        train_phase(session, stop, progress)
        while not (session.processes.any(stop.requested) or ended(session)):
            measuring = session.probes.seconds
            del session  # the device holds one phase's networks at a time
            gc.collect()
            session = open_session(untouched(plan), follows=True)
            session.resumed_from, session.probes.seconds = resumed_from, measuring
            train_phase(session, stop, progress)
    stop.check()
    if not ended(session):
        return session.result("stopped")
    if plan.train.until == "probe":
        ship_best(session)
    return session.result("finished")


def train_phase(session: Session, stop: Stop, progress: Bar) -> None:
    """The steps of a phase, or those until a stop is requested; then all is saved."""
    with session.monitor, session.writer, nothing_to_collect():
        progress.update(session.step)
        measure(session)
        for batch in stop.until(batches(session), session.processes.any):
            try:
                train_step(session, batch)
                progress.update(session.step, text=summary(session.monitor.last, session.monitor.images_per_second()))
                measure(session)
            except OutOfMemoryError as fault:
                stop.for_memory(fault, alone=session.processes.world == 1)
                session.optimizer.zero_grad(set_to_none=True)
                break
            if saving_due(session):
                save(session)
            if ended(session):
                break
        save(session)
        with session.monitor.stopped("save"):
            session.writer.wait()


def ended(session: Session) -> bool:
    """Whether the last step is done, or the probe, where it decides, has not improved for long; the same in all.

    The probe can end the last phase alone.
    """
    train = session.plan.train
    if session.step >= session.steps or train.until == "steps":
        return session.step >= session.steps
    if session.measured != session.step or session.phase.stop < session.steps:  # nothing new since it was asked last
        return False
    return bool(distributed.from_main(lambda: float(session.probes.since_best >= train.patience)))


@contextmanager
def nothing_to_collect() -> Iterator[None]:
    """Python's collector leaves alone what is there before the first step: half a million objects, looking through
    which takes up to a second, in the middle of a step."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def open_session(plan: TrainPlan, warn: Callable[[str], None] = console.warn, *, follows: bool = False) -> Session:
    """Build what a plan describes, and resume the run that its folder holds, if any.

    Args:
        plan: of the whole run; the session's is that of the phase that it stands in.
        warn: prints a sentence.
        follows: another phase of the run has just ended here.

    Raises:
        SurgdinoError: unusable settings, another run in the folder, or a device without room for the networks.
    """
    processes = ProcessGroup()
    for phase in plan.stages:
        _check_batch(plan.during(phase), processes)
    hardware, asked = Hardware.of(plan.hardware), f"student and teacher of {plan.model['name']}"
    with within_memory(hardware.device, SurgdinoError, place="the start", asked=asked, fix=_SMALLER_NETWORKS):
        return _opened(plan, hardware, processes, warn, follows)


def _opened(
    plan: TrainPlan, hardware: Hardware, processes: ProcessGroup, warn: Callable[[str], None], follows: bool
) -> Session:
    saved, whole = saved_state(plan, processes, warn), plan
    plan = begun(plan, saved)
    student = make_student(plan).to(hardware.device).train()
    plan = replace(plan, method={**plan.method, **student.identity})
    moved = False
    if saved is not None:
        with restoring(plan.folder):
            check_settings(plan, saved, warn)
            saved, moved = carried_over(saved, whole)
    initial = initial_weights(student.backbone, plan.train.ship_alpha)
    teacher, anchor = other_networks(student, plan, saved)
    with restoring(plan.folder):
        wrapped = parallelize(student, teacher, processes, shard=plan.hardware.shard, hardware=hardware)
        retention = Retention.of(student.backbone, plan.train, None if saved is None else saved["initial"])
    steps, phase = plan.stages[-1].stop, plan.phase_at(0 if saved is None else saved["step"])
    session = Session(
        plan=plan,
        hardware=hardware,
        computed_on=hardware.describe(student.backbone)
        if follows
        else hardware.announce(plan.hardware, student.backbone, verb="pretrain"),
        student=student,
        teacher=teacher,
        wrapped=wrapped,
        processes=processes,
        optimizer=make_optimizer(student, plan.train),
        loss_scale=LossScale.of(hardware.dtype, hardware.device),
        retention=retention,
        initial=initial if saved is None else saved["initial_backbone"],
        monitor=open_monitor(plan, phase, student, processes, warn),
        steps=steps,
        phase=phase,
        anchor=anchor,
    )
    if saved is not None:
        with restoring(plan.folder):
            resume(session, saved, moved)
    _say_phase(session)
    if plan.hardware.fit:
        fit(session)
    compiled = compiles(session.plan, session.device, steps - session.step, warn)
    student.backbone.compiles = teacher.backbone.compiles = compiled
    if not follows:
        _warn_of_days(session, warn)
    return session


def other_networks(
    student: Method[Targets], plan: TrainPlan, saved: Mapping[str, Any] | None
) -> tuple[Method[Targets], Backbone | None]:
    """The teacher, and what anchors, beside a student; all as they were saved, before they are parallelised.

    The saved state is the same for any number of processes.
    """
    anchor = copy.deepcopy(student.backbone).requires_grad_(False).eval() if plan.train.gram else None
    prepare(student.backbone, plan.train.learning)
    if plan.train.rope_rescale is not None:
        rescale_rotary(student.backbone, plan.train.rope_rescale)
    student.backbone.set_grad_checkpointing(plan.hardware.activation_checkpointing)
    teacher = student.make_teacher()
    if saved is not None:
        with restoring(plan.folder):
            student.load_state_dict(saved["student"])
            teacher.load_state_dict(saved["teacher"])
            if anchor is not None:
                anchor.load_state_dict(saved["anchor"])
    return teacher, anchor


def open_monitor(
    plan: TrainPlan, phase: Phase, student: Method[Targets], processes: ProcessGroup, warn: Callable[[str], None]
) -> Monitor:
    """The monitor of a phase; where the run has several, its lines say which."""
    images, number = plan.train.batch_size, plan.stages.index(phase) + 1
    return Monitor(
        plan.folder,
        every=plan.train.log_every,
        last_step=phase.stop,
        images=images,
        collapse=partial(student.collapse_warning, images=images),
        warn=warn,
        processes=processes,
        always={"phase": number} if plan.phases else {},
        log=plan.log,
    )


def untouched(plan: TrainPlan) -> TrainPlan:
    """A plan with a backbone of the same kind in the place of the one that was trained, which leaves the device."""
    if not plan.hardware.shard:
        plan.backbone.to("cpu")
    return replace(plan, backbone=build_backbone(plan.backbone.settings, plan.train.drop_path))


def make_student(plan: TrainPlan) -> Method[Targets]:
    """The student that a plan describes, its heads drawn from the seed."""
    kind, settings = open_method(plan.method)
    torch.manual_seed(plan.train.seed)
    student = kind(settings, plan.backbone)
    student.guides = open_guides(plan.guides, plan.backbone.embed_dim, plan.facts)
    student.gram = plan.train.gram
    for phase in plan.stages:
        student.check_batch(phase.train.batch_size)
    return student


def _say_phase(session: Session) -> None:
    """One line where a run has several."""
    plan, phase = session.plan, session.phase
    if not plan.phases:
        return
    own = ", ".join(f"{key}={value}" for key, value in changes(plan.phases[0], phase).items())
    rows, columns = plan.backbone.grid
    where = f"{plan.phases.index(phase) + 1} of {len(plan.phases)}, steps {phase.start + 1:,} to {phase.stop:,}"
    console.field("phase", f"{where}: positions {rows} x {columns}" + (f"; {own}" if own else ""))


def _warn_of_days(session: Session, warn: Callable[[str], None]) -> None:
    plan, step = session.plan, session.step
    left = [(plan.during(each), each.stop - max(each.start, step)) for each in plan.stages if each.stop > step]
    days = sum(days_on_cpu(*each) for each in left) if session.device.type == "cpu" else 0.0
    if days > 1:
        warn(f"on this CPU the run takes some {days:,.0f} days: use a GPU, a smaller model or fewer train.steps")


def _check_batch(plan: TrainPlan, processes: ProcessGroup) -> None:
    if plan.train.until == "probe" and plan.probe is None:
        raise SurgdinoError("train.until=probe needs a probe", fix="set probe.every, or leave train.until out")
    places = processes.world * plan.train.accumulate
    if plan.train.batch_size % places:
        raise SurgdinoError(
            "the batch cannot be split evenly",
            place="train.batch_size",
            expected=f"a multiple of {processes.world} processes x train.accumulate={plan.train.accumulate}",
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
