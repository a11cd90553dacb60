"""One protocol's numbers in one call, from the functions that the panel is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from surgdino.metrics.phase import AVERAGES, DEFAULT, PROTOCOLS, phase_counts, phase_means
from surgdino.metrics.segmental import match_videos, segmental_scores


class PhaseScores(NamedTuple):
    scores: dict[str, float]
    per_phase: dict[str, dict[str, float]]


def score_phases(
    truths: dict, predictions: dict, phases: Sequence[str], protocol: str = DEFAULT, **relaxed
) -> PhaseScores:
    counts = phase_counts(truths, predictions, len(phases), protocol, **relaxed)
    average = PROTOCOLS[protocol][1]
    means = phase_means(counts, average)
    per_phase = {phase: {name: float(mean[p]) for name, mean in means.items()} for p, phase in enumerate(phases)}
    return PhaseScores(AVERAGES[average](counts), per_phase)


def score_segments(truths: dict[str, np.ndarray], predictions: dict[str, np.ndarray], phases: int) -> dict[str, float]:
    return segmental_scores(*match_videos(truths, predictions, phases))
