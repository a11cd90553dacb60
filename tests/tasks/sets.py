"""A small synthetic set for every task, and the words that fine-tune a toy backbone on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from surgdino.datasets.synthetic.cholec80 import write_cholec80
from surgdino.datasets.synthetic.cholect50 import write_cholect50
from surgdino.datasets.synthetic.questions import write_questions
from tests.datasets.mask_sets import write_pairs
from tests.datasets.object_sets import write_objects

SPLIT = "data.split={train: [1, 2], val: [3], test: [4]}"


@dataclass(frozen=True)
class TaskSet:
    """How a task's set is written, and which words name it."""

    write: Callable[[Path], object]
    words: tuple[str, ...]


def _cholec80(root: Path) -> None:
    write_cholec80(root, videos=4, seconds=12, size=(160, 96), seed=0, public_ids=True)


def _cholect50(root: Path) -> None:
    write_cholect50(root, (1, 2, 4, 5), frames=24, public_ids=True)


def _pairs(root: Path) -> None:
    write_pairs(root, images=24)


def _objects(root: Path) -> None:
    write_objects(root, images=24)


def _questions(root: Path) -> None:
    write_questions(root, "pitvqa", videos=4, frames=16)


SETS = {
    "phase": TaskSet(_cholec80, ("dataset=cholec80", "data.fps=2", SPLIT)),
    "tools": TaskSet(_cholec80, ("dataset=cholec80", "data.fps=1", SPLIT)),
    "triplet": TaskSet(_cholect50, ("dataset=cholect50", "data.split={train: [1, 2], val: [4], test: [5]}")),
    "instances": TaskSet(_objects, ("dataset=folder", "data.split={val: every 5th, test: every 4th, train: rest}")),
    "vqa": TaskSet(_questions, ("dataset=pitvqa", SPLIT)),
    "segmentation": TaskSet(_pairs, ("dataset=folder", "data.split={val: every 5th, test: every 4th, train: rest}")),
}


def set_of(task: str) -> TaskSet:
    """A task's own set, or the one that has most kinds of labels."""
    return SETS.get(task, SETS["phase"])


SMALL = ("model=vit_toy", "image_size=32", "data.short_side=96", "data.workers=1", "hardware.loader_workers=0")
FP32 = ("hardware.precision=fp32",)  # numbers are compared; the tests of bf16 say so
QUICK = ("train.batch_size=8", "train.steps=30", "train.log_every=5", "train.validate_every=10", "train.lr=0.01")


def words_of(task: str, root: Path, run: Path, *more: str) -> list[str]:
    """The command without `surgdino`; of two words that set the same, the later one is kept."""
    place = (f"data.root={root}", f"data.store={root.parent / 'store'}", f"run.dir={run}")
    words = (f"task={task}", *set_of(task).words, *SMALL, *FP32, *QUICK, *place, *more)
    named = {word.partition("=")[0]: word for word in words}
    if named["task"] == "task=phase":
        named.setdefault("task.temporal", "task.temporal=tcn")  # one model, not the choice among several
    return ["finetune", *named.values()]
