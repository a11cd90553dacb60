"""A trained task as a folder: the backbone's checkpoint, `head.safetensors`, and `task.json` that says what it is.

The folder is all that `evaluate` and `predict` need: `task.json` holds the settings, the classes, the card and the
split. The same text stands in the header of the head's file, and with it the hash of the backbone that the head belongs
to, so that files of different moments are noticed instead of used together.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn

from surgdino.backbone.checkpoint import LoadedBackbone, load, save_backbone, save_tensors
from surgdino.backbone.low_rank import merged
from surgdino.backbone.model_json import find_weights
from surgdino.backbone.tensor_files import check_tensors, differences, header_of, read_tensors, shapes_of
from surgdino.config import PositiveInt, shipped, shipped_settings
from surgdino.datasets.card import Card
from surgdino.datasets.class_names import class_finder, corrected, from_one
from surgdino.datasets.manifest import Manifest
from surgdino.engine.settings import HardwareSettings
from surgdino.errors import SurgdinoError, first_of, nearest, shown
from surgdino.paths import atomic_write, write_text
from surgdino.records import checked, parse_json
from surgdino.tasks import task_names
from surgdino.tasks.context import TaskContext, build_context
from surgdino.tasks.features.cache import weights_hash
from surgdino.tasks.labelled_frames import LabelledFrames, labels_of
from surgdino.tasks.settings import HeadTraining, Tuning
from surgdino.tasks.task import Task, open_task

FORMAT = 1
HEAD, TASK_JSON = "head.safetensors", "task.json"
_HEADER = "surgdino_task"
_SHOWN = 10  # classes in a message
_AGAIN = "run the finetune command again, or copy it again"
Name = Annotated[str, Field(min_length=1, max_length=1000)]


@dataclass(frozen=True)
class SavedConfig:
    """Of a run's configuration, what its checkpoint is used with; each section is checked by those who read it."""

    data: dict[str, Any]
    train: dict[str, Any]
    leakage: Literal["refuse", "allow"] = "refuse"
    run: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskJson:
    """The fields of task.json; `settings`, `card` and `config` are checked further by the task and the card."""

    format: PositiveInt
    task: Name
    settings: dict[str, Any]
    classes: Annotated[tuple[Name, ...], Field(min_length=1, max_length=10_000)]
    card: dict[str, Any]
    config: SavedConfig
    tuning: Tuning
    backbone_sha256: Name


@dataclass(frozen=True)
class SavedTask:
    """A trained task as it lies in a folder; `load_task` reads it.

    Attributes:
        folder: the checkpoint folder.
        task: with the settings that it was trained with.
        classes: names in the order of their ids.
        card: of the dataset that it was trained on.
        config: the configuration of the run.
        tuning: how much of the backbone had learned.
        model: backbone and preprocessing; `model.info` is model.json, with the operations that it has seen.
    """

    folder: Path
    task: Task[Any, Any]
    classes: tuple[str, ...]
    card: Card
    config: SavedConfig
    tuning: Tuning
    model: LoadedBackbone

    def context(
        self,
        hardware: HardwareSettings,
        features: Path,
        card: Card | None = None,
        parts: Mapping[str, LabelledFrames] | None = None,
        **where: Any,
    ) -> TaskContext:
        """What the task is asked with; on another dataset's `card` where one is given, with the head's classes.

        `where` goes to `build_context`.
        """
        with _said_by(self.folder / TASK_JSON):
            train = shipped(HeadTraining, "finetune", "train", **self.config.train)
        return build_context(
            self.model.backbone,
            hardware,
            features,
            preprocess=self.model.preprocess,
            card=self.card if card is None else replace(self.card, name=card.name),
            classes=self.classes,
            train=train,
            tuning=self.tuning,
            parts=parts or {},
            **where,
        )

    def joined(self, card: Card, manifest: Manifest) -> Manifest:
        """A manifest with the task's labels in the order and spelling of the head's classes: they meet by name.

        Args:
            card: of the manifest's dataset.

        Raises:
            SurgdinoError: the dataset has other classes; those that one of the two lacks are named.
        """
        found, labels = self.task.classes(card, manifest), labels_of(manifest, self.task.LABELS)
        if found == self.classes:
            return manifest
        joined = labels.in_classes(self.classes)
        if joined is None:
            known, here = class_finder(found), class_finder(self.classes)
            unknown = [name for name in found if here(name) is None]
            missing = [name for name in self.classes if known(name) is None]
            sides = {"unknown to the head": unknown, "missing in the dataset": missing}
            told = "; ".join(f"{side}: {first_of(names, _SHOWN)}" for side, names in sides.items() if names)
            fix = "choose a dataset with these classes; a folder that shows some of them is given all by dataset.phases"
            if from_one(found, len(self.classes)):
                fix = "the numbers seem to count from 1: count them from 0, or write names"
            raise SurgdinoError(
                f"dataset={card.name} has other classes than the head",
                file=self.folder,
                expected=f"its {len(self.classes)} classes, in any order",
                found=f"{len(found)}; {told}",
                fix=fix,
            )
        return replace(manifest, labels={**manifest.labels, labels.task: joined})

    def load_head(self, context: TaskContext) -> nn.Module:
        """The trained head, in evaluation mode on the context's device.

        Raises:
            SurgdinoError: the file is damaged, or holds another head than these settings make.
        """
        file = self.folder / HEAD
        # What the settings claim takes no memory before it is known to be in the file.
        with _said_by(self.folder / TASK_JSON), torch.device("meta"):
            found = differences(shapes_of(file, _AGAIN), self.task.build_head(context))
        if found:
            what = "the head is not the one that task.json describes"
            raise SurgdinoError(what, file=file, expected=self.task.name, found="; ".join(found[:3]))
        tensors = read_tensors(file, _AGAIN)
        head = self.task.build_head(context)
        counters = {name for name, own in head.state_dict().items() if not own.is_floating_point()}
        check_tensors({name: tensor for name, tensor in tensors.items() if name not in counters}, file)
        head.load_state_dict(tensors, strict=True)
        return head.to(context.device).eval()


def save_task(
    folder: Path,
    task: Task[Any, Any],
    context: TaskContext,
    head: nn.Module,
    *,
    model_json: Mapping[str, Any],
    config: Mapping[str, Any],
) -> Path:
    """Write backbone, head and what they are, each file whole or not at all.

    Args:
        folder: made where it does not exist.
        model_json: facts for model.json, `operations` and `chosen_on` among them.
        config: of the run, resolved.

    Raises:
        SurgdinoError: the file system refused.
    """
    weights = merged(context.backbone.vit.state_dict())
    save_backbone(folder, context.backbone, {**model_json, "image_size": context.image_size}, weights)
    facts = {
        "format": FORMAT,
        "task": task.name,
        "settings": asdict(task.settings),
        "classes": list(context.classes),
        "tuning": context.tuning,
        "backbone_sha256": weights_hash(weights),
        "card": dict(config["dataset"]),
        "config": dict(config),
    }
    text = json.dumps(facts, indent=2, ensure_ascii=False, default=str)
    with atomic_write(folder / HEAD) as temporary:
        save_tensors(head.state_dict(), temporary, {"format": "pt", _HEADER: text})
    write_text(folder / TASK_JSON, text + "\n")
    return folder


def load_task(path: str | Path) -> SavedTask:
    """What a run of `surgdino finetune` left: settings, classes and backbone; the head is built by `load_head`.

    Args:
        path: a run folder, or a checkpoint folder in it (`checkpoint`, `last`).

    Raises:
        SurgdinoError: nothing there, a backbone without a head, a damaged file, or files of different moments.
    """
    folder = find_weights(path).parent
    saved = _described(folder)
    file = folder / TASK_JSON
    if saved.task not in task_names():
        raise SurgdinoError(
            f"there is no task={shown(saved.task, 80)}", file=file, fix=nearest(saved.task, task_names())
        )
    settings = {**shipped_settings("task", saved.task), **saved.settings, "name": saved.task}
    with _said_by(file):
        task = open_task(settings)
    card = Card.from_dict(saved.card, file)
    model = load(folder)
    if weights_hash(model.backbone.vit.state_dict()) != saved.backbone_sha256:
        raise SurgdinoError(
            "the head was trained on another backbone than the one beside it",
            file=folder,
            fix="run the finetune command again to write both, or copy the whole folder again",
        )
    return SavedTask(
        folder=folder,
        task=task,
        classes=saved.classes,
        card=card,
        config=saved.config,
        tuning=saved.tuning,
        model=model,
    )


def _described(folder: Path) -> TaskJson:
    """What task.json says, taken from the header of the head's file."""
    file = folder / HEAD
    if not file.is_file():
        raise SurgdinoError(
            "a backbone without a task's head",
            file=folder,
            expected=HEAD,
            found="a checkpoint of pretraining",
            fix=f"train one: surgdino finetune task=... checkpoint={folder}",
        )
    facts = parse_json(header_of(file, _HEADER, _AGAIN) or "{}", file, _AGAIN)
    written_by = facts.get("format") if isinstance(facts, dict) else None
    if type(written_by) is int and written_by > FORMAT:
        raise SurgdinoError("written by a newer surgdino", file=file, expected=FORMAT, found=written_by, fix="update")
    saved = checked(TaskJson, facts, file, _AGAIN, more=True)
    saved = replace(saved, classes=tuple(map(corrected, saved.classes)))
    if len(set(saved.classes)) < len(saved.classes):
        raise SurgdinoError("classes cannot be used", file=file, expected="names that differ", fix=_AGAIN)
    return saved


@contextmanager
def _said_by(file: Path) -> Iterator[None]:
    """Whatever is refused in here comes from this file."""
    try:
        yield
    except SurgdinoError as error:
        raise error.but(file=error.file or file, fix=_AGAIN) from error
