"""DAVIS' layout: sequences of the list, ids of objects as palette PNGs, and what cannot be followed."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from surgdino.datasets.card import load_card
from surgdino.datasets.masks import read_masks
from surgdino.datasets.open import open_dataset
from surgdino.datasets.synthetic.davis import write_davis


@pytest.fixture
def root(tmp_path) -> Path:
    write_davis(tmp_path / "davis")
    return tmp_path / "davis"


def test_sequences_of_the_list_with_their_objects(tmp_path):
    root = tmp_path / "davis"
    truths = write_davis(root, (1, 3), frames=5, every=2)
    (root / "JPEGImages/480p/train-only").mkdir()
    manifest = open_dataset(load_card("davis"), root)
    assert not manifest.problems
    assert [video.id for video in manifest.videos] == ["disc-1", "disc-2"]
    assert len(manifest.operations) == 2
    labels = manifest.labels["objects"]
    for name, truth in truths.items():
        masks = labels.values[name]
        assert masks.numbers.tolist() == [0, 2, 4]
        for number in masks:
            found, known = read_masks(masks[number], labels.classes)
            assert known.all()
            np.testing.assert_array_equal(found, truth[number] == np.arange(1, len(labels.classes) + 1)[:, None, None])
    (root / "ImageSets/2017/val.txt").unlink()
    assert "disc-2" in [video.id for video in open_dataset(load_card("davis"), root).videos]


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda root: (root / "Annotations/480p/disc-1/00000.png").unlink(), "no mask of the first frame"),
        (lambda root: _empty(root / "Annotations/480p/disc-1"), "found no mask at all"),
        (lambda root: shutil.rmtree(root / "Annotations"), "no mask of the first frame"),
        (lambda root: _empty(root / "JPEGImages/480p/disc-1"), "too few frames"),
        (lambda root: (root / "JPEGImages/480p/disc-1/00003.jpg").unlink(), "a mask without a frame"),
        (lambda root: shutil.rmtree(root / "JPEGImages/480p/disc-1"), "a sequence of the list is not here"),
        (lambda root: (root / "ImageSets/2017/val.txt").write_text("disc-2\ndics-1\n"), "Did you mean 'disc-1'?"),
        (lambda root: (root / "ImageSets/2017/val.txt").write_bytes(b"\xff\xfe\x00"), "val.txt"),
    ],
)
def test_what_cannot_be_followed_is_one_line(root, change, said):
    change(root)
    try:
        (problem,) = open_dataset(load_card("davis"), root).errors
        line = problem.error().line()
    except Exception as error:
        line = error.line()
    assert said in line
    assert "\n" not in line
