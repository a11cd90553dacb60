"""Measuring a run on the way: what would be shipped, on the frames of its probe."""

from __future__ import annotations

from typing import Any

from surgdino import distributed
from surgdino.backbone.checkpoint import save_backbone
from surgdino.engine.memory import within_memory
from surgdino.engine.probing.probe_set import Probing
from surgdino.engine.saving import BEST, model_json, shipped
from surgdino.engine.session import Session
from surgdino.metrics.arrays import as_json
from surgdino.transfers import host_copy

_SMALLER_PROBE = "use probe.every=0, or begin anew with a smaller probe.frames; the same command continues"


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
