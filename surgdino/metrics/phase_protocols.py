"""Every phase protocol by its name: `score_phases` is what tasks and `surgdino score` call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from surgdino.errors import SurgdinoError, nearest
from surgdino.metrics.intervals import Interval, bootstrap, operations_of
from surgdino.metrics.phase import AVERAGES, PhaseCounts, PhaseScores, average_phases, strict_counts
from surgdino.metrics.relaxed import Reading, Tolerance, relaxed_counts

# protocol -> (reading of the relaxation or None, average)
PROTOCOLS: dict[str, tuple[Reading | None, str]] = {
    "phase/script": (None, "script"),
    "phase/pooled-macro": (None, "pooled-macro"),
    "phase/video-macro": (None, "video-macro"),
    "phase/relaxed-script": ("script", "script"),
    "phase/relaxed-corrected": ("corrected", "script"),
}
DEFAULT = "phase/script"


def score_phases(
    truths: Mapping[str, np.ndarray],
    predictions: Mapping[str, np.ndarray],
    phases: Sequence[str],
    protocol: str = DEFAULT,
    *,
    fps: float | None = None,
    tolerance: Tolerance | None = None,
    seconds: float = 10.0,
) -> PhaseScores:
    """Accuracy, precision, recall, Jaccard and F1 under one named protocol; strict unless a relaxed one is named.

    Args:
        truths, predictions: video id -> int [n], ids into `phases`.
        phases: their names, position = id.
        protocol: a key of PROTOCOLS.
        fps, tolerance: labels per second and what is forgiven; needed by the relaxed protocols alone.
        seconds: how near to a segment's ends the relaxed protocols forgive.

    Raises:
        SurgdinoError: unknown protocol, missing fps or tolerance, videos, lengths or ids that do not fit.
    """
    counts = phase_counts(truths, predictions, len(phases), protocol, fps=fps, tolerance=tolerance, seconds=seconds)
    return average_phases(counts, phases, PROTOCOLS[protocol][1], protocol)


def phase_counts(
    truths: Mapping[str, np.ndarray],
    predictions: Mapping[str, np.ndarray],
    phases: int,
    protocol: str = DEFAULT,
    *,
    fps: float | None = None,
    tolerance: Tolerance | None = None,
    seconds: float = 10.0,
) -> PhaseCounts:
    """The counts that `protocol` averages; arguments and errors as in `score_phases`."""
    if protocol not in PROTOCOLS:
        raise SurgdinoError(f"unknown phase protocol {protocol!r}", fix=nearest(protocol, PROTOCOLS))
    reading = PROTOCOLS[protocol][0]
    if reading is None:
        return strict_counts(truths, predictions, phases)
    if fps is None or tolerance is None:
        raise SurgdinoError(
            f"{protocol} needs the labels' rate and a tolerance",
            expected="fps and tolerance",
            found=f"fps={fps}, tolerance={'none' if tolerance is None else 'given'}",
            fix="give both, or choose a strict protocol",
        )
    return relaxed_counts(truths, predictions, phases, fps=fps, tolerance=tolerance, reading=reading, seconds=seconds)


def phase_intervals(
    counts: PhaseCounts,
    protocol: str = DEFAULT,
    *,
    operations: Mapping[str, str] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Interval]:
    """A bootstrap interval over operations of each score of the protocol.

    Args:
        counts: of `phase_counts` under the same protocol.
        operations: video id -> operation id; None: every video is an operation.
    """
    owners = operations_of(counts.videos, operations)
    scores_of = AVERAGES[PROTOCOLS[protocol][1]]
    return bootstrap(lambda rows: scores_of(counts.select(rows)), owners, resamples=resamples, seed=seed)
