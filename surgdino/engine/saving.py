"""Saving and resuming a session: the trainer's state, and the checkpoint that users take away."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from surgdino import distributed
from surgdino.backbone.checkpoint import save_backbone, usual_size
from surgdino.backbone.low_rank import merged
from surgdino.backbone.vit import Backbone, build_backbone
from surgdino.engine.averaging import between
from surgdino.engine.memory import within_memory
from surgdino.engine.method import Method
from surgdino.engine.parallel import whole_backbone
from surgdino.engine.plan import Phase, TrainPlan
from surgdino.engine.processes import ProcessGroup, part_like
from surgdino.engine.same_run import changes, settings_of
from surgdino.engine.session import Session
from surgdino.engine.state_files import load_state, save_state, unusable
from surgdino.errors import SurgdinoError, is_out_of_memory, shown
from surgdino.paths import atomic_write
from surgdino.transfers import host_copy

_KEYS = ("settings", "student", "teacher", "optimizer", "initial", "initial_backbone", "monitor", "probes")
BEST = "best"  # beside `checkpoint`
_MOMENTS = {"step", "exp_avg", "exp_avg_sq"}  # AdamW's


def saving_due(session: Session) -> bool:
    """Whether to save after this step, by steps or by time; for all processes to call, the main one's time decides."""
    train, monitor = session.plan.train, session.monitor
    by_steps = session.step % train.checkpoint_every == 0
    if not by_steps and session.step % train.log_every:
        return False

    def now() -> bool:
        late = train.checkpoint_minutes is not None and monitor.since("save") > 60 * train.checkpoint_minutes
        return late or (by_steps and monitor.may_stop("save", train.checkpoint_share))

    return bool(distributed.from_main(lambda: float(now())))


def save(session: Session) -> None:
    """Copy the state, and let it and the checkpoint that users take away be written while training goes on.

    All processes gather their shards; the main one writes. The file does not depend on their number.

    Raises:
        SurgdinoError: what was saved before could not be written.
    """
    if session.saved == session.step:
        return
    plan, place, go_on = session.plan, f"saving step {session.step}", f"continues from step {max(session.saved, 0)}"
    fix = f"give the machine or the container more, or lower hardware.loader_workers; the same command {go_on}"
    memory = within_memory(torch.device("cpu"), SurgdinoError, place=place, asked="a copy of the state", fix=fix)
    with session.monitor.stopped("save"), memory:
        session.writer.wait()  # at most one state in memory beside the networks
        state = {
            "settings": settings_of(plan),
            "student": session.student.state_dict(),
            "teacher": session.teacher.state_dict(),
            "optimizer": session.optimizer.state_dict(),
            "loss_scale": None if session.loss_scale is None else session.loss_scale.state_dict(),
            "initial": session.retention.initial,
            "neighbours": session.neighbours,
            "anchor": None if session.anchor is None else session.anchor.state_dict(),
            "monitor": session.monitor.state_dict(),
            "probes": session.probes.state_dict(),
            "probe_reference": None if plan.probe is None else plan.probe.frames.reference,
        }
        copied = host_copy(state, keep=distributed.is_main())
        if distributed.is_main():
            session.writer.submit(partial(_write, session, copied, session.step, model_json(session)))
    session.saved = session.step


def _write(session: Session, copied: Callable[[], dict[str, Any]], step: int, facts: Mapping[str, Any]) -> None:
    """Beside the training, which changes all of the session but its plan and its initial weights."""
    plan, state = session.plan, copied()
    prefix = "backbone."
    backbone = {k.removeprefix(prefix): v for k, v in state[plan.train.ship].items() if k.startswith(prefix)}
    weights = shipped_weights(backbone, session.initial, plan.train.ship_alpha)
    # In this order: after a kill between the two, the older state resumes and writes both again. In the other order
    # a run whose last state is saved would count as finished with the checkpoint of the save before.
    save_backbone(plan.folder / "checkpoint", plan.backbone, facts, weights)
    save_state(plan.folder / "state", step, {**state, "initial_backbone": session.initial})


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
    copy = build_backbone(backbone.settings, drop_path=0.0)
    on_host = host_copy(backbone.state_dict(), copy=False)()
    copy.vit.load_state_dict(shipped_weights(on_host, initial, ship_alpha))
    return copy.to(backbone.mask_token.device)


def shipped_weights(
    backbone: Mapping[str, Tensor], initial: Mapping[str, Tensor], ship_alpha: float
) -> dict[str, Tensor]:
    """The weights of `shipped`, timm's names, of a backbone's whole state on the host, which may have adapters."""
    prefix = "vit."
    plain = {name.removeprefix(prefix): v for name, v in merged(backbone).items() if name.startswith(prefix)}
    return between(initial, plain, ship_alpha) if initial else plain


def model_json(session: Session) -> dict[str, Any]:
    """For model.json beside the architecture: data, method, steps so far, and what the probe measured."""
    plan = session.plan
    probe = session.probes.summary(session.step)
    retention = {key: getattr(plan.train, key) for key in ("frozen_blocks", "pull", "low_rank", "gram")}
    alpha = plan.train.ship_alpha
    return {
        **plan.model_json,
        "method": dict(plan.method),
        "steps": session.step,
        "steps_planned": session.steps,
        "seed": plan.train.seed,
        "batch_size": plan.train.batch_size,
        "weights_of": plan.train.ship,
        "hardware": session.computed_on,
        **({"ship_alpha": alpha} if alpha != 1 else {}),
        "image_size": usual_size(plan.backbone, plan.crops.side),
        **({"phases": [_phase(plan.phases[0], each) for each in plan.phases]} if plan.phases else {}),
        **({"retention": retention} if any(retention.values()) else {}),
        **({"tune": plan.train.tune} if plan.train.tune != "all" else {}),
        **({"freeze_tokens": list(plan.train.freeze_tokens)} if plan.train.freeze_tokens else {}),
        **({"guide": dict(plan.guides)} if plan.guides else {}),
        **({"probe": probe} if probe else {}),
    }


def _phase(first: Phase, phase: Phase) -> dict[str, Any]:
    return {"steps": phase.steps, "crops.global_size": phase.crops.side, **changes(first, phase)}


def saved_state(plan: TrainPlan, processes: ProcessGroup, warn: Callable[[str], None]) -> dict[str, Any] | None:
    """The state in the run folder; None where there is none."""
    state = load_state(plan.folder / "state", warn, _KEYS)
    step = -1 if state is None else state["step"]
    if processes.max(step) != -processes.max(-step):
        raise SurgdinoError(
            "the processes do not find the same saved state",
            file=plan.folder,
            fix="put run.dir on a file system that all machines see",
        )
    return state


def ship_best(session: Session) -> None:
    """The best state by the probe becomes the checkpoint that users take away; in the main process."""
    folder = session.plan.folder
    if not distributed.is_main() or not (folder / BEST).is_dir():
        return
    for name in ("backbone.safetensors", "model.json"):
        with atomic_write(folder / "checkpoint" / name) as temporary:
            shutil.copyfile(folder / BEST / name, temporary)


@contextmanager
def restoring(folder: Path) -> Iterator[None]:
    """While a run takes over its saved state: whatever does not fit it becomes one line.

    Args:
        folder: of the run.
    """
    try:
        yield
    except SurgdinoError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        found = f"{type(error).__name__}: {shown(' '.join(str(error).split()), 200)}"
        raise unusable("the saved state is not one of this run", folder / "state", found) from error


def resume(session: Session, state: dict[str, Any], moved: bool = False) -> None:
    """Restore everything but the networks' weights, which were loaded before the networks were parallelised.

    Args:
        moved: whether positions were interpolated to another grid: their moments begin anew.
    """
    moments = dict(state["optimizer"]["state"])
    if moved:
        parameters = [id(p) for group in session.optimizer.param_groups for p in group["params"]]
        moments.pop(parameters.index(id(session.student.backbone.vit.pos_embed)), None)
    load_optimizer(session.optimizer, {**state["optimizer"], "state": moments})
    if session.loss_scale is not None and state.get("loss_scale"):  # a run may begin in another precision
        session.loss_scale.load_state_dict(state["loss_scale"])
    session.step = session.saved = session.measured = session.resumed_from = state["step"]
    session.monitor.load_state_dict(state["monitor"], session.step, session.device)
    session.probes.load_state_dict(state["probes"])
    if session.step == session.phase.start:  # `train.patience` is that of a phase
        session.probes.since_best = 0
    session.neighbours = state.get("neighbours")
    if session.plan.probe is not None:
        session.plan.probe.frames.reference = state["probe_reference"]


def load_optimizer(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Load the state of an optimiser of the same parameters.

    Raises:
        ValueError: its moments are of other parameters.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for place, state in saved["state"].items():
        if set(state) != _MOMENTS:
            raise ValueError(f"parameter {place} has {', '.join(map(str, state)) or 'nothing'}")
        for name, value in state.items():
            if value.ndim and value.shape != parameters[place].shape:
                raise ValueError(f"{name} of parameter {place} is {tuple(value.shape)}")
    moments = {
        i: {name: part_like(value, parameters[i]) for name, value in state.items()}
        for i, state in saved["state"].items()
    }
    optimizer.load_state_dict({**saved, "state": moments})
