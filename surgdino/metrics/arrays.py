"""What all protocols share: checked pairs of truth and prediction, means without undefined values, results as JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from surgdino.errors import SurgdinoError, first_of


def nanmean(values: np.ndarray, axis: int | None = None) -> Any:
    """The mean of the defined values; NaN, and no warning, where there is none."""
    values = np.asarray(values, dtype=np.float64)
    defined = ~np.isnan(values)
    count = defined.sum(axis=axis)
    total = np.where(defined, values, 0.0).sum(axis=axis)
    with np.errstate(invalid="ignore", divide="ignore"):
        return total / count


def nanstd(values: np.ndarray) -> float:
    """The sample standard deviation (n - 1) of the defined values of a 1-D array; NaN below two of them."""
    values = np.asarray(values, dtype=np.float64)
    defined = values[~np.isnan(values)]
    return float(defined.std(ddof=1)) if defined.size > 1 else math.nan


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Elementwise division after IEEE 754, without a warning: 0/0 is NaN and x/0 infinite."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(numerator, dtype=np.float64) / np.asarray(denominator, dtype=np.float64)


def as_json(result: Any) -> Any:
    """A result as dicts, lists, numbers and strings that `json.dump(..., allow_nan=False)` accepts.

    NaN, which JSON lacks, becomes None: a reader must see that the number does not exist, not that it is 0.
    """
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        return {field.name: as_json(getattr(result, field.name)) for field in dataclasses.fields(result)}
    if isinstance(result, Mapping):
        return {str(key): as_json(value) for key, value in result.items()}
    if isinstance(result, np.ndarray):
        return as_json(result.tolist())
    if isinstance(result, (list, tuple)):
        return [as_json(value) for value in result]
    if isinstance(result, np.generic):
        return as_json(result.item())
    if isinstance(result, float) and not math.isfinite(result):
        return None
    return result


def pair_videos(truths: Mapping[str, object], predictions: Mapping[str, object]) -> list[str]:
    """The videos' ids in the truths' order.

    Raises:
        SurgdinoError: there is no video, or one of the two sides lacks a video of the other.
    """
    if not truths:
        raise SurgdinoError("there is no video to score", expected="at least one", found="none")
    for missing, side in (
        ([v for v in truths if v not in predictions], "prediction"),
        ([v for v in predictions if v not in truths], "ground truth"),
    ):
        if missing:
            fix = "give both sides the same videos, or leave these out of both"
            raise SurgdinoError(f"videos without {side}", found=first_of(missing, 5), fix=fix)
    return list(truths)


def label_sequences(
    truths: Mapping[str, np.ndarray], predictions: Mapping[str, np.ndarray], classes: int
) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(video, truth int64 [n], prediction int64 [n]) of every video, both holding class ids in 0..classes-1."""
    pairs = []
    for video in pair_videos(truths, predictions):
        truth = class_ids(truths[video], classes, video, "ground truth")
        prediction = class_ids(predictions[video], classes, video, "prediction")
        check_lengths(truth, prediction, video, "prediction")
        pairs.append((video, truth, prediction))
    return pairs


def check_lengths(truth: np.ndarray, found: np.ndarray, video: str, side: str) -> None:
    """Refuses two sides of one video that have different numbers of frames."""
    if len(truth) != len(found):
        what, fix = f"ground truth and {side} differ in length", "join the two on the frame number before scoring"
        raise SurgdinoError(what, place=video, expected=f"{len(truth)} frames", found=len(found), fix=fix)


def class_ids(labels: np.ndarray | Sequence[int], classes: int, video: str, side: str) -> np.ndarray:
    """The labels of one video as int64 [n], checked to be ids of known classes."""
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.size == 0:
        raise SurgdinoError(
            f"the {side} is not one label a frame", place=video, expected="shape [n], n > 0", found=labels.shape
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise SurgdinoError(f"the {side} holds no class ids", place=video, expected="integers", found=labels.dtype)
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        raise SurgdinoError(
            f"unknown class id in the {side}",
            place=f"{video}, row {wrong[0]}",
            expected=f"0 to {classes - 1}",
            found=int(labels[wrong[0]]),
            fix="the ids seem to count from 1: count them from 0"
            if labels.max() == classes and 0 not in labels
            else None,
        )
    return labels.astype(np.int64)


def score_matrices(
    truths: Mapping[str, np.ndarray], scores: Mapping[str, np.ndarray], classes: int
) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(video, truth bool [n, classes], scores float64 [n, classes]) of every video; the truth holds 0 and 1."""
    pairs = []
    for video in pair_videos(truths, scores):
        truth, score = np.asarray(truths[video]), np.asarray(scores[video])
        for side, values in (("ground truth", truth), ("score table", score)):
            check_matrix(values, classes, video, side)
        check_lengths(truth, score, video, "score table")
        odd = np.argwhere((truth != 0) & (truth != 1))
        if odd.size:
            row, column = odd[0]
            raise SurgdinoError(
                "the ground truth is not binary",
                place=f"{video}, row {row}, class {column}",
                expected="0 or 1",
                found=truth[row, column],
            )
        pairs.append((video, truth.astype(bool), score.astype(np.float64)))
    return pairs


def check_matrix(values: np.ndarray, classes: int, video: str, side: str) -> None:
    """Refuses what is not a finite numeric [n, classes] with n > 0."""
    if values.ndim != 2 or values.shape[0] == 0 or values.shape[1] != classes:
        raise SurgdinoError(
            f"the {side} has another shape", place=video, expected=f"[n, {classes}], n > 0", found=list(values.shape)
        )
    if values.dtype != bool and not np.issubdtype(values.dtype, np.number):
        raise SurgdinoError(f"the {side} holds no numbers", place=video, expected="numbers", found=values.dtype)
    bad = np.argwhere(~np.isfinite(values))
    if bad.size:
        row, column = bad[0]
        raise SurgdinoError(
            f"the {side} holds a value that is not finite",
            place=f"{video}, row {row}, class {column}",
            expected="a finite number",
            found=values[row, column],
        )
