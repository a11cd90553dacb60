"""Pictures in the layouts of ImageFolder, ImageNet and Food101: what is read, and one line for what is amiss."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from surgdino.config import shipped
from surgdino.datasets.card import load_card
from surgdino.datasets.manifest import Manifest
from surgdino.datasets.open import open_dataset
from surgdino.errors import SurgdinoError
from surgdino.frames.store import StoreSettings, build_store
from surgdino.frames.video.decoders.pictures import central_square
from surgdino.inputs.labelled import open_store_of
from surgdino.inputs.settings import DataSettings
from surgdino.runs.leaks import refuse_shared_parts
from surgdino.tasks.labelled_frames import labelled_frames
from surgdino.verify.verb import check_pictures
from tests.datasets.pictures import (
    DISHES,
    SYNSETS,
    write_food101,
    write_image_folder,
    write_imagenet,
    write_jpeg,
    write_picture,
)

THREE = ("bowel", "liver", "spleen")


def opened(card: str, root: Path, split: str | None = "official", **options) -> Manifest:
    return open_dataset(load_card(card), root, split=split, options=options)


def counts(manifest: Manifest) -> Counter:
    """(part, class) -> pictures."""
    labels, found = manifest.labels["class"], Counter()
    for video in manifest.videos:
        ids = labels.values[video.id].array
        assert len(ids) == len(video.pictures)
        assert len(set(ids.tolist())) == 1
        found[video.split, labels.classes[ids[0]]] += len(ids)
    return found


def lines(manifest: Manifest) -> list[str]:
    return [problem.error().line() for problem in manifest.errors]


WAYS = {
    "image folder": ("imagefolder", lambda root: write_image_folder(root, {"train": 4, "val": 2}), THREE, 4, 2),
    "train, val and test": (
        "imagefolder",
        lambda root: write_image_folder(root, {"train": 4, "val": 1, "test": 3}),
        THREE,
        4,
        3,
    ),
    "train alone": ("imagefolder", lambda root: write_image_folder(root, {"train": 6}), THREE, 5, 1),
    "classes alone": ("imagefolder", lambda root: write_image_folder(root, {".": 6}), THREE, 5, 1),
    "imagenet, sorted": ("imagenet", write_imagenet, SYNSETS, 6, 4),
    "imagenet, kaggle": ("imagenet", lambda root: write_imagenet(root, "kaggle"), SYNSETS, 6, 4),
    "imagenet, devkit": ("imagenet", lambda root: write_imagenet(root, "devkit"), SYNSETS, 6, 4),
    "food101": ("food101", write_food101, DISHES, 5, 3),
    "food101, json": ("food101", lambda root: write_food101(root, ".json"), DISHES, 5, 3),
}


@pytest.mark.parametrize("way", WAYS)
def test_each_layout_has_its_pictures_by_part_and_class(way, tmp_path):
    card, write, classes, train, test = WAYS[way]
    manifest = opened(card, write(tmp_path / "set"))
    assert not manifest.errors
    refuse_shared_parts(manifest)
    found = counts(manifest)
    expected = {(part, name): count for part, count in (("train", train), ("test", test)) for name in classes}
    assert {key: count for key, count in found.items() if key[0]} == expected
    assert {video.operation.partition("/")[2].partition("~")[0] for video in manifest.videos if video.split} == {
        "train pictures",
        "test pictures",
    }


def test_a_flat_val_has_the_classes_that_its_files_show(tmp_path):
    """By their colours, through the frame store: ids of the devkit are in another order than the synsets."""
    manifest = opened("imagenet", write_imagenet(tmp_path / "set", "devkit"))
    store = build_store(manifest, tmp_path / "store", StoreSettings.of(short_side=32), workers=1, progress=False)
    frames = labelled_frames(manifest, store, "class")
    assert len(frames) == 30
    for i, kind in zip(frames.index, frames.targets, strict=True):
        picture = store.select(flagged=True).read(int(i))
        assert picture.shape == (32, 32, 3)
        assert picture.mean((0, 1)).argmax() == kind


def test_pictures_are_cut_to_their_central_square():
    """Of a 100 x 60 picture 52 pixels are kept, as 224 of 256; a smaller one is enlarged."""
    picture = np.zeros((60, 100, 3), np.uint8)
    picture[4:56, 24:76] = 200
    assert (central_square(picture, (26, 26)) == 200).all()
    picture[4, 24] = 0
    assert (central_square(picture, (52, 52)) != 200).any()
    assert central_square(picture[:8, :8], (32, 32)).shape == (32, 32, 3)


def test_operations_of_surgical_pictures_stay_together(tmp_path):
    for kind, name in enumerate(THREE):
        for number in range(20):
            write_picture(tmp_path / "set" / name / f"OP{number % 10}_{number:03d}.jpg", kind, number)
    manifest = opened("imagefolder", tmp_path / "set", operation_pattern="(OP[0-9]+)_")
    assert len(manifest.operations) == 10
    refuse_shared_parts(manifest)
    tested = {video.operation for video in manifest.videos if video.split == "test"}
    assert len(tested) == 2
    assert counts(manifest)["test", "liver"] == 4
    assert any("a fifth of the operations" in note for note in manifest.notes)


def test_the_same_fifth_is_tested_everywhere(tmp_path):
    manifests = [opened("imagefolder", write_image_folder(tmp_path / name, {".": 10})) for name in "ab"]
    parts = [{(v.id, v.pictures) for v in each.videos} for each in manifests]
    assert parts[0] == parts[1]
    assert counts(manifests[0])["test", "liver"] == 2


def break_set(root: Path, way: str) -> None:
    match way:
        case "class missing in val":
            for file in (root / "val" / "liver").iterdir():
                file.unlink()
            (root / "val" / "liver").rmdir()
        case "class missing in train":
            write_picture(root / "val" / "livr" / "1.jpg", 0, 0)
        case "empty class":
            (root / "train" / "stomach").mkdir()
        case "two folders of a part":
            write_picture(root / "training" / "liver" / "1.jpg", 0, 0)


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        ("class missing in val", "a class is missing in the test part"),
        ("class missing in train", "a class that nothing teaches"),
        ("empty class", "a class without a picture"),
        ("two folders of a part", "two folders of the train part"),
    ],
)
def test_a_folder_at_fault_gives_one_line(way, expected, tmp_path):
    root = write_image_folder(tmp_path / "set", {"train": 3, "val": 2})
    break_set(root, way)
    try:
        found = lines(opened("imagefolder", root))
    except SurgdinoError as error:
        found = [error.line()]
    assert len(found) == 1
    assert expected in found[0]
    assert "\n" not in found[0]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("ramen/7\n", "a row names no file"),
        ("../meta/train\n", "a row names no file"),
        ("ramen/1005649\n", "a picture is in two parts"),
        ("ramen/1005834\n", "a second row of a picture"),
    ],
)
def test_a_row_at_fault_gives_one_line(row, expected, tmp_path):
    root = write_food101(tmp_path / "set")
    with (root / "meta" / "test.txt").open("a") as file:
        file.write(row)
    (found,) = lines(opened("food101", root))
    assert expected in found
    assert "\n" not in found


@pytest.mark.parametrize("damage", ["not a mat file", "", "MATLAB 5.0 MAT-file".ljust(124) + "\0\1IM" + "x" * 50])
def test_a_damaged_devkit_gives_one_line(damage, tmp_path):
    root = write_imagenet(tmp_path / "set", "devkit")
    (root / "ILSVRC2012_devkit_t12" / "data" / "meta.mat").write_text(damage)
    with pytest.raises(SurgdinoError, match="not the classes of ImageNet"):
        opened("imagenet", root)


def test_pictures_that_no_row_names_are_one_line(tmp_path):
    root = write_imagenet(tmp_path / "set", "kaggle")
    for number in (90, 91):
        write_jpeg(root / "val" / f"ILSVRC2012_val_{number:08d}.JPEG", 0, number)
    (found,) = lines(opened("imagenet", root))
    assert "2 pictures that no row names" in found


def test_a_flat_val_without_classes_is_refused(tmp_path):
    root = write_imagenet(tmp_path / "set", "kaggle")
    (root / "LOC_val_solution.csv").unlink()
    with pytest.raises(SurgdinoError, match=r"nothing says the classes of val/.*LOC_val_solution.csv"):
        opened("imagenet", root)


def test_unreadable_pictures_are_left_out_and_named(tmp_path, capsys):
    root = write_image_folder(tmp_path / "set", {"train": 4, "val": 2})
    (root / "train" / "liver" / "a picture 1.png").write_bytes(b"")
    (root / "train" / "liver" / "a picture 2.jpg").write_bytes(b"")
    manifest = opened("imagefolder", root)
    own = {"root": root, "store": tmp_path / "store", "short_side": 32, "workers": 1}
    store = open_store_of(manifest, shipped(DataSettings, "data", **own))
    assert [problem.message for problem in check_pictures(manifest)] == ["the file is empty, and 1 more like it"]
    frames = labelled_frames(manifest, store, "class")
    assert len(frames) == 16
    assert frames.numbers_of()["train/liver"].tolist() == [0, 3]
    said = " ".join(capsys.readouterr().out.split())
    assert "a picture 1.png and 1 more: cannot be read and left out" in said


@pytest.mark.slow
def test_a_changed_picture_is_stored_again(tmp_path):
    root = write_image_folder(tmp_path / "set", {"train": 2, "val": 1})
    settings = StoreSettings.of(short_side=32)
    before = build_store(opened("imagefolder", root), tmp_path / "store", settings, workers=1, progress=False)
    file = root / "train" / "liver" / "a picture 0.jpg"
    cv2.imwrite(str(file), np.full((50, 50, 3), 255, np.uint8))
    os.utime(file, (1, 1))
    after = build_store(opened("imagefolder", root), tmp_path / "store", settings, workers=1, progress=False)
    changed = [a.id for a, b in zip(before.videos, after.videos, strict=True) if a.shard.crc != b.shard.crc]
    assert changed == ["train/liver"]
