"""Any folder of recordings: what counts as a video, and which files are one operation."""

from __future__ import annotations

import os
import re
import shutil
import unicodedata
from pathlib import Path

import pytest

from surgdino.datasets.card import load_card
from surgdino.datasets.files import EXPORT_DICOM
from surgdino.datasets.manifest import Manifest
from surgdino.datasets.open import open_dataset
from surgdino.errors import SurgdinoError

CARD = load_card("folder")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "theatre 2"
    folder.mkdir()
    return folder


def put(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def opened(root: Path, pattern: str | None = None, **how) -> Manifest:
    return open_dataset(CARD, root, options={"operation_pattern": pattern}, **how)


def operations(manifest: Manifest) -> dict[str, str]:
    """Without the content that is in their names."""
    return {video.id: re.sub("~[0-9a-f]{8}$", "", video.operation) for video in manifest.videos}


def test_a_video_by_itself_is_an_operation(root):
    put(root, "a.mp4", "b.MOV", "c.mkv", "notes.txt", ".hidden.mp4", "logo.png")
    assert operations(opened(root)) == {"a": "own/a", "b": "own/b", "c": "own/c"}
    assert opened(root).problems == ()


def test_videos_in_one_subfolder_are_one_operation(root):
    put(root, "OP 7/part 1.mp4", "OP 7/part 2.mp4", "2023/OP 8/x.avi", "solo.mp4")
    assert operations(opened(root)) == {
        "2023/OP 8/x": "own/2023/OP 8",
        "OP 7/part 1": "own/OP 7",
        "OP 7/part 2": "own/OP 7",
        "solo": "own/solo",
    }


def test_a_pattern_tells_which_files_are_one_operation(root):
    put(root, "OP12_part1.mp4", "OP12_part2.mp4", "OP13_part1.mp4")
    found = operations(opened(root, r"(OP\d+)_"))
    assert sorted(found.values()) == ["own/OP12", "own/OP12", "own/OP13"]


def test_a_file_that_the_pattern_does_not_know_is_named(root):
    put(root, "OP12_part1.mp4", "other.mp4")
    (problem,) = opened(root, r"(OP\d+)_").problems
    assert (problem.severity, problem.file) == ("error", root / "other.mp4")


@pytest.mark.parametrize(
    ("pattern", "said"), [("(", "regular expression"), ("OP", "exactly one group"), ("(a)(b)", "exactly one group")]
)
def test_a_pattern_that_is_none(root, pattern, said):
    put(root, "a.mp4")
    with pytest.raises(SurgdinoError, match=said):
        opened(root, pattern)


def test_a_subfolder_that_holds_all_videos_is_taken_for_the_folder_and_said_so(root):
    put(root, "videos/a.mp4", "videos/b.mp4")
    manifest = opened(root)
    assert operations(manifest) == {"videos/a": "own/a", "videos/b": "own/b"}
    assert manifest.problems == ()
    assert manifest.notes == ("all videos lie in videos/; what lies in one subfolder of it is one operation",)


def names(root: Path, **how) -> set[str]:
    return set(opened(root, **how).operations)


LAYOUTS = [
    ["a.mp4", "b.mp4"],
    ["OP 7/1.mp4", "OP 7/2.mp4", "OP 8/1.mp4"],
    ["V1/000001.png", "V2/000001.png"],
    ["solo.mp4"],
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout[0])
def test_an_operation_is_called_the_same_wherever_its_folder_lies(root, tmp_path, layout):
    for name in layout:
        put(root, name)
        (root / name).write_text(name)
    found = names(root)
    assert len(found) == len({name.rpartition("/")[0] or name for name in layout})
    (tmp_path / "link").mkdir()
    os.symlink(root, tmp_path / "link" / "to it")
    shutil.copytree(root, tmp_path / "copy" / "deep" / "in it")
    for elsewhere in (root.parent / "link" / "to it", tmp_path / "link", tmp_path / "copy"):
        assert names(elsewhere) == found
    shutil.rmtree(tmp_path / "copy")
    root.rename(tmp_path / "renamed")
    assert names(tmp_path / "renamed") == found


def test_labels_lie_with_the_videos_one_level_down_too(root):
    put(root, "deep/ours/OP 1.mp4", "deep/ours/OP 2.mp4")
    (root / "deep/ours/labels.csv").write_text("video,start,label\nOP 1,0,a\nOP 2,0,b\n")
    manifest = opened(root)
    assert manifest.problems == ()
    assert set(manifest.labels["phase"].values) == {"deep/ours/OP 1", "deep/ours/OP 2"}


def test_two_of_the_same_name_are_told_apart(tmp_path):
    for content in "ab":
        put(tmp_path / content, "video01.mp4")
        (tmp_path / content / "video01.mp4").write_text(content)
    assert not names(tmp_path / "a") & names(tmp_path / "b")


def test_a_setting_may_call_an_operation_by_its_plain_name_or_as_before(root):
    put(root, "OP7/1.mp4", "OP7/2.mp4", "2023/OP8/1.mp4")
    manifest = opened(root)
    for called in ("OP7", 7, "theatre 2/OP7", "OP7/1", "theatre 2/OP7/1", manifest["OP7/1"].operation):
        split = {"train": [called, "OP7/2"], "test": "rest"}
        assert [v.split for v in opened(root, split=split).videos] == ["test", "train", "train"]
    assert manifest["2023/OP8/1"].formerly == ("theatre 2/2023/OP8",)


def test_parts_of_a_split_are_no_operations_and_may_be_named_in_one(root):
    put(root, "train/a.mp4", "train/b.mp4", "test/OP7/1.mp4", "test/OP7/2.mp4", "test/c.mp4")
    manifest = opened(root, split={"train": ["train"], "test": ["test"]})
    assert sorted(operations(manifest).values()) == ["own/OP7", "own/OP7", "own/a", "own/b", "own/c"]
    assert [len(manifest.part(part).videos) for part in ("train", "test")] == [2, 3]
    put(root, "train/OP7/3.mp4")
    with pytest.raises(SurgdinoError, match="tears the operation own/OP7"):
        opened(root, split={"train": ["train"], "test": ["test"]})


def test_folders_of_images_are_videos_too(root):
    put(root, "VID01/000001.png", "VID01/000007.jpg", "VID02/0.jpg", "pictures/logo.png")
    manifest = opened(root)
    assert operations(manifest) == {"VID01": "own/VID01", "VID02": "own/VID02"}
    assert all(video.is_image_folder for video in manifest.videos)


def test_the_folder_itself_may_hold_the_images(root):
    put(root, "1.png", "2.png")
    assert operations(opened(root)) == {"theatre 2": "own/theatre 2"}


def test_names_that_differ_in_their_suffix_alone_stay_apart(root):
    put(root, "a.mp4", "a.avi", "b.mp4")
    assert sorted(operations(opened(root))) == ["a.avi", "a.mp4", "b"]


def test_letters_with_accents_have_one_spelling(root):
    put(root, unicodedata.normalize("NFD", "Übung Nº 3 — größer.mp4"))
    assert list(operations(opened(root))) == [unicodedata.normalize("NFC", "Übung Nº 3 — größer")]


def test_links_are_followed_but_not_in_circles(root, tmp_path):
    put(tmp_path / "archive", "x.mp4")
    put(root, "a/y.mp4")
    os.symlink(tmp_path / "archive", root / "linked")
    os.symlink(root, root / "a" / "round")
    assert sorted(operations(opened(root))) == ["a/y", "linked/x"]


def test_an_empty_file_is_named(root):
    put(root, "a.mp4")
    (root / "b.mp4").write_bytes(b"")
    (problem,) = opened(root).errors
    assert (problem.file, problem.message) == (root / "b.mp4", "the file is empty")


def test_files_that_nothing_reads_are_named(root):
    put(root, "a.mp4", "IM0001.dcm", "x/nosuffix", "README.md", "labels.ods", "cam.MOD", "old.3gp")
    manifest = opened(root)
    assert sorted(operations(manifest)) == ["a", "cam", "old"]
    assert {problem.severity for problem in manifest.problems} == {"warning"}
    assert [problem.message for problem in manifest.problems] == [
        "1 file is not read (.ods), the first is labels.ods",
        "1 file is not read (.dcm), the first is IM0001.dcm",
        "1 file is not read (no suffix), the first is nosuffix",
    ]


@pytest.mark.parametrize("names", [("Images", "Masks"), ("image", "mask"), ("JPEGImages", "SegmentationClass")])
def test_folders_of_pictures_and_masks_by_other_names(root, names):
    put(root, f"{names[0]}/1.png", f"{names[1]}/1.png")
    manifest = opened(root)
    assert list(manifest.labels["masks"].values) == ["1"]
    (problem,) = manifest.problems
    assert (problem.severity, problem.file) == ("warning", root / names[1])


def test_a_pattern_that_never_ends(root, monkeypatch):
    monkeypatch.setattr("surgdino.datasets.adapter._PATTERN_SECONDS", 0.2)
    put(root, "a" * 40 + "!.mp4")
    with pytest.raises(SurgdinoError, match="takes too long"):
        opened(root, r"^((?:a+)+)$")


def test_a_folder_without_videos(root):
    put(root, "notes.txt")
    with pytest.raises(SurgdinoError, match="no videos in this folder"):
        opened(root)


def test_a_split_by_name_never_tears_an_operation_apart(root):
    put(root, "OP7/1.mp4", "OP7/2.mp4", "OP8/1.mp4")
    manifest = opened(root, split={"train": ["OP7"], "test": ["theatre 2/OP8"]})
    assert [v.split for v in manifest.videos] == ["train", "train", "test"]
    assert [v.split for v in opened(root, split={"train": [7], "test": [8]}).videos] == ["train", "train", "test"]
    with pytest.raises(SurgdinoError, match=r"tears the operation own/OP7~[0-9a-f]{8} apart"):
        opened(root, split={"train": ["OP7/1"], "test": ["OP7/2", "OP8"]})
    with pytest.raises(SurgdinoError, match="Give it inline"):
        opened(root, split="40-40")


@pytest.mark.real
def test_real_folders_of_video_and_images(real_data):
    found = operations(open_dataset(CARD, real_data / "cholec80" / "videos"))
    assert sorted(found) == ["video05", "video18", "video25", "video26", "video43"]
    images = open_dataset(CARD, real_data / "cholect50" / "videos")
    assert [video.id for video in images.videos] == ["VID68", "VID73", "VID75"]


def test_dicom_files_are_named_with_the_way_to_export(tmp_path):
    for name in ("scan.dcm", "IM0001"):
        (tmp_path / name).write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 99)
    with pytest.raises(
        SurgdinoError, match=r"2 files are not read \(\.dcm, no suffix\).*Export the video from the archive"
    ):
        open_dataset(CARD, tmp_path)
    (tmp_path / "op.mp4").write_bytes(b"x" * 100)
    problems = open_dataset(CARD, tmp_path).problems
    assert [problem.fix for problem in problems if "not read" in problem.message] == [EXPORT_DICOM]
