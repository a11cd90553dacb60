"""Label tables as people have them: names, columns, separators, clocks; and one table a video."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from datetime import time, timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from surgdino.datasets.card import load_card
from surgdino.datasets.manifest import Manifest, SegmentLabels
from surgdino.datasets.open import open_dataset
from surgdino.errors import SurgdinoError

CARD = load_card("folder")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("OP 1.mp4", "OP 2.mp4"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def opened(root: Path, text: str | bytes | None = None, fps: float | None = None, **options) -> Manifest:
    if text is not None:
        (root / "labels.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return open_dataset(replace(CARD, fps=fps), root, options=options)


def ends(manifest: Manifest, video: str = "OP 1") -> list[list[float]]:
    found = manifest.labels["phase"].values[video]
    assert isinstance(found, SegmentLabels)
    return [found.starts.tolist(), found.ends.tolist()]


@pytest.mark.parametrize(
    "text",
    [
        "video,category,start_time,stop_time\nOP 1,a,0,10\nOP 1,b,10,20.5\nOP 2,a,0,5\n",
        "video,event,onset,offset\nOP 1,a,0,10\nOP 1,b,10,20.5\nOP 2,a,0,5\n",
        "TO;From;PHASE;Clip\n10;0;a;OP 1\n20,5;10;b;op 1.MP4\n5;0;a;OP 2\n",
        "video_path,label,t_start,t_end\n/data/OP 1.mp4,a,0,10\nD:\\x\\OP 1.mp4,b,10,20.5\nOP 2,a,0,5\n",
        "video|label|start|end\nOP 1|a|0|10\nOP 1|b|10|20.5\nOP 2|a|0|5\n",
        "video,label,start,duration\nOP 1,a,0,10\nOP 1,b,10,10.5\nOP 2,a,0,5\n",
        "video,label,start,end,duration\nOP 1,a,0,10,10\nOP 1,b,10,20.5,10.5\nOP 2,a,0,5,5\n",
        "video\tlabel\tBegin Time - hh:mm:ss.ms\tEnd Time - hh:mm:ss.ms\nOP 1\ta\t0:00:00.000\t00:10\n"
        "OP 1\tb\t10\t00:00:20.500\nOP 2\ta\t0\t5\n",
        "# made by a tool\n\n\nvideo,label,start,end,,\nOP 1,a,0,10,,\n,,,,,\nOP 1,b,10,20.5,,\nOP 2,a,0,5,,\n",
        "video,label,start,end\rOP 1,a,0,10\rOP 1,b,10,20.5\rOP 2,a,0,5\r",
        '"sep=,"\r\nvideo,label,start,end\r\nOP 1,a,"0,0","10,0"\r\nOP 1,b,"10,0","20,5"\r\nOP 2,a,0,5\r\n',
        '\ufeffsep=;\r\n"video";"label";"start";"end"\r\n"OP 1";"a";"0";"10"\r\n"OP 1";"b";"10";"20,5"\r\nOP 2;a;0;5\n',
        "Video ID,Phase Name,Start (mm:ss),End (mm:ss)\nOP 1,a,0:00:00,0:00:10\nOP 1,b,0:10,0:00:20.5\nOP 2,a,0,5\n",
    ],
)
def test_the_same_segments_in_many_forms(root, text):
    manifest = opened(root, text)
    assert manifest.problems == ()
    assert ends(manifest) == [[0, 10], [10, 20.5]]
    assert manifest.notes == ("labels.csv: 3 segments, seconds, 2 of 2 videos",)


def test_frames_whose_ends_are_included(root):
    manifest = opened(root, "video,label,start_frame,end_frame\nOP 1,a,0,9\nOP 1,b,10,19\nOP 2,a,0,5\n")
    assert ends(manifest) == [[0, 10], [10, 20]]
    assert manifest.notes == ("labels.csv: 3 segments, frames (ends included), 2 of 2 videos",)


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("start,end", "OP 1,a,0:00:00,0:00:75", "not a time"),
        ("start,end", "OP 1,a,0:00:00,0:75:00", "not a time"),
        ("start,end", "OP 1,a,00:00:00:00,00:00:10:25", "not a time"),
        ("start,end", 'OP 1,a,0,"1,234"', "not a second"),
        ("start,end", "OP 1,a,0,1e3", "not a second"),
        ("start,end", "OP 1,a,nan,5", "not a second"),
        ("start,end", "OP 1,a,0,inf", "not a second"),
        ("start,end", "OP 1,a,5,5", "a segment that ends before it starts"),
        ("start,end", "OP 1,a,0,5\nOP 1,a,0,6", "two segments that start together"),
        ("start,end", "OP 1,a,0,5\nOP 1,a,4,6", "segments that overlap"),
        ("start,duration", "OP 1,a,0,5\nOP 1,a,4,6", "segments that overlap"),
    ],
)
def test_rows_that_cannot_be(root, header, row, message):
    (problem,) = opened(root, f"video,label,{header}\nOP 2,a,0,5\n{row}\n", fps=25.0).errors
    assert problem.message == message
    assert problem.place in ("row 3", "row 4")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("video,phase,label,start,end\nOP 1,a,x,0,10\n", "two columns for the label"),
        ("video,label,start_frame,end_ms\nOP 1,a,0,10\n", "the columns count in two units"),
        ("OP 1,0,10,a\n", "the CSV has other columns"),
        ("video,label,start,end\nOP 1,a,0,10\n".encode("utf-16-le"), "not a text file"),
        (b"video,label,start,end\nOP 1,a\0b,0,10\n", "not a text file"),
    ],
)
def test_tables_that_are_refused(root, text, said):
    with pytest.raises(SurgdinoError, match=said):
        opened(root, text)


def test_a_row_twice_is_a_warning(root):
    (problem,) = opened(root, "video,label,start,end\nOP 1,a,0,5\nOP 1,a,0,5\nOP 2,a,0,5\n").problems
    assert (problem.severity, problem.message, problem.place) == ("warning", "a row twice", "row 3")


def test_a_table_named_after_each_video(root):
    (root / "OP 1.csv").write_text("label,start,end\na,0,5\nb,5,7\n")
    (root / "labels").mkdir()
    (root / "labels/op 2_phases.tsv").write_text("phase\tframe\na\t0\nb\t1\n")
    manifest = opened(root)
    assert manifest.problems == ()
    assert ends(manifest) == [[0, 5], [5, 7]]
    assert manifest.notes == ("2 tables: 4 segments and labelled moments, seconds and frames, 2 of 2 videos",)
    (root / "labels/OP 1_phases.csv").write_text("label,start,end\na,0,5\n")
    assert "labels of a video that another file has too" in [p.message for p in opened(root).errors]
    (root / "OP 1.csv").write_text("nothing of the kind")
    assert "the CSV has other columns" in [p.message for p in opened(root).errors], "the other files are read"


def test_a_folder_of_tables_elsewhere(root, tmp_path_factory):
    other = tmp_path_factory.mktemp("tables")
    (other / "OP 1.csv").write_text("label,start\na,0\n")
    (other / "rest.csv").write_text("video,label,start\nOP 2,a,0\n")
    assert len(opened(root, labels=str(other)).labels["phase"].values) == 2


@pytest.mark.parametrize(
    "name", ["phases.csv", "Labels.xls", "labels.ods", "OP 3.tsv", "session.eaf", "other.json", "x.xml"]
)
def test_tables_that_are_not_read_are_named(root, name):
    (root / name).write_text("x")
    problems = opened(root).problems  # an export that cannot be read has its reason before
    assert {(problem.severity, problem.file) for problem in problems} == {("warning", root / name)}
    assert name in problems[-1].message


def test_a_spreadsheet_is_read_as_the_csv_that_it_would_be_saved_as(root):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(["not", "these"])
    sheet = book.create_sheet("Labels")
    sheet.append(["Video", "Phase", "From", "To"])
    sheet.append(["OP 1", "access", time(0, 0, 5), time(0, 1, 30, 500_000)])
    sheet.append([])
    sheet.append(["OP 1", "closure; end", timedelta(seconds=100), timedelta(hours=26)])
    sheet["XFD9000"] = "a stray cell in the far corner"
    book.save(root / "labels.xlsx")
    manifest = opened(root)
    assert ends(manifest) == [[5, 100], [90.5, 26 * 3600]]
    assert manifest.labels["phase"].classes == ("access", "closure; end")
    assert {problem.place for problem in manifest.errors} == {"row 9000"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"PK\x03\x04 cut", "damaged"),
        (b"\xd0\xcf\x11\xe0" + bytes(600), "password"),
        (b"", "empty"),
        (None, "readable"),
    ],
)
def test_a_spreadsheet_that_is_not_read_is_one_line(root, content, said):
    if content is None:  # a zip file that is no workbook
        with zipfile.ZipFile(root / "other.xlsx", "w") as file:
            file.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
    else:
        (root / "other.xlsx").write_bytes(content)
    with pytest.raises(SurgdinoError, match=said):
        opened(root, labels="other.xlsx")


def test_without_openpyxl_a_spreadsheet_is_named_with_what_to_do(root, monkeypatch):
    monkeypatch.setattr("surgdino.datasets.spreadsheets.find_spec", lambda _: None)
    with zipfile.ZipFile(root / "labels.xlsx", "w") as file:
        file.writestr("a", "b")
    [problem] = opened(root).problems
    assert (problem.severity, problem.file) == ("warning", root / "labels.xlsx")
    assert "surgdino[excel]" in problem.fix
    with pytest.raises(SurgdinoError, match="CSV"):
        opened(root, labels="labels.xlsx")


def test_what_else_is_not_read_is_named(root):
    for name in ("a.dcm", "b", "README.md", "notes.txt", "sums.sha256"):
        (root / name).write_text("x")
    for number in range(3):
        Image.new("RGB", (4, 4)).save(root / f"still{number}.png")
    found = {p.message for p in opened(root).problems}
    assert found == {
        "1 file is not read (.dcm), the first is a.dcm",
        "1 file is not read (no suffix), the first is b",
        "3 files are not read (.png), the first is still0.png",
    }


@pytest.mark.parametrize(
    ("names", "count"),
    [
        (("OP1.mov", "OP1 (2).mov", "OP1-2.mov"), 3),
        (("OP1_part1.mp4", "OP1_Part 2.mp4"), 2),
        (("case.mp4", "Case.mov"), 2),
        (("case_1.mp4", "case-1.avi"), 2),
        (("video_01.mp4", "video_02.mp4", "2024-01-02.mp4", "2024-01-03.mp4"), 0),
        (("x/1.mp4", "x/2.mp4", "y/1.mp4"), 0),
    ],
)
def test_parts_of_one_operation_are_asked_about(tmp_path, names, count):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    problems = opened(tmp_path).problems
    assert len(problems) == (count > 0)
    if count:
        assert str(problems[0].found).startswith(f"{count}: ")
        assert opened(tmp_path, operation_pattern="(.)").problems == ()


def test_a_folder_of_masks_is_no_video(tmp_path):
    for folder, mode in (("frames", "RGB"), ("bw", "L"), ("other", "L")):
        (tmp_path / folder).mkdir()
        for number in range(3):
            name = f"{number + 10 * (folder == 'other')}.png"
            Image.new(mode, (4, 4)).save(tmp_path / folder / name)
    manifest = opened(tmp_path)
    assert [video.id for video in manifest.videos] == ["frames", "other"]
    assert "bw/ has the names of frames/ and looks like its masks" in manifest.problems[0].message


def test_pairs_below_the_folder_and_what_lies_beside_them(tmp_path):
    for part in ("train", "test"):
        for kind in ("images", "masks"):
            (tmp_path / part / kind).mkdir(parents=True)
            Image.new("L", (4, 4), 255).save(tmp_path / part / kind / "a.png")
    (tmp_path / "op.mp4").write_bytes(b"x")
    manifest = opened(tmp_path)
    assert [video.id for video in manifest.videos] == ["test/a", "train/a"]
    assert len(manifest.operations) == 1, "one name in two parts is no two operations"
    assert [problem.file for problem in manifest.problems] == [tmp_path, tmp_path / "op.mp4"]


# Classes


def test_labels_meet_the_listed_phases_in_any_spelling(root):
    text = "video,label,start\nOP 1,carlot triangle,0\nOP 1,CLIPPING-AND-CUTTING,5\nOP 2,Calot-Triangle,0\n"
    (root / "labels.csv").write_text(text)
    labels = open_dataset(replace(CARD, phases=("Clipping cutting", "Calot triangle")), root).labels["phase"]
    assert labels.values["OP 1"].array.tolist() == [1, 0]
    assert opened(root).labels["phase"].classes == ("CLIPPING-AND-CUTTING", "Calot-Triangle", "calot triangle")


def test_numbers_of_phases_that_count_from_one(root):
    (root / "labels.csv").write_text("video,label,start\nOP 1,1,0\nOP 1,2,5\nOP 2,1,0\n")
    with pytest.raises(SurgdinoError, match="numbers of phases, which seem to count from 1; expected the names in"):
        open_dataset(replace(CARD, phases=("access", "closure")), root)
    assert opened(root).labels["phase"].classes == ("1", "2")


@pytest.mark.parametrize("when", ["frame", "second", "start"])
def test_a_single_row_of_a_video(root, when):
    manifest = opened(root, f"video,label,{when}\nOP 1,a,0\nOP 2,a,0\n")
    present, found = manifest.labels["phase"].values["OP 1"].at(np.array([0, 25]), np.array([0.0, 1.0]))
    assert present.tolist() == [True, when == "start"]
    assert found[0] == 0
