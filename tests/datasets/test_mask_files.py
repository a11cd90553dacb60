"""Mask files with several classes, and the many ways in which they are stored: read by a legend, or refused."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from surgdino.datasets.card import Card, load_card
from surgdino.datasets.mask_files import Layer, Legend, read_layers, read_mask
from surgdino.datasets.masks import read_masks
from surgdino.datasets.open import open_dataset
from surgdino.errors import SurgdinoError

IDS = np.zeros((24, 32), np.uint8)
IDS[4:12, 4:20] = 1
IDS[14:22, 8:28] = 2
COLOURS = np.array([(0, 0, 0), (255, 0, 0), (0, 128, 64)], np.uint8)
BY_ID = Legend({"liver": 1, "tool": 2})
BY_COLOUR = Legend({"liver": (255, 0, 0), "tool": (0, 128, 64)})


def palette(colours: np.ndarray, indices: np.ndarray = IDS) -> Image.Image:
    image = Image.fromarray(indices, "P")
    image.putpalette(colours.ravel().tolist())
    return image


def kinds() -> dict[str, tuple[Image.Image, Legend]]:
    """Ways to store the same two classes, and what names them."""
    void = IDS.copy()
    void[0, :] = 255
    alpha = np.dstack([COLOURS[IDS], np.where(IDS > 0, 255, 0)]).astype(np.uint8)
    alpha[IDS == 0, :3] = 200  # under full transparency any colour may stand
    return {
        "ids": (Image.fromarray(IDS), BY_ID),
        "ids with a border of 255": (Image.fromarray(void), BY_ID),
        "ids of 16 bits": (Image.fromarray(IDS.astype(np.uint16) * 300), Legend({"liver": 300, "tool": 600})),
        "ids as float": (Image.fromarray(IDS.astype(np.float32)), BY_ID),
        "ids as 32 bits": (Image.fromarray(IDS.astype(np.int32)), BY_ID),
        "ids in grey colours": (Image.fromarray(np.dstack([IDS] * 3)), BY_ID),
        "palette by id": (palette(COLOURS), BY_ID),
        "palette by colour": (palette(COLOURS), BY_COLOUR),
        "palette in another order": (palette(COLOURS[[2, 0, 1]], np.array([1, 2, 0], np.uint8)[IDS]), BY_COLOUR),
        "colours": (Image.fromarray(COLOURS[IDS]), BY_COLOUR),
        "colours and transparency": (Image.fromarray(alpha), BY_COLOUR),
        "greys as colours": (Image.fromarray(IDS * 100), Legend({"liver": (100,) * 3, "tool": 200})),
    }


@pytest.mark.parametrize("kind", kinds())
def test_classes_of_one_file_by_their_legend(tmp_path, kind):
    image, legend = kinds()[kind]
    image.save(tmp_path / "m.tif")
    if image.mode not in ("F", "I"):
        image.save(tmp_path / "m.png")
    for path in tmp_path.iterdir():
        found, _ = read_layers(path, legend)
        assert (found["liver"] == (IDS == 1)).all()
        assert (found["tool"] == (IDS == 2)).all()


@pytest.mark.parametrize(
    ("image", "legend", "said"),
    [
        (Image.fromarray(IDS), Legend({"liver": 1}), r"expected 0 or black for none, 1 liver, found 2 \(20\.8% of"),
        (Image.fromarray(IDS * 127), BY_ID, r"found 127, 254 \("),
        (Image.fromarray(np.where(IDS > 0, 255, 0).astype(np.uint8)), BY_ID, "found 255 alone"),
        (Image.fromarray(COLOURS[IDS]), BY_ID, "found #000000, #008040, #ff0000"),
        (Image.fromarray(COLOURS[IDS]), Legend({"liver": (255, 0, 0)}), r"found #008040 \(20\.8%"),
        (palette(COLOURS[[2, 0, 1]]), BY_ID, "a palette in which 0 is not black"),
        (Image.fromarray(IDS.astype(np.float32) / 2), BY_ID, "expected whole numbers from 0, found fractions up to 1"),
        (Image.fromarray(IDS.astype(np.int32) - 1), BY_ID, "expected whole numbers from 0, found -1"),
    ],
)
def test_what_no_class_has_is_refused(tmp_path, image, legend, said):
    image.save(tmp_path / "m.tif")
    with pytest.raises(SurgdinoError, match=rf"m\.tif: .*{said}"):
        read_layers(tmp_path / "m.tif", legend)


def test_ids_of_which_none_is_1_are_told(tmp_path):
    Image.fromarray(IDS + 1).save(tmp_path / "mask.png")
    with pytest.raises(SurgdinoError, match="Its ids seem to count none as 1 and the first class as 2: none is 0"):
        read_layers(tmp_path / "mask.png", BY_ID)


def test_jpeg_and_colours_do_not_go_together(tmp_path):
    Image.fromarray(COLOURS[IDS]).save(tmp_path / "m.jpg")
    with pytest.raises(SurgdinoError, match="JPEG changes values: export it as PNG"):
        read_layers(tmp_path / "m.jpg", BY_COLOUR)
    with pytest.raises(SurgdinoError, match="not a mask of one class"):
        read_mask(tmp_path / "m.jpg")


@pytest.mark.parametrize(
    "pixels",
    [
        np.where(IDS == 1, 1, np.where(IDS == 2, 255, 0)),  # VOC's class 1 and its border
        np.where(IDS == 1, 128, np.where(IDS == 2, 255, 0)),  # two classes, one of them brighter
        np.where(IDS == 1, 0.4, 0.0).astype(np.float32) + (IDS == 2) * np.float32(0.2),
        np.where(IDS == 1, np.nan, 0).astype(np.float32),
        cv2.GaussianBlur(np.where(IDS == 1, 120, 0).astype(np.uint8), (3, 3), 0),
    ],
)
def test_several_classes_never_pass_as_one(tmp_path, pixels):
    Image.fromarray(pixels if pixels.dtype == np.float32 else pixels.astype(np.uint8)).save(tmp_path / "m.tif")
    with pytest.raises(SurgdinoError, match=r"not a mask(;| of one class)"):
        read_mask(tmp_path / "m.tif")


def test_one_class_as_it_is_stored_elsewhere(tmp_path):
    one = (IDS == 1).astype(np.uint8)
    images = {
        "soft.png": Image.fromarray(cv2.resize(one * 255, (128, 96), interpolation=cv2.INTER_LINEAR)),
        "white.jpg": Image.fromarray(one * 255),
        "red.png": Image.fromarray(one[..., None] * COLOURS[1]),
        "float.tif": Image.fromarray(one.astype(np.float32)),
        "turned palette.png": palette(COLOURS[[1, 0]], 1 - one),
        "la.png": Image.fromarray(np.dstack([one * 255, np.full_like(one, 255)]), "LA"),
        "cmyk.jpg": Image.fromarray(np.dstack([one * 255] * 3)).convert("CMYK"),
        "alpha alone.png": Image.fromarray(np.dstack([np.zeros((*one.shape, 3), np.uint8), one * 255]), "RGBA"),
    }
    for name, image in images.items():
        image.save(tmp_path / name)
        found = cv2.resize(read_mask(tmp_path / name).astype(np.uint8), (32, 24), interpolation=cv2.INTER_AREA)
        assert (found == one).mean() > 0.97, name


def test_more_than_one_picture_or_16_bits_a_colour(tmp_path):
    page = Image.fromarray(IDS)
    page.save(tmp_path / "pages.tif", save_all=True, append_images=[page])
    cv2.imwrite(str(tmp_path / "deep.png"), np.dstack([IDS.astype(np.uint16)] * 3))
    for name, found in (("pages.tif", "several in one file"), ("deep.png", "16 bits")):
        with pytest.raises(SurgdinoError, match=f"found {found}"):
            read_mask(tmp_path / name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for number in range(2):
        Image.fromarray(np.dstack([IDS * 50] * 3)).save(tmp_path / f"images/P{number}.jpg")
    return tmp_path


def opened(root: Path, **card: object):
    values = {"name": "folder", "adapter": "folder", "mask_classes": ["foreground"], **card}
    manifest = open_dataset(Card.from_dict(values), root)
    assert manifest.problems == ()
    frame = manifest.labels["masks"].values["P0"][0]
    return manifest, *read_masks(frame, manifest.labels["masks"].classes)


def test_the_card_names_ids_or_colours(folder):
    for number in range(2):
        Image.fromarray(COLOURS[IDS]).save(folder / f"masks/p{number}_mask.png")
    manifest, masks, labelled = opened(folder, masks={"tool": "#008040", "liver": [255, 0, 0]})
    assert manifest.labels["masks"].classes == ("tool", "liver")
    assert labelled.all()
    assert (masks[0] == (IDS == 2)).all()
    assert isinstance(manifest.labels["masks"].values["P0"][0].files["tool"], Layer)


def test_several_classes_without_values_are_ids_from_1_or_files(folder):
    for number in range(2):
        Image.fromarray(IDS).save(folder / f"masks/P{number}.png")
    _, masks, _ = opened(folder, mask_classes=["liver", "tool"])
    assert (masks[1] == (IDS == 2)).all()
    for number in range(2):
        (folder / f"masks/P{number}.png").unlink()
        Image.fromarray((IDS == 2).astype(np.uint8) * 255).save(folder / f"masks/P{number}_tool.png")
    _, masks, labelled = opened(folder, mask_classes=["liver", "tool"])
    assert (labelled.all(), masks[0].any(), (masks[1] == (IDS == 2)).all()) == (True, False, True)


def test_cvats_own_legend(folder):
    (folder / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\nliver:255,0,0::\ntool:0,128,64::\n"
    )
    for name, other in (("images", "JPEGImages"), ("masks", "SegmentationClass")):
        (folder / name).rename(folder / other)
    for number in range(2):
        Image.fromarray(COLOURS[IDS]).save(folder / f"SegmentationClass/P{number}.png")
    manifest = open_dataset(load_card("folder"), folder)
    assert manifest.labels["masks"].classes == ("liver", "tool")
    assert manifest.notes == ("labelmap.txt: 2 classes by their colours: #ff0000 liver, #008040 tool",)
    assert [p.severity for p in manifest.problems] == ["warning"]


@pytest.mark.parametrize("line", ["tool;255;0;0", "tool:999,0,0::", "liver:1,2,3\ntool:1,2,3::"])
def test_a_legend_file_that_cannot_be(folder, line):
    (folder / "labelmap.txt").write_text(line)
    Image.fromarray(IDS).save(folder / "masks/P0.png")
    with pytest.raises(SurgdinoError, match=r"labelmap\.txt, row \d: "):
        open_dataset(load_card("folder"), folder)


def test_masks_that_are_no_files_cost_only_themselves(folder):
    for number in range(2):
        Image.fromarray(np.uint8(255) * (IDS == 1)).save(folder / f"masks/P{number}.png")
    (folder / "masks/P0.png").unlink()
    os.mkfifo(folder / "masks/P0.png")
    (folder / "masks/link.png").symlink_to(folder / "nowhere")
    manifest = open_dataset(load_card("folder"), folder)
    assert {str(problem.file)[-8:] for problem in manifest.errors} == {"s/P0.png", "link.png"}
    assert list(manifest.labels["masks"].values) == ["P1"]


@pytest.mark.parametrize("value", [0, -1, 70000, 1.5, True, "red", [0, 0, 0], [1, 2], [256, 0, 0], None])
def test_a_legend_that_cannot_be(value):
    with pytest.raises(SurgdinoError, match=re.escape("dataset.masks")):
        Card.from_dict({"name": "x", "adapter": "folder", "masks": {"liver": value}})
    with pytest.raises(SurgdinoError, match="value of another class"):
        replace(load_card("folder"), masks={"a": 1, "b": 1})
