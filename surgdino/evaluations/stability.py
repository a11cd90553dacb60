"""How far features have moved from those of the first backbone: CKA, and nearest neighbours that are kept"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from surgdino.engine.probes.drift import linear_cka
from surgdino.engine.probes.effective_rank import effective_rank
from surgdino.evaluations.parts.evaluation import Evaluation
from surgdino.evaluations.parts.given import Given
from surgdino.evaluations.parts.outcome import Outcome


@dataclass(frozen=True)
class StabilitySettings:
    """What is compared.

    Attributes:
        frames: at most so many, evenly over the operations.
        neighbours: of each frame.
    """

    frames: Annotated[int, Field(ge=8, le=20_000)]
    neighbours: Annotated[int, Field(ge=1, le=1000)]


class Stability(Evaluation[StabilitySettings]):
    """Descriptions, no merits: to adapt is to move. Of the first backbone itself all but the rank are 100 %."""

    Settings = StabilitySettings
    compares: ClassVar = True

    def labels(self) -> tuple[None]:
        return (None,)

    def outcomes(self, given: Given) -> Iterator[Outcome]:
        rows = given.sample(self.settings.frames)
        own, first = given.tokens()[rows], given.tokens(cache=given.first)[rows]
        yield Outcome("likeness of class tokens (CKA)", linear_cka(own, first), better=None)
        kept = neighbours_kept(own, first, min(self.settings.neighbours, len(rows) - 1))
        yield Outcome.mean("nearest neighbours kept", given.by_operation(rows, kept), None)
        yield Outcome("effective rank", float(effective_rank(own)), better=None, percent=False)


def neighbours_kept(own: Tensor, other: Tensor, count: int) -> np.ndarray:
    """float64 [n]: of each frame's `count` nearest other frames by cosine, the share that both features name."""
    found = []
    for features in (own, other):
        unit = F.normalize(features, dim=-1)
        likeness = unit @ unit.T
        likeness.fill_diagonal_(-torch.inf)
        found.append(torch.zeros_like(likeness, dtype=torch.bool).scatter_(1, likeness.topk(count).indices, True))
    return (found[0] & found[1]).sum(1).cpu().numpy() / count
