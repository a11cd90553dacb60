"""Action triplets: which of the 100 <instrument, verb, target> a frame shows, and each of the three by itself.

Four multi-label heads over the class token and the patches: one for the triplets (IVT) and one each for instruments,
verbs and targets (I, V, T). A triplet's score combines its own head with those of its parts; the parts are judged both
ways, as the maximum over the triplets and by their own heads, under names that say which.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from surgdino.datasets.card import Card
from surgdino.datasets.manifest import Manifest
from surgdino.errors import SurgdinoError
from surgdino.metrics.triplet import score_triplets
from surgdino.tasks.context import TaskContext
from surgdino.tasks.labelled_frames import LabelledFrames
from surgdino.tasks.scoring.panels import TaskScores, score_task
from surgdino.tasks.training.settings import resolve
from surgdino.tasks.training.stage import Stage
from surgdino.tasks.triplet.components import PARTS, combined_scores, component_targets, triplet_map_of
from surgdino.tasks.triplet.files import write_triplets
from surgdino.tasks.triplet.head import PooledLinear
from surgdino.tasks.triplet.settings import MultilabelSettings
from surgdino.tasks.triplet.training import Probabilities, multilabel_stage, predict_probabilities

LABELS = "triplet"
DEFAULTS = {"epochs": 30, "batch_size": 64, "lr": 1e-3, "weight_decay": 0.05, "clip": 3.0, "patience": 5}
_TUNED = {"epochs": 10, "lr": 5e-4, "drop_path": 0.1}


@dataclass(frozen=True)
class Settings(MultilabelSettings):
    """The `task` section.

    Attributes:
        component_loss: factor on the losses of the heads of I, V and T; that of the triplets counts 1.
        component_weight: how much those heads count in a triplet's score, see `components.combined_scores`.
    """

    name: str = "triplet"
    component_loss: float = 1.0
    component_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("component_loss", "component_weight"):
            if getattr(self, key) < 0:
                found = getattr(self, key)
                raise SurgdinoError("unusable setting", place=f"task.{key}", expected="0 or more", found=found)


def classes(card: Card, manifest: Manifest | None, settings: Settings) -> tuple[str, ...]:
    """The card's triplets as `instrument,verb,target`, in the order of their ids.

    Raises:
        SurgdinoError: the dataset has none.
    """
    if not card.triplets:
        fix = "use dataset=cholect50 or dataset=cholect45, or another task"
        raise SurgdinoError(f"dataset={card.name} has no triplets", place=card.name, fix=fix)
    return card.triplets


def build_head(context: TaskContext) -> PooledLinear:
    """The four heads, freshly initialised."""
    settings: Settings = context.settings
    settings.check_width(context.width)
    mapping = triplet_map_of(context.card)
    counts = {name: len(mapping.classes(name)) for name in (*PARTS, "IVT")}
    return PooledLinear(context.width, counts, settings.pool_heads, settings.dropout)


def stages(context: TaskContext, head: PooledLinear) -> Iterator[Stage]:
    """One stage: all heads together, and the backbone where it learns."""
    settings: Settings = context.settings
    mapping = triplet_map_of(context.card)
    defaults = _TUNED if context.learns else {}
    train = np.concatenate(list(context.parts["train"].truths().values()))

    def judge(frames: LabelledFrames, probabilities: Probabilities) -> dict[str, float]:
        """Video-wise AP, that of the triplets first."""
        scores = combined_scores(probabilities, mapping, settings.component_weight)
        by_video = {video: scores[frames.span(place)] for place, video in enumerate(frames.videos)}
        found = score_triplets(frames.truths(), by_video, mapping).mean_ap
        return {f"AP_{name}": found[name] for name in ("IVT", *PARTS)}

    yield multilabel_stage(
        context,
        head,
        component_targets(train, mapping),
        rare="IVT",
        judge=judge,
        defaults=defaults,
        layer_decay=resolve(context.train, DEFAULTS, defaults, overrides={}).layer_decay,
        loss_weights=dict.fromkeys(PARTS, settings.component_loss),
    )


def predict(
    context: TaskContext, head: PooledLinear, frames: LabelledFrames
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """(video, scores) one video at a time: `IVT` combined float32 [n, 100], and what the heads of I, V and T say."""
    mapping = triplet_map_of(context.card)
    for video, found in predict_probabilities(context, head, frames):
        yield video, {**found, "IVT": combined_scores(found, mapping, context.settings.component_weight)}


def evaluate(context: TaskContext, head: PooledLinear, frames: LabelledFrames, folder: Path) -> TaskScores:
    """Every protocol's numbers; the scores themselves go to `predictions/` in `folder`, one CSV a video."""
    numbers = frames.numbers_of()
    scores: dict[str, np.ndarray] = {}
    heads: dict[str, dict[str, np.ndarray]] = {part: {} for part in PARTS}
    for video, found in predict(context, head, frames):
        scores[video] = found["IVT"]
        for part in PARTS:
            heads[part][video] = found[part]
        write_triplets(folder / "predictions", video, numbers[video], found["IVT"], {p: found[p] for p in PARTS})
    return score_task(
        "triplet",
        frames.truths(),
        scores,
        classes=context.classes,
        operations=frames.operations,
        protocol="all",
        mapping=triplet_map_of(context.card),
        heads=heads,
    )
