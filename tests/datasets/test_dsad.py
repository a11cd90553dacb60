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
from surgdino.metrics.segmentation import image_scores
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


# Presence labels

ORGANS = (*CARD.mask_classes, "uterus")


def write_presence(folder: Path, rows: dict[str, str], header: str = "image", **present: int) -> Path:
    """`weak_labels.csv` with 0 for every organ that `present` does not name; rows: picture -> further flags."""
    flags = [str(present.get(organ, 0)) for organ in ORGANS]
    lines = [",".join((header, *ORGANS)), *(",".join((name, *flags)) + more for name, more in rows.items())]
    (folder / "weak_labels.csv").write_text("\n".join(lines) + "\n")
    return folder / "weak_labels.csv"


@pytest.mark.parametrize(("header", "names"), [("image", ("image00.png", "image01.png")), ("", ("0", "1"))])
def test_an_organ_that_is_labelled_absent_has_an_empty_mask(root, header, names):
    write_presence(root / "liver/01", dict.fromkeys(names, ""), header, liver=1, colon=1)
    manifest = opened(root)
    masks = manifest.labels["masks"].values["liver/01"]
    image, labelled = read_masks(masks[0], CARD.mask_classes)
    assert [c for c, told in zip(CARD.mask_classes, labelled, strict=True) if not told] == ["colon"]
    assert [c for c, mask in zip(CARD.mask_classes, image, strict=True) if mask.any()] == ["liver"]
    assert told(manifest) == []
    (note,) = manifest.notes
    assert note == "weak_labels.csv: an organ that is labelled absent has an empty mask: 18 masks in 2 pictures"


def test_presence_labels_add_what_multilabel_says_nothing_of(root):
    write_presence(root / "stomach/01", {"image00.png": "", "image01.png": ""}, **dict.fromkeys(CARD.multilabel, 1))
    for path in (root / "multilabel").glob("*/image*.png"):
        path.unlink()
    frame = opened(root).labels["masks"].values["multilabel/01"][0]
    assert frame.files["ureter"] is None
    assert set(frame.files) == set(CARD.mask_classes)


def test_a_picture_without_a_mask_is_empty_where_its_organ_is_labelled_absent(root):
    (root / "liver/01/mask01.png").unlink()
    write_presence(root / "liver/01", {"image01.png": ""})
    manifest = opened(root, organ="liver")
    assert told(manifest) == []
    assert not read_masks(manifest.labels["masks"].values["liver/01"][1], ["liver"])[0].any()


def test_a_mask_counts_more_than_a_presence_label(root):
    write_presence(root / "liver/01", {"image00.png": "", "image01.png": ""})  # as with 0 and 1 the other way round
    manifest = opened(root)
    (problem,) = told(manifest)
    assert (problem.severity, problem.message[:16]) == ("warning", "2 pictures have ")
    assert set(manifest.labels["masks"].values["liver/01"][0].files) == {"liver"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no column of an organ"),
        ("image,lung\nimage00.png,1\n", "no column of an organ"),
        ("liver,colon\n1,0\n1,0\n", "no column names the pictures"),
        ("row,liver\n0,1\n", "no column names the pictures"),
        ("image,Liver\nimage00.png,1\nimage00.png,1\n", "no column names the pictures"),
        ("image;liver\nimage00.png;1\nimage01.png;2\n", "neither 0 nor 1"),
        ("image,liver,colon\nimage00.png,1\n", "neither 0 nor 1"),
    ],
)
def test_presence_labels_that_cannot_be_read_are_told_and_not_used(root, text, said):
    (root / "liver/01/weak_labels.csv").write_text(text)
    manifest = opened(root)
    (problem,) = told(manifest)
    assert (problem.severity, problem.message) == ("warning", said)
    assert set(manifest.labels["masks"].values["liver/01"][0].files) == {"liver"}


def test_a_prediction_where_an_organ_is_absent_scores_0_and_none_is_left_out(root):
    write_presence(root / "liver/01", {"image00.png": "", "image01.png": ""}, liver=1)
    truth, labelled = read_masks(opened(root).labels["masks"].values["liver/01"][0], CARD.mask_classes)
    guess = truth.copy()
    guess[STOMACH, 0, 0] = True
    scores = image_scores(truth, guess, labelled=labelled, hd95=False)
    assert (scores.dice[LIVER], scores.dice[STOMACH]) == (1, 0)
    assert np.isnan(np.delete(scores.dice, [LIVER, STOMACH])).all()
