"""`surgdino finetune`: a backbone and labels in; a head, its numbers and its predictions out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from surgdino import distributed
from surgdino.backbone.low_rank import fold, merged
from surgdino.config import typed
from surgdino.console import field, say
from surgdino.datasets.manifest import Manifest
from surgdino.engine.devices import choose_device
from surgdino.engine.logger import RunLog
from surgdino.exit_code import ExitCode
from surgdino.inputs.backbone import StartingBackbone
from surgdino.inputs.configs import FinetuneConfig
from surgdino.inputs.finetune import FREE, check, guard
from surgdino.inputs.folds import are_several
from surgdino.inputs.labelled import engine_of, features_folder, labelled_parts, open_store_of
from surgdino.paths import safe_name
from surgdino.runs.folder import CONFIG, open_run, write_data
from surgdino.runs.history import History
from surgdino.runs.leaks import LeakReport, refuse_leaks
from surgdino.runs.lock import FolderLock
from surgdino.runs.logged import logged_settings
from surgdino.runs.names import Mode, Pseudonyms
from surgdino.runs.results import RESULTS
from surgdino.tasks.context import TaskContext, build_context
from surgdino.tasks.features.cache import weights_hash
from surgdino.tasks.saved import save_task
from surgdino.tasks.task import Task
from surgdino.tasks.training.cut import Cutter
from surgdino.tasks.training.fit import StageResult, fit
from surgdino.tasks.training.stage import resolve
from surgdino.tasks.training.tuning import first_layer, learning_of
from surgdino.verbs.evaluate import measure
from surgdino.verbs.folds import several
from surgdino.verbs.report import try_report


@dataclass(frozen=True)
class Run:
    """A fine-tuning under way."""

    config: FinetuneConfig
    recorded: dict[str, Any]  # as config.yaml keeps it: with the model that the checkpoint turned out to be
    folder: Path
    task: Task[Any, Any]
    manifest: Manifest
    start: StartingBackbone  # the backbone as it was
    past: History  # of the weights that come out
    leaks: LeakReport
    context: TaskContext  # with the backbone that learns
    names: Pseudonyms


def main(cfg: Mapping[str, Any]) -> ExitCode:
    """Run or continue the fine-tuning that `cfg` describes; 0 also where a signal stopped it and all is saved.

    Under torchrun or another launcher its processes train together, and the first one writes and prints.
    """
    config = typed(FinetuneConfig, cfg, "")
    with distributed.together(lambda: choose_device(config.hardware)), FolderLock() as lock:
        if are_several(config.data, config.train):
            folder, finished = several(config, cfg, lock, finetune)
        else:
            folder, finished = finetune(config, cfg, lock)
    written = {"results": folder / RESULTS, "report": folder / "report.html"}
    existing = {name: path for name, path in written.items() if finished and path.exists()}
    return ExitCode(0, folder, "finished" if finished else "stopped", stopped=not finished, **existing)


def finetune(config: FinetuneConfig, cfg: Mapping[str, Any], lock: FolderLock) -> tuple[Path, bool]:
    """One run, in each process; its folder, and False where a signal stopped it."""
    found, data = check(config), config.data
    folder, task, card, manifest, names = found.folder, found.task, found.card, found.manifest, found.names
    mode: Mode = "plain" if names.plain else "pseudonyms"
    recorded = {**cfg, "model": found.start.model.as_dict(), "run": {"dir": str(folder), "names": mode}}

    with distributed.main_first():
        if distributed.is_main():
            lock.take(folder)
            recorded = open_run(folder, recorded, names, data_hash=manifest.fingerprint(), free=FREE)
        store = open_store_of(manifest, data)
    past, leaks = guard(found, store)
    refuse_leaks(leaks, config.leakage)
    parts = labelled_parts(manifest, store, task.LABELS, ("train", "val", "test"), names)
    if "val" not in parts:
        say("no validation part in this split: no early stopping, the last step counts")
    crop_scale = resolve(config.train, task.DEFAULTS, overrides={}).crop_scale
    context = build_context(
        found.start.backbone,
        config.hardware,
        features_folder(data, card.name, folder, config.backbone),
        preprocess=found.preprocess,
        cutter=Cutter(found.preprocess.image_size, config.augment, crop_scale),
        card=card,
        classes=found.classes,
        train=config.train,
        tuning=config.backbone,
        parts=parts,
        **engine_of(data),
    )
    run = Run(config, recorded, folder, task, manifest, found.start, past, leaks, context, names)
    head, results = train_stages(run)
    if (last := results[-1]).status == "stopped":
        say(f"Stopped at step {last.step} of {last.steps} ({last.stage}); the same command continues.", style="yellow")
        return folder, False
    fold(context.backbone)
    with distributed.main_first():
        if distributed.is_main():
            conclude(run, head, results)
    return folder, True


def train_stages(run: Run) -> tuple[nn.Module, list[StageResult]]:
    """Train the task's stages one after another, to the end or to the first that a signal stops.

    After each, `last/` holds the weights of its last step.
    """
    task, context, train = run.task, run.context, run.config.train
    begun_with = {
        "weights": weights_hash(merged(context.backbone.vit.state_dict())),
        "data": run.manifest.fingerprint(),
        "frames": {part: len(frames) for part, frames in context.parts.items()},
    }
    log, model = run.config.log, str(run.start.model.name)
    name = log.name or safe_name("-".join(("finetune", task.name, context.card.name, model, context.tuning)))
    if (run.folder.parent / CONFIG).is_file():  # one of several folds or seeds
        name = f"{name}-{run.folder.name}"
    logged = RunLog(log.to, log.project, name, logged_settings(run.recorded))
    train_stage = partial(fit, hardware=context.hardware, begun_with=begun_with, log=logged)
    torch.manual_seed(train.seed)
    head = task.build_head(context).to(context.device)
    stages = iter(task.stages(context, head))
    results: list[StageResult] = []
    while True:
        torch.manual_seed(train.seed)  # of what a stage makes when it begins, in a resumed run too
        stage = next(stages, None)
        if stage is None:
            return head, results
        training = resolve(train, task.DEFAULTS, stage.defaults, overrides=stage.overrides)
        _drop_paths(context, training.drop_path)
        results.append(train_stage(stage, training, run.folder))
        _drop_paths(context, 0.0)
        if results[-1].status == "stopped":
            return head, results
        if distributed.is_main() and stage.kept:
            best = {name: tensor.detach().clone() for name, tensor in stage.model.state_dict().items()}
            stage.model.load_state_dict(results[-1].last)
            save(run, head, results, "last")
            stage.model.load_state_dict(best)


def _drop_paths(context: TaskContext, rate: float) -> None:
    if context.learns:
        context.backbone.set_drop_path(rate, max(first_layer(context.backbone, context.tuning), 0))


def conclude(run: Run, head: nn.Module, results: list[StageResult]) -> None:
    """Save the best state, test it, write the numbers and print them; what is drawn comes last."""
    save(run, head, results, "checkpoint")
    for result in results:
        field(result.stage, _stage_line(result))
    facts = {
        "split": run.config.data.split,
        "checkpoint": run.folder / "checkpoint",
        "started_from": started_from(run),
        "seed": run.config.train.seed,
        "stages": [result.as_dict() for result in results],
        "chosen_on": "the validation part" if "val" in run.context.parts else "nothing: the last step counts",
        "leakage": run.leaks.as_dict(run.names),
    }
    path = measure(run.task, run.context.alone(), head, "test", run.folder, run.manifest, facts, run.names)
    write_data(run.folder, run.context.parts["test"].store, run.names)
    field("results", path)
    field("checkpoint", run.folder / "checkpoint")
    if page := try_report(run.folder, frames=run.config.report.frames):
        field("report", page)


def save(run: Run, head: nn.Module, results: list[StageResult], name: Literal["checkpoint", "last"]) -> None:
    """Write a checkpoint folder of the run, with what it has seen and what had been seen by what it began with."""
    card, manifest, train = run.context.card, run.manifest, run.config.train
    tune, rank = learning_of(run.config.backbone, train)
    facts = {
        "dataset": card.name,
        "dataset_licence": run.config.dataset.get("licence"),
        "data_hash": manifest.fingerprint(),
        "task": run.task.name,
        "tuning": run.config.backbone,
        **({"tune": tune, "low_rank": rank} if (tune, rank) != ("all", 0) else {}),
        "seed": train.seed,
        "started_from": started_from(run),
        "stages": [result.as_dict() for result in results],
        "state": name,
        **run.past.facts(),
    }
    save_task(run.folder / name, run.task, run.context, head, model_json=run.names.hide(facts), config=run.recorded)


def started_from(run: Run) -> dict[str, Any]:
    """Which checkpoint or weights the backbone came from."""
    info, place = run.start.info, run.names.place
    found = {"checkpoint": place(run.config.checkpoint), "weights": place(info.get("path"))}
    return {**found, "sha256": info.get("sha256")}


def _stage_line(result: StageResult) -> str:
    done = f"{result.step} of {result.steps} steps"
    if result.status == "already finished":
        done += ", done before"
    elif result.ended_early:
        done += ", ended early"
    if result.score is None:
        return f"{done}; no validation, the last step counts"
    return f"{done}; best {result.score_name} {result.score:.4f} on the validation part at step {result.best_step}"
