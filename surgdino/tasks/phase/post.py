"""Post-processing of a video's class probabilities, by name alone: `task.post=NAME`. Nothing is smoothed without it.

`mean` is the mean over the last frames, `order` a filter that knows how often a phase follows another one in training;
both use earlier frames only. `mean_offline` is centred, and `order_offline` uses the whole video.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import correlate1d

from surgdino.tasks.phase.settings import Post


def transitions(targets: list[np.ndarray], classes: int) -> np.ndarray:
    """How often class b follows class a from one labelled frame to the next, float32 [C, C], rows of sum 1.

    Each pair counts once more than it was seen: what training has not shown is unlikely, not impossible.

    Args:
        targets: class ids [n] of each video.
    """
    counts = np.ones((classes, classes))
    for each in targets:
        np.add.at(counts, (each[:-1], each[1:]), 1)
    return (counts / counts.sum(1, keepdims=True)).astype(np.float32)


def processed(probabilities: np.ndarray, post: Post, frames: int, follows: np.ndarray | None) -> np.ndarray:
    """The probabilities [n, C] of one video as `post` leaves them, float32.

    Args:
        frames: of `mean` and `mean_offline`.
        follows: [C, C] of `transitions`, for the others.
    """
    if post == "none" or not len(probabilities):
        return probabilities
    values = probabilities.astype(np.float64)
    if post in ("mean", "mean_offline"):
        origin = (frames - 1) // 2 if post == "mean" else 0
        size = frames if post == "mean" or frames % 2 else frames + 1
        found = correlate1d(values, np.full(size, 1 / size), axis=0, mode="nearest", origin=origin)
    else:
        assert follows is not None
        found = _filtered(values, follows.astype(np.float64))
        if post == "order_offline":  # forward-backward: what comes later, from the end
            later = np.ones_like(values)
            for t in range(len(values) - 2, -1, -1):
                later[t] = _shares(follows @ (values[t + 1] * later[t + 1]))
            found = found * later
    return _shares(found).astype(np.float32)


def _filtered(values: np.ndarray, follows: np.ndarray) -> np.ndarray:
    """Forward filter of a hidden Markov model whose classes are alike before they are seen (training balances them)."""
    found = np.empty_like(values)
    before = np.full(values.shape[1], 1 / values.shape[1])
    for t, now in enumerate(values):
        found[t] = before = _shares(now * (before if t == 0 else before @ follows))
    return found


def _shares(values: np.ndarray) -> np.ndarray:
    return values / np.maximum(values.sum(-1, keepdims=True), 1e-30)
