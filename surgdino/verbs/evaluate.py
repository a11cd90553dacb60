"""`surgdino evaluate`: a fine-tuned checkpoint tested once more, from its folder alone, on its own data or on other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from surgdino.config import typed
from surgdino.datasets.card import Card
from surgdino.datasets.manifest import Manifest
from surgdino.engine.plan import HardwareSettings
from surgdino.errors import SurgdinoError
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
from surgdino.runs.folder import environment
from surgdino.runs.leaks import Leakage, LeakReport, find_leaks, guard, seen_of
from surgdino.runs.results import RESULTS, print_scores, write_results
from surgdino.tasks import open_task
from surgdino.tasks.saved import SavedTask, load_task
from surgdino.tasks.training.settings import TrainSettings
from surgdino.verbs.pictures import draw_predictions
from surgdino.verbs.task_setup import Described, build_context

_OF_THE_DATASET = ("split", "labels", "operation_pattern", "organ", "rater", "exclude")


@dataclass(frozen=True)
class EvaluateSettings:
    """The keys at the top of configs/evaluate.yaml."""

    checkpoint: str
    part: Literal["test", "val", "train"] = "test"
    leakage: Leakage | None = None
    out: str | None = None

    @classmethod
    def of(cls, cfg: Mapping[str, Any]) -> EvaluateSettings:
        """Checked."""
        return typed(cls, {key: cfg[key] for key in ("checkpoint", "part", "leakage", "out")}, "")


def main(cfg: Mapping[str, Any]) -> int:
    """Test the checkpoint that `cfg` names; 0."""
    console = Console()
    asked = EvaluateSettings.of(cfg)
    hardware = typed(HardwareSettings, cfg["hardware"], "hardware")
    saved = load_task(asked.checkpoint)
    data_cfg = data_of(cfg, saved)
    data, card = DataSettings.of(data_cfg), Card.from_dict(data_cfg["dataset"])
    manifest, leaks = tested_part(data_cfg, data, card, saved, asked, console)
    store = open_store_of(manifest, data)
    print_set_aside(console, store)
    parts = parts_of(manifest, store, open_task(saved.task).LABELS, (asked.part,))
    print_parts(console, parts)
    features = store_features(data, card.name) if saved.tuning == "frozen" else saved.folder.parent / "features"
    context = build_context(
        described(saved, card), saved.model.backbone, hardware, features, parts=parts, manifest=manifest
    )
    out = Path(asked.out) if asked.out else saved.folder.parent / "evaluation" / f"{card.name}-{asked.part}"
    head = saved.load_head(context)
    scores = open_task(saved.task).evaluate(context, head, parts[asked.part], out)
    draw_predictions(saved.task, context, head, parts[asked.part], out)
    facts = {
        **facts_of(saved, data, asked, manifest, leaks),
        "precision": context.features.precision,
        "set_aside": store.set_aside,
    }
    path = write_results(out, saved.task, scores, facts=facts)
    print_scores(console, scores, leak=leaks.stamp)
    print_comparison(console, saved, path)
    console.print(f"[bold]results[/bold]  {path}", soft_wrap=True, highlight=False)
    return 0


def tested_part(
    cfg: Mapping[str, Any],
    data: DataSettings,
    card: Card,
    saved: SavedTask,
    asked: EvaluateSettings,
    console: Console,
) -> tuple[Manifest, LeakReport]:
    """The videos to test on, and what the leak guard says of them.

    Raises:
        SurgdinoError: no such part, other classes, operations that the checkpoint has seen.
    """
    module = open_task(saved.task)
    manifest = split_manifest(cfg, data, module.LABELS, console)
    require_parts(manifest, split_name(data.split), (asked.part,))
    check_classes(module.classes(card, manifest, saved.settings), saved, card, console)
    tested = manifest.part(asked.part)
    report = find_leaks(seen_of(saved.model.info), tested, f"{card.name} {split_name(data.split)} {asked.part}")
    return tested, guard(report, asked.leakage or saved.config["leakage"], console)


def described(saved: SavedTask, card: Card) -> Described:
    """The saved task on a dataset."""
    return Described(
        task=saved.task,
        card=card,
        classes=saved.classes,
        settings=saved.settings,
        tuning=saved.tuning,
        preprocess=saved.model.preprocess,
        train=typed(TrainSettings, saved.config["train"], "train"),
    )


def data_of(cfg: Mapping[str, Any], saved: SavedTask) -> dict[str, Any]:
    """The run's configuration with what was said of the data in its place.

    Raises:
        SurgdinoError: another dataset, but not where it is or which split of it.
    """
    given = {key: value for key, value in cfg["data"].items() if value is not None}
    data = {**saved.config["data"]}
    card = cfg.get("dataset")
    if card is not None and card["name"] != saved.card.name:
        for key in ("root", "split"):
            if key not in given:
                raise SurgdinoError(
                    f"data.{key} is not set",
                    found=f"another dataset ({card['name']}) than the run's ({saved.card.name})",
                    fix=f"add data.{key}=...",
                )
        data |= {key: DataSettings.__dataclass_fields__[key].default for key in _OF_THE_DATASET}
    return {**saved.config, "dataset": card or saved.config["dataset"], "data": {**data, **given}}


def check_classes(found: tuple[str, ...], saved: SavedTask, card: Card, console: Console) -> None:
    """Another dataset must have as many classes as the head; that they are spelled otherwise is said.

    Raises:
        SurgdinoError: it has others.
    """
    if len(found) != len(saved.classes):
        raise SurgdinoError(
            f"the head knows other classes than dataset={card.name}",
            file=saved.folder,
            expected=f"{len(saved.classes)} classes ({', '.join(saved.classes[:4])}, ...)",
            found=f"{len(found)} ({', '.join(found[:4])}, ...)",
            fix="evaluate it on a dataset with the same classes",
        )
    others = [f"{a} is {b}" for a, b in zip(saved.classes, found, strict=True) if a != b]
    if others:
        console.print(
            f"[yellow]![/yellow] classes are taken to be the same by their ids, though spelled otherwise: "
            f"{', '.join(others[:3])}{', ...' if len(others) > 3 else ''}",
            soft_wrap=True,
            highlight=False,
        )


def facts_of(
    saved: SavedTask,
    data: DataSettings,
    asked: EvaluateSettings,
    manifest: Manifest,
    leaks: LeakReport,
) -> dict[str, Any]:
    """What stands in results.json beside the numbers."""
    info = saved.model.info
    return {
        "dataset": manifest.dataset,
        "split": data.split,
        "part": asked.part,
        "backbone": saved.tuning,
        "checkpoint": saved.folder,
        "started_from": info.get("started_from"),
        "seed": info.get("seed"),
        "image_size": saved.model.preprocess.image_size,
        "settings": asdict(saved.settings),
        "stages": info.get("stages"),
        "leakage": leaks.as_dict(),
        "environment": environment(manifest.fingerprint()),
    }


def print_comparison(console: Console, saved: SavedTask, path: Path) -> None:
    """Say whether the numbers are those that the run wrote down, where it tested the same."""
    before = saved.folder.parent / RESULTS
    if not before.is_file() or before == path:
        return
    then, now = (json.loads(file.read_text(encoding="utf-8")) for file in (before, path))
    if any(then.get(key) != now[key] for key in ("dataset", "split", "part", "checkpoint")):
        return
    differing = [row["name"] for row, again in zip(then["scores"], now["scores"], strict=False) if row != again]
    told = f"differ from {before}: {', '.join(differing[:5])}" if differing else f"are those of {before}"
    console.print(f"all numbers {told}" if not differing else f"[yellow]![/yellow] numbers {told}", soft_wrap=True)
