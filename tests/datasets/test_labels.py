"""A group's own phases in a CSV: by frame or by second, and every way in which such a file goes wrong."""

from __future__ import annotations

import os
import re
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from surgdino.datasets.card import load_card
from surgdino.datasets.manifest import FrameLabels, Labels, Manifest, Problem, SecondLabels, SegmentLabels
from surgdino.datasets.open import open_dataset
from surgdino.errors import SurgdinoError

CARD = load_card("folder")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("OP 1.mp4", "OP 2.mp4"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def opened(root: Path, text: str | bytes, phases: tuple[str, ...] = (), **options) -> Manifest:
    (root / "labels.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return open_dataset(replace(CARD, phases=phases), root, options=options)


def phases(manifest: Manifest) -> Labels:
    return manifest.labels["phase"]


def the_error(manifest: Manifest) -> Problem:
    (problem,) = manifest.errors
    return problem


def test_by_frame(root):
    manifest = opened(root, "video,frame,label\nOP 1,0,access\nOP 1,25,suture\nOP 2,0,access\n")
    assert manifest.problems == ()
    assert phases(manifest).classes == ("access", "suture")
    labels = phases(manifest).values["OP 1"]
    assert isinstance(labels, FrameLabels)
    assert dict(labels) == {0: 0, 25: 1}


def test_by_second_the_nearest_row_speaks_for_a_frame(root):
    text = "video,second,phase\nOP 1,0,a\nOP 1,1,a\nOP 1,2,b\nOP 1,9,b\nOP 2,0.5,b\n"
    labels = phases(opened(root, text)).values["OP 1"]
    assert isinstance(labels, SecondLabels)
    times = np.array([0.0, 0.98, 1.48, 1.52, 2.5, 2.6, 9.3, 9.6])
    present, classes = labels.at(np.arange(8), times)
    assert present.tolist() == [True, True, True, True, True, False, True, False]
    assert classes[present].tolist() == [0, 0, 0, 1, 1, 1]
    with pytest.raises(ValueError, match="need the frames' times"):
        labels.at(np.arange(3))
    present, _ = phases(opened(root, text)).values["OP 2"].at(np.arange(3), np.array([0.0, 1.0, 1.1]))
    assert present.tolist() == [True, True, False]


def test_both_kinds_of_labels_are_asked_alike():
    numbers, times = np.array([0, 30, 60]), np.array([0.0, 1.0, 2.0])
    by_frame = FrameLabels(np.array([0, 30, 60]), np.array([0, 1, 1])).at(numbers, times)
    by_second = SecondLabels(np.array([0.0, 1.0, 2.0]), np.array([0, 1, 1])).at(numbers, times)
    assert [x.tolist() for x in by_frame] == [x.tolist() for x in by_second]
    with pytest.raises(ValueError, match="ascend"):
        SecondLabels(np.array([1.0, 1.0]), np.array([0, 0]))
    assert not SecondLabels(np.empty(0), np.empty(0)).at(numbers, times)[0].any()


@pytest.mark.parametrize(
    "text",
    [
        "video;second;label\r\nOP 1;0,5;access\r\nOP 2;1,0;suture\r\n",  # a spreadsheet's, with decimal commas
        b"\xef\xbb\xbfVideo\tSecond\tLabel\n\nOP 1\t0.5\taccess\nOP 2\t1.0\tsuture\n\n",
        'second,video,note,label\n0.5,"OP 1","left, again",access\n1.0,OP 2.mp4,,suture\n',
    ],
)
def test_as_spreadsheets_write_it(root, text):
    manifest = opened(root, text)
    assert manifest.problems == ()
    assert {v: x.seconds.tolist() for v, x in phases(manifest).values.items()} == {"OP 1": [0.5], "OP 2": [1.0]}


def test_rows_in_any_order_and_one_video_without_naming_it(root):
    (root / "OP 2.mp4").unlink()
    manifest = opened(root, "frame,label\n50,b\n0,a\n25,a\n")
    assert dict(phases(manifest).values["OP 1"]) == {0: 0, 25: 0, 50: 1}


def test_classes_keep_the_order_that_the_user_gives(root):
    manifest = opened(root, "video,frame,label\nOP 1,0,b\nOP 2,0,b\n", phases=("z", "b", "a"))
    assert phases(manifest).classes == ("z", "b", "a")
    assert phases(manifest).values["OP 1"][0] == 1


def test_videos_in_subfolders_by_any_name_that_means_one(root):
    for folder in ("a", "b"):
        (root / folder).mkdir()
        (root / folder / "x.mp4").write_bytes(b"x")
    (root / "a/y.mp4").write_bytes(b"x")
    manifest = opened(root, "video,frame,label\na/x,0,p\na/x.mp4,1,p\ny.mp4,0,p\nOP 1,0,p\nOP 2,0,p\nb/x,0,p\n")
    assert manifest.problems == ()
    assert len(phases(manifest).values["a/x"]) == 2
    assert the_error(opened(root, "video,frame,label\nx,0,p\nOP 1,0,p\n")).message == "unknown video"


def test_a_file_elsewhere(root, tmp_path_factory):
    other = tmp_path_factory.mktemp("labels") / "mine.csv"
    other.write_text("video,frame,label\nOP 1,0,theirs\n")
    assert phases(opened(root, "video,frame,label\nOP 1,0,ours\n", labels=str(other))).classes == ("theirs",)
    with pytest.raises(SurgdinoError, match=r"data\.labels is not a file"):
        opened(root, "x", labels="labels2.csv")


@pytest.mark.parametrize(
    "text",
    [
        "video;start;end;phase\r\nOP 1;00:00:00;00:00:30;a\r\nOP 1;00:00:30;00:01:00;b\r\nOP 2;0:00;1:00;a\r\n",
        "sep=;\nvideo;start;end;label\nOP 1;0;30;a\nOP 1;30,0;60;b\nOP 2;0;60;a\n",
        "file,start_ms,end_ms,class\nOP 1.mp4,30000,60000,b\nOP 1.mp4,0,30000,a\nop 2.MP4,0,60000,a\n",
        "Filename,Start (s),End (s),Phase\nC:\\films\\OP 1.mp4,0,30.0,a\n/x/OP 1.mp4,30,60,b\nOP 2,0,60,a\n",
        "video,begin,label\nOP 1,0,a\nOP 1,30,b\nOP 2,0,a\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_segments_and_starts(root, text, encoding):
    manifest = opened(root, re.sub(r"([,;])a(?=[\r\n])", r"\1Präp", text).encode(encoding))
    assert manifest.problems == ()
    labels = phases(manifest)
    assert labels.classes == ("Präp", "b")
    found = labels.values["OP 1"]
    assert isinstance(found, SegmentLabels)
    present, ids = found.at(np.arange(5), np.array([0.0, 29.9, 30.0, 59.9, 61.0]))
    ended = "end" in text.lower()
    assert present.tolist() == [True, True, True, True, not ended]
    assert ids[present].tolist() == [0, 0, 1, 1] + [1] * (not ended)
    (note,) = manifest.notes
    assert note.startswith("labels.csv: 3 segments")
    assert note.endswith("2 of 2 videos")


def test_segments_by_frame(root):
    text = "video,frame_start,frame_end,label\nOP 1,10,20,a\nOP 1,30,40,b\nOP 2,0,5,a\n"
    present, ids = phases(opened(root, text)).values["OP 1"].at(np.array([9, 10, 19, 20, 30, 39, 40]))
    assert present.tolist() == [False, True, True, False, True, True, False]
    assert ids[present].tolist() == [0, 0, 1, 1]


def test_times_as_clocks(root):
    text = "video,second,label\nOP 1,00:00:07,a\nOP 1,1:02:03.5,a\nOP 1,02:08,a\nOP 2,7,a\n"
    assert phases(opened(root, text)).values["OP 1"].seconds.tolist() == [7.0, 128.0, 3723.5]
    milliseconds = "video,time_ms,label\nOP 1,0,a\nOP 1,500,a\nOP 2,0,a\n"
    assert phases(opened(root, milliseconds)).values["OP 1"].seconds[1] == 0.5
    frames = "video,time,label\nOP 1,00:00:07:12,a\nOP 2,00:00:01:00,a\n"
    assert the_error(opened(root, frames)).message == "a time that counts frames"
    timed = open_dataset(replace(CARD, fps=25.0), root)
    assert phases(timed).values["OP 1"].seconds.tolist() == [7.48]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("OP 1,5,3,a", "a segment that ends before it starts"),
        ("OP 1,0,5,a\nOP 1,3,8,b", "segments that overlap"),
    ],
)
def test_segments_that_cannot_be(root, rows, message):
    assert the_error(opened(root, f"video,start,end,label\n{rows}\nOP 2,0,1,a\n")).message == message


@pytest.mark.parametrize("header", ["second", "frame"])
def test_rows_that_look_like_the_starts_of_phases_are_asked_about(root, header):
    (problem,) = opened(root, f"video,{header},label\nOP 1,0,a\nOP 1,12,b\nOP 1,92,c\nOP 2,0,a\n").problems
    assert problem.severity == "warning"
    assert "starts of phases?" in problem.message
    assert (problem.found, problem.place) == (f"rows 12 to 80 {header}s apart", "row 3")


@pytest.mark.parametrize("other", ["dissection", "DISSECTION", "Dissectión", "dis-section", "Dissec tion"])
def test_near_equal_spellings_are_a_warning(root, other):
    text = f"video,frame,label\nOP 1,0,Dissection\nOP 1,1,{other}\nOP 1,2,{other}\nOP 2,0,Dissection\n"
    (problem,) = opened(root, text).problems
    assert (problem.severity, problem.place, problem.expected) == ("warning", "row 3", "Dissection")


@pytest.mark.parametrize(("header", "number"), [("frame", "9" * 25), ("second", "9" * 25), ("frame", "9" * 5000)])
def test_numbers_that_no_video_has(root, header, number):
    problem = the_error(opened(root, f"video,{header},label\nOP 1,{number},a\nOP 1,0,a\nOP 2,0,a\n"))
    assert (problem.message, problem.place) == (f"not a {header}", "row 2")


def test_a_column_of_other_things_is_not_taken_for_labels(root):
    rows = "".join(f"OP 1,{n},{n}.5 s\n" for n in range(2_000))
    with pytest.raises(SurgdinoError, match=r"labels\.csv: 2,000 different labels; expected at most 1,000 classes"):
        opened(root, "video,frame,label\n" + rows)


def test_labels_by_any_case_of_the_name(root):
    (root / "Labels.CSV").write_text("video,frame,label\nOP 1,0,a\nOP 2,0,a\n")
    assert phases(open_dataset(CARD, root)).classes == ("a",)


def test_a_pipe_is_not_waited_for(root):
    os.mkfifo(root / "pipe.csv")
    with pytest.raises(SurgdinoError, match="is not a file"):
        opened(root, "x", labels="pipe.csv")


@pytest.mark.parametrize(
    ("row", "message", "expected", "found"),
    [
        ("OP 3,5,access", "unknown video", "a video of the folder", "OP 3"),
        ("OP 1,5,acces", "unknown label", "one of dataset.phases", "acces"),
        ("OP 1,0,suture", "two labels for one moment", "access", "suture"),
        ("OP 1,-1,access", "not a frame", "a whole number from 0", "'-1'"),
        ("OP 1,1.5,access", "not a frame", "a whole number from 0", "'1.5'"),
        ("OP 1,5,", "no label", "a label", "nothing"),
        ("OP 1,5", "too few columns", "3 or more", 2),
    ],
)
def test_a_faulty_row_is_named_and_left_out(root, row, message, expected, found):
    text = f"video,frame,label\nOP 1,0,access\n{row}\nOP 2,0,suture\nOP 1,7,suture\n"
    manifest = opened(root, text, phases=("access", "suture"))
    problem = the_error(manifest)
    assert (problem.message, problem.file, problem.place) == (message, root / "labels.csv", "row 3")
    assert (problem.expected, problem.found) == (expected, found)
    assert dict(phases(manifest).values["OP 1"]) == {0: 0, 7: 1}


def test_the_same_fault_in_every_row_is_told_once(root):
    manifest = opened(root, "video,frame,label\n" + "".join(f"OP 1,{n}.0,a\n" for n in range(99)))
    assert len(manifest.errors) == 1
    assert "phase" not in manifest.labels


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the file is empty"),
        ("a,b,c\n1,2,3\n", "has other columns"),
        ("video,frame,second,label\n", "two columns for the moment"),
        ("frame,label\n0,a\n", "names no videos; expected a column video: there are 2 of them"),
        (b"\xff\xfe\x00", "not a text file"),
        (b"\x00\x01\x02\xff", "not a text file"),
    ],
)
def test_a_file_that_is_no_label_table(root, text, said):
    with pytest.raises(SurgdinoError, match=said):
        opened(root, text)


def test_videos_without_labels_are_a_warning(root):
    (problem,) = opened(root, "video,frame,label\nOP 1,0,a\n").problems
    assert (problem.severity, problem.message) == ("warning", "1 of 2 videos have no labels, the first is OP 2")


@pytest.mark.slow
def test_ten_times_the_rows_take_about_ten_times_as_long(root):
    seconds = {}
    for count in (10_000, 100_000):
        rows = "".join(f"OP {1 + n % 2},{n // 2},phase {n // 9000}\n" for n in range(count))
        start = time.process_time()
        manifest = opened(root, "video,frame,label\n" + rows)
        seconds[count] = time.process_time() - start
        assert len(phases(manifest).values["OP 2"]) == count // 2
    assert seconds[100_000] < 30 * seconds[10_000], "0.7 s on an idle core"
