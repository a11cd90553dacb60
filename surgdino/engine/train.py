"""The training loop: a session is opened, trained, measured on the way, and saved."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from surgdino import console, distributed
from surgdino.backbone.checkpoint import save_backbone
from surgdino.console import bar
from surgdino.engine.fitting import fit
from surgdino.engine.guide import open_guides
from surgdino.engine.hardware import Hardware, compiles, days_on_cpu
from surgdino.engine.log import summary
from surgdino.engine.loss_scale import LossScale
from surgdino.engine.memory import OutOfMemoryError, within_memory
from surgdino.engine.method import Method, Targets, open_method
from surgdino.engine.monitor import Monitor
from surgdino.engine.optim import make_optimizer
from surgdino.engine.pairs import batches
from surgdino.engine.parallel import parallelize
from surgdino.engine.probing.probe_set import Probing
from surgdino.engine.processes import ProcessGroup
from surgdino.engine.retention import Retention, prepare
from surgdino.engine.saving import (
    BEST,
    initial_weights,
    model_json,
    restoring,
    resume,
    save,
    saved_state,
    saving_due,
    ship_best,
    shipped,
)
from surgdino.engine.session import Session
from surgdino.engine.settings import TrainPlan, TrainResult
from surgdino.engine.step import train_step
from surgdino.engine.stop import stop_signals
from surgdino.engine.writer import host_copy
from surgdino.errors import SurgdinoError
from surgdino.metrics.arrays import as_json

_SMALLER_PROBE = "use probe.every=0, or begin anew with a smaller probe.frames; the same command continues"


def train(plan: TrainPlan) -> TrainResult:
    """Train from where the run folder stands to the last step, or to the first SIGTERM or Ctrl-C.

    Raises:
        SurgdinoError: unusable settings, a resumed run that began with others, a full disk, or no finite gradient for
            many steps; what was saved before stands.
    """
    session = open_session(plan)
    if ended(session):
        if plan.train.until == "probe":
            ship_best(session)
        return session.result("already finished")
    shown = bar("training", session.steps, shown=plan.progress)
    with stop_signals() as stop, session.monitor, session.writer, shown as progress, nothing_to_collect():
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
    stop.check()
    if not ended(session):
        return session.result("stopped")
    if plan.train.until == "probe":
        ship_best(session)
    return session.result("finished")


def ended(session: Session) -> bool:
    """Whether the last step is done, or the probe, where it decides, has not improved for long; the same in all."""
    train = session.plan.train
    if session.step >= session.steps or train.until == "steps":
        return session.step >= session.steps
    if session.measured != session.step:  # nothing new since it was asked last
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


def open_session(plan: TrainPlan, warn: Callable[[str], None] = console.warn) -> Session:
    """Build what a plan describes, and resume the run that its folder holds, if any.

    Args:
        warn: prints a sentence.
    """
    processes = ProcessGroup()
    _check_batch(plan, processes)
    hardware = Hardware.of(plan.hardware)
    device = hardware.device
    student = make_student(plan).to(device).train()
    plan = replace(plan, method={**plan.method, **student.identity})
    initial = initial_weights(student.backbone, plan.train.ship_alpha)
    anchor = copy.deepcopy(student.backbone).requires_grad_(False).eval() if plan.train.gram else None
    prepare(student.backbone, plan.train)
    student.backbone.set_grad_checkpointing(plan.hardware.activation_checkpointing)
    teacher = student.make_teacher()
    saved = saved_state(plan, processes, warn)
    if saved is not None:  # before they are parallelised: the saved state is the same for any number of processes
        with restoring(plan.folder):
            student.load_state_dict(saved["student"])
            teacher.load_state_dict(saved["teacher"])
            if anchor is not None:
                anchor.load_state_dict(saved["anchor"])
    wrapped = parallelize(student, teacher, processes, shard=plan.hardware.shard, hardware=hardware)
    steps = plan.train.total_steps(len(plan.store))
    with restoring(plan.folder):
        retention = Retention.of(student.backbone, plan.train, None if saved is None else saved["initial"])
    session = Session(
        plan=plan,
        hardware=hardware,
        computed_on=hardware.announce(plan.hardware, student.backbone, verb="pretrain"),
        student=student,
        teacher=teacher,
        wrapped=wrapped,
        processes=processes,
        optimizer=make_optimizer(student, plan.train),
        loss_scale=LossScale.of(hardware.dtype, device),
        retention=retention,
        initial=initial if saved is None else saved["initial_backbone"],
        monitor=Monitor(
            plan.folder,
            every=plan.train.log_every,
            last_step=steps,
            images=plan.train.batch_size,
            collapse=partial(student.collapse_warning, images=plan.train.batch_size),
            warn=warn,
            processes=processes,
        ),
        steps=steps,
        anchor=anchor,
    )
    if saved is not None:
        with restoring(plan.folder):
            resume(session, saved)
    if plan.hardware.fit:
        fit(session)
    student.backbone.compiles = teacher.backbone.compiles = compiles(plan.hardware, device, steps - session.step, warn)
    _warn_of_days(session, warn)
    return session


def make_student(plan: TrainPlan) -> Method[Targets]:
    """The student that a plan describes, its heads drawn from the seed."""
    kind, settings = open_method(plan.method)
    torch.manual_seed(plan.train.seed)
    student = kind(settings, plan.backbone)
    student.guides = open_guides(plan.guides, plan.backbone.embed_dim, plan.facts)
    student.gram = plan.train.gram
    student.check_batch(plan.train.batch_size)
    return student


def _warn_of_days(session: Session, warn: Callable[[str], None]) -> None:
    days = days_on_cpu(session.plan, session.steps - session.step) if session.device.type == "cpu" else 0.0
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


def measure(session: Session) -> None:
    """Where it is due: measure what would be shipped, write it down, warn of what fell below step 0, keep the best.

    The loop calls it between two steps. It draws nothing at random and takes no batch, so a run's weights are the same
    with and without it; its time is logged as `probe_wait`. What is due but would take too much time is left out.
    """
    probing = session.plan.probe
    if probing is None or session.measured == session.step or not probing.due(session.step, session.steps):
        return
    if 0 < session.step < session.steps and not _fits(session, probing):
        return
    session.measured = session.step
    with session.monitor.stopped("probe"):
        _measure(session, probing)


def _fits(session: Session, probing: Probing) -> bool:
    """Whether measuring has not taken more than its share of the time so far, in the main process."""
    fits = bool(distributed.from_main(lambda: float(session.monitor.may_stop("probe", probing.share))))
    if not fits:
        advice = "raise probe.every or probe.share, or lower probe.frames"
        session.monitor.warn(
            session.step, f"measuring would take more than {probing.share:.0%} of the time: some is left out; {advice}"
        )
    return fits


def _measure(session: Session, probing: Probing) -> None:
    ship = session.plan.train.ship
    wanted = {ship, "teacher", "student"} if probing.both else {ship}
    alpha = session.plan.train.ship_alpha
    backbones = {k: shipped(session.networks[k], session.initial, alpha) for k in sorted(wanted)}  # in all processes
    if not distributed.is_main():
        return
    # The shipped one first: at step 0 it becomes the reference of both.
    with within_memory(session.device, place="probe", asked=f"{len(probing.frames)} frames", fix=_SMALLER_PROBE):
        report = probing.frames.measure(backbones[ship], session.hardware.autocast)
    better = session.probes.add(session.step, report)
    row: dict[str, Any] = {**report.as_dict(), "per_operation": report.per_operation}
    seconds = report.seconds
    for name in wanted - {ship}:
        other = probing.frames.measure(backbones[name], session.hardware.autocast)
        row |= {f"{name}_{key}": value for key, value in other.as_dict().items()}
        session.probes.seconds += other.seconds
        seconds += other.seconds
    row["seconds"] = seconds
    row = session.plan.hide({f"probe_{key}": value for key, value in row.items()})
    session.monitor.write(session.step, as_json(row))
    for change in session.probes.changes:
        if change.fell:
            session.monitor.warn(session.step, change.sentence(session.step))
    if better:
        facts, copied = model_json(session), host_copy(backbones[ship].vit.state_dict())
        folder, backbone = session.plan.folder / BEST, session.plan.backbone
        session.writer.submit(lambda: save_backbone(folder, backbone, facts, copied()))
