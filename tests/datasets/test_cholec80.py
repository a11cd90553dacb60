"""Cholec80's layout and everything that goes wrong with it: each fault is named with file, row, expected and found."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from surgdino.datasets.card import load_card
from surgdino.datasets.manifest import FrameLabels, Manifest, Problem
from surgdino.datasets.open import open_dataset
from surgdino.datasets.synthetic.cholec80 import PHASES
from surgdino.datasets.synthetic.tools import TOOLS
from surgdino.errors import SurgdinoError

CARD = load_card("cholec80")
FRAMES = 76


def phase_file(root: Path, number: int) -> Path:
    return root / "phase_annotations" / f"video{number:02d}-phase.txt"


def tool_file(root: Path, number: int) -> Path:
    return root / "tool_annotations" / f"video{number:02d}-tool.txt"


def write_video(root: Path, number: int) -> None:
    """One operation's files; adapters decode nothing, so the video needs a name and a byte only."""
    for folder in ("videos", "phase_annotations", "tool_annotations"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "videos" / f"video{number:02d}.mp4").write_bytes(b"x")
    rows = "".join(f"{frame}\t{PHASES[frame * 7 // FRAMES]}\n" for frame in range(FRAMES))
    phase_file(root, number).write_text("Frame\tPhase\n" + rows)
    rows = "".join(f"{frame}\t1\t0\t1\t0\t0\t0\t0\n" for frame in (0, 25, 50))
    tool_file(root, number).write_text("Frame\t" + "\t".join(TOOLS) + "\n" + rows)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two operations, complete."""
    write_video(tmp_path, 1)
    write_video(tmp_path, 42)
    return tmp_path


def opened(root: Path, **how) -> Manifest:
    return open_dataset(CARD, root, **how)


def told(manifest: Manifest) -> list[Problem]:
    """All problems but the standing one, that most of the 80 videos are not here."""
    return [p for p in manifest.problems if "of 80 videos are not here" not in p.message]


def the_error(root: Path) -> Problem:
    (problem,) = told(opened(root))
    assert problem.severity == "error"
    return problem


def edit(path: Path, row: int, text: str) -> None:
    """Replace a row, counted from 1 as an editor does."""
    rows = path.read_text().splitlines()
    rows[row - 1] = text
    path.write_text("\n".join(rows) + "\n")


# --- what is right -------------------------------------------------------------------------------------------------


def test_videos_phases_and_tools_are_joined_by_number(root):
    manifest = opened(root)
    assert told(manifest) == []
    assert [v.id for v in manifest.videos] == ["video01", "video42"]
    assert [v.operation for v in manifest.videos] == ["camma/1", "camma/42"]
    assert {v.fps for v in manifest.videos} == {25.0}
    assert manifest.labels["phase"].values["video42"][0] == PHASES.index("Preparation")
    assert manifest.labels["phase"].values["video42"][75] == PHASES.index("GallbladderRetraction")
    assert manifest.labels["tools"].values["video01"][25] == (1, 0, 1, 0, 0, 0, 0)


def test_tools_end_a_row_before_phases_and_that_is_no_problem(root):
    """At one frame a second the released video01 has 1,734 frames with a phase and 1,733 with tools."""
    manifest = opened(root)
    phases, tools = (manifest.labels[task].values["video01"] for task in ("phase", "tools"))
    assert [n for n in phases if n % 25 == 0] == [0, 25, 50, 75]
    assert list(tools) == [0, 25, 50]
    assert manifest["video01"].frame_count == FRAMES


def test_the_frame_rate_convention_is_25_and_zero_based(root):
    labels = opened(root).labels["phase"].values["video01"]
    assert list(labels) == list(range(FRAMES))


def test_generated_sets_are_right(synthetic_cholec80):
    manifest = opened(synthetic_cholec80)
    assert manifest.errors == ()
    assert len(manifest.videos) == 4
    assert all(len(labels.values) == 4 for labels in manifest.labels.values())


@pytest.mark.parametrize("ending", ["\r\n", "\n\n\n", "\n  \n"])
def test_line_ends_of_other_systems_and_empty_last_lines_are_borne(root, ending):
    for path in (phase_file(root, 1), tool_file(root, 1)):
        rows = path.read_text().splitlines()
        end = "\r\n" if ending == "\r\n" else "\n"
        path.write_bytes(b"\xef\xbb\xbf" + (end.join(rows) + ending).encode())
    manifest = opened(root)
    assert told(manifest) == []
    assert len(manifest.labels["phase"].values["video01"]) == FRAMES


def test_names_with_spaces_and_other_letters(root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("x") / "Klinik Süd (März), OP=3 [neu]"
    shutil.copytree(root, elsewhere)
    manifest = opened(elsewhere)
    assert told(manifest) == []
    assert manifest.fingerprint() == opened(root).fingerprint()


@pytest.mark.parametrize("name", ["video01-timestamp.txt", ".DS_Store", "._video01.mp4", "Thumbs.db"])
def test_files_that_belong_there_or_that_desktops_leave_are_no_problem(root, name):
    (root / "videos" / name).write_text("x")
    (root / "README.txt").write_text("x")
    assert told(opened(root)) == []


def test_a_folder_without_any_labels_is_enough_for_pretraining(root):
    for folder in ("phase_annotations", "tool_annotations"):
        shutil.rmtree(root / folder)
    manifest = opened(root)
    assert manifest.errors == ()
    assert [p.message for p in told(manifest)] == ["no phase annotations", "no tool annotations"]
    assert manifest.labels == {}
    assert manifest["video01"].frame_count is None


# --- what is wrong -------------------------------------------------------------------------------------------------


def test_missing_videos_are_one_warning_that_lists_them(root):
    (problem,) = [p for p in opened(root).problems if "are not here" in p.message]
    assert problem.severity == "warning"
    assert problem.message == "78 of 80 videos are not here: 2-41, 43-80"


def test_a_video_without_labels(root):
    phase_file(root, 42).unlink()
    problem = the_error(root)
    assert problem.message == "video42 has no phase labels"
    assert problem.file == phase_file(root, 42)
    assert "video42" not in opened(root).labels["phase"].values


def test_labels_without_a_video(root):
    (root / "videos" / "video42.mp4").unlink()
    problems = told(opened(root))
    assert {(p.severity, p.message) for p in problems} == {("error", "labels without a video")}
    assert [p.file for p in problems] == [phase_file(root, 42), tool_file(root, 42)]
    assert "videos/video42.mp4" in str(problems[0].expected)
    assert "video42" not in opened(root).labels["phase"].values


@pytest.mark.parametrize(
    "name", ["videos/notes.docx", "videos/intro.mp4", "phase_annotations/video01-phases.txt", "old"]
)
def test_extra_files_are_named_and_left_alone(root, name):
    (root / name).write_text("x")
    (problem,) = told(opened(root))
    assert (problem.severity, problem.message, problem.file) == ("warning", "an unexpected file", root / name)
    assert len(opened(root).videos) == 2


def test_a_number_that_cholec80_does_not_have(root):
    write_video(root, 81)
    (problem,) = told(opened(root))
    assert (problem.severity, problem.found) == ("warning", 81)
    assert opened(root)["video81"].operation == "camma/81"


def test_two_files_for_one_video(root):
    (root / "videos" / "video1.mkv").write_bytes(b"x")
    assert "two files for one video" in the_error(root).message


def test_an_empty_video(root):
    (root / "videos" / "video01.mp4").write_bytes(b"")
    problem = the_error(root)
    assert (problem.message, problem.found) == ("the file is empty", "0 bytes")
    assert problem.file == root / "videos" / "video01.mp4"


def test_an_unknown_phase_names_the_nearest_and_the_row(root):
    edit(phase_file(root, 1), 12, "10\tCalotTriangelDissection")
    problem = the_error(root)
    assert problem.place == "row 12"
    assert "'CalotTriangelDissection'" in problem.message
    assert "'CalotTriangleDissection'" in problem.fix
    assert list(opened(root).labels["phase"].values["video01"]) == list(range(10)), "rows before it stay"


def test_the_releases_misprint_and_other_spellings_are_read(root):
    text = phase_file(root, 1).read_text()
    assert "CalotTriangleDissection" in text
    before = opened(root).labels["phase"]
    text = text.replace("CalotTriangleDissection", "CarlotTriangleDissection")
    phase_file(root, 1).write_text(text.replace("ClippingCutting", "clipping-and-cutting"))
    after = opened(root).labels["phase"]
    assert told(opened(root)) == []
    assert after.classes == before.classes
    assert (after.values["video01"].array == before.values["video01"].array).all()


def test_phase_numbers_that_count_from_one_are_told(root):
    rows = "".join(f"{frame}\t{1 + frame * 7 // FRAMES}\n" for frame in range(FRAMES))
    phase_file(root, 1).write_text("Frame\tPhase\n" + rows)
    assert the_error(root).message.endswith("instead of its name, and the numbers seem to count from 1")


def test_phase_numbers_instead_of_names_are_refused(root):
    """The TensorFlow re-release swaps ids 4 and 6: a number cannot be trusted to mean what it says."""
    rows = "".join(f"{frame}\t{frame * 7 // FRAMES}\n" for frame in range(FRAMES))
    phase_file(root, 1).write_text("Frame\tPhase\n" + rows)
    problem = the_error(root)
    assert "number instead of its name" in problem.message
    assert str(FRAMES) in problem.found
    assert "video01" not in opened(root).labels["phase"].values


def test_frames_counted_from_one(root):
    rows = "".join(f"{frame}\tPreparation\n" for frame in range(1, FRAMES))
    phase_file(root, 1).write_text("Frame\tPhase\n" + rows)
    problem = the_error(root)
    assert (problem.message, problem.place, problem.found) == ("frames are counted from 1", "row 2", 1)


def test_tools_counted_in_rows_instead_of_frames(root):
    path = tool_file(root, 1)
    path.write_text(path.read_text().replace("\n25\t", "\n1\t").replace("\n50\t", "\n2\t"))
    problem = the_error(root)
    assert problem.message == "frames are counted in rows, not in steps of 25"
    assert (problem.place, problem.expected, problem.found) == ("row 3", "frame 25", 1)


def test_a_row_that_is_left_out(root):
    rows = phase_file(root, 1).read_text().splitlines()
    del rows[30]
    phase_file(root, 1).write_text("\n".join(rows))
    problem = the_error(root)
    assert (problem.place, problem.expected, problem.found) == ("row 31", "frame 29", 30)


@pytest.mark.parametrize("header", ["frame\tphase", "Frame Phase", "Frame,Phase", "0\tPreparation", "Phase\tFrame"])
def test_another_header(root, header):
    edit(phase_file(root, 1), 1, header)
    problem = the_error(root)
    assert (problem.message, problem.place, problem.found) == ("wrong header", "row 1", header)


def test_tools_in_another_order_are_not_taken_for_each_other(root):
    edit(tool_file(root, 1), 1, "Frame\tBipolar\tGrasper\tHook\tScissors\tClipper\tIrrigator\tSpecimenBag")
    assert the_error(root).message == "wrong header"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("25\t1\t0\t2\t0\t0\t0\t0", "neither 0 nor 1"),
        ("25\t1\t0\t\t0\t0\t0\t0", "neither 0 nor 1"),
        ("25\t1\t0\t1\t0\t0\t0", "wrong number of columns"),
        ("25,1,0,1,0,0,0,0", "wrong number of columns"),
        ("25.0\t1\t0\t1\t0\t0\t0\t0", "no frame number"),
        ("x\t1\t0\t1\t0\t0\t0\t0", "no frame number"),
        ("-25\t1\t0\t1\t0\t0\t0\t0", "the frame numbers do not go on evenly"),
    ],
)
def test_a_row_that_cannot_be_read(root, row, said):
    edit(tool_file(root, 1), 3, row)
    problem = the_error(root)
    assert problem.message == said
    assert problem.place.startswith("row 3")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b"Frame\tPhase\n", "no rows under the header"),
        ("Frame\tPhase\n".encode("utf-16"), "not a text file"),
    ],
)
def test_files_that_hold_no_labels(root, content, said):
    phase_file(root, 1).write_bytes(content)
    assert the_error(root).message == said


def test_a_tool_file_that_is_cut_short(root):
    rows = phase_file(root, 1).read_text().splitlines()
    rows += [f"{frame}\tGallbladderRetraction" for frame in range(FRAMES, 200)]
    phase_file(root, 1).write_text("\n".join(rows))
    problem = the_error(root)
    assert (problem.message, problem.found) == ("tools and phases end apart", 50)


def test_problems_are_collected_not_told_one_at_a_time(root):
    (root / "videos" / "video01.mp4").write_bytes(b"")
    edit(phase_file(root, 42), 5, "3\tLunch")
    edit(tool_file(root, 1), 2, "0\t1\t0\t9\t0\t0\t0\t0")
    (root / "videos" / "extra.txt").write_text("x")
    messages = [p.message for p in told(opened(root))]
    assert len(messages) == 4


# --- folders and splits --------------------------------------------------------------------------------------------


def test_a_folder_that_is_not_there_or_is_another(root, tmp_path):
    with pytest.raises(SurgdinoError, match="does not exist"):
        opened(tmp_path / "nowhere")
    with pytest.raises(SurgdinoError, match="not a folder"):
        opened(root / "videos" / "video01.mp4")
    with pytest.raises(SurgdinoError, match="one level up"):
        opened(root / "videos")
    with pytest.raises(SurgdinoError, match="dataset=folder"):
        opened(root / "phase_annotations")
    (tmp_path / "outer").mkdir()
    shutil.copytree(root / "videos", tmp_path / "outer" / "cholec80" / "videos")
    with pytest.raises(SurgdinoError, match=r"outer/cholec80"):
        opened(tmp_path / "outer")


@pytest.mark.parametrize("split", ["40-40", "40-8-32", "32-8-40"])
def test_published_splits(root, split):
    for number in (32, 36, 50):
        write_video(root, number)
    manifest = opened(root, split=split)
    parts = {video.id: video.split for video in manifest.videos}
    assert parts["video01"] == "train"
    assert parts["video36"] == ("val" if split == "32-8-40" else "train")
    assert parts["video42"] == ("val" if split == "40-8-32" else "test")
    assert parts["video50"] == "test"
    assert {p.severity for p in told(manifest)} == {"warning"}, "the split is not complete"


def test_an_inline_split_by_number_id_or_operation(root):
    write_video(root, 7)
    manifest = opened(root, split={"train": [1], "val": ["video07"], "test": ["camma/42"]})
    assert [v.split for v in manifest.videos] == ["train", "val", "test"]
    assert [v.id for v in manifest.part("test").videos] == ["video42"]
    assert [v.split for v in opened(root, split={"train": ["1-40"]}).videos] == ["train", "train", None]


def test_a_mistyped_split_names_the_nearest(root):
    with pytest.raises(SurgdinoError, match="Did you mean '40-8-32'"):
        opened(root, split="40-8-23")
    with pytest.raises(SurgdinoError, match="Did you mean 'video42'"):
        opened(root, split={"train": ["vidoe42"]})
    with pytest.raises(SurgdinoError, match="Did you mean 'train'"):
        opened(root, split={"trian": [1]})


def test_an_option_of_another_layout_is_refused(root):
    with pytest.raises(SurgdinoError, match=r"no use for data\.operation_pattern"):
        opened(root, options={"operation_pattern": "(x)"})


# --- size ----------------------------------------------------------------------------------------------------------


def test_a_hundred_thousand_rows_are_read_in_a_moment(root):
    rows = "".join(f"{frame}\t{PHASES[frame * 7 // 100_000]}\n" for frame in range(100_000))
    phase_file(root, 1).write_text("Frame\tPhase\n" + rows)
    tool_file(root, 1).unlink()
    started = time.process_time()
    labels = opened(root).labels["phase"].values["video01"]
    assert time.process_time() - started < 1.0
    assert len(labels) == 100_000
    assert labels[99_999] == 6


def test_labels_of_many_frames_at_once():
    labels = FrameLabels(np.array([0, 25, 50]), np.array([[1, 0], [0, 1], [1, 1]]))
    present, values = labels.at(np.array([50, 3, 0, 99]))
    assert present.tolist() == [True, False, True, False]
    assert values[present].tolist() == [[1, 1], [1, 0]]
    assert labels[25] == (0, 1)
    assert 26 not in labels
    with pytest.raises(ValueError, match="ascend"):
        FrameLabels(np.array([0, 0]), np.array([1, 2]))
