"""A trained task as a folder: the backbone's checkpoint, `head.safetensors`, and `task.json` that says what it is.

The folder is all that `evaluate` and `predict` need: `task.json` holds the settings, the classes, the card and the
split. The same text stands in the header of the head's file, and with it the hash of the backbone that the head belongs
to, so that files of different moments are noticed instead of used together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from surgdino.backbone.checkpoint import LoadedBackbone, find_weights, load, save_backbone, save_tensors
from surgdino.config import shipped, shipped_settings
from surgdino.datasets.card import Card
from surgdino.engine.settings import HardwareSettings
from surgdino.errors import SurgdinoError
from surgdino.paths import atomic_write
from surgdino.tasks.context import TaskContext, build_context
from surgdino.tasks.features.cache import weights_hash
from surgdino.tasks.labelled_frames import LabelledFrames
from surgdino.tasks.task import Task, open_task
from surgdino.tasks.training.stage import HeadTraining
from surgdino.tasks.training.tuning import Tuning

FORMAT = 1
HEAD, TASK_JSON = "head.safetensors", "task.json"
_HEADER = "surgdino_task"
_NEEDED = ("format", "task", "settings", "classes", "card", "config", "tuning", "backbone_sha256")


@dataclass(frozen=True)
class SavedTask:
    """A trained task as it lies in a folder; `load_task` reads it.

    Attributes:
        folder: the checkpoint folder.
        task: with the settings that it was trained with.
        classes: names in the order of their ids.
        card: of the dataset that it was trained on.
        config: the whole configuration of the run.
        tuning: how much of the backbone had learned.
        model: backbone and preprocessing; `model.info` is model.json, with the operations that it has seen.
    """

    folder: Path
    task: Task[Any, Any]
    classes: tuple[str, ...]
    card: Card
    config: Mapping[str, Any]
    tuning: Tuning
    model: LoadedBackbone

    def context(
        self,
        hardware: HardwareSettings,
        features: Path,
        card: Card | None = None,
        parts: Mapping[str, LabelledFrames] | None = None,
    ) -> TaskContext:
        """What the task is asked with; on another dataset's `card` where one is given."""
        return build_context(
            self.model.backbone,
            hardware,
            features,
            preprocess=self.model.preprocess,
            card=card or self.card,
            classes=self.classes,
            train=shipped(HeadTraining, "finetune", "train", **self.config["train"]),
            tuning=self.tuning,
            parts=parts or {},
        )

    def load_head(self, context: TaskContext) -> nn.Module:
        """The trained head, in evaluation mode on the context's device.

        Raises:
            SurgdinoError: the file is damaged, or holds another head than these settings make.
        """
        head = self.task.build_head(context)
        file = self.folder / HEAD
        try:
            head.load_state_dict(load_file(file), strict=True)
        except SafetensorError as error:
            raise _damaged(file, error) from error
        except RuntimeError as error:
            found = str(error).splitlines()[1].strip() if "\n" in str(error) else error
            raise SurgdinoError(
                "the head is not the one that task.json describes", file=file, expected=self.task.name, found=found
            ) from error
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
    save_backbone(folder, context.backbone, {**model_json, "image_size": context.image_size})
    facts = {
        "format": FORMAT,
        "task": task.name,
        "settings": asdict(task.settings),
        "classes": list(context.classes),
        "tuning": context.tuning,
        "backbone_sha256": weights_hash(context.backbone),
        "card": dict(config["dataset"]),
        "config": dict(config),
    }
    text = json.dumps(facts, indent=2, ensure_ascii=False, default=str)
    with atomic_write(folder / HEAD) as temporary:
        save_tensors(head.state_dict(), temporary, {"format": "pt", _HEADER: text})
    with atomic_write(folder / TASK_JSON) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return folder


def load_task(path: str | Path) -> SavedTask:
    """What a run of `surgdino finetune` left: settings, classes and backbone; the head is built by `load_head`.

    Args:
        path: a run folder, or a checkpoint folder in it (`checkpoint`, `last`).

    Raises:
        SurgdinoError: nothing there, a backbone without a head, a damaged file, or files of different moments.
    """
    folder = find_weights(path).parent
    facts = _read_facts(folder)
    model = load(folder)
    if weights_hash(model.backbone) != facts["backbone_sha256"]:
        raise SurgdinoError(
            "the head was trained on another backbone than the one beside it",
            file=folder,
            fix="run the finetune command again to write both, or copy the whole folder again",
        )
    return SavedTask(
        folder=folder,
        task=open_task({**shipped_settings("task", facts["task"]), **facts["settings"]}),
        classes=tuple(facts["classes"]),
        card=Card.from_dict(facts["card"], folder / TASK_JSON),
        config=facts["config"],
        tuning=facts["tuning"],
        model=model,
    )


def _read_facts(folder: Path) -> dict[str, Any]:
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
    try:
        with safe_open(file, framework="pt") as stream:
            text = (stream.metadata() or {}).get(_HEADER, "{}")
        facts = json.loads(text)
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(file, error) from error
    missing = [key for key in _NEEDED if key not in facts]
    if missing:
        raise SurgdinoError("incomplete", file=file, expected=", ".join(_NEEDED), found=f"no {', '.join(missing)}")
    if facts["format"] > FORMAT:
        found = facts["format"]
        raise SurgdinoError("written by a newer surgdino", file=file, expected=FORMAT, found=found, fix="update")
    return facts


def _damaged(file: Path, error: Exception) -> SurgdinoError:
    first = (str(error).splitlines() or [type(error).__name__])[0]
    return SurgdinoError("damaged", file=file, found=first, fix="run the finetune command again, or copy it again")
