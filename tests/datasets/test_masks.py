"""Sets of pictures and films with masks of ids or colours: every layout is read to the pixel."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from surgdino.datasets.card import Card, load_card
from surgdino.datasets.manifest import Manifest
from surgdino.datasets.masks import read_masks
from surgdino.datasets.open import open_dataset
from surgdino.datasets.synthetic.masks import _WRITERS, write_masks
from surgdino.errors import SurgdinoError
from surgdino.frames.store import StoreSettings, build_store

LAYOUTS = list(_WRITERS)


def shown(manifest: Manifest, video: str, number: int) -> np.ndarray:
    labels = manifest.labels["masks"]
    masks, known = read_masks(labels.values[video][number], labels.classes)
    assert known.all()
    return masks


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_read_to_the_pixel(name, tmp_path):
    truth = write_masks(tmp_path / "set", name, public_ids=True)
    manifest = open_dataset(load_card(name), tmp_path / "set")
    assert {video.id for video in manifest.videos} == truth.keys()
    assert set(manifest.operations) <= {load_card(name).operation_of(entry) for entry in load_card(name).videos}
    assert len(manifest.operations) == 4
    assert [problem.message for problem in manifest.problems if "not here" not in problem.message] == []
    classes = np.arange(1, len(load_card(name).mask_classes) + 1)[:, None, None]
    for video, frames in truth.items():
        assert manifest.labels["masks"].values[video].numbers.tolist() == sorted(frames)
        for number, ids in frames.items():
            np.testing.assert_array_equal(shown(manifest, video, number), (ids == classes) & (ids != 255))
    store = build_store(manifest, tmp_path / "store", StoreSettings.of(), workers=1, progress=False)
    assert not store.set_aside
    for place, video in enumerate(store.videos):
        assert set(truth[video.id]) <= set(store.of_video(place)[1].tolist())
