"""`surgdino finetune`: a backbone and labels in; a head, its numbers and its predictions out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from surgdino import distributed
from surgdino.backbone.preprocess import Preprocess
from surgdino.backbone.settings import ModelSettings
from surgdino.config import Side, Text, typed
from surgdino.console import field, say
from surgdino.crops.augment.build import VIEWS, build_augment
from surgdino.datasets.card import Card
from surgdino.datasets.manifest import Manifest
from surgdino.engine.precision import choose_device
from surgdino.engine.settings import HardwareSettings
from surgdino.engine.stop import sigterm_interrupts
from surgdino.frames.store import FrameStore
from surgdino.inputs.backbone import StartingBackbone, starting_backbone
from surgdino.inputs.folds import PlannedRun, are_several, in_run, planned_runs
from surgdino.inputs.labelled import (
    features_folder,
    labelled_parts,
    open_store_of,
    require_parts,
    split_manifest,
    split_name,
)
from surgdino.inputs.settings import DataSettings, RunSettings
from surgdino.paths import safe_name
from surgdino.runs.folder import ANYWHERE, environment, names_mode, open_run, write_data
from surgdino.runs.folds import is_finished, print_together, write_together
from surgdino.runs.history import CHOSEN, TRAINED, History, Seen
from surgdino.runs.leaks import Leakage, LeakReport, find_leaks, refuse_leaks, refuse_named
from surgdino.runs.lock import FolderLock
from surgdino.runs.names import Mode, Pseudonyms
from surgdino.runs.results import RESULTS
from surgdino.tasks.context import TaskContext, build_context
from surgdino.tasks.features.cache import weights_hash
from surgdino.tasks.saved import save_task
from surgdino.tasks.task import Task, open_task
from surgdino.tasks.training.cut import Cutter
from surgdino.tasks.training.fit import StageResult, fit
from surgdino.tasks.training.stage import HeadTraining, resolve
from surgdino.tasks.training.tuning import LAST_BLOCKS, Tuning, select
from surgdino.verbs.evaluate import measure
from surgdino.verbs.report import try_report

# A continued run may change these: where things are and how fast they go.
FREE = (
    *ANYWHERE,
    *("model.weights", "model.drop_path", "checkpoint", "train.checkpoint_every", "train.log_every"),
)


@dataclass(frozen=True)
class FinetuneConfig:
    """configs/finetune.yaml. `dataset`, `task` and `augment` are checked by those who read them."""

    checkpoint: Text | None
    backbone: Tuning
    leakage: Leakage
    image_size: Side | None
    dataset: dict[str, Any]
    model: ModelSettings
    task: dict[str, Any]
    augment: dict[str, Any]
    data: DataSettings
    train: HeadTraining
    hardware: HardwareSettings
    run: RunSettings


@dataclass(frozen=True)
class Checked:
    """What a run begins with, when all that can be wrong was looked for."""

    config: FinetuneConfig
    folder: Path
    task: Task[Any, Any]
    card: Card
    classes: tuple[str, ...]
    manifest: Manifest
    names: Pseudonyms
    start: StartingBackbone
    preprocess: Preprocess
    tested_on: str


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


def main(cfg: Mapping[str, Any]) -> int:
    """Run or continue the fine-tuning that `cfg` describes; 0 also where a signal stopped it and all is saved.

    Under torchrun or another launcher its processes train together, and the first one writes and prints.
    """
    config = typed(FinetuneConfig, cfg, "")
    with distributed.together(cuda=choose_device(config.hardware).type == "cuda"), FolderLock() as lock:
        if are_several(config.data, config.train):
            several(config, cfg, lock)
        else:
            finetune(config, cfg, lock)
    return 0


def several(config: FinetuneConfig, cfg: Mapping[str, Any], lock: FolderLock) -> None:
    """A run for each fold and seed in one folder, then what they say together; finished ones are not run again."""
    task, card = open_task(config.task), Card.from_dict(config.dataset)
    runs = planned_runs(card, config.data, config.train, task.LABELS)
    checked = check_all(runs, config, cfg)
    first = next(iter(checked.values()))
    hashes = {run.fold: checked[run.name].manifest.fingerprint() for run in runs if run.name in checked}
    folder = config.run.dir or first.folder.with_name(f"{first.folder.name}-folds")
    mode: Mode = "plain" if first.names.plain else "pseudonyms"
    data_hash = hashlib.sha256("".join(hashes.values()).encode()).hexdigest()[:16]
    with distributed.main_first():
        if distributed.is_main():
            lock.take(folder)
            recorded = {**cfg, "model": first.start.model.as_dict(), "run": {"dir": str(folder), "names": mode}}
            open_run(folder, recorded, first.names, data_hash=data_hash, free=FREE)
            (folder / "state").mkdir(exist_ok=True)  # marks a run that other settings may not continue
    with sigterm_interrupts():
        for name, found in checked.items():  # by name they were compared before there were frames
            with distributed.main_first():
                store = open_store_of(found.manifest, found.config.data)
            _, leaks = guard(found, store)
            if leaks.overlaps and config.leakage == "refuse":
                with in_run(name):
                    refuse_leaks(leaks, config.leakage)
        del checked, found  # their backbones
        for place, run in enumerate(runs, 1):
            say(f"{run.name}, {place} of {len(runs)}", style="bold")
            if distributed.from_main(partial(is_finished, folder / run.name, hashes[run.fold])):
                say("done before")
                continue
            settings = run.settings(cfg, folder / run.name, mode)
            if not finetune(typed(FinetuneConfig, settings, ""), settings, lock):
                return
    with distributed.main_first():
        if distributed.is_main():
            by_name = {run.name: (run.fold, run.seed) for run in runs}
            print_together(write_together(folder, by_name, environment(data_hash, first.names)))
            field("results", folder / RESULTS)
            if page := try_report(folder):
                field("report", page)


def check_all(runs: Sequence[PlannedRun], config: FinetuneConfig, cfg: Mapping[str, Any]) -> dict[str, Checked]:
    """What runs begin with, by name: one of each fold and checkpoint; all are checked before the first is trained."""
    checked: dict[tuple[str, str | None], tuple[str, Checked]] = {}
    starts: dict[str | None, StartingBackbone] = {}
    for run in runs:
        settings = typed(FinetuneConfig, run.settings(cfg, config.run.dir, config.run.names), "")
        if (key := (run.fold, settings.checkpoint)) not in checked:
            with in_run(run.name):
                found = check(settings)
            # One backbone in memory for all that begin with it.
            checked[key] = run.name, replace(found, start=starts.setdefault(settings.checkpoint, found.start))
    return dict(checked.values())


def check(config: FinetuneConfig) -> Checked:
    """All that can be wrong, found before the store is built, which may take hours.

    Raises:
        SurgdinoError: whatever stops the run, operations to test that the checkpoint has seen among it.
    """
    task, card, data = open_task(config.task), Card.from_dict(config.dataset), config.data
    for view in VIEWS:
        build_augment(config.augment, view)
    torch.manual_seed(config.train.seed)  # of a backbone without weights
    start = starting_backbone(config.model, config.checkpoint)
    parts_of_name = ("finetune", task.name, card.name, start.model.name, config.backbone)
    # The same command continues in the same folder.
    folder = config.run.dir or Path("runs") / safe_name("-".join(parts_of_name))
    names = Pseudonyms.open(names_mode(folder, config.run.names), data.store)
    manifest = split_manifest(card, data, task.LABELS, names)
    require_parts(manifest, data, ("train", "test"))
    classes = task.classes(card, manifest)
    tested_on = f"{card.name} {split_name(data, names)} test"
    refuse_named(History.of(start.info), manifest.part("test"), tested_on, names, config.leakage)
    preprocess = start.preprocess(config.image_size)
    return Checked(config, folder, task, card, classes, manifest, names, start, preprocess, tested_on)


def finetune(config: FinetuneConfig, cfg: Mapping[str, Any], lock: FolderLock) -> bool:
    """One run, in each process; False where a signal stopped it."""
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
        select(found.start.backbone, config.backbone),
        config.hardware,
        features_folder(data, card.name, folder, config.backbone),
        preprocess=found.preprocess,
        cutter=Cutter(found.preprocess.image_size, config.augment, crop_scale),
        card=card,
        classes=found.classes,
        train=config.train,
        tuning=config.backbone,
        parts=parts,
    )
    run = Run(config, recorded, folder, task, manifest, found.start, past, leaks, context, names)
    head, results = train_stages(run)
    if (last := results[-1]).status == "stopped":
        say(f"Stopped at step {last.step} of {last.steps} ({last.stage}); the same command continues.", style="yellow")
        return False
    with distributed.main_first():
        if distributed.is_main():
            conclude(run, head, results)
    return True


def guard(found: Checked, store: FrameStore) -> tuple[History, LeakReport]:
    """What the weights will have seen (all that they begin with has, and the parts that they learn from), and whether
    any of it is tested."""
    rows, operations = [], set[str]()
    for part, how in (("train", TRAINED), ("val", CHOSEN)):
        if videos := found.manifest.part(part).videos:
            rows.append(Seen.of_videos("finetune", how, found.card.name, found.config.data.split, part, videos))
            operations.update(rows[-1].operations)
    past, test = History.of(found.start.info).after(rows, store.prints_of(operations)), found.manifest.part("test")
    return past, find_leaks(past, test, found.tested_on, found.names, store.prints_of(test.operations))


def train_stages(run: Run) -> tuple[nn.Module, list[StageResult]]:
    """Train the task's stages one after another, to the end or to the first that a signal stops.

    After each, `last/` holds the weights of its last step.
    """
    task, context, train = run.task, run.context, run.config.train
    begun_with = {
        "weights": weights_hash(context.backbone),
        "data": run.manifest.fingerprint(),
        "frames": {part: len(frames) for part, frames in context.parts.items()},
    }
    train_stage = partial(fit, device=context.device, autocast=context.autocast, begun_with=begun_with)
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
        if distributed.is_main():
            best = {name: tensor.detach().clone() for name, tensor in stage.model.state_dict().items()}
            stage.model.load_state_dict(results[-1].last)
            save(run, head, results, "last")
            stage.model.load_state_dict(best)


def _drop_paths(context: TaskContext, rate: float) -> None:
    if context.learns:
        first = 0 if context.tuning == "full" else max(context.backbone.depth - LAST_BLOCKS, 0)
        context.backbone.set_drop_path(rate, first)


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
        "leakage": run.leaks.as_dict(),
    }
    path = measure(run.task, run.context.alone(), head, "test", run.folder, run.manifest, facts, run.names)
    write_data(run.folder, run.context.parts["test"].store, run.names)
    field("results", path)
    field("checkpoint", run.folder / "checkpoint")
    if page := try_report(run.folder):
        field("report", page)


def save(run: Run, head: nn.Module, results: list[StageResult], name: Literal["checkpoint", "last"]) -> None:
    """Write a checkpoint folder of the run, with what it has seen and what had been seen by what it began with."""
    card, manifest = run.context.card, run.manifest
    facts = {
        "dataset": card.name,
        "dataset_licence": run.config.dataset.get("licence"),
        "data_hash": manifest.fingerprint(),
        "task": run.task.name,
        "tuning": run.config.backbone,
        "seed": run.config.train.seed,
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
