"""Masks are probed patch by patch: they follow their picture into the store, and unknown classes count for nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from surgdino.backbone.preprocess import Preprocess
from surgdino.datasets.card import Card, load_card
from surgdino.datasets.manifest import Manifest
from surgdino.datasets.open import open_dataset
from surgdino.engine.probes.masks import Masks
from surgdino.engine.probing import ProbeSet
from surgdino.engine.probing.view import ProbeFeatures, View
from surgdino.frames.store import FrameStore, StoreSettings, build_store
from tests.datasets.mask_sets import write_dsad, write_pairs

GRID = (8, 8)
PREPROCESS = Preprocess(64, (0.5,) * 3, (0.5,) * 3)


def stored(manifest: Manifest, folder: Path) -> FrameStore:
    return build_store(manifest, folder, StoreSettings.of(short_side=64), workers=1, progress=False)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> tuple[Manifest, FrameStore]:
    root = tmp_path_factory.mktemp("pairs")
    write_pairs(root, images=20, size=(64, 64))
    manifest = open_dataset(replace_classes(load_card("folder")), root)
    return manifest, stored(manifest, root / "store")


def replace_classes(card: Card) -> Card:
    return card if card.mask_classes else replace(card, mask_classes=("object",))


def view_of(probe: ProbeSet, patches: torch.Tensor) -> View:
    """These patch tokens [m, N, D] for the frames that have masks."""
    cls = torch.zeros(len(probe), 4)
    features = ProbeFeatures(cls, cls, patches.half(), np.sort(probe.masks.rows), lambda _: torch.empty(0))
    return View(probe.frames, [], [], probe.masks, features, (cls, cls), GRID)


def test_a_mask_is_where_its_picture_shows_it(pairs):
    manifest, store = pairs
    probe = ProbeSet(store, 100, PREPROCESS, manifest.labels)
    cover, known = probe.masks.cover(GRID)
    assert cover.shape == (20, 1, 8, 8)
    assert known.all()
    labels = next(iter(manifest.labels.values()))
    for place, row in enumerate(probe.masks.rows):
        index = int(probe.frames.rows[row])
        frame = labels.values[store.video_id(index)][store.number(index)]
        mask = cv2.imread(str(frame.files[labels.classes[0]]), cv2.IMREAD_GRAYSCALE) > 127
        x0, y0, x1, y1 = store.videos[index].shard.header["content"]["source_box"]
        share = cv2.resize(mask[y0:y1, x0:x1].astype(np.float32), GRID, interpolation=cv2.INTER_AREA)
        np.testing.assert_array_equal(cover[place, 0], share > 0.5)


def test_tokens_that_tell_the_class_reach_a_dice_of_one_on_operations_that_taught_nothing(pairs):
    manifest, store = pairs
    tested = {video.operation for video in manifest.videos[::2]}
    probe = ProbeSet(store, 100, PREPROCESS, manifest.labels, tested)
    cover, _ = probe.masks.cover(GRID)
    rng = np.random.default_rng(0)
    telling = np.stack([cover[:, 0], ~cover[:, 0]], axis=-1).reshape(len(cover), 64, 2)
    told = torch.from_numpy(np.concatenate([telling + rng.normal(size=telling.shape) * 0.05], axis=-1))
    values = {finding.name: finding for finding in Masks().find(view_of(probe, told))}
    assert values["masks_linear_dice"].value > 0.98
    assert values["masks_knn_dice"].value > 0.98
    assert values["masks_linear_dice"].per_operation.keys() == tested
    noise = torch.from_numpy(rng.normal(size=(len(cover), 64, 8)))
    values = {finding.name: finding for finding in Masks().find(view_of(probe, noise))}
    assert values["masks_linear_dice"].value < 0.6


def test_classes_of_which_nothing_is_known_count_for_nothing(tmp_path):
    write_dsad(tmp_path / "dsad", images=3)
    manifest = open_dataset(load_card("dsad"), tmp_path / "dsad")
    probe = ProbeSet(stored(manifest, tmp_path / "store"), 200, PREPROCESS, manifest.labels)
    cover, known = probe.masks.cover(GRID)
    assert not known.all()
    assert known.any(1).all()
    rng = np.random.default_rng(0)
    telling = (
        np.moveaxis(cover, 1, -1).reshape(len(cover), 64, -1) + rng.normal(size=(len(cover), 64, cover.shape[1])) * 0.05
    )
    findings = {f.name: f for f in Masks().find(view_of(probe, torch.from_numpy(telling)))}
    assert findings["masks_linear_dice"].value > 0.9
    assert findings["masks_knn_dice"].per_operation.keys() == set(manifest.operations)
