"""Predictions averaged over views and over runs: the mean of probabilities, places where they were, and said so."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from surgdino.backbone.preprocess import Preprocess
from surgdino.cli.main import main
from surgdino.config import shipped
from surgdino.engine.settings import HardwareSettings
from surgdino.errors import SurgdinoError
from surgdino.tasks.averaging import average, load_runs, views_of
from surgdino.tasks.context import View
from surgdino.tasks.saved import load_task
from surgdino.tasks.segmentation.heads import DenseHead
from surgdino.tasks.segmentation.inference import Segmenter
from surgdino.tasks.task import Member
from surgdino.verbs.evaluate import frames_tested


def values_of(path: Path) -> np.ndarray:
    with path.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    return np.array([row[1:] for row in rows], float)


def test_views_are_named_and_the_plain_one_is_first():
    assert views_of("none") == [View()]
    assert views_of("flips") == [View(), View(1.0, True)]
    assert len(views_of("scales+flips")) == 6
    assert all(views_of(name)[0] == View() for name in ("flips", "scales", "scales+flips"))


def test_a_mirrored_picture_is_the_picture_mirrored():
    picture = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    plain, mirrored = Preprocess(32), Preprocess(32, mirrored=True)
    assert (mirrored.resize(picture) == plain.resize(picture)[:, ::-1]).all()
    square = picture[:32, :32]
    assert (mirrored(square) == plain(square).flip(3)).all()
    assert (mirrored(torch.from_numpy(square).permute(2, 0, 1)) == plain(square).flip(3)).all()


class Bright(DenseHead):
    """Says where the picture is bright, and nothing of tokens."""

    reads_images = True

    def forward(self, tokens, grid, images=None):
        return images.mean(1, keepdim=True)


@pytest.mark.slow
@pytest.mark.parametrize("window", [None, 32])
def test_masks_stay_in_their_places_whatever_the_view(runs, tmp_path, window):
    saved, frames = frames_tested(runs["segmentation"])
    context = saved.context(shipped(HardwareSettings, "hardware/cpu"), tmp_path)
    head = Bright(8, 1, 1, 1)
    plain = Segmenter(context, head, window)
    mirrored = Segmenter(context.seen(View(1.0, True)), head, window)
    for (*_, ours), (*_, theirs) in zip(plain.masks(frames), mirrored.masks(frames), strict=True):
        assert ours.any()
        assert not (ours == ours[..., ::-1]).all()
        assert (ours == theirs).mean() > 0.99
    both = Segmenter(context, head, window, others=[mirrored])
    assert all((a[2] == b[2]).mean() > 0.99 for a, b in zip(plain.masks(frames), both.masks(frames), strict=True))


@pytest.mark.slow
def test_runs_are_averaged_and_say_so(runs, tmp_path, capsys):
    for name in ("seed0", "seed1"):
        shutil.copytree(runs["tools"], tmp_path / "both" / name)
    video = next(path for path in (runs["tools"].parents[1]).rglob("video04.mp4"))
    words = ["predict", str(video), "hardware.loader_workers=0"]
    assert main([*words, f"checkpoint={runs['tools']}", f"out={tmp_path / 'one'}"]) == 0
    assert main([*words, f"checkpoint={tmp_path / 'both'}", "averaging=flips", f"out={tmp_path / 'mean'}"]) == 0
    assert "averaged: 2 runs, flips" in capsys.readouterr().out
    one, mean = (values_of(tmp_path / name / "video04.csv") for name in ("one", "mean"))
    assert one.shape == mean.shape
    assert 0 < np.abs(one - mean).max() < 0.5
    listed = ",".join(str(tmp_path / "both" / name) for name in ("seed0", "seed1"))
    assert main([*words, f"checkpoint=[{listed}]", f"out={tmp_path / 'same'}"]) == 0
    np.testing.assert_allclose(values_of(tmp_path / "same" / "video04.csv"), one, atol=1e-6)


@pytest.mark.slow
def test_runs_of_other_tasks_twice_the_same_or_none_are_refused(runs, tmp_path):
    tools = str(runs["tools"])
    for places, told in (
        ([tools, str(runs["segmentation"])], "another task"),
        ([tools, f"{tools}/checkpoint"], "twice"),
        ([], "cannot be averaged"),
        ([str(tmp_path)], "no checkpoint"),
    ):
        with pytest.raises(SurgdinoError, match=told):
            load_runs(places)


def test_evaluate_names_its_protocols_after_what_was_asked_for_and_other_tasks_do_not_smooth(runs, tmp_path, capsys):
    words = ["evaluate", "hardware.loader_workers=0", "averaging=flips", "smoothing=propagation"]
    assert main([*words, f"checkpoint={runs['segmentation']}", f"out={tmp_path / 'out'}"]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["headline"]["protocol"] == "segmentation/image-wise/flips/propagation"
    assert {row["protocol"].partition("px")[2] for row in results["scores"][-3:]} == {"/flips/propagation"}
    assert results["averaged_over"] == "flips, propagation"
    assert main([*words, f"checkpoint={runs['tools']}", f"out={tmp_path / 'tools'}"]) == 2
    assert "task=tools does not smooth" in capsys.readouterr().err


def test_what_a_task_predicts_is_averaged_by_name_or_refused(runs):
    task = load_task(runs["tools"]).task
    assert task.averaged([np.zeros((2, 3)), np.ones((2, 3))]).tolist() == [[0.5] * 3] * 2
    assert task.averaged([{"I": np.zeros(2)}, {"I": np.ones(2)}])["I"].tolist() == [0.5, 0.5]
    with pytest.raises(SurgdinoError, match="are not averaged"):
        task.averaged([["a box"], ["a box"]])
    assert average([Member(task, None, None)], "none") == ""
    assert not task.members
