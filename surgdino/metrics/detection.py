"""Average precision of boxes and masks under COCO's protocol (Lin et al. 2014), by pycocotools' own matching.

pycocotools matches detections and truths picture by picture, with crowds and ranges of size; precision over any choice
of pictures follows from its matches as its `accumulate` computes it, so that operations can be left out one by one. A
class without an object in the truth has no average precision and counts in no mean; in a picture without objects every
detection is wrong.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from surgdino.metrics.arrays import nanmean, ratio

Kind = Literal["bbox", "segm"]
Rows = Sequence[Mapping[str, Any]]  # of COCO's JSON
AREAS = ("all", "small", "medium", "large")  # as pycocotools orders them: parted at 32 x 32 and 96 x 96 pixels
MOST = 100  # detections of a picture that count
_IOU_50, _IOU_75 = 0, 5  # places among the thresholds 0.5, 0.55, ..., 0.95
_RECALL = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class Matches:
    """The m detections of one class in n pictures, for objects in one range of size.

    Attributes:
        pictures: int64 [m], ascending rows.
        scores: float64 [m].
        hit, ignored: bool [T, m], at T thresholds of IoU: found an object; counts for nothing.
        truths: int64 [n], objects to be found.
    """

    pictures: np.ndarray
    scores: np.ndarray
    hit: np.ndarray
    ignored: np.ndarray
    truths: np.ndarray


def match(
    images: Rows, annotations: Rows, found: Rows, classes: int, kind: Kind, areas: Sequence[str] = AREAS
) -> dict[str, list[Matches]]:
    """Range of size -> the matches of each class.

    Args:
        images: rows with `id` 1 to n, `width` and `height`.
        annotations: with `id` from 1, `image_id`, `category_id` 1 to `classes`, `bbox`, `area`, `iscrowd` and, for
            masks, `segmentation`.
        found: with `image_id`, `category_id`, `score`, `bbox`, `area` and, for masks, `segmentation`.
        kind: boxes or masks.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # it talks
        sides = []
        for rows in (annotations, [{**row, "id": n, "iscrowd": 0} for n, row in enumerate(found, start=1)]):
            side = COCO()
            copies = [dict(row) for row in rows]  # it writes into them
            categories = [{"id": place + 1} for place in range(classes)]
            side.dataset = {"images": list(images), "annotations": copies, "categories": categories}
            side.createIndex()
            sides.append(side)
        evaluation = COCOeval(*sides, kind)
        evaluation.evaluate()
    params, count = evaluation.params, len(images)
    matches: dict[str, list[Matches]] = {}
    for place, area in enumerate(params.areaRngLbl):
        if area in areas:
            starts = [(k * len(params.areaRngLbl) + place) * count for k in range(classes)]
            matches[area] = [_joined(evaluation.evalImgs[s : s + count], len(params.iouThrs)) for s in starts]
    return matches


def _joined(of_pictures: Sequence[Mapping[str, Any] | None], thresholds: int) -> Matches:
    known = [(row, each) for row, each in enumerate(of_pictures) if each is not None]
    truths = np.zeros(len(of_pictures), np.int64)
    for row, each in known:
        truths[row] = int((np.asarray(each["gtIgnore"]) == 0).sum())

    def beside(key: str) -> np.ndarray:
        return np.concatenate([np.empty((thresholds, 0)), *(each[key] for _, each in known)], axis=1).astype(bool)

    rows = [np.full(len(each["dtScores"]), row, np.int64) for row, each in known]
    scores = [np.asarray(each["dtScores"], np.float64) for _, each in known]
    empty = np.empty(0, np.int64)
    return Matches(
        np.concatenate([empty, *rows]),
        np.concatenate([empty.astype(np.float64), *scores]),
        beside("dtMatches"),
        beside("dtIgnore"),
        truths,
    )


def precision_and_recall(matches: Matches, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average precision and recall at each threshold, float64 [T], over pictures int [r]; NaN without an object."""
    thresholds, objects = len(matches.hit), int(matches.truths[rows].sum())
    if not objects:
        return np.full(thresholds, np.nan), np.full(thresholds, np.nan)
    wanted = np.zeros(len(matches.truths), bool)
    wanted[rows] = True
    kept = np.flatnonzero(wanted[matches.pictures])
    kept = kept[np.argsort(-matches.scores[kept], kind="stable")]
    counts = ~matches.ignored[:, kept]
    right = np.cumsum(matches.hit[:, kept] & counts, axis=1).astype(np.float64)
    wrong = np.cumsum(~matches.hit[:, kept] & counts, axis=1)
    precision, recall = np.zeros(thresholds), np.zeros(thresholds)
    for t in range(thresholds if len(kept) else 0):
        curve, reached = right[t] / (right[t] + wrong[t] + np.spacing(1)), right[t] / objects
        highest = np.append(np.maximum.accumulate(curve[::-1])[::-1], 0.0)  # 0 for recall that is never reached
        precision[t] = highest[np.searchsorted(reached, _RECALL, side="left")].mean()
        recall[t] = reached[-1]
    return precision, recall


def coco_numbers(matches: Mapping[str, Sequence[Matches]], rows: np.ndarray) -> dict[str, float]:
    """COCO's numbers over pictures int [r]: means over the classes that have an object there."""
    numbers: dict[str, float] = {}
    for area, of_classes in matches.items():
        both = [precision_and_recall(each, rows) for each in of_classes]
        precision, recall = (np.stack(side, 1) for side in zip(*both, strict=True))
        if area == "all":
            numbers |= {"AP": float(nanmean(precision)), "AP50": float(nanmean(precision[_IOU_50]))}
            numbers |= {"AP75": float(nanmean(precision[_IOU_75])), "AR100": float(nanmean(recall))}
        else:
            numbers[f"AP_{area}"] = float(nanmean(precision))
    return numbers


def class_numbers(of_classes: Sequence[Matches]) -> list[dict[str, float]]:
    """AP, AP50, recall at IoU 0.5, and how many objects in how many pictures, of each class."""
    numbers = []
    for each in of_classes:
        precision, recall = precision_and_recall(each, np.arange(len(each.truths)))
        numbers.append(
            {
                "AP": float(precision.mean()),
                "AP50": float(precision[_IOU_50]),
                "recall50": float(recall[_IOU_50]),
                "objects": int(each.truths.sum()),
                "frames": int((each.truths > 0).sum()),
            }
        )
    return numbers


def frame_f1(of_classes: Sequence[Matches], least: float) -> np.ndarray:
    """Of each picture the harmonic mean of precision and recall at IoU 0.5, float64 [n]; NaN where there is neither an
    object nor a detection whose score is `least` or more."""
    pictures = len(of_classes[0].truths)
    right, wrong, objects = (np.zeros(pictures) for _ in range(3))
    for each in of_classes:
        sure = (each.scores >= least) & ~each.ignored[_IOU_50]
        np.add.at(right, each.pictures[sure & each.hit[_IOU_50]], 1)
        np.add.at(wrong, each.pictures[sure & ~each.hit[_IOU_50]], 1)
        objects += each.truths
    return ratio(2 * right, right + wrong + objects)


def taken_for(annotations: Rows, found: Rows, classes: int, least: float) -> np.ndarray:
    """Which class is taken for which: int64 [C + 1, C + 1] of objects by class against detections by class.

    Each detection whose score is `least` or more, the surest first, takes the object that its box fits best, of any
    class, at IoU 0.5 or more. The last row is detections of nothing, the last column objects that nothing found. Crowds
    and what lies in them do not count.
    """
    from pycocotools.mask import iou

    counts = np.zeros((classes + 1, classes + 1), np.int64)
    pictures = sorted({row["image_id"] for row in (*annotations, *found)})
    truths, guesses = ({picture: list[Mapping[str, Any]]() for picture in pictures} for _ in range(2))
    for rows, of_picture in ((annotations, truths), (found, guesses)):
        for row in rows:
            of_picture[row["image_id"]].append(row)
    for picture in pictures:
        objects, open_ = truths[picture], {k for k, row in enumerate(truths[picture]) if not row["iscrowd"]}
        sure = sorted((row for row in guesses[picture] if row["score"] >= least), key=lambda row: -row["score"])
        boxes = ([row["bbox"] for row in side] for side in (sure, objects))
        fits = iou(*boxes, [int(row["iscrowd"]) for row in objects]) if sure and objects else np.zeros((len(sure), 0))
        for guess, fit in zip(sure, fits, strict=True):
            best = max(open_, key=lambda k: fit[k], default=None)
            if best is not None and fit[best] >= 0.5:
                open_.remove(best)
                counts[objects[best]["category_id"] - 1, guess["category_id"] - 1] += 1
            elif not any(fit[k] >= 0.5 for k, row in enumerate(objects) if row["iscrowd"]):
                counts[-1, guess["category_id"] - 1] += 1
        for k in open_:
            counts[objects[k]["category_id"] - 1, -1] += 1
    return counts
