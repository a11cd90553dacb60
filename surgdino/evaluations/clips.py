"""Whole clips classified by a linear probe of their frames' tokens, averaged or beside each other: surgical actions"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from surgdino.config import Names
from surgdino.engine.probing.folds import fold_scores, linear
from surgdino.evaluations.parts.evaluation import Evaluation
from surgdino.evaluations.parts.given import Given
from surgdino.evaluations.parts.outcome import Outcome
from surgdino.evaluations.parts.ranked import accuracy, class_ids, over, ranks


@dataclass(frozen=True)
class ClipsSettings:
    """What of a clip is given to the probe.

    Attributes:
        labels: kinds that it is tried with, each by itself; a clip has the label of its first frame.
        frames: of a clip, evenly from its first to its last stored one.
        join: their tokens are averaged, or put beside each other in the order of time, which tells motions apart.
        tokens: of a frame.
    """

    labels: Names
    frames: Annotated[int, Field(ge=1, le=64)]
    join: Literal["average", "concatenate"]
    tokens: Literal["class", "class+mean"]


class Clips(Evaluation[ClipsSettings]):
    """Accuracy over clips: top-1, balanced accuracy, and of more than five classes top-5. Without operations that have
    several clips, clips count as independent and the numbers say so.

    The probe is the same ridge regression as that of single frames.
    """

    Settings = ClipsSettings

    def labels(self) -> tuple[str, ...]:
        return self.settings.labels

    def outcomes(self, given: Given) -> Iterator[Outcome]:
        tokens, video_of = self._of_clips(given), given.frames.video_of
        first, count = given.frames.starts[:-1], len(given.classes)
        truth = class_ids(given)[first]
        pairs = ((np.unique(video_of[train]), np.unique(video_of[test])) for train, test in given.folds())
        scores = fold_scores(linear, tokens, truth, count, pairs)
        tested = np.flatnonzero(~np.isnan(scores[:, 0]))
        rank = ranks(scores[tested], truth[tested])
        yield from over(given, first[tested], accuracy(truth[tested], rank, count), "clips")

    def _of_clips(self, given: Given) -> Tensor:
        """[clips, D], or [clips, frames * D] beside each other; a clip of fewer frames gives some twice."""
        tokens, starts = given.tokens(self.settings.tokens), given.frames.starts
        places = [np.linspace(a, b - 1, self.settings.frames).round() for a, b in pairwise(starts)]
        chosen = tokens[torch.from_numpy(np.stack(places).astype(np.int64)).to(tokens.device)]
        return chosen.mean(1) if self.settings.join == "average" else chosen.flatten(1)
