"""Phases: the five ways to average frames, and the segmental metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from surgdino.datasets.card import load_card
from surgdino.errors import SurgdinoError
from surgdino.metrics.intervals import operations_of
from surgdino.metrics.pairing import label_sequences
from surgdino.metrics.phase import AVERAGES, PhaseCounts, average_phases
from surgdino.metrics.phase_protocols import DEFAULT, phase_counts
from surgdino.metrics.phase_protocols import PROTOCOLS as FRAME_PROTOCOLS
from surgdino.metrics.relaxed import TOLERANCES, Tolerance
from surgdino.metrics.scores import ALL, ClassTable, Score, ScoreRequest, TaskScores, chosen, find_row, score_rows
from surgdino.metrics.segmental import edit_score, f1_of, matched_segments

SEGMENTAL = "phase/segmental"
PROTOCOLS = (*FRAME_PROTOCOLS, SEGMENTAL)
HEADLINE = ("accuracy", DEFAULT)
THRESHOLDS = (0.10, 0.25, 0.50)


def panel(request: ScoreRequest) -> TaskScores:
    """The strict script's numbers and the segmental ones by default; see `panels.score_task`."""
    table: list[Score] = []
    classes: list[ClassTable] = []
    notes = list(request.notes)
    for protocol in chosen(request.protocol, PROTOCOLS, (DEFAULT, SEGMENTAL)):
        if protocol == SEGMENTAL:
            table += _segmental(request)
            continue
        relaxed = FRAME_PROTOCOLS[protocol][0] is not None
        lacking = _lacking(request) if relaxed else None
        if lacking and request.protocol == ALL:
            notes.append(f"{protocol} was not computed: {lacking}")
            continue
        if lacking:
            raise SurgdinoError(f"{protocol} cannot be computed", found=lacking, fix="choose a strict protocol")
        rows, by_phase = _framewise(request, protocol, relaxed)
        table, classes = table + rows, [*classes, by_phase]
    if request.frames and _gaps(request.frames):
        notes.append(f"{_gaps(request.frames)}: a segment goes on across a gap in {SEGMENTAL}")
    owners = operations_of(request.truths, request.operations)
    return TaskScores("phase", table, classes, len(set(owners)), notes, find_row(table, *HEADLINE))


def tolerance_of(phases: Sequence[str]) -> Tolerance | None:
    """The relaxed script's table for these phases: it has one for each dataset that it was written for."""
    return next((TOLERANCES[name] for name in TOLERANCES if load_card(name).phases == tuple(phases)), None)


def _lacking(request: ScoreRequest) -> str | None:
    """Why the relaxed protocols cannot be computed, or None where they can."""
    if request.fps is None:
        return "no fps (labels per second) was given"
    if tolerance_of(request.classes) is None:
        return f"the relaxed script knows the phases of {', '.join(TOLERANCES)} only"
    return _gaps(request.frames or {})


def _gaps(frames: Mapping[str, np.ndarray]) -> str | None:
    """The first video whose frames are not evenly spaced, in words; steps of 12 and 13 are (two a second of 25 fps)."""
    for video, numbers in frames.items():
        steps = np.diff(numbers)
        if len(steps) and steps.max() >= 1.5 * steps.min():
            return f"the frames of {video} leave gaps"
    return None


def _framewise(request: ScoreRequest, protocol: str, relaxed: bool) -> tuple[list[Score], ClassTable]:
    counts = phase_counts(
        request.truths,
        request.predictions,
        len(request.classes),
        protocol,
        fps=request.fps,
        tolerance=tolerance_of(request.classes) if relaxed else None,
        seconds=request.tolerance_seconds,
    )
    owners = operations_of(counts.videos, request.operations)
    average = FRAME_PROTOCOLS[protocol][1]
    rows = score_rows(
        lambda videos: AVERAGES[average](counts.select(videos)),
        owners,
        protocol,
        resamples=request.resamples,
        seed=request.seed,
    )
    told = average_phases(counts, request.classes, average, protocol)
    rows = [
        replace(row, own_std=told.spread[row.name], own_std_over=told.spread_over[row.name])
        if told.spread_over.get(row.name) == "phases"
        else row
        for row in rows
    ]
    return rows, ClassTable("phase", protocol, _by_phase(told.per_phase, counts))


def _by_phase(per_phase: Mapping[str, Mapping[str, float]], counts: PhaseCounts) -> dict[str, dict[str, float]]:
    frames, predicted = counts.present.sum(0), counts.predicted.sum(0)
    return {
        phase: {**values, "frames": int(frames[place]), "predicted": int(predicted[place])}
        for place, (phase, values) in enumerate(per_phase.items())
    }


def _segmental(request: ScoreRequest) -> list[Score]:
    """Edit score averaged over videos, F1@k with segments pooled over videos, as `segmental.score_segments`."""
    pairs = label_sequences(request.truths, request.predictions, len(request.classes))
    edit = np.array([edit_score(truth, prediction) for _, truth, prediction in pairs])
    matches = np.stack([[matched_segments(truth, prediction, t) for t in THRESHOLDS] for _, truth, prediction in pairs])
    names = [f"f1@{round(100 * t)}" for t in THRESHOLDS]

    def statistic(videos: np.ndarray) -> dict[str, float]:
        pooled = matches[videos].sum(0)
        return {
            "edit": float(edit[videos].mean()),
            **{name: f1_of(row) for name, row in zip(names, pooled, strict=True)},
        }

    owners = operations_of([video for video, _, _ in pairs], request.operations)
    return score_rows(statistic, owners, SEGMENTAL, resamples=request.resamples, seed=request.seed)
