"""The ribbon shows what was predicted where it was predicted, and overlays colour what is masked and nothing else."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from surgdino.datasets.card import load_card
from surgdino.report.colours import class_colours
from surgdino.report.sheet import rgb
from surgdino.report.timeline import clock, segments
from surgdino.tasks.phase.ribbon import Ribbon, draw_ribbon
from surgdino.tasks.segmentation.overlay import overlay, with_legend

PHASES = load_card("cholec80").phases


def ribbon(truth: np.ndarray | None, prediction: np.ndarray, times: np.ndarray | None = None) -> Ribbon:
    times = np.arange(len(prediction), dtype=float) if times is None else times
    return Ribbon("video01", times, PHASES, prediction, np.full(len(prediction), 0.8), truth, "a model")


def test_segments_are_runs_of_equal_labels_and_end_at_gaps():
    times = np.array([0.0, 1, 2, 3, 10, 11])
    labels = np.array([2, 2, -1, 4, 4, 4])
    assert segments(labels, times, times + 1) == [(2, 0.0, 2.0), (4, 3.0, 4.0), (4, 10.0, 12.0)]
    assert segments(labels[:0], times[:0], times[:0]) == []


def bands(path) -> list[list[tuple[int, int, int]]]:
    """The colours from left to right of every row of pixels that holds any phase's colour, equal rows once."""
    image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    known = {rgb(colour) for colour in class_colours(PHASES).values()}
    found: list[list] = []
    for row in image[: image.shape[0] // 2, 188:1710]:  # between the margins, above the legend
        changes = np.concatenate([[True], (row[1:] != row[:-1]).any(1)])
        runs = [tuple(pixel) for pixel in row[changes].tolist()]
        if set(runs) <= known and runs not in found:
            found.append(runs)
    return found


def test_truth_lies_above_the_prediction_each_in_the_colours_of_its_phases(tmp_path):
    truth, prediction = np.repeat([0, 1, 3], 50), np.repeat([0, 2, 3], 50)
    path = draw_ribbon(ribbon(truth, prediction), tmp_path / "ribbon.png")
    colour = [rgb(value) for value in class_colours(PHASES).values()]
    assert bands(path) == [[colour[0], colour[1], colour[3]], [colour[0], colour[2], colour[3]]]
    alone = draw_ribbon(ribbon(None, prediction), tmp_path / "alone.png")
    assert bands(alone) == [[colour[0], colour[2], colour[3]]]


def test_accuracy_is_over_labelled_frames():
    prediction = np.array([0, 1, 1, 2])
    assert ribbon(np.array([0, 1, 2, -1]), prediction).accuracy == pytest.approx(2 / 3)
    assert ribbon(np.full(4, -1), prediction).accuracy is None
    assert ribbon(None, prediction).accuracy is None


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_equal_input_gives_equal_bytes(tmp_path, suffix):
    drawn = [draw_ribbon(ribbon(None, np.repeat([0, 5], 9)), tmp_path / f"{n}{suffix}").read_bytes() for n in range(2)]
    assert drawn[0] == drawn[1]
    assert drawn[0].startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")


def test_one_frame_and_sparse_frames_can_be_drawn(tmp_path):
    colour = [rgb(value) for value in class_colours(PHASES).values()]
    one = draw_ribbon(ribbon(np.array([1]), np.array([1])), tmp_path / "one.png")
    assert bands(one) == [[colour[1]]]
    times = np.array([3.0, 1000, 2000, 3000, 4000])
    sparse = draw_ribbon(ribbon(None, np.arange(5), times), tmp_path / "sparse.png")
    assert bands(sparse) == [colour[:5]]


def test_times_are_written_as_on_a_clock():
    assert [clock(s) for s in (0, 59.6, 61, 3600, 5025)] == ["0:00", "1:00", "1:01", "1:00:00", "1:23:45"]


def test_an_overlay_colours_what_is_masked_and_nothing_else():
    image = np.full((120, 160, 3), 100, np.uint8)
    classes = ["liver", "stomach"]
    masks = np.zeros((2, 120, 160), bool)
    masks[0, 20:60, 20:60] = True
    drawn = overlay(image, masks, classes)
    assert (drawn[:15] == 100).all()
    assert (drawn[70:] == 100).all()
    expected = np.round(100 + 0.35 * (np.array(rgb(class_colours(classes)["liver"])) - 100))
    assert (drawn[40, 40] == expected).all()
    assert (drawn[20, 40] == rgb(class_colours(classes)["liver"])).all()  # the edge
    assert (overlay(image, np.zeros_like(masks), classes) == image).all()
    with pytest.raises(ValueError, match="expected masks"):
        overlay(image, masks[:1], classes)


def test_the_legend_names_every_class_under_the_picture():
    image = np.zeros((240, 320, 3), np.uint8)
    classes = load_card("dsad").mask_classes
    legend = with_legend(image, classes)
    assert (legend[:240] == image).all()
    shown = {tuple(pixel) for pixel in np.unique(legend[240:].reshape(-1, 3), axis=0).tolist()}
    assert {rgb(colour) for colour in class_colours(classes).values()} <= shown
