"""`surgdino show`: every augmentation stands on the sheet unasked, and the pictures show what training cuts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from surgdino.backbone.settings import ModelSettings
from surgdino.config import shipped, shipped_settings
from surgdino.crops.augment.build import transforms
from surgdino.crops.settings import CropSettings
from surgdino.datasets.card import load_card
from surgdino.datasets.open import open_dataset
from surgdino.errors import SurgdinoError
from surgdino.frames.content import Content
from surgdino.frames.store import FrameStore, StoreSettings, build_store
from surgdino.report.sheet import Sheet
from surgdino.show import augment as show_augment
from surgdino.show import content as show_content
from surgdino.show import crops as show_crops
from surgdino.show.frames import ShowConfig, ShowSettings, StoredFrame, choose

pytestmark = pytest.mark.slow

TOY = ModelSettings.of(shipped_settings("model", "vit_toy"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, synthetic_cholec80: Path) -> FrameStore:
    manifest = open_dataset(load_card("cholec80"), synthetic_cholec80)
    folder = tmp_path_factory.mktemp("store")
    return build_store(manifest, folder, StoreSettings.of(short_side=96), workers=1, progress=False)


def config(augment: str = "surgical", pair_seconds: float | None = None, **show: Any) -> ShowConfig:
    small = {"global_size": 64, "local_size": 32, "local_count": 3, "inside_disc": True, "pair_seconds": pair_seconds}
    crops, settings = shipped(CropSettings, "crops", **small), shipped(ShowSettings, "show", "show", **show)
    return ShowConfig(None, {}, crops, shipped_settings("augment", augment), TOY, settings)


def words_on(sheet: Sheet) -> set[str]:
    return {text for _, _, text, _ in sheet._words}


@pytest.mark.quick("surgical")
@pytest.mark.parametrize("augment", ["surgical", "natural", "none"])
def test_the_contact_sheet_names_every_augmentation_that_is_discovered(store: FrameStore, augment: str) -> None:
    sheet = show_augment.draw(config(augment, frames=2), store)
    assert words_on(sheet) >= set(transforms())
    assert words_on(sheet) >= {kind.shows for kind in transforms().values()}


@pytest.mark.parametrize("subject", [show_augment, show_crops, show_content])
def test_the_same_seed_draws_the_same_sheet_and_it_is_full(store: FrameStore, subject: Any) -> None:
    first, second = (subject.draw(config(frames=2, seed=3), store) for _ in range(2))
    assert np.array_equal(first.canvas, second.canvas)
    assert (first.canvas.max(axis=2) > 60).mean() > 0.1


def test_a_pair_is_shown_as_two_frames_with_their_times(store: FrameStore) -> None:
    sheets = [show_crops.draw(config(frames=2, pair_seconds=seconds), store) for seconds in (None, 2.0)]
    assert not np.array_equal(sheets[0].canvas, sheets[1].canvas)
    assert any("pairs up to 2 s apart" in words for words in words_on(sheets[1]))
    assert sum(" and " in words for words in words_on(sheets[1]) if words.startswith("video")) == 2


def test_pictures_are_written_to_the_pixel_and_words_on_top(tmp_path: Path) -> None:
    sheet = Sheet(301, 203)
    picture = np.random.default_rng(0).integers(0, 255, (50, 60, 3), dtype=np.uint8)
    sheet.picture(200, 120, picture)
    sheet.heading("Title $1", "subtitle")
    written = cv2.imread(str(sheet.save(tmp_path / "ein Bogen.png")))[:, :, ::-1]
    assert written.shape == (203, 301, 3)
    assert np.array_equal(written[120:170, 200:260], picture)
    assert (written[30:60, 36:150] > 200).any()


def test_frames_are_chosen_from_different_videos(store: FrameStore) -> None:
    assert len({shown.video for shown in choose(store, 4, seed=0)}) == 4
    assert len(choose(store, 9, seed=0)) == 9  # more than there are videos


def test_the_boxes_drawn_are_those_that_were_cut(store: FrameStore) -> None:
    image = np.full((96, 128, 3), 90, np.uint8)
    shown = StoredFrame(image, Content.full(96, 128), "video01", 0.0, 0)
    drawn = show_crops.with_boxes(shown, [("global_1", (32, 24, 96, 72))])
    factor = drawn.shape[1] / 128
    assert drawn[round(24 * factor), round(64 * factor)].tolist() != [90, 90, 90]
    assert drawn[round(48 * factor), round(64 * factor)].tolist() == [90, 90, 90]


def test_the_surround_stays_black_whatever_is_done_to_the_picture(store: FrameStore) -> None:
    tile = show_augment.tile_of(choose(store, 1, seed=0)[0])
    assert tile.surround.any()
    for kind in transforms().values():
        assert tile.augmented(kind(), 1.0, 0)[tile.surround].max() == 0


@pytest.mark.parametrize("frames", [0, 17])
def test_an_unusable_number_of_frames_is_named(frames: int) -> None:
    with pytest.raises(SurgdinoError, match=r"show\.frames"):
        shipped(ShowSettings, "show", "show", frames=frames)
