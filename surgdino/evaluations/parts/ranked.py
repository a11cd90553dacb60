"""How high a classifier ranks the right class of pictures or clips: top-1 and top-5, and how sure these are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from surgdino.errors import SurgdinoError
from surgdino.evaluations.parts.given import Given
from surgdino.evaluations.parts.outcome import Outcome, pooled
from surgdino.metrics.scores import Statistic

_BLOCKS = 20  # of items that are left out in turn


def class_ids(given: Given) -> np.ndarray:
    """int64 [n], the class of each frame.

    Raises:
        SurgdinoError: a frame may have several.
    """
    if given.values.ndim > 1:
        raise SurgdinoError("a frame may have several of these labels", expected="one class each", found="many")
    return given.values


def ranks(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """int64 [n]: how many classes are above the right one; of equal ones the first is. All, where it has no score.

    Args:
        scores: [n, classes]; -inf or NaN is none.
        truth: int [n].
    """
    scores = np.nan_to_num(scores, nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    own = scores[np.arange(len(truth)), truth][:, None]
    before = (scores == own) & (np.arange(scores.shape[1]) < truth[:, None])
    return np.where(np.isneginf(own[:, 0]), scores.shape[1], ((scores > own) | before).sum(1))


def accuracy(truth: np.ndarray, rank: np.ndarray, classes: int) -> Statistic:
    """Rows -> top-1, its mean over the classes that there are, and of more than five classes top-5."""

    def statistic(rows: np.ndarray) -> Mapping[str, float]:
        hit, ids = rank[rows] < 1, truth[rows]
        counts, hits = np.bincount(ids, minlength=classes), np.bincount(ids, hit, minlength=classes)
        found = {
            "top-1": float(hit.mean()),
            "balanced accuracy": float((hits / counts.clip(1))[counts > 0].mean()),
        }
        return found | ({"top-5": float((rank[rows] < 5).mean())} if classes > 5 else {})

    return statistic


def over(given: Given, rows: np.ndarray, statistic: Statistic, items: str) -> Iterator[Outcome]:
    """Numbers of all items together, such as pictures, with what is left without each operation.

    Where operations say nothing (there is one, or each has one item) items count as independent: they are divided at
    random into 20 blocks, each is left out in turn, and the number's name says so.

    Args:
        rows: of the items, as places among the frames.
        statistic: of places in `rows`.
        items: what they are, such as `pictures`.
    """
    owners = given.operations[rows]
    if 1 < len(np.unique(owners)) < len(rows):
        yield from pooled(statistic, owners.tolist())
        return
    blocks = np.random.default_rng(0).permutation(len(rows)) % _BLOCKS
    for outcome in pooled(statistic, list(map(str, blocks))):
        yield replace(outcome.called(f"{outcome.name}, over {items}"), per_operation={})
