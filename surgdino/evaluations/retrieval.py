"""Retrieval of frames by frames: the same moment, or the same phase, tools or triplets in other operations"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch.nn.functional as F
from pydantic import Field

from surgdino.config import Names
from surgdino.errors import SurgdinoError
from surgdino.evaluations.parts.evaluation import Evaluation
from surgdino.evaluations.parts.given import Given
from surgdino.evaluations.parts.outcome import Better, Outcome
from surgdino.metrics.arrays import nanmean
from surgdino.metrics.retrieval import ranking

NEAR, FAR, AWAY = 5.0, 30.0, 60.0  # seconds: the same moment, another one, another part of the operation
_QUERIES = 512  # that are ranked at a time


@dataclass(frozen=True)
class RetrievalSettings:
    """What is looked for.

    Attributes:
        find: `moment` (frames of the operation within 5 s; those up to 30 s away are junk), `label` (the same class, or
            just the same classes, in other operations; the own one is junk), or `operation` (frames of the own
            operation more than 60 s away, nearer ones are junk).
        labels: kinds for `label`, each by itself.
        frames: at most so many are queries and gallery, evenly over the operations.
        ks: of recall.
    """

    find: Literal["moment", "label", "operation"]
    labels: Names
    frames: Annotated[int, Field(ge=2, le=20_000)]
    ks: Annotated[tuple[Annotated[int, Field(ge=1, le=10_000)], ...], Field(min_length=1, max_length=10)]

    def __post_init__(self) -> None:
        if (self.find == "label") != bool(self.labels):
            expected = "labels with find: label, and none with the others"
            raise SurgdinoError("labels cannot be used", expected=expected, found=f"find: {self.find}")


class Retrieval(Evaluation[RetrievalSettings]):
    """Mean average precision and recall by the class tokens' cosine, over an operation's queries, then over operations.

    Recall at k is the share of queries with a positive among the first k. To find the own operation is no merit: it
    tells how much of the features is the patient and the theatre.
    """

    Settings = RetrievalSettings

    def labels(self) -> tuple[str | None, ...]:
        return self.settings.labels or (None,)

    def outcomes(self, given: Given) -> Iterator[Outcome]:
        rows = given.sample(self.settings.frames)
        unit = F.normalize(given.tokens()[rows], dim=-1)
        ks = self.settings.ks
        found = np.full((len(rows), 2 + len(ks)), np.nan)
        for start in range(0, len(rows), _QUERIES):
            part = slice(start, min(start + _QUERIES, len(rows)))
            positive, junk = self._told(given, rows, rows[part])
            ranks = ranking((unit[part] @ unit.T).cpu().numpy(), positive, junk, ks)
            found[part] = np.column_stack([ranks.average_precision, ranks.recall, ranks.chance])
        better: Better = "lower" if self.settings.find == "operation" else "higher"
        by_chance = f"{100 * float(nanmean(found[:, -1])):.1f} % of the gallery"
        names = [f"mean average precision ({by_chance} would do)", *(f"recall at {k}" for k in ks)]
        for column, name in enumerate(names if not np.isnan(found).all() else ()):  # else there is nothing to find
            yield Outcome.mean(name, given.by_operation(rows, found[:, column]), better)

    def _told(self, given: Given, gallery: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What is positive and what is junk, bool [queries, gallery]."""
        same = given.operations[queries][:, None] == given.operations[gallery]
        itself = queries[:, None] == gallery
        if self.settings.find == "label":
            values = given.frames.targets
            assert values is not None
            kind = np.unique(values.reshape(len(values), -1), axis=0, return_inverse=True)[1].reshape(-1)
            return (kind[queries][:, None] == kind[gallery]) & ~same, same
        times, videos = given.frames.times, given.frames.video_of
        recording = videos[queries][:, None] == videos[gallery]
        apart = np.where(recording, np.abs(times[queries][:, None] - times[gallery]), np.inf)
        if self.settings.find == "moment":
            near = apart <= NEAR
            return near & ~itself, itself | (same & (apart <= FAR) & ~near)
        return same & (apart > AWAY), same & (apart <= AWAY)
