"""Phase metrics per frame: three ways to average the same counts, strict or relaxed (see `relaxed.py`).

`script` is the M2CAI evaluation script's averaging (per video and phase, mean over videos, mean over phases), without
its relaxation; `pooled-macro` treats all frames as one video; `video-macro` averages within each video, then over
videos. The last two follow scikit-learn's macro average. How they part: a phase that a video's ground truth lacks is
undefined for the script (its false positives vanish), and counts as 0 for scikit-learn's macro as soon as it is
predicted once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from surgdino.errors import SurgdinoError, nearest
from surgdino.metrics.arrays import label_sequences, nanmean, ratio
from surgdino.metrics.relaxed import Reading, Tolerance, relax

# protocol -> (reading of the relaxation or None, average)
PROTOCOLS: dict[str, tuple[Reading | None, str]] = {
    "phase/script": (None, "script"),
    "phase/pooled-macro": (None, "pooled-macro"),
    "phase/video-macro": (None, "video-macro"),
    "phase/relaxed-script": ("script", "script"),
    "phase/relaxed-corrected": ("corrected", "script"),
}
DEFAULT = "phase/script"


@dataclass(frozen=True)
class PhaseCounts:
    """What every protocol needs of V videos and P phases; all arrays int64.

    Attributes:
        videos: V ids.
        true_positive, predicted, present, union: [V, P] frames: both agree on the phase; it is predicted; it is the
            truth; either. A relaxed reading may count a true positive outside of the strict ones.
        correct, frames: [V].
    """

    videos: tuple[str, ...]
    true_positive: np.ndarray
    predicted: np.ndarray
    present: np.ndarray
    union: np.ndarray
    correct: np.ndarray
    frames: np.ndarray

    def arrays(self) -> tuple[np.ndarray, ...]:
        """All but the videos, in the order of the fields."""
        return self.true_positive, self.predicted, self.present, self.union, self.correct, self.frames

    def select(self, rows: Sequence[int] | np.ndarray) -> PhaseCounts:
        """The counts of these videos, in this order."""
        return PhaseCounts(tuple(self.videos[row] for row in rows), *(array[rows] for array in self.arrays()))


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
    """The counts that `protocol` averages; strict unless a relaxed one is named.

    Args:
        truths, predictions: video id -> int [n], phase ids in 0..phases-1, joined on the frame number.
        phases: how many there are.
        protocol: a key of PROTOCOLS.
        fps, tolerance: labels per second and what is forgiven; needed by the relaxed protocols alone.
        seconds: how near to a segment's ends the relaxed protocols forgive.

    Raises:
        SurgdinoError: unknown protocol, missing fps or tolerance, videos, lengths or ids that do not fit.
    """
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


def strict_counts(truths: Mapping[str, np.ndarray], predictions: Mapping[str, np.ndarray], phases: int) -> PhaseCounts:
    """Counts without any relaxation; arguments as in `phase_counts`."""
    pairs = label_sequences(truths, predictions, phases)
    confusion = np.stack([confusion_matrix(truth, prediction, phases) for _, truth, prediction in pairs])
    return counts_of_confusion([video for video, _, _ in pairs], confusion)


def confusion_matrix(truth: np.ndarray, prediction: np.ndarray, phases: int) -> np.ndarray:
    """int64 [phases, phases]: frames by (truth, prediction)."""
    return np.bincount(truth * phases + prediction, minlength=phases * phases).reshape(phases, phases)


def accuracies(truth: np.ndarray, prediction: np.ndarray, classes: int) -> tuple[float, float]:
    """Accuracy of some frames, and balanced accuracy: the mean recall of the classes that are in their truth."""
    table = confusion_matrix(truth, prediction, classes)
    return float(np.trace(table) / table.sum()), float(nanmean(ratio(np.diag(table), table.sum(1))))


def counts_of_confusion(videos: Sequence[str], confusion: np.ndarray) -> PhaseCounts:
    """The counts in confusion matrices [V, P, P] with the truth on axis 1."""
    hit = np.diagonal(confusion, axis1=1, axis2=2).copy()
    present, predicted = confusion.sum(2), confusion.sum(1)
    return PhaseCounts(
        tuple(videos), hit, predicted, present, present + predicted - hit, hit.sum(1), confusion.sum((1, 2))
    )


def relaxed_counts(
    truths: Mapping[str, np.ndarray],
    predictions: Mapping[str, np.ndarray],
    phases: int,
    *,
    fps: float,
    tolerance: Tolerance,
    reading: Reading,
    seconds: float = 10.0,
) -> PhaseCounts:
    """Counts under one of the two readings; average them with `script_scores`, which clips as the script does.

    Args:
        truths, predictions: as in `phase_counts`, with every frame at the rate `fps` (no gaps).
        tolerance: of as many phases.
        seconds: the window at either end of a segment.

    Raises:
        SurgdinoError: videos, lengths or ids that do not fit, a tolerance of other phases, a window under one frame.
    """
    window = round(seconds * fps)
    if window < 1:
        raise SurgdinoError("the relaxed window is under one frame", expected="seconds x fps >= 1", found=seconds * fps)
    if len(tolerance.late) != phases or len(tolerance.early) != phases:
        raise SurgdinoError(
            "the tolerance is for other phases",
            expected=f"{phases} phases",
            found=f"{len(tolerance.late)}",
            fix="choose the tolerance of this phase list, or score strictly",
        )
    counts = []
    for video, truth, prediction in label_sequences(truths, predictions, phases):
        relaxed = relax(truth, prediction, tolerance, window, reading)
        if reading == "corrected":
            counts.append(counts_of_confusion([video], confusion_matrix(truth, relaxed, phases)[None]))
            continue
        # As the script: predictions are counted unrelaxed, and right frames over the union of prediction and truth.
        right, ids = relaxed == truth, np.arange(phases)[:, None]
        is_true, is_predicted = truth == ids, prediction == ids
        either = is_true | is_predicted
        hit, predicted, present, union = (c.sum(1)[None] for c in (either & right, is_predicted, is_true, either))
        correct, frames = np.array([right.sum()]), np.array([len(truth)])
        counts.append(PhaseCounts((video,), hit, predicted, present, union, correct, frames))
    arrays = (np.concatenate(column) for column in zip(*(each.arrays() for each in counts), strict=True))
    return PhaseCounts(tuple(video for each in counts for video in each.videos), *arrays)


def script_measures(counts: PhaseCounts) -> dict[str, np.ndarray]:
    """[V, P] per measure, by the M2CAI evaluation script's rules.

    NaN where the truth lacks the phase, whatever was predicted. Precision of a phase that was predicted nowhere is
    0/0 = NaN. Values above 1, which only the relaxed script reaches, are clipped as the script does. The script has no
    F1: here it is the harmonic mean of precision and recall, 0 where nothing was hit.
    """
    hit = counts.true_positive
    values = {
        "precision": ratio(hit, counts.predicted),
        "recall": ratio(hit, counts.present),
        "jaccard": ratio(hit, counts.union),
    }
    values = {name: np.minimum(value, 1.0) for name, value in values.items()}
    precision, recall = values["precision"], values["recall"]
    values["f1"] = np.where(hit == 0, 0.0, ratio(2 * precision * recall, precision + recall))
    return {name: np.where(counts.present > 0, value, np.nan) for name, value in values.items()}


def macro_measures(counts: PhaseCounts) -> dict[str, np.ndarray]:
    """[V, P] per measure, by scikit-learn's rules with `zero_division=0`.

    NaN, so left out of the mean, only where a phase is neither in the truth nor predicted.
    """
    hit = counts.true_positive
    values = {
        "precision": ratio(hit, counts.predicted),
        "recall": ratio(hit, counts.present),
        "jaccard": ratio(hit, counts.union),
        "f1": ratio(2 * hit, counts.predicted + counts.present),
    }
    return {name: np.where(counts.union > 0, np.nan_to_num(value), np.nan) for name, value in values.items()}


def pooled(counts: PhaseCounts) -> PhaseCounts:
    """All frames of all videos as one video named `all`."""
    return PhaseCounts(("all",), *(array.sum(0, keepdims=True) for array in counts.arrays()))


def script_scores(counts: PhaseCounts) -> dict[str, float]:
    """Mean over videos, then over phases; a phase in no video, NaN in the script's own last mean, is left out."""
    measures = {name: float(nanmean(nanmean(value, 0))) for name, value in script_measures(counts).items()}
    return {"accuracy": float(np.mean(counts.correct / counts.frames)), **measures}


def pooled_macro_scores(counts: PhaseCounts) -> dict[str, float]:
    """Every frame counts once, then every phase once: TeCNO's and Trans-SVNet's logs."""
    return video_macro_scores(pooled(counts))


def video_macro_scores(counts: PhaseCounts) -> dict[str, float]:
    """Mean over the phases of each video, then over videos."""
    measures = {name: float(np.mean(nanmean(value, 1))) for name, value in macro_measures(counts).items()}
    return {"accuracy": float(np.mean(counts.correct / counts.frames)), **measures}


AVERAGES: dict[str, Callable[[PhaseCounts], dict[str, float]]] = {
    "script": script_scores,
    "pooled-macro": pooled_macro_scores,
    "video-macro": video_macro_scores,
}


def phase_means(counts: PhaseCounts, average: str) -> dict[str, np.ndarray]:
    """Measure -> float64 [P], the mean over videos of each phase; `average` is a key of AVERAGES."""
    if average == "pooled-macro":
        counts = pooled(counts)
    measures = script_measures(counts) if average == "script" else macro_measures(counts)
    return {name: nanmean(value, 0) for name, value in measures.items()}
