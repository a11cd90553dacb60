"""Errors of one picture's depth, after an alignment that is always named.

The formulas are those of Eigen et al. 2014 (arXiv 1406.2283), as the KITTI benchmark and DINOv2 use them.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from surgdino.errors import SurgdinoError

Alignment = Literal["none", "median", "scale-shift"]
MEASURES = ("AbsRel", "SqRel", "RMSE", "RMSE log", "delta < 1.25", "delta < 1.25^2", "delta < 1.25^3", "SILog")


def depth_errors(
    truth: np.ndarray, predicted: np.ndarray, alignment: Alignment, nearest: float, farthest: float
) -> dict[str, float]:
    """Each of `MEASURES` over the pixels whose depth is known; NaN where none is.

    AbsRel, and the shares delta of pixels within a ratio, have no unit; SqRel and RMSE have that of the depth; RMSE log
    is of natural logarithms, SILog a hundred times the standard deviation of their difference.

    Args:
        truth: [H, W], not finite where unknown; other pixels count between `nearest` and `farthest` alone.
        predicted: [H, W], all finite.
        alignment: of the prediction, by this picture's own truth: `none`; `median`, its median made the truth's;
            `scale-shift`, least squares in depth. The result is cut to `nearest` and `farthest`.

    Raises:
        SurgdinoError: other shapes, or a prediction that is not finite.
    """
    if truth.shape != predicted.shape:
        what = "truth and prediction of a depth differ in size"
        raise SurgdinoError(what, expected=list(truth.shape), found=list(predicted.shape))
    with np.errstate(invalid="ignore"):
        known = (truth > nearest) & (truth < farthest)
    true, found = truth[known].astype(np.float64), predicted[known].astype(np.float64)
    if not np.isfinite(found).all():
        what, bad = "a predicted depth is not finite", int((~np.isfinite(found)).sum())
        raise SurgdinoError(what, expected="numbers", found=f"{bad} of {len(found)} pixels")
    if not len(true):
        return dict.fromkeys(MEASURES, float("nan"))
    found = np.clip(_aligned(true, found, alignment), nearest, farthest)
    apart, logs = found - true, np.log(found) - np.log(true)
    ratio = np.exp(np.abs(logs))
    values = [
        (np.abs(apart) / true).mean(),
        (apart**2 / true).mean(),
        np.sqrt((apart**2).mean()),
        np.sqrt((logs**2).mean()),
        *((ratio < 1.25**k).mean() for k in (1, 2, 3)),
        100 * logs.std(),
    ]
    return dict(zip(MEASURES, map(float, values), strict=True))


def _aligned(true: np.ndarray, found: np.ndarray, alignment: Alignment) -> np.ndarray:
    if alignment == "median":
        middle = np.median(found)
        return found * (np.median(true) / middle) if middle > 0 else found
    if alignment == "scale-shift":
        columns = np.column_stack([found, np.ones_like(found)])
        return columns @ np.linalg.lstsq(columns, true, rcond=None)[0]
    return found
