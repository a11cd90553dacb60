"""Truth and prediction joined on the frame number; what does not fit is told with the likeliest reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from surgdino.errors import SurgdinoError

_FIRST_ROW = 2


def match_frames(truth: np.ndarray, prediction: np.ndarray, file: Path, *, ignore_extra: bool = False) -> np.ndarray:
    """The rows of the prediction that belong to the truth's frames, in their order.

    Args:
        truth, prediction: int [n], [m], ascending frame numbers.
        file: the prediction's, for messages.
        ignore_extra: predicted frames that the truth lacks are left out instead of refused.

    Returns:
        int64 [n].

    Raises:
        SurgdinoError: all frames are shifted by the same number (counted from 1), frames are missing or too many.
    """
    _refuse_shift(truth, prediction, file)
    missing = np.setdiff1d(truth, prediction)
    if missing.size:
        raise SurgdinoError(
            f"{missing.size} of the truth's {truth.size} frames have no prediction",
            file=file,
            expected=f"frame {missing[0]}",
            found=_shown(prediction),
            fix=_why_missing(truth, prediction),
        )
    extra = np.flatnonzero(~np.isin(prediction, truth))
    if extra.size and not ignore_extra:
        raise SurgdinoError(
            f"{extra.size} predicted frames are not in the truth",
            file=file,
            place=f"row {extra[0] + _FIRST_ROW}",
            expected=_shown(truth),
            found=f"frame {prediction[extra[0]]}",
            fix="take them out, or score with extra=ignore",
        )
    return np.searchsorted(prediction, truth)


def _refuse_shift(truth: np.ndarray, prediction: np.ndarray, file: Path) -> None:
    """Frames counted from 1 by one side: every label would be off by one, and no count would tell."""
    if not np.isin(prediction, truth).all():
        for shift in (1, -1, *((prediction[:1] - truth[:1]).tolist() if len(truth) == len(prediction) else ())):
            moved = prediction - shift
            if not np.isin(moved, truth).all() or len(moved) < len(truth):
                continue
            reason = ": they are counted from 1" if shift == 1 else ""
            raise SurgdinoError(
                f"all frames are shifted by {shift}{reason}",
                file=file,
                place=f"row {_FIRST_ROW}",
                expected=f"frame {truth[0]}",
                found=int(prediction[0]),
                fix="number the frames as the truth does",
            )


def _why_missing(truth: np.ndarray, prediction: np.ndarray) -> str:
    steps = np.unique(np.diff(prediction))
    truth_steps = np.unique(np.diff(truth))
    if np.isin(prediction, truth).all() and len(steps) == 1 and steps[0] > 1 and prediction[0] == 0:
        return f"predict them too, or score every {steps[0]}th frame of the truth with every={steps[0]}"
    if len(steps) == len(truth_steps) == 1 and steps[0] < truth_steps[0]:
        return "number the rows by the dataset's frames: these seem to be counted by row"
    return "predict them too"


def _shown(frames: np.ndarray) -> str:
    return f"{frames.size} frames from {frames[0]} to {frames[-1]}"
