"""DSAD: an organ's folder says nothing of the other organs; `multilabel/` says which of seven are absent."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from surgdino.datasets.card import load_card
from surgdino.datasets.manifest import Manifest, Problem
from surgdino.datasets.masks import read_masks
from surgdino.datasets.open import open_dataset
from surgdino.errors import SurgdinoError
from tests.datasets.mask_sets import write_dsad

CARD = load_card("dsad")
LIVER, STOMACH = CARD.mask_classes.index("liver"), CARD.mask_classes.index("stomach")


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    # A parent folder called "images" breaks readers that replace "image" by "mask" in the whole path.
    root = tmp_path_factory.mktemp("images of DSAD") / "image set"
    write_dsad(root, surgeries=(1, 2, 3), images=2, size=(64, 48), raters=("anno_1", "merged"))
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(made, tmp_path / "image set"))


def opened(root: Path, **options) -> Manifest:
    split = options.pop("split", None)
    return open_dataset(CARD, root, split=split, options=options)


def told(manifest: Manifest) -> list[Problem]:
    return [p for p in manifest.problems if "not here" not in p.message]


def test_a_surgery_and_organ_is_a_video_of_pictures(made):
    manifest = opened(made, split="official")
    assert told(manifest) == []
    assert [v.id for v in manifest.videos] == [
        "liver/01", "liver/02", "liver/03", "stomach/01", "stomach/02", "stomach/03",
        "multilabel/01", "multilabel/02", "multilabel/03",
    ]  # fmt: skip
    assert {v.operation: v.split for v in manifest.videos} == {"dsad/1": "train", "dsad/2": "test", "dsad/3": "val"}
    assert manifest["liver/01"].is_image_folder


def test_the_other_organs_of_an_organs_folder_are_unlabelled(made):
    masks = opened(made).labels["masks"].values["liver/01"]
    assert list(masks) == [0, 1]
    assert np.flatnonzero(masks.labelled[0]).tolist() == [LIVER]
    image, labelled = read_masks(masks[0], CARD.mask_classes)
    assert image.shape == (11, 48, 64)
    assert image[LIVER].any()
    assert np.flatnonzero(labelled).tolist() == [LIVER]


def test_an_organ_without_a_file_in_multilabel_is_absent(made):
    masks = opened(made, organ="multilabel").labels["masks"]
    assert masks.classes == CARD.multilabel
    values = masks.values["multilabel/01"]
    assert values.labelled.all()
    given = {name for name in CARD.multilabel if (made / f"multilabel/01/mask00_{name}.png").is_file()}
    assert 0 < len(given) < 7
    image, labelled = read_masks(values[0], masks.classes)
    assert labelled.all()
    assert {name for name, mask in zip(masks.classes, image, strict=True) if mask.any()} == given


def test_one_organ_alone(made):
    manifest = opened(made, organ="liver", split="official")
    assert [v.id for v in manifest.videos] == ["liver/01", "liver/02", "liver/03"]
    assert manifest.labels["masks"].classes == ("liver",)


def test_a_surgery_that_does_not_show_the_organ_is_no_missing_one(root):
    shutil.rmtree(root / "liver/02")
    assert "2" not in [p.message.rpartition(": ")[2] for p in opened(root, organ="liver", split="official").problems]
    test_part = next(p for p in opened(root, organ="liver", split="official").problems if "test videos" in p.message)
    assert test_part.message.endswith("7 of its 8 test videos are not here: 7, 11, 13-14, 18, 20, 32")


def test_multilabel_shows_stomachs_pictures_with_or_without_copies_of_them(root):
    copies = opened(root, organ="multilabel").labels["masks"].values["multilabel/01"][0]
    original = root / "stomach/01/image00.png"
    assert np.array_equal(cv2.imread(str(copies.image)), cv2.imread(str(original)))
    for path in (root / "multilabel").glob("*/image*.png"):
        path.unlink()
    manifest = opened(root, organ="multilabel")
    assert told(manifest) == []
    assert manifest["multilabel/01"].path == root / "stomach/01"
    assert manifest.labels["masks"].values["multilabel/01"][0].image == original


@pytest.mark.parametrize("rater", ["anno_1", "merged"])
def test_another_raters_masks(made, rater):
    released, other = (
        opened(made, organ="liver", rater=r).labels["masks"].values["liver/01"][0] for r in (None, rater)
    )
    assert other.files["liver"] == made / "liver/01" / rater / "mask00.png"
    assert read_masks(other, ["liver"])[0].sum() > read_masks(released, ["liver"])[0].sum()


def test_a_rater_whose_masks_are_not_there(made):
    (first, *_) = opened(made, organ="liver", rater="anno_2").errors
    assert first.message == "2 of 2 images have no mask, the first is image00.png"
    assert first.file == made / "liver/01/anno_2"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"organ": "livre"}, "Did you mean 'liver'"),
        ({"rater": "anno_4"}, "Did you mean 'anno_"),
        ({"rater": "merged", "organ": "multilabel"}, "no masks by rater"),
        ({"labels": "x.csv"}, "no use for data.labels"),
    ],
)
def test_options_that_cannot_be(made, options, said):
    with pytest.raises(SurgdinoError, match=said):
        opened(made, **options)


def test_images_without_a_mask_are_named_and_have_no_labels(root):
    (root / "liver/01/mask01.png").unlink()
    (problem,) = told(opened(root))
    assert problem.message == "1 of 2 images have no mask, the first is image01.png"
    assert (problem.severity, problem.file, problem.expected) == ("error", root / "liver/01", "mask01.png")
    assert list(opened(root).labels["masks"].values["liver/01"]) == [0]


def test_masks_without_an_image_or_of_an_unknown_organ(root):
    (root / "liver/01/mask07.png").write_bytes((root / "liver/01/mask00.png").read_bytes())
    (root / "multilabel/02/mask00_livre.png").write_bytes(b"x")
    (root / "multilabel/02/mask09_liver.png").write_bytes(b"x")
    (root / "thorax").mkdir()
    messages = [p.message for p in told(opened(root))]
    assert sorted(messages) == [
        "a mask of an unknown organ", "a mask without an image", "a mask without an image", "an unexpected file",
    ]  # fmt: skip


def test_a_folder_without_images(root):
    for path in (root / "stomach/03").glob("image*.png"):
        path.unlink()
    (problem,) = told(opened(root))
    assert (problem.message, problem.file) == ("no images in this folder", root / "stomach/03")
    with pytest.raises(SurgdinoError, match="no videos in this folder"):
        opened(root / "liver")
