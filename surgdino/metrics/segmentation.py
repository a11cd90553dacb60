"""Dice, IoU, HD95 and surface Dice (NSD) per class and image, and what an empty mask means to each.

Both masks empty: undefined (NaN), left out of the mean. One empty and the other not: Dice, IoU and NSD 0. HD95 of an
empty mask is undefined, and counted, because a model that predicts nothing must not look near. A score is the mean
over images of each class, then over classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from surgdino.errors import SurgdinoError
from surgdino.metrics.arrays import nanmean, ratio

MEASURES = ("dice", "iou", "hd95")
PROTOCOL = "segmentation/image-wise"
TOLERANCES = (2, 5, 10)  # pixels; there is no agreed one for endoscopy, so each has a protocol of its own
NSD = {tolerance: f"segmentation/nsd-{tolerance}px" for tolerance in TOLERANCES}


@dataclass(frozen=True)
class ImageScores:
    """One image; every array [c].

    Attributes:
        dice, iou: fractions; NaN where both masks are empty or the class is not labelled in this image.
        hd95: pixels (or the unit of the spacing); NaN where either mask is empty or it was not asked for.
        nsd: [tolerances, c]: the share of both edges within so many pixels of the other (Nikolov et al. 2018,
            arXiv 1809.04430); NaN where both masks are empty, or HD95 was not asked for.
        labelled: bool, classes that are labelled in this image.
        empty_truth, empty_prediction: bool, within the labelled pixels.
        pixels: int64 [3, c], of both masks together, the truth and the prediction; 0 where a class is not labelled.
    """

    dice: np.ndarray
    iou: np.ndarray
    hd95: np.ndarray
    nsd: np.ndarray
    labelled: np.ndarray
    empty_truth: np.ndarray
    empty_prediction: np.ndarray
    pixels: np.ndarray


def image_scores(
    truth: np.ndarray,
    prediction: np.ndarray,
    *,
    labelled: np.ndarray | None = None,
    valid: np.ndarray | None = None,
    hd95: bool = True,
    spacing: float | tuple[float, float] | None = None,
) -> ImageScores:
    """The scores of one image.

    Args:
        truth, prediction: bool (or 0/1) [c, h, w], one mask a class; masks may overlap.
        labelled: bool [c]; a class that is not is NaN everywhere. None: all are.
        valid: bool [h, w] or [c, h, w]; other pixels count for neither side. None: all pixels.
        hd95: compute HD95 and NSD, which cost more than the rest together.
        spacing: of a pixel, (row, column); None gives HD95 and NSD's tolerances in pixels.

    Raises:
        SurgdinoError: shapes that do not fit or masks that are not binary.
    """
    truth, prediction = _binary(truth, "ground truth"), _binary(prediction, "prediction")
    if truth.shape != prediction.shape:
        raise SurgdinoError(
            "the predicted masks are of another size", expected=list(truth.shape), found=list(prediction.shape)
        )
    labelled = np.ones(len(truth), dtype=bool) if labelled is None else np.asarray(labelled, dtype=bool)
    if labelled.shape != (len(truth),):
        raise SurgdinoError("`labelled` is not one flag a class", expected=[len(truth)], found=list(labelled.shape))
    if valid is not None:
        valid = _binary(valid, "valid mask", (2, 3))
        if valid.shape not in (truth.shape, truth.shape[1:]):
            raise SurgdinoError("the valid mask is of another size", expected=truth.shape[1:], found=valid.shape)
        truth, prediction = truth & valid, prediction & valid
    both = (truth & prediction).sum((1, 2))
    true, predicted = truth.sum((1, 2)), prediction.sum((1, 2))
    measurable = labelled & (true > 0) & (predicted > 0)
    distance = np.full(len(truth), np.nan)
    nsd = np.full((len(TOLERANCES), len(truth)), np.nan)
    if hd95:
        nsd[:, labelled & ((true > 0) | (predicted > 0))] = 0.0
        if measurable.any():
            near = edge_scores(truth[measurable], prediction[measurable], spacing)
            distance[measurable], nsd[:, measurable] = near
    return ImageScores(
        dice=np.where(labelled, ratio(2 * both, true + predicted), np.nan),
        iou=np.where(labelled, ratio(both, true + predicted - both), np.nan),
        hd95=distance,
        nsd=nsd,
        labelled=labelled,
        empty_truth=true == 0,
        empty_prediction=predicted == 0,
        pixels=np.stack([both, true, predicted]) * labelled,
    )


def edge_scores(
    truth: np.ndarray, prediction: np.ndarray, spacing: float | tuple[float, float] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """HD95 [c] and NSD [tolerances, c] of bool [c, h, w], by MONAI's distances between the edges, computed once.

    HD95 is the larger of the two directed 95th percentiles. No mask may be empty. `spacing` is a pixel's (row, column)
    size.
    """
    import torch  # with MONAI it takes seconds: only who asks for these waits
    from monai.metrics.utils import get_edge_surface_distance

    sides = (spacing, spacing) if isinstance(spacing, int | float) else spacing
    distance, near = np.empty(len(truth)), np.empty((len(TOLERANCES), len(truth)))
    for c, masks in enumerate(zip(prediction, truth, strict=True)):
        found, true = (torch.from_numpy(mask.astype(np.float32)) for mask in masks)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # MONAI deprecates an argument of its own
            _, ways, _ = get_edge_surface_distance(found, true, spacing=sides, symmetric=True)
        distance[c] = max(float(torch.quantile(way, 0.95)) for way in ways)
        both = torch.cat(tuple(ways))
        near[:, c] = [float((both <= tolerance).double().mean()) for tolerance in TOLERANCES]
    return distance, near


def class_means(values: Mapping[str, np.ndarray], rows: np.ndarray) -> dict[str, float]:
    """Measure -> mean over classes of the means over these images; values are [images, c]."""
    return {name: float(nanmean(nanmean(value[rows], 0))) for name, value in values.items()}


def stacked(images: Sequence[ImageScores], classes: Sequence[str]) -> dict[str, np.ndarray]:
    """Measure -> float64 [images, c], after a check that there are images of as many classes."""
    if not images:
        raise SurgdinoError("there is no image to score", expected="at least one", found="none")
    for row, image in enumerate(images):
        if len(image.dice) != len(classes):
            what, found = "an image has another number of classes", len(image.dice)
            raise SurgdinoError(what, place=f"image {row}", expected=len(classes), found=found)
    return {name: np.stack([getattr(image, name) for image in images]) for name in MEASURES}


def pooled_scores(images: Sequence[ImageScores], rows: np.ndarray) -> dict[str, float]:
    """`dice` and `iou` with the pixels of these images taken together, mean over classes; what is not labelled in an
    image counts for nothing there."""
    both, true, predicted = (np.stack([images[row].pixels[k] for row in rows]).sum(0) for k in range(3))
    dice, iou = ratio(2 * both, true + predicted), ratio(both, true + predicted - both)
    return {"dice": float(nanmean(dice)), "iou": float(nanmean(iou))}


def challenge_iou(images: Sequence[ImageScores], rows: np.ndarray) -> float:
    """EndoVis' challenge IoU: of each image the mean over the classes that its truth has, then over images.

    Classes that are predicted and not there cost nothing of their own (Gonzalez et al. 2020, arXiv 2007.05405, tell it
    from their ISI-IoU by that); an image without any class is left out.
    """
    each = np.stack([np.where(images[row].empty_truth, np.nan, images[row].iou) for row in rows])
    return float(nanmean(nanmean(each, 1)))


def class_table(images: Sequence[ImageScores], classes: Sequence[str]) -> dict[str, dict[str, float]]:
    """Class -> measure -> mean over images, with the counts `images` (labelled), `both_empty`, `hd95_undefined` (either
    mask empty) and `missed` (only the prediction empty)."""
    labelled, no_truth, no_prediction = (
        np.stack([getattr(image, name) for image in images]) for name in ("labelled", "empty_truth", "empty_prediction")
    )
    counts = {
        "images": labelled,
        "both_empty": labelled & no_truth & no_prediction,
        "hd95_undefined": labelled & (no_truth | no_prediction),
        "missed": labelled & no_prediction & ~no_truth,
    }
    means = {name: nanmean(value, 0) for name, value in stacked(images, classes).items()}
    return {
        name: {m: float(mean[c]) for m, mean in means.items()} | {k: int(v[:, c].sum()) for k, v in counts.items()}
        for c, name in enumerate(classes)
    }


def _binary(mask: np.ndarray, side: str, dimensions: tuple[int, ...] = (3,)) -> np.ndarray:
    mask = np.asarray(mask)
    if mask.ndim not in dimensions or not mask.size:
        raise SurgdinoError(f"the {side} is no mask a class", expected="[c, h, w]", found=list(mask.shape))
    if mask.dtype == bool:
        return mask
    odd = mask[(mask != 0) & (mask != 1)]
    if odd.size:
        raise SurgdinoError(
            f"the {side} is not binary", expected="0 or 1", found=odd.flat[0], fix="threshold the mask first"
        )
    return mask.astype(bool)
