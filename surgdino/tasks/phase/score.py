"""How phases are scored: five ways to average frames, and the segmental metrics.

From files: M2CAI text on both sides; the truth may also be CholecT50's JSON, whose rows name a phase.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from surgdino.datasets.card import load_card
from surgdino.datasets.class_names import class_key, corrected
from surgdino.datasets.triplet_files import read_triplet_json
from surgdino.errors import SurgdinoError
from surgdino.metrics.arrays import nanstd
from surgdino.metrics.confusion import of_ids
from surgdino.metrics.intervals import operations_of
from surgdino.metrics.phase import AVERAGES, DEFAULT, phase_counts, phase_means
from surgdino.metrics.phase import PROTOCOLS as FRAME_PROTOCOLS
from surgdino.metrics.relaxed import TOLERANCES, Tolerance
from surgdino.metrics.scores import ALL, ClassTable, Score, ScoreRequest, TaskScores, chosen, find_row, score_rows
from surgdino.metrics.segmental import match_videos, segmental_scores
from surgdino.tasks.phase.files import ENDINGS, phase_cells, read_phase
from surgdino.tasks.scoring.folders import Folders, match_frames, paired_files
from surgdino.tasks.scoring.scoring import Scoring
from surgdino.tasks.scoring.video_files import video_files

SEGMENTAL = "phase/segmental"
HEADLINE = ("accuracy", DEFAULT)
_TRUTH = ("phase_annotations", "labels")
# Other files that the releases keep beside the phases.
_OTHERS = ("-tool", "-timestamp", "_timestamp")


class PhaseScoring(Scoring):
    """Frame-wise and segmental numbers of phases; M2CAI text files."""

    PROTOCOLS = (*FRAME_PROTOCOLS, SEGMENTAL)

    def panel(self, request: ScoreRequest) -> TaskScores:
        """The strict script's numbers and the segmental ones by default."""
        table: list[Score] = []
        classes: list[ClassTable] = []
        notes = list(request.notes)
        for protocol in chosen(request.protocol, self.PROTOCOLS, (DEFAULT, SEGMENTAL)):
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
        pairs = ((np.asarray(truth), np.asarray(request.predictions[v])) for v, truth in request.truths.items())
        confusions = [of_ids(pairs, request.classes, "phase")]
        row = find_row(table, *HEADLINE)
        return TaskScores("phase", table, classes, len(set(owners)), notes, row, confusions)

    def read_and_score(self, folders: Folders) -> TaskScores:
        """The classes are those given, the card's, or the names in the truth in alphabetical order."""
        truth_folder = folders.inside(_TRUTH)
        as_json = truth_folder.is_dir() and any(truth_folder.glob("*.json"))
        if as_json:
            truths = video_files(truth_folder, ".json")
        else:
            truths = video_files(truth_folder, ".txt", endings=ENDINGS[:2], ignored=(*_OTHERS, "_pred"))
        predictions = video_files(folders.predictions, ".txt", endings=ENDINGS, ignored=_OTHERS)
        pairs = paired_files(truths, predictions, folders)
        given = tuple(map(corrected, folders.classes or (folders.card.phases if folders.card else ())))
        classes = given or _names(truths)
        true: dict[str, np.ndarray] = {}
        predicted: dict[str, np.ndarray] = {}
        frames: dict[str, np.ndarray] = {}
        for video, truth_file, file in pairs:
            numbers, ids = _json_phases(truth_file, folders) if as_json else read_phase(truth_file, classes)
            kept = folders.sampled(numbers, truth_file)
            frames[video], true[video] = numbers[kept], ids[kept]
            found, guesses = read_phase(file, classes)
            rows = match_frames(frames[video], found, file, ignore_extra=folders.ignore_extra)
            predicted[video] = guesses[rows]
        if not given and classes[0] == "0":
            _refuse_two_counts(true, predicted, folders)
        request = folders.request(true, predicted, classes)
        return self.scores(replace(request, fps=_label_rate(folders, frames), frames=frames))


def tolerance_of(phases: Sequence[str]) -> Tolerance | None:
    """The relaxed script's table for these phases: it has one for each dataset that it was written for."""
    keys = [class_key(phase) for phase in phases]
    known = {name: [class_key(phase) for phase in load_card(name).phases] for name in TOLERANCES}
    return next((TOLERANCES[name] for name, phases_of_it in known.items() if phases_of_it == keys), None)


def _lacking(request: ScoreRequest) -> str | None:
    """Why the relaxed protocols cannot be computed, or None where they can."""
    if request.frames and max(map(len, request.frames.values())) < 2:
        return "no video has two labelled frames"
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
    rows = score_rows(lambda videos: AVERAGES[average](counts.select(videos)), owners, protocol)
    means = phase_means(counts, average)
    if average == "script":  # whose "±" runs over phases, but for accuracy
        rows = [
            replace(row, own_std=nanstd(means[row.name]), own_std_over="phases") if row.name in means else row
            for row in rows
        ]
    frames, predicted = counts.present.sum(0), counts.predicted.sum(0)
    by_phase = {
        phase: {name: float(mean[p]) for name, mean in means.items()}
        | {"frames": int(frames[p]), "predicted": int(predicted[p])}
        for p, phase in enumerate(request.classes)
    }
    return rows, ClassTable("phase", protocol, by_phase)


def _segmental(request: ScoreRequest) -> list[Score]:
    edit, matches = match_videos(request.truths, request.predictions, len(request.classes))
    owners = operations_of(request.truths, request.operations)

    def statistic(videos: np.ndarray) -> dict[str, float]:
        return segmental_scores(edit[videos], matches[videos])

    return score_rows(statistic, owners, SEGMENTAL)


def _names(truths: dict[str, Path]) -> tuple[str, ...]:
    """The phases that the truth names; of ids, all up to the highest."""
    cells = {cell for path in truths.values() for cell in phase_cells(path)[1]}
    if all(cell.isdecimal() for cell in cells):
        return tuple(str(number) for number in range(max(map(int, cells)) + 1))
    return tuple(sorted(cells))


def _refuse_two_counts(true: dict[str, np.ndarray], predicted: dict[str, np.ndarray], folders: Folders) -> None:
    """Ids that one side counts from 0 and the other from 1; nothing else says what they mean."""
    lowest, highest = (
        [int(each(ids)) for ids in (np.concatenate(list(true.values())), np.concatenate(list(predicted.values())))]
        for each in (np.min, np.max)
    )
    if lowest[0] > 0 and lowest[1] == 0 and highest[1] < highest[0]:
        raise SurgdinoError(
            "the truth's ids seem to count from 1 and the predictions' from 0",
            file=folders.truth,
            expected=f"the predictions' ids, {lowest[1]} to {highest[1]}",
            found=f"{lowest[0]} to {highest[0]}",
            fix="count both from 0, or write names",
        )


def _label_rate(folders: Folders, frames: dict[str, np.ndarray]) -> float | None:
    """Labels per second: what the frame numbers count in, over the distance of the rows."""
    fps = folders.fps or (folders.card.fps if folders.card else None)
    steps = {int(np.median(np.diff(numbers))) for numbers in frames.values() if len(numbers) > 1}
    return fps / steps.pop() if fps and len(steps) == 1 else None


def _json_phases(path: Path, folders: Folders) -> tuple[np.ndarray, np.ndarray]:
    if folders.card is None:
        raise SurgdinoError("JSON labels need their dataset's card", file=path, fix="give dataset=cholect50")
    labels, problems = read_triplet_json(path, folders.card)
    for problem in problems:
        if problem.severity == "error":
            raise problem.error()
    if "phase" not in labels:
        raise SurgdinoError("no frame has a phase", file=path, expected="a phase in the rows", found="none")
    return labels["phase"].numbers, labels["phase"].array.astype(np.int64)
