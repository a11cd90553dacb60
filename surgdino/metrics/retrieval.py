"""Retrieval: how far up a ranking of a gallery the positives of a query stand, once its junk is taken out.

The average precision is that of the Oxford and Paris benchmarks (Philbin et al. 2007; Radenovic et al. 2018), by the
trapezoid rule: over the n positives in the order of their ranks r_j, counted from 0 as j is,
AP = 1/n sum_j (j / r_j + (j + 1) / (r_j + 1)) / 2, where j / r_j is 1 for r_j = 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from surgdino.errors import SurgdinoError


@dataclass(frozen=True)
class Ranking:
    """How q queries found their positives; NaN for a query that has none.

    Attributes:
        average_precision: float64 [q].
        recall: float64 [q, k]: 1 where a positive is among the first so many, else 0.
        precision: float64 [q, k]: the share of positives among the first so many.
        until_last: float64 [q, k]: the same of rankings that end with their last positive, as Radenovic et al. print
            mP@k: a query of three positives that are first, second and third has 1 at 10.
        chance: float64 [q]: the share of positives in the gallery, which a random ranking has as its precision.
    """

    average_precision: np.ndarray
    recall: np.ndarray
    precision: np.ndarray
    until_last: np.ndarray
    chance: np.ndarray


def ranking(similarity: np.ndarray, positive: np.ndarray, junk: np.ndarray, ks: Sequence[int]) -> Ranking:
    """Rank a gallery for every query, the most alike first; equal ones keep the gallery's order.

    Args:
        similarity: float [q, g], finite.
        positive: bool [q, g], what should be found.
        junk: bool [q, g], what is taken out of the ranking, such as the query itself; later ranks move up.
        ks: of recall and precision; of a shorter ranking all of it counts.

    Raises:
        SurgdinoError: shapes that differ, a value that is not finite, or what is positive and junk at once.
    """
    if not similarity.shape == positive.shape == junk.shape or similarity.ndim != 2:
        shapes = f"{list(similarity.shape)}, {list(positive.shape)}, {list(junk.shape)}"
        raise SurgdinoError("the rankings do not fit together", expected="[q, g] each", found=shapes)
    if not np.isfinite(similarity).all():
        raise SurgdinoError("a similarity is not finite", expected="finite numbers", found="NaN or infinity")
    if (positive & junk).any():
        raise SurgdinoError("a picture is positive and junk at once", expected="one of the two", found="both")
    # Junk behind everything, and out of the counts: what is before it keeps its order.
    order = np.argsort(np.where(junk, np.inf, -similarity), axis=1, kind="stable")
    found = np.take_along_axis(positive, order, 1)
    count, left = found.sum(1), (~junk).sum(1)
    hits = np.cumsum(found, 1)
    ranks = np.arange(found.shape[1])
    before = np.where(ranks > 0, (hits - 1) / np.maximum(ranks, 1), 1.0)
    area = np.where(found, (before + hits / (ranks + 1)) / 2, 0.0).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision_of = area / count
        chance = np.where(count > 0, count / left, np.nan)
    first = [np.minimum(k, left) for k in ks]
    among = np.stack([np.where(n > 0, hits[np.arange(len(hits)), np.maximum(n, 1) - 1], 0) for n in first], 1)
    last = (found * (ranks + 1)).max(1)
    ends = np.stack([np.minimum(k, np.maximum(last, 1)) for k in ks], 1)
    until_last = np.take_along_axis(hits, ends - 1, 1) / ends
    has = np.where(count > 0, 1.0, np.nan)[:, None]
    share = among / np.maximum(np.stack(first, 1), 1)
    return Ranking(precision_of, (among > 0) * has, share * has, until_last * has, chance)
