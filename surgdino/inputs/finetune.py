"""What a fine-tuning begins with: its configuration, everything checked, and what the backbone has seen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from surgdino.backbone.preprocess import Preprocess
from surgdino.crops.augment.build import build_augment
from surgdino.crops.augment.settings import VIEWS
from surgdino.datasets.card import Card
from surgdino.datasets.manifest import Manifest
from surgdino.frames.store import FrameStore
from surgdino.inputs.backbone import StartingBackbone, starting_backbone
from surgdino.inputs.configs import FinetuneConfig
from surgdino.inputs.labelled import require_parts, split_manifest, split_name
from surgdino.paths import safe_name
from surgdino.runs.folder import ANYWHERE, names_mode
from surgdino.runs.history import CHOSEN, TRAINED, History, Seen
from surgdino.runs.leaks import LeakReport, find_leaks, refuse_named
from surgdino.runs.names import Pseudonyms
from surgdino.tasks.task import Task, open_task
from surgdino.tasks.training.tuning import select

# A continued run may change these: where things are and how fast they go.
FREE = (*ANYWHERE, *("model.weights", "model.drop_path", "checkpoint", "train.checkpoint_every", "train.log_every"))


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
    select(start.backbone, config.backbone, config.train)
    parts_of_name = ("finetune", task.name, card.name, start.model.name, config.backbone)
    # The same command continues in the same folder.
    folder = config.run.dir or Path("runs") / safe_name("-".join(parts_of_name))
    names = Pseudonyms.open(names_mode(folder, config.run.names), data.store)
    manifest = split_manifest(card, data, task.LABELS, names)
    require_parts(manifest, data, ("train", "test"))
    classes, task = task.classes(card, manifest), task.prepared(card, manifest)
    tested_on = f"{card.name} {split_name(data, names)} test"
    refuse_named(History.of(start.info), manifest.part("test"), tested_on, names, config.leakage)
    preprocess = start.preprocess(config.image_size)
    return Checked(config, folder, task, card, classes, manifest, names, start, preprocess, tested_on)


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
