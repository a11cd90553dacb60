"""Action triplets: which of the 100 <instrument, verb, target> a frame shows, and each of the three by itself.

Four multi-label heads over the class token and the patches: one for the triplets (IVT) and one each for instruments,
verbs and targets (I, V, T). A triplet's score combines its own head with those of its parts; the parts are judged both
ways, as the maximum over the triplets and by their own heads, under names that say which.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from torch import Tensor, nn

from surgdino.csv_files import write_csv
from surgdino.datasets.card import Card
from surgdino.datasets.manifest import Manifest
from surgdino.errors import SurgdinoError
from surgdino.exports.graph import Graph
from surgdino.metrics.scores import ScoreRequest, TaskScores
from surgdino.paths import file_of
from surgdino.report.score_strips import ScoreStrips, draw_score_strips
from surgdino.tasks.context import TaskContext
from surgdino.tasks.labelled_frames import LabelledFrames
from surgdino.tasks.prediction import SeveralClasses
from surgdino.tasks.request import PredictRequest
from surgdino.tasks.scoring.frames import ranked
from surgdino.tasks.task import Task
from surgdino.tasks.training.stage import Stage
from surgdino.tasks.triplet.components import PARTS, combined_scores, names_of, part_of, triplet_map_of
from surgdino.tasks.triplet.files import TOP, write_triplets
from surgdino.tasks.triplet.head import PooledLinear, QueryDecoder, TripletHead
from surgdino.tasks.triplet.program import TripletProgram
from surgdino.tasks.triplet.score import TripletScoring
from surgdino.tasks.triplet.settings import TripletSettings
from surgdino.tasks.triplet.training import (
    Probabilities,
    heads_stage,
    predict_probabilities,
    soft_labels,
)

_LISTED = 5  # triplets a frame in the list


@dataclass(frozen=True, repr=False)
class Triplets(SeveralClasses):
    """Attributes:
    scores: `IVT` as in `probabilities`, and what the heads of `I`, `V` and `T` say, float32 [n, ...].
    parts: the names of instruments `I`, verbs `V` and targets `T`.
    """

    scores: Probabilities
    parts: Mapping[str, tuple[str, ...]]


class TripletTask(Task[TripletSettings, Probabilities]):
    """What is predicted of a video: `IVT`, combined float32 [n, 100], and what the heads of I, V and T say."""

    Settings, LABELS = TripletSettings, "triplet"
    PICTURE = "Right where the highest triplet is there."
    DEFAULTS: ClassVar = {"epochs": 30, "batch_size": 64, "lr": 1e-3, "weight_decay": 0.05, "clip": 3.0, "patience": 5}
    scoring = TripletScoring()

    def classes(self, card: Card, manifest: Manifest) -> tuple[str, ...]:
        """The card's triplets as `instrument,verb,target`, in the order of their ids."""
        if not card.triplets:
            fix = "use dataset=cholect50 or dataset=cholect45, or another task"
            raise SurgdinoError(f"dataset={card.name} has no triplets", place=card.name, fix=fix)
        return card.triplets

    def build_head(self, context: TaskContext) -> TripletHead:
        """The four heads."""
        settings, mapping = self.settings, triplet_map_of(context.card)
        counts = {name: len(mapping.classes(name)) for name in (*PARTS, "IVT")}
        if settings.head == "pooled":
            return PooledLinear(context.width, counts, settings.pool_heads, settings.dropout, settings.frames)
        return QueryDecoder(
            context.width,
            counts,
            {part: part_of(part, mapping) for part in PARTS},
            layers=settings.decoder_layers,
            hidden=settings.decoder_width,
            heads=settings.pool_heads,
            dropout=settings.dropout,
            seen=settings.frames,
        )

    def stages(self, context: TaskContext, head: nn.Module) -> Iterator[Stage]:
        """One stage: all heads together, and the backbone where it learns; with soft labels a second one, anew."""
        assert isinstance(head, TripletHead)
        yield heads_stage(context, self.settings, head, self.DEFAULTS)
        if self.settings.soft_labels:
            soft = soft_labels(context, self.settings, head)
            head.load_state_dict(self.build_head(context).to(context.device).state_dict())
            yield heads_stage(context, self.settings, head, self.DEFAULTS, soft)

    def predict(
        self, context: TaskContext, head: nn.Module, frames: LabelledFrames
    ) -> Iterator[tuple[str, Probabilities]]:
        """One video at a time; nothing is kept on disk."""
        assert isinstance(head, TripletHead)
        mapping = triplet_map_of(context.card)
        for video, found in predict_probabilities(context, self.settings, head, frames):
            yield video, {**found, "IVT": combined_scores(found, mapping, self.settings.component_weight)}

    def graphs(self, context: TaskContext, head: nn.Module) -> tuple[Graph, ...]:
        """`IVT`, the combined scores of the triplets, and what the heads of their parts say."""
        assert isinstance(head, TripletHead)
        card, mapping = context.card, triplet_map_of(context.card)
        names = dict(zip(PARTS, (card.instruments, card.verbs, card.targets), strict=True))
        classes = {"IVT": context.classes}
        classes |= {part: tuple(names[part][k] for k in mapping.classes(part)) for part in PARTS}
        meaning = {"IVT": "of the triplets", "I": "of instruments", "V": "of verbs", "T": "of targets"}
        outputs = {name: f"[B, {len(of)}], scores {meaning[name]}" for name, of in classes.items()}
        program = TripletProgram(context.backbone, head, mapping, self.settings)
        taking, seen = "[B, 3, S, S], normalised pictures", self.settings.frames
        if seen > 1:
            taking += f": frames of one video in order, from its first; each sees the {seen - 1} before it"
        shape, order = context.shape, seen > 1
        return (Graph("model", program, shape, outputs, taking=taking, classes=classes, in_order=order),)

    def said(
        self, context: TaskContext, head: nn.Module, frames: LabelledFrames, images: Tensor
    ) -> Mapping[str, np.ndarray]:
        """All four."""
        return next(found for _, found in self.predict(context, head, frames))

    def scores(
        self, context: TaskContext, frames: LabelledFrames, predictions: Mapping[str, Probabilities]
    ) -> TaskScores:
        """Every protocol's numbers."""
        request = ScoreRequest(
            frames.truths(),
            {video: found["IVT"] for video, found in predictions.items()},
            context.classes,
            frames.operations,
            protocol="all",
            mapping=triplet_map_of(context.card),
            heads={part: {video: found[part] for video, found in predictions.items()} for part in PARTS},
        )
        frames_of = ranked(request.truths, request.predictions, frames.numbers_of(), context.classes)
        return replace(self.scoring.scores(request), frames=frames_of)

    def write_predictions(
        self, folder: Path, video: str, numbers: np.ndarray, prediction: Probabilities, classes: Sequence[str]
    ) -> Path:
        """A CSV of all scores."""
        heads = {part: prediction[part] for part in PARTS}
        return write_triplets(folder, video, numbers, prediction["IVT"], heads)

    def prediction(self, request: PredictRequest) -> Triplets:
        """All scores."""
        [(_, found)] = self.predicted(request.context, request.head, request.frames)
        mapping = triplet_map_of(request.context.card)
        parts = {part: names_of(part, mapping, request.context.classes) for part in PARTS}
        return Triplets.of(request, self.name, probabilities=found["IVT"], scores=found, parts=parts)

    def write(self, request: PredictRequest) -> dict[str, Path]:
        """A table of all scores, the highest by name, and the highest in time."""
        frames, name, classes = request.frames, request.source.name, request.context.classes
        found = self.prediction(request).scores
        known = request.labels()
        truth = None if known is None else np.where(known[0][:, None], known[1].astype(np.int64), -1)
        strips = ScoreStrips(name, frames.times, classes, found["IVT"], truth, request.caption)
        return {
            "scores": self.write_predictions(request.folder, name, frames.numbers, found, classes),
            "list": _write_list(file_of(request.folder, name, f"{TOP}.csv"), strips, frames.numbers),
            "picture": draw_score_strips(strips, file_of(request.folder, name, ".png")),
        }


def _write_list(path: Path, strips: ScoreStrips, numbers: np.ndarray) -> Path:
    """A CSV with the highest triplets of every frame: its number, seconds, then name and score of each."""
    columns = [f"{what}{k}" for k in range(1, _LISTED + 1) for what in ("triplet", "score")]

    def rows() -> Iterator[list[object]]:
        for i, number in enumerate(numbers.tolist()):
            top = np.argsort(-strips.scores[i], kind="stable")[:_LISTED]
            listed = [cell for k in top for cell in (strips.classes[k], f"{strips.scores[i, k]:.5f}")]
            yield [number, f"{strips.times[i]:.3f}", *listed]

    return write_csv(path, ["frame", "seconds", *columns], rows())
