"""Prediction files: what is written reads back the same, and every malformed file is told by row and value."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from surgdino.datasets.card import load_card
from surgdino.errors import SurgdinoError
from surgdino.tasks.phase.files import read_phase, write_phase
from surgdino.tasks.scoring.folders import match_frames
from surgdino.tasks.scoring.video_files import video_files
from surgdino.tasks.segmentation.files import MaskImage, index_masks, read_mask_image, write_masks
from surgdino.tasks.triplet.files import read_triplets, write_triplets

PHASES = load_card("cholec80").phases
ORGANS = ["liver", "small_intestine", "stomach"]


def text_file(folder: Path, text: str, name: str = "video01.txt") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def read_file(path: Path, classes: list[str]) -> np.ndarray:
    """The masks of one file that holds them all."""
    return read_mask_image(MaskImage("a", {None: path}), classes)[0]


def refusal(function, *arguments, **keywords) -> str:
    with pytest.raises(SurgdinoError) as error:
        function(*arguments, **keywords)
    line = error.value.line()
    assert "\n" not in line
    return line


@pytest.mark.parametrize("video", ["video01", "patient 7/part ü"])
def test_phases_are_written_by_name_and_read_back(tmp_path, video):
    frames, phases = np.array([0, 25, 50, 150]), np.array([6, 0, 3, 3])
    path = write_phase(tmp_path, video, frames, phases, PHASES)
    assert path == tmp_path / f"{video}.txt"
    assert path.read_text().splitlines()[:2] == ["Frame\tPhase", "0\tGallbladderRetraction"]
    read = read_phase(path, PHASES)
    assert read[0].tolist() == frames.tolist()
    assert read[1].tolist() == phases.tolist()
    assert video_files(tmp_path, ".txt") == {video: path}
    steps = write_phase(tmp_path, video, frames, phases, PHASES, "step")
    assert steps.read_text().startswith("Frame\tStep\n")
    assert read_phase(steps, PHASES)[1].tolist() == phases.tolist()


@pytest.mark.parametrize("text", ["Frame\tPhase\n0\t6\n1\t0\n", "\ufeffFrame\tPhase\r\n0\t6\r\n1\t0\r\n\r\n"])
def test_ids_are_read_too_with_any_line_ends(tmp_path, text):
    assert read_phase(text_file(tmp_path, text), PHASES)[1].tolist() == [6, 0]


def test_names_in_other_spellings_and_the_misprint_are_read(tmp_path):
    text = "Frame\tPhase\n0\tcarlot-triangle-dissection\n1\tClipping and cutting\n2\tgallbladder-extraction\n"
    assert read_phase(text_file(tmp_path, text), PHASES)[1].tolist() == [1, 2, 6]
    assert read_phase(text_file(tmp_path, text), ["CarlotTriangleDissection", *PHASES[2:]])[1].tolist() == [0, 1, 5]


def test_ids_that_count_from_one_are_told(tmp_path):
    told = refusal(read_phase, text_file(tmp_path, "Frame\tPhase\n0\t1\n1\t7\n"), PHASES)
    assert "row 3: unknown phase '7'; expected 0 to 6. The ids seem to count from 1" in told


def test_ids_that_are_names_are_names(tmp_path):
    assert read_phase(text_file(tmp_path, "Frame\tPhase\n0\t1\n"), ["2", "1"])[1].tolist() == [1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the file is empty"),
        ("0\tPreparation\n", "row 1: wrong header; expected the header Frame ⇥ Phase"),
        ("Frame,Phase\n0,Preparation\n", "row 1: wrong header"),
        ("Frame\tPhase\n", "no rows under the header"),
        (
            "Frame\tPhase\n0\tPreparation\t1\n",
            "row 2: wrong number of columns; expected 2, separated by tabs, found 3",
        ),
        ("Frame\tPhase\n0 Preparation\n", "row 2: wrong number of columns"),
        ("Frame\tPhase\n0.5\tPreparation\n", "row 2: not a frame number; expected a whole number from 0, found '0.5'"),
        ("Frame\tPhase\n-1\tPreparation\n", "row 2: not a frame number"),
        ("Frame\tPhase\n0\tPreparation\n0\tPreparation\n", "row 3: a frame comes twice; expected every frame once"),
        (
            "Frame\tPhase\n5\tPreparation\n4\tPreparation\n",
            "row 3: the frames do not ascend; expected more than 5, found 4",
        ),
        (
            "Frame\tPhase\n0\tPreparaton\n",
            "row 2: unknown phase 'Preparaton'; expected a phase of the class list. Did you",
        ),
        ("Frame\tPhase\n0\t7\n", "row 2: unknown phase '7'; expected 0 to 6"),
        ("Frame\tPhase\n0\tPreparation\n1\t2\n", "row 3: unknown phase '2'"),
        ("Frame\tPhase\n0\tnan\n", "row 2: unknown phase 'nan'"),
    ],
)
def test_a_malformed_phase_file_is_told_by_row(tmp_path, text, words):
    path = text_file(tmp_path, text)
    told = refusal(read_phase, path, PHASES)
    assert told.startswith(str(path))
    assert words in told


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "video01.txt"
    path.write_bytes(b"\xff\xfe\x00F")
    assert "not a text file; expected text in UTF-8" in refusal(read_phase, path, PHASES)
    assert "does not exist" in refusal(read_phase, tmp_path / "none.txt", PHASES)


def test_videos_are_found_by_name_and_twice_is_refused(tmp_path):
    for name in ("video01-phase.txt", "video02_pred.txt", "video03.txt", "video03-timestamp.txt", "notes.md"):
        text_file(tmp_path, "x", name)
    case = {"endings": ("", "-phase", "_pred"), "ignored": ("-timestamp",)}
    assert sorted(video_files(tmp_path, ".txt", **case)) == ["video01", "video02", "video03"]
    text_file(tmp_path, "x", "video01.txt")
    assert "two files for one video" in refusal(video_files, tmp_path, ".txt", **case)
    assert "no predictions or labels" in refusal(video_files, tmp_path, ".csv")
    assert "the folder does not exist" in refusal(video_files, tmp_path / "none", ".csv")


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_scores_are_read_back_to_the_last_digit(tmp_path, kind):
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(7, 100)).astype(kind) ** 3
    heads = {"I": rng.random((7, 6)).astype(kind), "V": rng.random((7, 10)).astype(kind)}
    path = write_triplets(tmp_path, "VID01", np.arange(7) * 3, scores, heads)
    read = read_triplets(path)
    assert read.frames.tolist() == [0, 3, 6, 9, 12, 15, 18]
    assert (read.scores.astype(kind) == scores).all()
    assert sorted(read.heads) == ["I", "V"]
    assert all((read.heads[c].astype(kind) == heads[c]).all() for c in heads)
    assert path.read_text().startswith("frame,0,1,2,")


def triplet_text(edit=lambda rows: rows) -> str:
    rows = [["frame", *map(str, range(100))], *([str(n), *["0.5"] * 100] for n in range(3))]
    return "\n".join(",".join(row) for row in edit(rows)) + "\n"


def test_columns_that_count_from_one_are_told(tmp_path):
    header = ",".join(["frame", *map(str, range(1, 101))])
    told = refusal(read_triplets, text_file(tmp_path, f"{header}\n0{',0.5' * 100}\n", "VID01.csv"))
    assert "expected 0, found '1'. The ids count from 1" in told


def change(row: int, column: int, cell: str):
    def edit(rows):
        rows[row][column] = cell
        return rows

    return edit


def cut(row: int, count: int = -1):
    def edit(rows):
        rows[row] = rows[row][:count]
        return rows

    return edit


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda rows: rows[:1], "no rows under the header"),
        (lambda rows: rows[1:], "row 1, column 1: wrong header; expected frame, found '0'"),
        (change(0, 3, "3"), "row 1, column 4: wrong header; expected 2, found '3'"),
        (cut(0), "row 1: wrong number of columns; expected 101, found 100"),
        (cut(2), "row 3: wrong number of columns; expected 101, separated by commas, found 100"),
        (change(2, 5, "nan"), "row 3, column 4: not a score; expected a finite number, found 'nan'"),
        (change(3, 100, "inf"), "row 4, column 99: not a score"),
        (change(1, 1, ""), "row 2, column 0: not a score; expected a finite number, found ''"),
        (change(1, 2, "0;5"), "row 2, column 1: not a score"),
        (change(2, 0, "0"), "row 3: a frame comes twice"),
        (change(1, 0, "9"), "row 3: the frames do not ascend; expected more than 9, found 1"),
        (change(1, 0, "frame1"), "row 2: not a frame number"),
        (lambda rows: [[*row, "X0" if n == 0 else "1"] for n, row in enumerate(rows)], "column 102: wrong header"),
        (lambda rows: [[*row, "I1" if n == 0 else "1"] for n, row in enumerate(rows)], "found 'I1'"),
    ],
)
def test_a_malformed_score_file_is_told_by_row_and_column(tmp_path, edit, words):
    path = text_file(tmp_path, triplet_text(edit), "VID01.csv")
    told = refusal(read_triplets, path)
    assert told.startswith(str(path))
    assert words in told


ALL = np.arange(0, 100)


@pytest.mark.parametrize(
    ("truth", "prediction", "words"),
    [
        (ALL, ALL + 1, "all frames are shifted by 1: they are counted from 1; expected frame 0, found 1"),
        (ALL, np.arange(1, 120), "1 of the truth's 100 frames have no prediction"),
        (ALL[::5], ALL[::5] + 1, "all frames are shifted by 1: they are counted from 1"),
        (ALL + 1, ALL, "all frames are shifted by -1"),
        (ALL, ALL + 25, "all frames are shifted by 25"),
        (
            ALL,
            ALL[:-3],
            "3 of the truth's 100 frames have no prediction; expected frame 97, found 97 frames from 0 to 96",
        ),
        (ALL, ALL[::25], "score every 25th frame of the truth with every=25"),
        (ALL[::25], ALL[:4], "these seem to be counted by row"),
        (ALL, np.arange(103), "row 102: 3 predicted frames are not in the truth; expected 100 frames from 0 to 99"),
    ],
)
def test_frames_that_do_not_match_are_told_with_the_likely_reason(truth, prediction, words):
    assert words in refusal(match_frames, truth, prediction, Path("p.txt"))


def test_extra_frames_can_be_left_out():
    rows = match_frames(ALL[::5], ALL, Path("p.txt"), ignore_extra=True)
    assert ALL[rows].tolist() == ALL[::5].tolist()


def drawn(classes: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((classes, 9, 13)) < 0.4


@pytest.mark.parametrize("classes", [["polyp"], ORGANS])
def test_masks_that_overlap_are_written_and_read_back(tmp_path, classes):
    masks = drawn(len(classes))
    files = write_masks(tmp_path, "video01", 25, masks, classes)
    assert len(files) == len(classes)
    assert files[0] == tmp_path / "video01" / ("000025.png" if classes == ["polyp"] else "000025_liver.png")
    (key, image), *others = index_masks(tmp_path, classes).items()
    assert key == ("video01", "25")
    assert not others
    read, valid = read_mask_image(image, classes)
    assert (read == masks).all()
    assert valid is None
    if len(classes) == 1:
        assert (read_file(files[0], classes) == masks).all()


def test_ids_with_and_without_palette_and_unlabelled_pixels(tmp_path):
    ids = np.random.default_rng(0).choice([0, 1, 2, 3, 255], size=(8, 10)).astype(np.uint8)
    (tmp_path / "v").mkdir()
    palette = Image.fromarray(ids, "P")
    palette.putpalette(list(np.random.default_rng(1).integers(0, 255, 768)))
    palette.save(tmp_path / "v" / "1.png")
    Image.fromarray(ids).save(tmp_path / "v" / "2.png")
    index = index_masks(tmp_path, ORGANS)
    for key in (("v", "1"), ("v", "2")):
        masks, valid = read_mask_image(index[key], ORGANS)
        assert (masks == (ids == np.array([1, 2, 3]).reshape(3, 1, 1))).all()
        assert (valid == (ids != 255)).all()


def test_an_organ_without_a_file_is_absent_as_in_dsad(tmp_path):
    folder = tmp_path / "04"
    folder.mkdir()
    cv2.imwrite(str(folder / "image07.png"), np.zeros((5, 6, 3), np.uint8))
    cv2.imwrite(str(folder / "image08.png"), np.zeros((5, 6, 3), np.uint8))
    cv2.imwrite(str(folder / "mask07_small_intestine.png"), np.full((5, 6), 255, np.uint8))
    index = index_masks(tmp_path, ORGANS)
    assert sorted(index) == [("04", "7"), ("04", "8")]
    masks, _ = read_mask_image(index["04", "7"], ORGANS)
    assert masks.any((1, 2)).tolist() == [False, True, False]
    assert read_mask_image(index["04", "8"], ORGANS) == (None, None)


def test_a_jpeg_mask_has_blurred_edges(tmp_path):
    mask = np.zeros((40, 40), np.uint8)
    cv2.circle(mask, (20, 20), 11, 255, -1)
    cv2.imwrite(str(tmp_path / "a.jpg"), mask)
    assert (read_file(tmp_path / "a.jpg", ["polyp"])[0] == (mask > 0)).all()


@pytest.mark.parametrize(
    ("pixels", "classes", "words"),
    [
        (np.full((4, 4), 38, np.uint8), ["polyp"], "not a mask of one class; expected two values or two colours"),
        (np.arange(16, dtype=np.uint8).reshape(4, 4), ["polyp"], "found 0, 1, 2, 3, 4, 5, ... 16 in all"),
        (np.full((4, 4), 4, np.uint8), ORGANS, "no class in the mask; expected 0 or black for none, 1 "),
        (np.arange(48, dtype=np.uint8).reshape(4, 4, 3), ORGANS, "a value of no class in the mask"),
    ],
)
def test_pixels_that_are_no_mask_are_refused(tmp_path, pixels, classes, words):
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    told = refusal(read_file, tmp_path / "a.png", classes)
    assert told.startswith(str(tmp_path / "a.png"))
    assert words in told


def test_mask_files_that_contradict_one_another_are_refused(tmp_path):
    write_masks(tmp_path, "v", 0, drawn(3), ORGANS)
    cv2.imwrite(str(tmp_path / "v" / "0_stomach.png"), np.zeros((9, 13), np.uint8))
    assert "two masks for one picture" in refusal(index_masks, tmp_path, ORGANS)
    (tmp_path / "v" / "0_stomach.png").unlink()
    cv2.imwrite(str(tmp_path / "v" / "000000_stomach.png"), np.zeros((9, 14), np.uint8))
    image = index_masks(tmp_path, ORGANS)["v", "0"]
    assert "another size; expected 13x9, found 14x9" in refusal(read_mask_image, image, ORGANS)
    cv2.imwrite(str(tmp_path / "v" / "0.png"), np.zeros((9, 13), np.uint8))
    image = index_masks(tmp_path, ORGANS)["v", "0"]
    assert "a picture's mask and masks of its classes" in refusal(read_mask_image, image, ORGANS)


def test_what_is_no_image_or_no_folder_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    assert "a.png: is not a readable image" in refusal(read_file, tmp_path / "a.png", ["polyp"])
    assert "does not exist" in refusal(read_file, tmp_path / "b.png", ["polyp"])
    assert "the folder does not exist" in refusal(index_masks, tmp_path / "none", ["polyp"])
    (tmp_path / "empty").mkdir()
    assert "no masks in this folder" in refusal(index_masks, tmp_path / "empty", ["polyp"])
    assert "not one mask a class" in refusal(write_masks, tmp_path, "v", 0, drawn(2), ["polyp"])


def test_a_half_written_png_is_refused(tmp_path):
    write_masks(tmp_path, "v", 0, np.random.default_rng(0).random((1, 200, 200)) < 0.5, ["polyp"])
    path = tmp_path / "v" / "000000.png"
    path.write_bytes(path.read_bytes()[:900])
    assert "the image is cut short" in refusal(read_file, path, ["polyp"])


def test_files_are_read_without_torch():
    code = "import sys, surgdino.tasks.phase.score, surgdino.tasks.segmentation.score, surgdino.verbs.score"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; print({{'torch', 'monai'}} & set(sys.modules))"],
        capture_output=True,
        text=True,
    )
    assert done.stdout == "set()\n", done.stderr


@pytest.mark.parametrize("kind", ["/../../../ESCAPED", "..", "a/b", "Gallbladder [wall]", "\x1b[2J"])
@pytest.mark.parametrize("video", ["op1", "case/op1", "..", "../../x", "/x"])
def test_files_of_any_class_and_video_lie_in_their_folder_and_masks_are_found_again(tmp_path, kind, video):
    folder, classes, frames = tmp_path / "a" / "b", ["liver", kind], np.arange(2)
    written = write_masks(folder, video, 7, np.ones((2, 4, 4)), classes)
    [found] = index_masks(folder, classes).values()
    assert set(found.files) == set(classes)
    written.append(write_phase(folder, video, frames, frames, classes))
    written.append(write_triplets(folder, video, frames, np.ones((2, 3))))
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(written)
    assert all(path.is_relative_to(folder) and not path.name.startswith(".") for path in written)
