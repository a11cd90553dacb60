"""`surgdino finetune`: a backbone and labels in; a head, its numbers and its predictions out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import torch
from rich.console import Console
from torch import nn

from surgdino import distributed
from surgdino.backbone.preprocess import Preprocess
from surgdino.config import typed
from surgdino.crops.augment.build import build_augment
from surgdino.datasets.card import Card
from surgdino.datasets.manifest import Manifest
from surgdino.engine.plan import HardwareSettings
from surgdino.engine.precision import choose_device
from surgdino.inputs.labelled import (
    open_store_of,
    parts_of,
    print_parts,
    print_set_aside,
    require_parts,
    split_manifest,
    split_name,
    store_features,
)
from surgdino.inputs.settings import DataSettings
from surgdino.runs.data_record import write_data
from surgdino.runs.folder import environment, open_run
from surgdino.runs.leaks import Leakage, LeakReport, Seen, find_leaks, guard, look, seen_of
from surgdino.runs.results import print_scores, write_results
from surgdino.tasks import open_task
from surgdino.tasks.context import TaskContext
from surgdino.tasks.features.cache import weights_hash
from surgdino.tasks.saved import save_task
from surgdino.tasks.training.cut import Cutter
from surgdino.tasks.training.fit import StageResult, Surroundings, fit
from surgdino.tasks.training.settings import TrainSettings, resolve
from surgdino.tasks.training.tuning import LAST_BLOCKS, Tuning, select
from surgdino.verbs.pictures import draw_predictions
from surgdino.verbs.report import report_run
from surgdino.verbs.task_setup import Described, Start, build_context, check_image_size, start

# What a run may be continued with otherwise: where things are and how fast they go.
FREE = (
    *("hardware.", "run.", "report.", "data.root", "data.store", "data.workers", "data.max_bad_share"),
    *("model.weights", "checkpoint", "train.checkpoint_every", "train.log_every"),
)


@dataclass(frozen=True)
class FinetuneSettings:
    """The keys at the top of configs/finetune.yaml."""

    checkpoint: str | None = None
    backbone: Tuning = "frozen"
    leakage: Leakage = "refuse"
    image_size: int | None = None

    @classmethod
    def of(cls, cfg: Mapping[str, Any]) -> FinetuneSettings:
        """Checked."""
        return typed(cls, {key: cfg[key] for key in ("checkpoint", "backbone", "leakage", "image_size")}, "")


@dataclass(frozen=True)
class Job:
    """Everything that was asked for and looked at before anything long begins."""

    cfg: Mapping[str, Any]
    module: ModuleType
    asked: FinetuneSettings
    train: TrainSettings
    data: DataSettings
    manifest: Manifest
    start: Start
    what: Described
    leaks: LeakReport
    folder: Path

    @property
    def split(self) -> str:
        """As people call it."""
        return split_name(self.data.split)


def main(cfg: Mapping[str, Any]) -> int:
    """Run or continue the fine-tuning that `cfg` describes; 0 also where a signal stopped it and all is saved.

    Under torchrun or another launcher its processes train together, and the first one writes and prints.
    """
    hardware = typed(HardwareSettings, cfg["hardware"], "hardware")
    with distributed.together(cuda=choose_device(hardware).type == "cuda"):
        return finetune(cfg, hardware)


def finetune(cfg: Mapping[str, Any], hardware: HardwareSettings) -> int:
    """What `main` does in each process."""
    console = Console(quiet=not distributed.is_main())
    job = look_at(cfg, console)
    with distributed.main_first():
        if distributed.is_main():
            open_run(job.folder, recorded(job), data_hash=job.manifest.fingerprint(), free=FREE)
        store = open_store_of(job.manifest, job.data)
    print_set_aside(console, store)
    parts = parts_of(job.manifest, store, job.module.LABELS, ("train", "val", "test"))
    print_parts(console, parts)
    if "val" not in parts:
        console.print("no validation part in this split: no early stopping, the last step counts", highlight=False)
    context = build_context(
        job.what,
        select(job.start.backbone, job.asked.backbone),
        hardware,
        job.folder / "features" if job.asked.backbone != "frozen" else store_features(job.data, cfg["dataset"]["name"]),
        parts=parts,
        manifest=job.manifest,
        cutter=cutter_of(job),
        say=lambda sentence: console.print(f"[yellow]![/yellow] {sentence}", soft_wrap=True, highlight=False),
    )
    head, results = train_stages(job, context)
    if results[-1].status == "stopped":
        where = f"step {results[-1].step} of {results[-1].steps} ({results[-1].stage})"
        console.print(f"[yellow]Stopped at {where}; the same command continues.[/yellow]", highlight=False)
        return 0
    with distributed.main_first():
        if distributed.is_main():
            conclude(job, context.alone(), head, results, store.set_aside, console)
    return 0


def look_at(cfg: Mapping[str, Any], console: Console) -> Job:
    """Check all settings, the dataset, the backbone and the leak guard, which takes seconds."""
    asked = FinetuneSettings.of(cfg)
    module = open_task(cfg["task"]["name"])
    settings = typed(module.Settings, cfg["task"], "task")
    train = typed(TrainSettings, cfg["train"], "train")
    build_augment(cfg["augment"], "global_1")
    data = DataSettings.of(cfg)
    manifest = split_manifest(cfg, data, module.LABELS, console)
    require_parts(manifest, split_name(data.split), ("train", "test"))
    card = Card.from_dict(cfg["dataset"])
    classes = module.classes(card, manifest, settings)
    torch.manual_seed(train.seed)  # of a backbone without weights
    begin = start(cfg["model"], asked.checkpoint, console)
    tested_on = f"{card.name} {split_name(data.split)} test"
    leaks = guard(find_leaks(seen_of(begin.info), manifest.part("test"), tested_on), asked.leakage, console)
    size = check_image_size(asked.image_size or begin.image_size, begin.backbone)
    preprocess = Preprocess(size, tuple(begin.model["mean"]), tuple(begin.model["std"]))
    what = Described(cfg["task"]["name"], card, tuple(classes), settings, asked.backbone, preprocess, train)
    folder = Path(cfg["run"]["dir"] or default_folder(cfg, begin))
    return Job(cfg, module, asked, train, data, manifest, begin, what, leaks, folder)


def default_folder(cfg: Mapping[str, Any], begin: Start) -> str:
    """The run folder where none is given: the same command finds the same folder, and continues there."""
    names = ("finetune", cfg["task"]["name"], cfg["dataset"]["name"], str(begin.model["name"]), cfg["backbone"])
    return str(Path("runs") / "-".join(names))


def recorded(job: Job) -> dict[str, Any]:
    """The configuration as config.yaml keeps it: with the model that the checkpoint turned out to be."""
    return {**job.cfg, "model": dict(job.start.model), "run": {"dir": str(job.folder)}}


def cutter_of(job: Job) -> Cutter:
    """How training pictures are cut and augmented."""
    scale = resolve(job.train, job.module.DEFAULTS, overrides={}).crop_scale
    return Cutter(job.what.preprocess.image_size, job.cfg["augment"], scale)


def train_stages(job: Job, context: TaskContext) -> tuple[nn.Module, list[StageResult]]:
    """Train the task's stages one after another, to the end or to the first that a signal stops.

    After each, `last/` holds the weights of its last step.
    """
    begun_with = {
        "weights": weights_hash(context.backbone),
        "data": job.manifest.fingerprint(),
        "frames": {part: len(frames) for part, frames in context.parts.items()},
    }
    around = Surroundings(job.folder, context.device, context.autocast, begun_with)
    torch.manual_seed(job.train.seed)
    head = job.module.build_head(context).to(context.device)
    stages = iter(job.module.stages(context, head))
    results: list[StageResult] = []
    while True:
        torch.manual_seed(job.train.seed)  # of what a stage makes when it begins, in a resumed run too
        stage = next(stages, None)
        if stage is None:
            return head, results
        training = resolve(job.train, job.module.DEFAULTS, stage.defaults, overrides=stage.overrides)
        _drop_paths(context, training.drop_path)
        results.append(fit(stage, training, around))
        _drop_paths(context, 0.0)
        if results[-1].status == "stopped":
            return head, results
        if distributed.is_main():
            save_last(job, context, head, stage.model, results)


def _drop_paths(context: TaskContext, rate: float) -> None:
    if context.learns:
        first = 0 if context.tuning == "full" else max(context.backbone.depth - LAST_BLOCKS, 0)
        context.backbone.set_drop_path(rate, first)


def save_last(job: Job, context: TaskContext, head: nn.Module, model: nn.Module, results: list[StageResult]) -> None:
    """Write the checkpoint of the last step beside that of the best."""
    best = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(results[-1].last)
    save(job, context, head, results, "last")
    model.load_state_dict(best)


def save(job: Job, context: TaskContext, head: nn.Module, results: list[StageResult], name: str) -> None:
    """Write a checkpoint folder of the run."""
    facts = {**provenance(job), "stages": [result.as_dict() for result in results], "state": name}
    save_task(job.folder / name, context, head, model_json=facts, config=recorded(job))


def provenance(job: Job) -> dict[str, Any]:
    """What the checkpoint remembers: what it has seen itself, and what had been seen by what it began with."""
    name, split = job.cfg["dataset"]["name"], job.data.split
    seen = seen_of(job.start.info)
    for part, how in (("train", "trained on"), ("val", "chosen on")):
        videos = job.manifest.part(part).videos
        if videos:
            seen.append(look("finetune", how, name, split, part, videos))
    return {
        "dataset": name,
        "dataset_licence": job.cfg["dataset"].get("licence"),
        "data_hash": job.manifest.fingerprint(),
        "task": job.what.task,
        "tuning": job.asked.backbone,
        "seed": job.train.seed,
        "operations": operations_seen(seen, "trained on"),
        "chosen_on": operations_seen(seen, "chosen on"),
        "seen": [each.as_dict() for each in seen],
        "started_from": {
            "checkpoint": job.asked.checkpoint,
            "weights": job.start.info.get("path"),
            "sha256": job.start.info.get("sha256"),
        },
    }


def operations_seen(seen: list[Seen], how: Literal["trained on", "chosen on"]) -> list[str]:
    """The operations of one kind of looks, sorted."""
    return sorted({operation for each in seen if each.how == how for operation in each.operations})


def conclude(
    job: Job,
    context: TaskContext,
    head: nn.Module,
    results: list[StageResult],
    set_aside: Mapping[str, str],
    console: Console,
) -> None:
    """Save the best state, test it, write the numbers and print them."""
    save(job, context, head, results, "checkpoint")
    for result in results:
        console.print(f"[bold]{result.stage:<8}[/bold] {_told(result)}", highlight=False)
    scores = job.module.evaluate(context, head, context.parts["test"], job.folder)
    draw_predictions(job.what.task, context, head, context.parts["test"], job.folder)
    facts = {
        "dataset": job.cfg["dataset"]["name"],
        "split": job.data.split,
        "part": "test",
        "backbone": job.asked.backbone,
        "checkpoint": job.folder / "checkpoint",
        "started_from": provenance(job)["started_from"],
        "seed": job.train.seed,
        "image_size": context.image_size,
        "precision": context.features.precision,
        "settings": asdict(job.what.settings),
        "stages": [result.as_dict() for result in results],
        "chosen_on": "the validation part" if "val" in context.parts else "nothing: the last step counts",
        "set_aside": dict(set_aside),
        "leakage": job.leaks.as_dict(),
        "environment": environment(job.manifest.fingerprint()),
    }
    path = write_results(job.folder, job.what.task, scores, facts=facts)
    print_scores(console, scores, leak=job.leaks.stamp)
    write_data(job.folder, context.parts["test"].store)
    page = report_run(job.folder, job.folder / "report.html")
    for label, where in (("results", path), ("checkpoint", job.folder / "checkpoint"), ("report", page)):
        console.print(f"[bold]{label:<10}[/bold]  {where}", soft_wrap=True, highlight=False)


def _told(result: StageResult) -> str:
    """One line on a stage."""
    done = f"{result.step} of {result.steps} steps"
    if result.status == "already finished":
        done += ", done before"
    elif result.ended_early:
        done += ", ended early"
    if result.score is None:
        return f"{done}; no validation, the last step counts"
    return f"{done}; best {result.score_name} {result.score:.4f} on the validation part at step {result.best_step}"
