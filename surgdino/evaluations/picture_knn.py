"""Whole pictures classified by their nearest ones, as DINO and DINOv2 do on ImageNet: top-1 and top-5"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from surgdino.config import Names
from surgdino.engine.probing.folds import TEMPERATURE, neighbours
from surgdino.evaluations.parts.evaluation import Evaluation
from surgdino.evaluations.parts.given import Given
from surgdino.evaluations.parts.outcome import Outcome
from surgdino.evaluations.parts.ranked import accuracy, class_ids, over, ranks


@dataclass(frozen=True)
class PictureKnnSettings:
    """Who votes.

    Attributes:
        labels: kinds that it is tried with, each by itself.
        neighbours: how many vote, each number by itself, weighted by exp(cosine / 0.07).
    """

    labels: Names
    neighbours: Annotated[tuple[Annotated[int, Field(ge=1, le=1000)], ...], Field(min_length=1, max_length=10)]


class PictureKnn(Evaluation[PictureKnnSettings]):
    """Accuracy over pictures by the class token: the right class first, or among the first five."""

    Settings = PictureKnnSettings

    def labels(self) -> tuple[str, ...]:
        return self.settings.labels

    def outcomes(self, given: Given) -> Iterator[Outcome]:
        tokens, truth, counts = given.tokens(), class_ids(given), sorted({*self.settings.neighbours})
        rows, found = list[np.ndarray](), {count: list[np.ndarray]() for count in counts}
        for train, test in given.folds():
            rows.append(test)
            known, done = torch.from_numpy(truth[train]).to(given.device), 0
            for cosines, nearest in neighbours(tokens[train], tokens[test], counts[-1]):
                some = truth[test[done : done + len(cosines)]]
                done += len(cosines)
                for count in counts:
                    weights = torch.softmax(cosines[:, :count] / TEMPERATURE, dim=1)
                    votes = weights.new_zeros(len(weights), len(given.classes))
                    votes.scatter_add_(1, known[nearest[:, :count]], weights)
                    found[count].append(ranks(votes.where(votes > 0, -torch.inf).cpu().numpy(), some))
        every = np.concatenate(rows)
        for count, each in found.items():
            statistic = accuracy(truth[every], np.concatenate(each), len(given.classes))
            for outcome in over(given, every, statistic, "pictures"):
                yield outcome.called(f"{count}-NN, {outcome.name}")
