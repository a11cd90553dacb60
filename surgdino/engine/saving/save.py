"""Saving a session and taking it up again: the trainer's state, and the checkpoint that users take away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from surgdino import distributed
from surgdino.backbone.checkpoint import save_backbone
from surgdino.engine.parallel.across import Across
from surgdino.engine.parallel.sharded import part_like, whole
from surgdino.engine.plan import TrainPlan
from surgdino.engine.saving.model_card import model_json
from surgdino.engine.saving.shipping import shipped
from surgdino.engine.saving.state import differences, load_state, save_state
from surgdino.errors import SurgdinoError

if TYPE_CHECKING:
    from surgdino.engine.session import Session


def save(session: Session) -> None:
    """Write the trainer's state and the checkpoint that users take away.

    All processes put together what they hold; the main one writes. The file is the same however many they are.
    """
    if session.saved == session.step:
        return
    plan = session.plan
    state = {
        "settings": _settings(plan),
        "student": whole(session.student.state_dict()),
        "teacher": whole(session.teacher.state_dict()),
        "optimizer": whole(session.optimizer.state_dict()),
        "initial": session.retention.state_dict(),
        "initial_backbone": session.initial,
        "monitor": session.monitor.state_dict(),
        "probes": session.probes.state_dict(),
        "probe_reference": None if plan.probe is None else plan.probe.frames.reference,
    }
    backbone = shipped(session, plan.train.ship)
    if distributed.is_main():
        # In this order: after a kill between the two the older state goes on and writes both again; the other way round
        # a run whose last state is saved would count as finished with the checkpoint of the save before.
        save_backbone(plan.folder / "checkpoint", backbone, model_json(session))
        save_state(plan.folder / "state", session.step, state)
    session.saved = session.step


def saved_state(plan: TrainPlan, across: Across, say: Callable[[str], None]) -> dict[str, Any] | None:
    """The state in the run folder, of a run with the same settings; None where there is none.

    Raises:
        SurgdinoError: other settings, all states damaged, or not the same state in all processes.
    """
    state = load_state(plan.folder / "state", say)
    step = -1 if state is None else state["step"]
    if across.most(step) != -across.most(-step):
        raise SurgdinoError(
            "the processes do not find the same saved state",
            file=plan.folder,
            fix="put run.dir on a file system that all machines see",
        )
    if state is not None:
        _check_settings(plan, state["settings"], say)
    return state


def resume(session: Session, state: dict[str, Any]) -> None:
    """Take up everything but the networks' weights, which were loaded before the networks were shared out."""
    _load_optimizer(session.optimizer, state["optimizer"])
    session.step = session.saved = session.measured = session.resumed_from = state["step"]
    session.monitor.load_state_dict(state["monitor"], session.step, session.device)
    session.probes.load_state_dict(state["probes"])
    if session.plan.probe is not None:
        session.plan.probe.frames.reference = state["probe_reference"]


def _load_optimizer(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    moments = {
        i: {name: part_like(value, parameters[i]) for name, value in state.items()}
        for i, state in saved["state"].items()
    }
    optimizer.load_state_dict({**saved, "state": moments})


# A change of these makes the run another run; what is left out here may change from one call to the next.
FREE_SETTINGS = {"accumulate", "checkpoint_every", "log_every", "ship", "steps", "epochs"}


def _settings(plan: TrainPlan) -> dict[str, Any]:
    train = {key: value for key, value in asdict(plan.train).items() if key not in FREE_SETTINGS}
    model = {key: value for key, value in plan.model.items() if key != "weights"}
    data = {"hash": plan.data_hash, "frames": len(plan.store)}
    # Other frames measure other things: step 0 could not be compared with.
    probe = None if plan.probe is None else plan.probe.frames.fingerprint
    sections = {"train": train, "crops": asdict(plan.crops), "method": plan.method, "model": model, "data": data}
    return _plain(
        {**sections, "probe": probe, "augment": plan.augment, "steps": plan.train.total_steps(len(plan.store))}
    )


def _plain(value: Any) -> Any:
    """Mappings as dicts and sequences as lists, so that what was saved equals what was read from YAML."""
    if hasattr(value, "items"):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _check_settings(plan: TrainPlan, saved: dict[str, Any], say: Callable[[str], None]) -> None:
    changed = list(differences(saved, _settings(plan)))
    for key, before, after in changed:
        if key == "steps":
            say(f"the run now ends at step {after} instead of {before}: its schedules are stretched from here on")
    changed = [row for row in changed if row[0] != "steps"]
    if changed:
        key, before, after = changed[0]
        more = f" (and {len(changed) - 1} more: {', '.join(row[0] for row in changed[1:])})" if changed[1:] else ""
        raise SurgdinoError(
            f"this run was begun with another {key}{more}",
            file=plan.folder,
            expected=before,
            found=after,
            fix="use the settings it began with, or another run.dir",
        )
