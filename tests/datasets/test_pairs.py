"""A group's own pictures with masks: `images/` and `masks/` by the same names."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image

from surgdino.datasets.card import load_card
from surgdino.datasets.files import image_size, numbered_images
from surgdino.datasets.manifest import Manifest
from surgdino.datasets.masks import FrameMasks, read_mask, read_masks
from surgdino.datasets.open import open_dataset
from surgdino.errors import SurgdinoError
from surgdino.frames.store import StoreSettings, build_store
from tests.datasets.mask_sets import write_pairs

CARD = load_card("folder")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_pairs(tmp_path / "polyps", images=10, size=(48, 32))
    return tmp_path / "polyps"


def opened(root: Path, split=None, **options) -> Manifest:
    return open_dataset(CARD, root, split=split, options=options)


def test_each_picture_is_an_operation_by_itself(root):
    manifest = opened(root)
    assert manifest.problems == ()
    assert [v.id for v in manifest.videos] == [f"case{n:03d}" for n in range(10)]
    assert manifest.videos[0].operation.startswith("own/case000~")
    assert len(manifest.operations) == 10
    masks = manifest.labels["masks"]
    assert masks.classes == ("foreground",)
    assert masks.values["case003"][0] == FrameMasks(
        root / "images/case003.jpg", {"foreground": root / "masks/case003.jpg"}
    )


def test_every_fifth_by_name(root):
    parts = {v.id: v.split for v in opened(root, split="fifth").videos}
    assert [name for name, part in parts.items() if part == "test"] == ["case000", "case005"]
    assert list(parts.values()).count("train") == 8


def test_rules_for_parts_of_ones_own(root):
    manifest = opened(root, split={"train": "rest", "val": "every 4th", "test": [3, "case007"]})
    parts = {part: [v.id[-1] for v in manifest.part(part).videos] for part in ("train", "val", "test")}
    assert parts == {"train": ["1", "2", "4", "6", "8", "9"], "val": ["0", "5"], "test": ["3", "7"]}


def test_masks_in_jpeg_are_cut_at_127(tmp_path):
    grey = np.array([[0, 5, 127], [128, 250, 255]], np.uint8)
    cv2.imwrite(str(tmp_path / "m.png"), grey)
    assert read_mask(tmp_path / "m.png").tolist() == [[False, False, False], [True, True, True]]
    cv2.imwrite(str(tmp_path / "c.png"), cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR))
    assert read_mask(tmp_path / "c.png").sum() == 3
    cv2.imwrite(str(tmp_path / "ones.png"), np.eye(3, dtype=np.uint8))
    assert read_mask(tmp_path / "ones.png").sum() == 3, "written as 0 and 1"
    cv2.imwrite(str(tmp_path / "empty.png"), np.zeros((3, 3), np.uint8))
    assert not read_mask(tmp_path / "empty.png").any()


def test_suffixes_sizes_and_letters_may_differ(root):
    name = "Übung 1 (links)"
    cv2.imwrite(str(root / "x.png"), np.zeros((70, 30, 3), np.uint8))
    shutil.move(root / "x.png", root / "images" / f"{name}.png")
    cv2.imwrite(str(root / "x.bmp"), np.full((70, 30), 255, np.uint8))
    shutil.move(root / "x.bmp", root / "masks" / f"{name}.bmp")
    manifest = opened(root)
    assert manifest.problems == ()
    masks, labelled = read_masks(manifest.labels["masks"].values[name][0], ["foreground", "background"])
    assert masks.shape == (2, 70, 30)
    assert (masks[0].all(), labelled.tolist()) == (True, [True, False])


def test_pictures_of_one_patient_belong_together(root):
    (root / "images/p1").mkdir()
    (root / "masks/p1").mkdir()
    for kind in ("images", "masks"):
        for name in ("case000.jpg", "case001.jpg"):
            shutil.move(root / kind / name, root / kind / "p1" / name)
    found = {v.id: v.operation for v in opened(root).videos}
    (patient,) = {found["p1/case000"], found["p1/case001"]}
    assert patient.startswith("own/p1~")
    by_pattern = {v.operation for v in opened(root, operation_pattern=r"case\d\d(\d)").videos}
    assert len(by_pattern) == 10
    assert len({v.operation for v in opened(root, operation_pattern=r"case(\d\d)").videos}) == 1


GROUPS = {
    "two videos": ({"v1_0001": "v1", "v1_0002": "v1", "v2_0001": "v2"}, "3 pictures of 2 operations by their names"),
    "frames": ({"video01_000030_frame": "video01", "video01_000060_frame": "video01"}, "2 pictures of 1 operation by"),
    "letters": (
        {"case-12_f0003": "case-12", "case-12_f0004": "case-12", "case-13_f0003": "case-13"},
        "of 2 operations",
    ),
    "no mark": ({"opAframe0001": "opA", "opAframe0002": "opA", "opBimg1": "opB"}, "of 2 operations"),
    "copies": ({"smith (1)": "smith", "smith (2)": "smith", "jones": "jones"}, "of 2 operations"),
    "a camera's": ({"IMG_0001": "pictures", "DSC0002": "pictures"}, "called by a number, which says no operation"),
    "numbers": ({"1": "pictures", "612": "pictures", "frame_3": "pictures"}, "3 pictures are called by a number"),
    "ids": ({"cju0qkwl35piu0993l0dewei2": "", "cju0qoxqj9q6s0835b43399p4": "", "case000": "", "polyp7": ""}, None),
    "parts": ({"train/images/a_1": "a", "test/images/a_2": "a", "ward/images/a_1": "ward/a"}, "of 2 operations"),
}


def test_pictures_are_the_same_operations_wherever_they_are_opened(tmp_path):
    for name in ("a_1", "a_2", "b_1", "p/1", "p/2"):
        for kind in ("images", "masks"):
            path = tmp_path / f"up/set/{kind}/{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
    here = opened(tmp_path / "up/set")
    assert [each.partition("~")[0] for each in here.operations] == ["own/a", "own/b", "own/p"]
    assert opened(tmp_path).operations == opened(tmp_path / "up").operations == here.operations


@pytest.mark.parametrize("names", GROUPS)
def test_pictures_of_one_video_are_one_operation(tmp_path, names):
    expected, said = GROUPS[names]
    for name in expected:
        for kind in ("images", "masks"):
            path = tmp_path / f"{name.replace('images', kind) if '/' in name else f'{kind}/{name}'}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
    manifest = opened(tmp_path)
    found = {video.path.relative_to(tmp_path).with_suffix("").as_posix(): video.operation for video in manifest.videos}
    for name, place in expected.items():
        operation = found[name if "/" in name else f"images/{name}"]
        assert operation.partition("~")[0] == f"own/{place or name}"
    assert manifest.notes == () if said is None else said in " ".join(manifest.notes)
    if len(manifest.operations) < len(manifest.videos):
        owners = [v.operation for v in manifest.videos]
        last = next(v.id for v in manifest.videos if owners.count(v.operation) > 1)
        with pytest.raises(SurgdinoError, match=r"tears the operation own/.*data\.operation_pattern"):
            opened(tmp_path, split={"train": [v.id for v in manifest.videos if v.id != last], "test": [last]})
        assert len(opened(tmp_path, operation_pattern="(.+)").operations) == len(expected)


def test_what_has_no_partner_is_named(root):
    for name in ("case001", "case002", "case003", "case004"):
        (root / f"masks/{name}.jpg").unlink()
    (root / "images/case009.jpg").unlink()
    first, second = opened(root).problems
    assert (first.severity, first.message) == ("warning", "4 images without a mask")
    assert (first.file, first.found) == (root / "images/case001.jpg", "case001.jpg, case002.jpg, case003.jpg, ...")
    assert (second.severity, second.message, second.found) == ("error", "1 masks without an image", "case009.jpg")
    assert len(opened(root).videos) == 9
    assert len(opened(root).labels["masks"].values) == 5


def test_empty_files_and_two_of_one_name(root):
    (root / "images/case001.jpg").write_bytes(b"")
    (root / "masks/case002.png").write_bytes(b"x")
    messages = [p.message for p in opened(root).problems]
    assert sorted(messages) == ["1 masks without an image", "the file is empty", "two files of one name"]


def test_a_mask_of_another_size_is_refused_when_read(root):
    cv2.imwrite(str(root / "masks/case001.jpg"), np.zeros((16, 16), np.uint8))
    masks = opened(root).labels["masks"].values["case001"]
    with pytest.raises(SurgdinoError, match="expected 48x32, found 16x16"):
        read_masks(masks[0], ["foreground"])


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp"])
def test_sizes_are_told_without_decoding(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (37, 61, 3), np.uint8))
    assert image_size(path) == (61, 37)
    if suffix in (".png", ".jpg"):
        path.write_bytes(path.read_bytes()[:-40])
        with pytest.raises(SurgdinoError, match="cut short"):
            image_size(path)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" if suffix == ".png" else b"no image")
    with pytest.raises(SurgdinoError, match=r"cut short|not a readable image"):
        image_size(path)


def test_frame_numbers_are_the_last_digits_of_a_name(tmp_path):
    for name in ("VID01_000016.png", "mask07.png", "image07.png", "notes.txt", ".1.png"):
        (tmp_path / name).write_bytes(b"x")
    assert {n: p.name for n, p in numbered_images(tmp_path).items()} == {7: "image07.png", 16: "VID01_000016.png"}


def test_the_frame_store_takes_them_as_they_are(root, tmp_path):
    store = build_store(opened(root), tmp_path / "store", StoreSettings.of(), workers=1, progress=False).select(
        flagged=True
    )
    assert len(store) == 10
    assert {store.number(i) for i in range(10)} == {0}


def test_names_with_dates_are_not_called_copies(tmp_path):
    for name in ("img_1_20240101.png", "img_2_20240101.png"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(SurgdinoError, match=r"found 20240101 here and in img_1_20240101\.png. Rename the images"):
        numbered_images(tmp_path)


def test_a_number_that_no_frame_has(tmp_path):
    (tmp_path / f"{'9' * 30}.png").write_bytes(b"x")
    with pytest.raises(SurgdinoError, match="number is too large"):
        numbered_images(tmp_path)


@pytest.mark.parametrize(("orientation", "size"), [(1, (6, 4)), (3, (6, 4)), (6, (4, 6)), (8, (4, 6))])
def test_pictures_and_masks_are_turned_alike(tmp_path, orientation, size):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / "p.jpg", exif=exif)
    assert image_size(tmp_path / "p.jpg") == size
    picture = cv2.imdecode(np.fromfile(tmp_path / "p.jpg", np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert picture.shape[1::-1] == size
    Image.fromarray(np.full((4, 6), 255, np.uint8)).save(tmp_path / "m.png", exif=exif)
    assert read_mask(tmp_path / "m.png").shape[::-1] == size


@pytest.mark.slow
def test_an_image_of_too_many_pixels_is_not_decoded(tmp_path):
    Image.new("1", (32000, 32000)).save(tmp_path / "large.png")
    for read in (image_size, read_mask):
        with pytest.raises(SurgdinoError, match="too large; expected at most 100,000,000 pixels"):
            read(tmp_path / "large.png")


HALF = np.array([[0, 1, 1], [0, 0, 1]], np.uint8)


def save_mask(path: Path, kind: str) -> None:
    colour = np.array((128, 0, 0), np.uint8)
    if kind == "palette":
        image = Image.fromarray(HALF, "P")
        image.putpalette([0, 0, 0, 128, 0, 0])
    elif kind == "sixteen bits":
        image = Image.fromarray(HALF.astype(np.uint16))
    elif kind == "transparent":
        image = Image.fromarray(np.dstack([np.zeros((2, 3, 3), np.uint8), HALF * 255]), "RGBA")
    elif kind == "one bit":
        image = Image.fromarray(HALF.astype(bool))
    elif kind == "colour":
        image = Image.fromarray(HALF[..., None] * colour)
    else:
        image = Image.fromarray(HALF * np.uint8(int(kind)))
    image.save(path)


@pytest.mark.parametrize(
    "kind", ["1", "2", "100", "127", "255", "palette", "sixteen bits", "transparent", "one bit", "colour"]
)
def test_a_mask_of_two_values_is_read_as_what_it_shows(tmp_path, kind):
    save_mask(tmp_path / "m.png", kind)
    assert read_mask(tmp_path / "m.png").tolist() == (HALF == 1).tolist()


@pytest.mark.parametrize(
    "pixels",
    [
        np.array([[0, 1, 2, 3]], np.uint8),
        np.array([[0, 60, 120, 180]], np.uint8),
        np.array([[[0, 0, 0], [128, 0, 0], [0, 128, 0]]], np.uint8),
        np.array([[0, 300, 40000]], np.uint16),
        np.full((2, 2), 60, np.uint8),
    ],
)
def test_a_mask_of_several_classes_is_refused(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "m.png")
    with pytest.raises(SurgdinoError, match="not a mask of one class"):
        read_mask(tmp_path / "m.png")


@pytest.mark.real
def test_real_polyps(real_data):
    manifest = opened(real_data / "kvasir-seg", split="fifth")
    assert manifest.problems == ()
    assert [len(manifest.part(part).videos) for part in ("train", "test")] == [798, 200]
    masks = manifest.labels["masks"]
    shares = [read_masks(masks.values[v.id][0], masks.classes)[0].mean() for v in manifest.videos[:20]]
    assert all(0 < share < 0.9 for share in shares)
