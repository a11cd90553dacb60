"""Measuring a run's backbone while it trains: the lines, the warnings, and which checkpoint is kept."""

from __future__ import annotations

from typing import Any

from surgdino import distributed
from surgdino.backbone.checkpoint import save_backbone
from surgdino.engine.saving.save import model_json, shipped
from surgdino.engine.session import Session
from surgdino.metrics.arrays import as_json

BEST = "best"


def measure(session: Session) -> None:
    """Where it is due: measure what would be shipped, write it down, warn of what fell below step 0, keep the best.

    The loop calls it between two steps. It draws nothing at random and takes no batch, so a run's weights are the same
    with and without it; its time counts neither as the steps' nor as waiting for data.
    """
    probing = session.plan.probe
    if probing is None or session.measured == session.step or not probing.due(session.step, session.steps):
        return
    session.measured = session.step
    ship = session.plan.train.ship
    wanted = {ship, "teacher", "student"} if probing.both else {ship}
    alpha = session.plan.train.ship_alpha
    backbones = {k: shipped(session.networks[k], session.initial, alpha) for k in sorted(wanted)}  # in all processes
    if not distributed.is_main():
        return
    # The shipped one first: at step 0 it becomes the reference of both.
    report = probing.frames.measure(backbones[ship], session.autocast)
    better = session.probes.add(session.step, report)
    row: dict[str, Any] = {**report.as_dict(), "per_operation": report.per_operation}
    seconds = report.seconds
    for name in wanted - {ship}:
        other = probing.frames.measure(backbones[name], session.autocast)
        row |= {f"{name}_{key}": value for key, value in other.as_dict().items()}
        session.probes.seconds += other.seconds
        seconds += other.seconds
    row["seconds"] = seconds
    session.monitor.write(session.step, as_json({f"probe_{key}": value for key, value in row.items()}))
    for change in session.probes.changes:
        if change.fell:
            session.monitor.warn(session.step, change.sentence(session.step))
    if better:
        save_backbone(session.plan.folder / BEST, backbones[ship], model_json(session))
