"""`surgdino.load`: of every task's run a model that says what `surgdino predict` says, of paths and of arrays."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import surgdino
from surgdino.api.models import BackboneModel, TaskModel
from surgdino.datasets.files import is_image
from surgdino.errors import SurgdinoError
from surgdino.frames.video.decode import probe, read_frames
from surgdino.tasks import task_names
from surgdino.tasks.prediction import Prediction
from surgdino.tasks.segmentation.files import read_written
from surgdino.verbs.evaluate import frames_tested
from tests.tasks.sets import SETS

TASKS = sorted(set(task_names()) & set(SETS))


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def numbers(rows: list[dict[str, str]], names: Any) -> np.ndarray:
    return np.array([[float(row[name]) for name in names] for row in rows])


def phase(found: Any, files: dict[str, Path]) -> None:
    rows = rows_of(files["table"])
    assert [row["phase"] for row in rows] == found.labels
    np.testing.assert_allclose(numbers(rows, found.classes), found.probabilities, atol=6e-6)
    assert [float(row["seconds"]) for row in rows] == pytest.approx(found.times, abs=1e-3)


def tools(found: Any, files: dict[str, Path]) -> None:
    np.testing.assert_allclose(numbers(rows_of(files["probabilities"]), found.classes), found.probabilities, rtol=1e-6)
    assert [len(names) for names in found.labels] == found.present.sum(1).tolist()


def triplet(found: Any, files: dict[str, Path]) -> None:
    rows = rows_of(files["scores"])
    np.testing.assert_allclose(numbers(rows, [str(k) for k in range(100)]), found.probabilities, atol=1e-5)
    listed = rows_of(files["list"])
    assert [row["triplet1"] for row in listed] == [found.top(k, 1)[0][0] for k in range(len(found))]
    for part, names in found.parts.items():
        assert found.scores[part].shape == (len(found), len(names))


def segmentation(found: Any, files: dict[str, Path]) -> None:
    for video, number, masks in zip(found.videos, found.numbers.tolist(), found.masks, strict=True):
        written = read_written(files["masks"], video, number, found.classes)
        assert np.array_equal(written, masks)
    np.testing.assert_allclose(numbers(rows_of(files["table"]), found.classes), found.areas, atol=1e-5)


def instances(found: Any, files: dict[str, Path]) -> None:
    rows = json.loads(files["results"].read_text())
    ours = [(k + 1, each) for k, objects in enumerate(found.objects) for each in objects]
    assert [(row["image_id"], row["score"], tuple(row["bbox"])) for row in rows] == [
        (image, each.score, each.box) for image, each in ours
    ]
    assert len(rows_of(files["table"])) == sum(map(len, found.sure))
    assert all(each.mask is None or each.mask.dtype == bool for _, each in ours)


def vqa(found: Any, files: dict[str, Path]) -> None:
    rows, replies = rows_of(files["answers"]), found.replies
    assert [row["question"] for row in rows] == list(replies.questions)
    assert [row["answer"] for row in rows] == list(replies.answers)
    assert [float(row["confidence"]) for row in rows] == pytest.approx(replies.confidence, abs=1e-4)


SAME: dict[str, Callable[[Any, dict[str, Path]], None]] = {
    each.__name__: each for each in (phase, tools, triplet, segmentation, instances, vqa)
}


def same(one: Any, other: Any) -> None:
    """Equal to the last bit, but for what the frames are called."""
    if is_dataclass(one):
        for field in fields(one):
            if field.name not in ("videos", "numbers", "times", "frames"):
                same(getattr(one, field.name), getattr(other, field.name))
    elif isinstance(one, np.ndarray):
        assert np.array_equal(one, other)
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            same(*pair)
    elif isinstance(one, dict):
        same(list(one.items()), list(other.items()))
    else:
        assert one == other


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_a_model_says_what_predict_writes(task, runs, sets, tmp_path, capsys):
    frames = frames_tested(runs[task])[1]
    path = sets[task] / frames.store.videos[0].shard.header["source"]["path"]
    path = path.parent if is_image(path) else path
    capsys.readouterr()
    written = surgdino.predict(path, f"checkpoint={runs[task]}", "hardware=cpu", out=tmp_path / "out")
    model = surgdino.load(runs[task])
    assert isinstance(model, TaskModel)
    found = model.predict(path)
    assert capsys.readouterr() == ("", "")
    assert isinstance(found, Prediction)
    assert len(found) > 0
    SAME[task](found, dict(written.videos[0].written))


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_arrays_are_a_video_too(task, runs, tmp_path):
    drawn = np.random.default_rng(0)
    frames = np.stack([drawn.integers(0, 255, (72, 96, 3), dtype=np.uint8) for _ in range(5)])
    frames = np.stack([cv2.GaussianBlur(each, (0, 0), 5) for each in frames])
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, frame in enumerate(frames):
        cv2.imwrite(str(folder / f"{number:06d}.png"), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    model = surgdino.load(runs[task])
    found = model.predict(frames)
    assert len(found) == 5
    same(found, model.predict(folder, image_fps=model.fps))
    same(found, model.predict(list(frames)))
    assert type(model.predict(frames[:1])) is type(found)


@pytest.mark.slow
def test_several_runs_and_views_are_averaged(runs, tmp_path):
    shutil.copytree(runs["tools"], tmp_path / "runs" / "one")
    shutil.copytree(runs["tools"], tmp_path / "runs" / "two")
    frames = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), dtype=np.uint8)
    alone = surgdino.load(runs["tools"])
    for place in (tmp_path / "runs", [tmp_path / "runs" / "one", tmp_path / "runs" / "two"]):
        both = surgdino.load(place)
        np.testing.assert_allclose(both.predict(frames).probabilities, alone.predict(frames).probabilities, atol=1e-6)
    flipped = alone.predict(frames, averaging="flips").probabilities
    assert not np.allclose(flipped, alone.predict(frames).probabilities)
    same(alone.predict(frames), alone.predict(frames))


@pytest.mark.slow
def test_what_cannot_be_predicted_is_said(runs):
    model = surgdino.load(runs["tools"])
    for wrong, words in (
        (np.zeros((2, 8, 8, 3)), "not frames; expected uint8"),
        ([], "no frames to look at"),
        ("/no/video.mp4", "does not exist"),
        ([np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8)], "frames of one size, found 8x8, 9x8"),
    ):
        with pytest.raises(SurgdinoError, match=words):
            model.predict(wrong)
    with pytest.raises(SurgdinoError, match="task=tools answers no questions"):
        model.predict(np.zeros((1, 8, 8, 3), np.uint8), questions="why?")


@pytest.mark.slow
def test_features_of_pictures_and_of_videos(runs, sets, tmp_path):
    model = surgdino.load(runs["tools"])
    alone = surgdino.load(runs["tools"] / "checkpoint" / "backbone.safetensors")
    assert type(alone) is BackboneModel
    video = sets["tools"] / "videos" / "video04.mp4"
    frames = np.stack([each.image for each in read_frames(video, probe(video).numbers[:40:25])])
    found = model.features(frames, batch=1)
    tokens = alone(alone.preprocess(frames))
    np.testing.assert_allclose(found.cls, tokens.cls.detach(), atol=1e-5)
    np.testing.assert_allclose(found.patches, tokens.patches.detach(), atol=1e-5)
    cv2.imwrite(str(tmp_path / "one.png"), cv2.cvtColor(frames[0], cv2.COLOR_RGB2BGR))
    np.testing.assert_allclose(model.features(tmp_path / "one.png").cls, found.cls[:1], atol=1e-5)
    of_video = model.features(video, patches=False)
    assert of_video.patches is None
    assert of_video.numbers.tolist() == [25 * k for k in range(12)]
    assert len(model.features(video, fps=2).cls) == 24
    _, tested = frames_tested(runs["tools"])  # as they lie in the run's own store
    labelled = np.isin(of_video.numbers, tested.numbers)
    frames = [tested.store.read(place) for place in tested.index.tolist()]
    np.testing.assert_allclose(alone.features(frames).cls, of_video.cls[labelled], atol=1e-5)
