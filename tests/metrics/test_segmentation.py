"""Segmentation metrics: MONAI's numbers where masks are full, our stated rules where they are empty or unlabelled."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import DiceMetric, HausdorffDistanceMetric, MeanIoU
from scipy import ndimage

from surgdino.errors import SurgdinoError
from surgdino.metrics.arrays import as_json
from surgdino.metrics.intervals import jackknife
from surgdino.metrics.segmentation import (
    TOLERANCES,
    ImageScores,
    challenge_iou,
    class_means,
    class_table,
    image_scores,
    pooled_scores,
    stacked,
)

NAN = math.nan


def means(images: list[ImageScores], classes: list[str]) -> dict[str, float]:
    return class_means(stacked(images, classes), np.arange(len(images)))


def blobs(seed: int, classes: int = 3, size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Discs and the same discs moved and grown a little: bool [c, size, size] twice, neither empty."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    masks = []
    for _ in range(classes):
        cy, cx, radius = *rng.uniform(8, size - 8, 2), rng.uniform(3, 7)
        moved = rng.normal(scale=2, size=3)
        disc = (y - cy) ** 2 + (x - cx) ** 2 < radius**2
        other = (y - cy - moved[0]) ** 2 + (x - cx - moved[1]) ** 2 < max(radius + moved[2], 2) ** 2
        masks.append((disc, other))
    return tuple(np.stack(side) for side in zip(*masks, strict=True))


def monai_value(metric, truth: np.ndarray, prediction: np.ndarray, **keywords) -> np.ndarray:
    sides = (torch.from_numpy(side[None].astype(np.float32)) for side in (prediction, truth))
    return metric(*sides, **keywords)[0].numpy()


@pytest.mark.parametrize("seed", range(3))
def test_surface_dice_is_monais_at_every_tolerance_and_0_where_one_mask_is_empty(seed):
    from monai.metrics import compute_surface_dice

    truth, prediction = blobs(seed, classes=2)
    sides = (torch.from_numpy(side[None].astype(np.float32)) for side in (prediction, truth))
    pair = list(sides)
    found = image_scores(truth, prediction).nsd
    for place, tolerance in enumerate(TOLERANCES):
        expected = compute_surface_dice(*pair, [float(tolerance)] * 2, include_background=True)[0].numpy()
        np.testing.assert_allclose(found[place], expected, atol=1e-6)
    prediction[0], truth[1], prediction[1] = False, False, False
    np.testing.assert_array_equal(image_scores(truth, prediction).nsd, [[0.0, NAN]] * len(TOLERANCES))
    assert np.isnan(image_scores(truth, prediction, labelled=np.array([False, True])).nsd).all()


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("seed", range(6))
def test_dice_iou_and_hd95_are_monais(seed):
    truth, prediction = blobs(seed)
    scores = image_scores(truth, prediction)
    np.testing.assert_allclose(scores.dice, monai_value(DiceMetric(), truth, prediction), atol=1e-6)
    np.testing.assert_allclose(scores.iou, monai_value(MeanIoU(), truth, prediction), atol=1e-6)
    hausdorff = HausdorffDistanceMetric(include_background=True, percentile=95)
    np.testing.assert_allclose(scores.hd95, monai_value(hausdorff, truth, prediction), atol=1e-5)
    spaced = monai_value(hausdorff, truth, prediction, spacing=[0.5, 2.0])
    np.testing.assert_allclose(image_scores(truth, prediction, spacing=(0.5, 2.0)).hd95, spaced, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_pooled_scores_are_those_of_all_pixels_in_one_picture(seed):
    pictures = [blobs(10 * seed + i) for i in range(4)]
    images = [image_scores(truth, prediction, hd95=False) for truth, prediction in pictures]
    joined = image_scores(*(np.concatenate([pair[side] for pair in pictures], 1) for side in range(2)), hd95=False)
    pooled = pooled_scores(images, np.arange(4))
    assert pooled == pytest.approx({"dice": joined.dice.mean(), "iou": joined.iou.mean()})
    one = pooled_scores(images, np.array([2]))
    assert one == pytest.approx({"dice": images[2].dice.mean(), "iou": images[2].iou.mean()})


def test_what_is_not_labelled_counts_for_nothing_in_pooled_scores():
    truth, prediction = blobs(0, classes=2)
    half = image_scores(truth, ~prediction, labelled=np.array([True, False]), hd95=False)
    whole = image_scores(truth, prediction, hd95=False)
    pooled = pooled_scores([half, whole], np.arange(2))
    first = image_scores(*(np.concatenate([a[:1], b[:1]], 1) for a, b in ((truth, truth), (~prediction, prediction))))
    assert pooled["dice"] == pytest.approx((first.dice[0] + whole.dice[1]) / 2)


@pytest.mark.parametrize("exclusive", [False, True])
def test_the_challenges_iou_is_monais_over_the_classes_that_are_there(exclusive):
    pairs = []
    for seed in range(8):
        truth, prediction = blobs(seed)
        truth[seed % 4 :] = False  # of every fourth picture nothing is left
        if exclusive:
            truth, prediction = (side & (side.cumsum(0) == 1) for side in (truth, prediction))
        pairs.append((truth, prediction))
    images = [image_scores(*pair, hd95=False) for pair in pairs]
    iou = MeanIoU(ignore_empty=True, reduction="mean_channel")
    iou(*(torch.from_numpy(np.stack([pair[side] for pair in pairs]).astype(np.float32)) for side in (1, 0)))
    each = iou.aggregate()
    there = np.array([truth.any() for truth, _ in pairs])
    slow = []
    for truth, prediction in pairs:
        ious = [(t & p).sum() / (t | p).sum() for t, p in zip(truth, prediction, strict=True) if t.any()]
        slow += [sum(ious) / len(ious)] if ious else []
    found = challenge_iou(images, np.arange(8))
    assert len(slow) == 6
    assert found == pytest.approx(np.mean(slow))
    assert found == pytest.approx(float(each[torch.from_numpy(there)].mean()), abs=1e-6)
    assert math.isnan(challenge_iou(images, np.array([0])))


def edge_distances(of: np.ndarray, to: np.ndarray) -> np.ndarray:
    """From each edge pixel of one mask to the nearest edge pixel of the other, by all pairs."""
    edges = [np.argwhere(side & ~ndimage.binary_erosion(side)) for side in (of, to)]
    return np.sqrt(((edges[0][:, None] - edges[1][None]) ** 2).sum(-1)).min(1)


@pytest.mark.parametrize("seed", range(6))
def test_hd95_is_the_larger_95th_percentile_of_edge_distances(seed):
    truth, prediction = blobs(seed)
    expected = [
        max(np.percentile(edge_distances(a, b), 95), np.percentile(edge_distances(b, a), 95))
        for a, b in zip(truth, prediction, strict=True)
    ]
    np.testing.assert_allclose(image_scores(truth, prediction).hd95, expected, atol=1e-5)


def mask(*pixels: tuple[int, int], size: int = 8) -> np.ndarray:
    out = np.zeros((1, size, size), dtype=bool)
    for pixel in pixels:
        out[0][pixel] = True
    return out


def test_by_hand():
    scores = image_scores(mask((1, 1), (1, 2), (1, 3)), mask((1, 2), (1, 3), (1, 4), (1, 5)))
    assert scores.dice[0] == pytest.approx(4 / 7)
    assert scores.iou[0] == pytest.approx(2 / 5)
    assert image_scores(mask((1, 1)), mask((4, 5))).hd95[0] == pytest.approx(5)


@pytest.mark.parametrize(
    ("truth", "prediction", "dice", "iou"),
    [(mask(), mask(), NAN, NAN), (mask(), mask((1, 1)), 0, 0), (mask((1, 1)), mask(), 0, 0)],
    ids=["both empty", "truth empty", "prediction empty"],
)
def test_empty_masks(truth, prediction, dice, iou):
    scores = image_scores(truth, prediction)
    np.testing.assert_equal([scores.dice[0], scores.iou[0], scores.hd95[0]], [dice, iou, NAN])


def test_undefined_distances_are_counted_and_left_out_of_the_mean():
    full, other = mask((1, 1)), mask((1, 3))
    images = [image_scores(t, p) for t, p in [(full, other), (full, mask()), (mask(), full), (mask(), mask())]]
    liver = class_table(images, ["liver"])["liver"]
    counts = {name: liver[name] for name in ("images", "both_empty", "hd95_undefined", "missed")}
    assert counts == {"images": 4, "both_empty": 1, "hd95_undefined": 3, "missed": 1}
    assert liver["hd95"] == pytest.approx(2)
    assert liver["dice"] == 0
    assert math.isnan(means(images[2:], ["liver"])["hd95"])


def test_the_class_mean_is_over_the_means_of_classes():
    one, none = mask((1, 1)), mask()
    images = [
        image_scores(np.concatenate([one, one]), np.concatenate([one, none]), hd95=False),
        image_scores(np.concatenate([one, none]), np.concatenate([one, none]), hd95=False),
        image_scores(np.concatenate([one, none]), np.concatenate([none, none]), hd95=False),
    ]
    table = class_table(images, ["x", "y"])
    assert table["x"]["dice"] == pytest.approx(2 / 3)
    assert table["y"]["dice"] == 0
    assert means(images, ["x", "y"])["dice"] == pytest.approx(1 / 3)
    assert means(images[:1], ["x", "y"])["dice"] == means(images[1:], ["x", "y"])["dice"] == 0.5
    assert json.loads(json.dumps(as_json(means(images, ["x", "y"])), allow_nan=False))["hd95"] is None


def test_an_unlabelled_class_is_neither_right_nor_wrong():
    truth, prediction = blobs(0)
    scores = image_scores(truth, prediction, labelled=np.array([True, False, True]))
    whole = image_scores(truth, prediction)
    np.testing.assert_equal(scores.dice, [whole.dice[0], NAN, whole.dice[2]])
    np.testing.assert_equal(scores.hd95, [whole.hd95[0], NAN, whole.hd95[2]])
    assert class_table([scores], list("abc"))["b"]["images"] == 0


def test_pixels_outside_the_valid_mask_count_for_neither_side():
    truth, prediction = blobs(1)
    valid = np.zeros(truth.shape[1:], dtype=bool)
    valid[:, :20] = True
    scores = image_scores(truth, prediction, valid=valid)
    cut = image_scores(truth & valid, prediction & valid)
    np.testing.assert_equal(scores.dice, cut.dice)
    np.testing.assert_equal(scores.hd95, cut.hd95)
    by_class = np.stack([valid, ~valid, np.ones_like(valid)])
    expected = image_scores(truth & by_class, prediction & by_class)
    np.testing.assert_equal(image_scores(truth, prediction, valid=by_class).iou, expected.iou)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 1), st.floats(0, 1))
def test_dice_and_iou_are_symmetric_fractions_bound_to_each_other(seed, share, other):
    rng = np.random.default_rng(seed)
    truth, prediction = rng.random((2, 6, 5)) < share, rng.random((2, 6, 5)) < other
    scores, turned = (image_scores(*pair, hd95=False) for pair in ((truth, prediction), (prediction, truth)))
    np.testing.assert_equal(scores.dice, turned.dice)
    defined = ~np.isnan(scores.dice)
    assert ((scores.dice[defined] >= 0) & (scores.dice[defined] <= 1)).all()
    np.testing.assert_allclose(scores.dice[defined], 2 * scores.iou[defined] / (1 + scores.iou[defined]))
    same = image_scores(truth, truth, hd95=False).dice
    assert (np.isnan(same) == ~truth.any((1, 2))).all()
    assert (same[truth.any((1, 2))] == 1).all()


def test_intervals_leave_out_whole_operations():
    images = [image_scores(*blobs(seed), hd95=False) for seed in range(12)]
    operations = [f"op{number // 2}" for number in range(12)]
    values = stacked(images, list("xyz"))
    interval = jackknife(lambda rows: class_means(values, rows), operations, shares=["dice"])["dice"]
    assert interval.n == 6
    assert interval.value == means(images, list("xyz"))["dice"]
    assert 0 < interval.low < interval.value < interval.high < 1


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: image_scores(mask(), mask(size=9)), "predicted masks are of another size"),
        (lambda: image_scores(mask()[0], mask()[0]), "no mask a class"),
        (lambda: image_scores(mask() * 255 + np.uint8(255), mask()), "not binary; expected 0 or 1, found 255"),
        (lambda: image_scores(mask(), mask(), labelled=np.array([True, True])), "one flag a class"),
        (lambda: image_scores(mask(), mask(), valid=np.ones((3, 3), bool)), "valid mask is of another size"),
        (lambda: stacked([], ["x"]), "no image to score"),
        (lambda: stacked([image_scores(mask(), mask())], ["x", "y"]), "number of classes"),
    ],
)
def test_what_does_not_fit_is_one_line(call, words):
    with pytest.raises(SurgdinoError, match=words):
        call()
