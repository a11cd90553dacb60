"""How rare classes are in the training frames, and what is done about it: weights, first guesses, repeated frames."""

from __future__ import annotations

import numpy as np


def positive_weights(targets: np.ndarray, cap: float) -> np.ndarray:
    """The square root of negatives per positive of each class, between 1 and `cap`, float32 [C].

    The full ratio would equal the two sides out, and drown everything else in the false alarms of a class seen in three
    frames; the root goes half the way. A class without a positive has weight 1, which nothing multiplies.

    Args:
        targets: 0/1 [n, C].
        cap: 1 or more; 1 weights nothing.
    """
    positives = targets.sum(0, dtype=np.float64)
    ratio = (len(targets) - positives) / np.maximum(positives, 1)
    return np.where(positives > 0, np.sqrt(ratio).clip(1, cap), 1).astype(np.float32)


def prior_logits(targets: np.ndarray) -> np.ndarray:
    """The logit of each class's share of the frames, float32 [C], half a frame added to either side."""
    share = (targets.sum(0, dtype=np.float64) + 0.5) / (len(targets) + 1)
    return np.log(share / (1 - share)).astype(np.float32)


def repeat_factors(targets: np.ndarray, threshold: float) -> np.ndarray | None:
    """How often a frame is drawn: the most that one of its classes asks for, float64 [n].

    A class in a share f of the frames asks for max(1, sqrt(threshold / f)), the repeat factor of LVIS (Gupta, Dollar &
    Girshick 2019, section 4.2).

    Args:
        targets: 0/1 [n, C].
        threshold: the share below which a class counts as rare; 0 draws all frames alike.

    Returns:
        None where all frames are drawn alike.
    """
    share = targets.mean(0, dtype=np.float64)
    factors = np.where(share > 0, np.sqrt(threshold / np.maximum(share, 1e-12)), 1).clip(min=1)
    weights = np.where(targets > 0, factors, 1).max(1, initial=1)
    return weights if (weights != weights[0]).any() else None
