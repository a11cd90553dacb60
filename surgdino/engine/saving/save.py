"""Saving and resuming a session: the trainer's state, and the checkpoint that users take away."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from surgdino import distributed
from surgdino.backbone.checkpoint import save_backbone, usual_size
from surgdino.backbone.vit import Backbone, build_backbone
from surgdino.engine.averaging import between
from surgdino.engine.method import Method
from surgdino.engine.parallel.across import Across, part_like, whole
from surgdino.engine.parallel.networks import whole_backbone
from surgdino.engine.saving.state import differences, load_state, save_state
from surgdino.engine.session import Session
from surgdino.engine.settings import TrainPlan
from surgdino.errors import SurgdinoError


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
    backbone = shipped(session.networks[plan.train.ship], session.initial, plan.train.ship_alpha)
    if distributed.is_main():
        # In this order: after a kill between the two the older state goes on and writes both again; the other way round
        # a run whose last state is saved would count as finished with the checkpoint of the save before.
        save_backbone(plan.folder / "checkpoint", backbone, model_json(session))
        save_state(plan.folder / "state", session.step, state)
    session.saved = session.step


def initial_weights(backbone: Backbone, ship_alpha: float) -> dict[str, Tensor]:
    """A copy of the weights that a run begins with, before anything is added to them; empty where none are shipped."""
    if ship_alpha == 1.0:
        return {}
    return {name: tensor.detach().cpu().clone() for name, tensor in backbone.vit.state_dict().items()}


def shipped(network: Method, initial: Mapping[str, Tensor], ship_alpha: float) -> Backbone:
    """The backbone as a checkpoint holds it: (1 - ship_alpha) initial + ship_alpha adapted weights.

    WiSE-FT (Wortsman et al. 2022, arXiv 2109.01903). For all processes to call; the run itself does not change.

    Args:
        initial: of `initial_weights`.
    """
    backbone = whole_backbone(network)
    if not initial:
        return backbone
    adapted = {name: tensor.cpu() for name, tensor in backbone.vit.state_dict().items()}
    copy = build_backbone(backbone.settings, drop_path=0.0)
    copy.vit.load_state_dict(between(initial, adapted, ship_alpha))
    return copy.to(backbone.mask_token.device)


def model_json(session: Session) -> dict[str, Any]:
    """For model.json beside the architecture: data, method, steps so far, and what the probe measured."""
    plan = session.plan
    probe = session.probes.summary(session.step)
    retention = {key: getattr(plan.train, key) for key in ("frozen_blocks", "pull", "low_rank")}
    alpha = plan.train.ship_alpha
    return {
        **plan.model_json,
        "method": dict(plan.method),
        "steps": session.step,
        "steps_planned": session.steps,
        "seed": plan.train.seed,
        "batch_size": plan.train.batch_size,
        "weights_of": plan.train.ship,
        **({"ship_alpha": alpha} if alpha != 1 else {}),
        "image_size": usual_size(plan.backbone, plan.crops.global_size),
        **({"retention": retention} if any(retention.values()) else {}),
        **({"probe": probe} if probe else {}),
    }


def saved_state(plan: TrainPlan, across: Across, warn: Callable[[str], None]) -> dict[str, Any] | None:
    """The state in the run folder, of a run with the same settings; None where there is none.

    Raises:
        SurgdinoError: other settings, all states damaged, or not the same state in all processes.
    """
    state = load_state(plan.folder / "state", warn)
    step = -1 if state is None else state["step"]
    if across.most(step) != -across.most(-step):
        raise SurgdinoError(
            "the processes do not find the same saved state",
            file=plan.folder,
            fix="put run.dir on a file system that all machines see",
        )
    if state is not None:
        _check_settings(plan, state["settings"], warn)
    return state


def resume(session: Session, state: dict[str, Any]) -> None:
    """Restore everything but the networks' weights, which were loaded before the networks were parallelised."""
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


def _check_settings(plan: TrainPlan, saved: dict[str, Any], warn: Callable[[str], None]) -> None:
    changed = list(differences(saved, _settings(plan)))
    for key, before, after in changed:
        if key == "steps":
            warn(f"the run now ends at step {after} instead of {before}: its schedules are stretched from here on")
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
