"""Whole pictures by a linear classifier with DINOv2's grid of rates, chosen on training pictures: top-1 and top-5"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from surgdino.config import Names
from surgdino.errors import SurgdinoError
from surgdino.evaluations.parts.evaluation import Evaluation, Reading
from surgdino.evaluations.parts.given import Given
from surgdino.evaluations.parts.linear_grid import LAYERS, Choice, LinearGrid, Steps, grid
from surgdino.evaluations.parts.outcome import Outcome
from surgdino.evaluations.parts.ranked import accuracy, class_ids, over, ranks
from surgdino.tasks.features.cache import FeatureCache

_READ = 1 << 16  # pictures at a time
_EVERY = 10  # of the training pictures one, or of the operations, is kept to choose by


@dataclass(frozen=True)
class PictureLinearSettings:
    """How it is fitted.

    Attributes:
        labels: kinds that it is tried with, each by itself.
        epochs, steps: at most so many, whichever are fewer; DINOv2 takes 12,500 steps.
        batch: pictures of a step.
    """

    labels: Names
    epochs: Annotated[int, Field(ge=1, le=10_000)]
    steps: Annotated[int, Field(ge=1, le=1_000_000)]
    batch: Annotated[int, Field(ge=1, le=65_536)]


class PictureLinear(Evaluation[PictureLinearSettings]):
    """Accuracy over pictures: the right class first, or among the first five.

    Thirteen learning rates, the class token of the last block or of the last four, with the mean patch token or without
    it: the best on a tenth of the training pictures is then fitted to all of them.
    """

    Settings = PictureLinearSettings

    def labels(self) -> tuple[str, ...]:
        return self.settings.labels

    def reads(self, features: FeatureCache) -> list[Reading]:
        depth = features.backbone.depth
        return [Reading(features, classes=tuple(range(depth - min(LAYERS, depth), depth)))]

    def outcomes(self, given: Given) -> Iterator[Outcome]:
        truth, layers = torch.from_numpy(class_ids(given)), min(LAYERS, given.features.backbone.depth)
        width, tokens = given.features.backbone.embed_dim, torch.from_numpy(_tokens(given, layers))
        steps = Steps(self.settings.epochs, self.settings.steps, self.settings.batch)

        def fitted(choices: list[Choice], rows: np.ndarray) -> LinearGrid:
            found = LinearGrid(choices, width, layers, len(given.classes)).to(given.device)
            found.fit(tokens, truth, torch.from_numpy(rows), steps)
            return found

        tested, found, chosen = list[np.ndarray](), list[np.ndarray](), list[Choice]()
        for train, test in given.folds():
            taught, kept = _kept_apart(given, train)
            chosen.append(fitted(grid(layers), taught).best(tokens, truth, torch.from_numpy(kept)))
            scores = fitted(chosen[-1:], train).scores(tokens, torch.from_numpy(test))
            tested.append(test)
            found.append(ranks(scores, truth[test].numpy()))
        rows = np.concatenate(tested)
        statistic = accuracy(truth[rows].numpy(), np.concatenate(found), len(given.classes))
        yield from over(given, rows, statistic, "pictures")
        for name, values in (("rate", [each.rate for each in chosen]), ("layers", [each.layers for each in chosen])):
            yield Outcome(f"chosen on training pictures: {name}", float(np.mean(values)), better=None, percent=False)


def _tokens(given: Given, layers: int) -> np.ndarray:
    """float32 [n, D * (layers + 1)]: the class tokens of the last blocks, then the mean patch token."""
    cache, depth = given.features, given.features.backbone.depth
    classes, pooled = cache.classes(given.frames, range(depth - layers, depth)), cache.pooled_rows(given.frames)
    width = cache.backbone.embed_dim
    found = np.empty((len(given.frames), width * (layers + 1)), np.float32)
    for start in range(0, len(found), _READ):  # ImageNet's are held once
        some = slice(start, start + _READ)
        found[some, :-width], found[some, -width:] = classes[some], pooled[some][:, width:]
    return found


def _kept_apart(given: Given, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows to fit by, and rows to choose by: every tenth operation, or where there is one, every tenth picture of a
    class; the second of fewer.

    Raises:
        SurgdinoError: nothing is left of one of them.
    """
    owners, ids = given.operations[train], class_ids(given)[train]
    names, place = np.unique(owners, return_inverse=True)
    if len(names) > 1:
        kept = place % _EVERY == 1
    else:
        order = np.argsort(ids, kind="stable")
        starts = np.searchsorted(ids[order], ids[order])
        kept = np.empty(len(train), bool)
        kept[order] = (np.arange(len(train)) - starts) % _EVERY == 1
    if not kept.any() or kept.all():
        what, expected = "too few training pictures to choose a learning rate by", "two or more of some class"
        raise SurgdinoError(what, expected=expected, found=f"{len(train)} pictures of {len(np.unique(ids))} classes")
    return train[~kept], train[kept]
