"""Label files of published releases: every layout is read as it was written, and what is wrong is one line."""

from __future__ import annotations

import collections
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from surgdino.datasets.card import Card, card_names, load_card
from surgdino.datasets.manifest import Manifest, SegmentLabels
from surgdino.datasets.masks import read_masks
from surgdino.datasets.open import open_dataset
from surgdino.datasets.pickles import read_pickle
from surgdino.datasets.synthetic.workflow import write_workflow
from surgdino.errors import SurgdinoError
from surgdino.frames.video.decode import probe
from surgdino.verify.tables import print_findings
from surgdino.verify.verb import compare

LAYOUTS = [name for name in card_names() if load_card(name).adapter == "workflow"]
SECONDS, FPS = 6, 5


@pytest.fixture(scope="module", params=LAYOUTS)
def made(request, tmp_path_factory):
    root = tmp_path_factory.mktemp(request.param)
    return request.param, root, write_workflow(root, request.param, videos=2, seconds=SECONDS, fps=FPS, public_ids=True)


def told(manifest: Manifest) -> list[str]:
    return [problem.error().line() for problem in manifest.problems if "not here" not in problem.message]


def test_every_layout_is_read_as_it_was_written(made):
    name, root, truths = made
    manifest = open_dataset(load_card(name), root)
    assert told(manifest) == []
    assert [video.id for video in manifest.videos] == sorted(truths)
    assert len(manifest.operations) == len(truths)
    assert all(operation.startswith(f"{name}/") for operation in manifest.operations)
    for kind, labels in manifest.labels.items():
        for video, truth in truths.items():
            frames = np.arange(SECONDS * FPS)[::FPS]
            present, found = labels.values[video].at(frames, frames / FPS)
            assert present.all()
            np.testing.assert_array_equal(found, truth[kind], kind)
    assert {kind for truth in truths.values() for kind in truth} == manifest.labels.keys()


def test_verify_counts_them_and_says_what_nobody_has_confirmed(made, capsys):
    name, root, _ = made
    card, manifest = load_card(name), open_dataset(load_card(name), root)
    infos = {video.id: probe(video.path, "pyav", fps=video.fps) for video in manifest.videos}
    assert [problem for video in manifest.videos for problem in compare(video, infos[video.id], manifest)] == []
    print_findings(card, manifest, infos, {})
    said = " ".join(capsys.readouterr().out.split())
    assert "no errors" in said
    assert card.unconfirmed
    for fact in card.unconfirmed:
        assert f"not confirmed: {fact}" in said


@pytest.mark.parametrize(
    ("name", "file", "rows", "said"),
    [
        ("autolaparo", "labels/label_01.txt", "".join(f"{n}\t1\n" for n in range(7, 90)), "beyond the video's end"),
        ("heichole", "Annotations/Phase/Hei-Chole1_Annotation_Phase.csv", "99,0\n", "beyond the video's end"),
        ("heichole", "Annotations/Phase/Hei-Chole1_Annotation_Phase.csv", None, "the labels end before the video does"),
    ],
    ids=["seconds", "frames", "half the rate"],
)
def test_labels_of_another_video_or_rate_are_told(name, file, rows, said, tmp_path):
    write_workflow(tmp_path, name, videos=1, seconds=SECONDS, fps=FPS)
    written = (tmp_path / file).read_text()
    (tmp_path / file).write_text(written + rows if rows else written[: len(written) // 2].rpartition("\n")[0])
    for other in tmp_path.glob("Annotations/[IA]*/*.csv"):
        other.unlink()
    manifest = open_dataset(load_card(name), tmp_path)
    (video,) = manifest.videos
    info = probe(video.path, "pyav", fps=video.fps)
    assert any(said in problem.message for problem in compare(video, info, manifest))


# What may be wrong with a table of labels


def written(root: Path, rows: str, name: str = "autolaparo", **how) -> Manifest:
    """A set of one video whose label file is `rows`."""
    files = {"autolaparo": ("01.mp4", "label_01.txt"), "pitvis": ("video_01.mp4", "annotations_01.csv")}
    files["heichole"] = ("Hei-Chole1.mp4", "Hei-Chole1_Annotation_Phase.csv")
    video, labels = files[name]
    (root / video).write_bytes(b"x")
    (root / labels).write_bytes(rows if isinstance(rows, bytes) else rows.encode())
    return open_dataset(load_card(name), root, **how)


def phases(manifest: Manifest, kind: str = "phase") -> dict[float, int]:
    values = next(iter(manifest.labels[kind].values.values()))
    times = values.numbers if hasattr(values, "numbers") else values.seconds
    return dict(zip(times.tolist(), values.array.tolist(), strict=True))


RIGHT = {0: 0, 1: 0, 2: 1}


@pytest.mark.parametrize(
    "rows",
    [
        "Frame\tPhase\n1\t1\n2\t1\n3\t2\n",
        "\ufeffFrame\tPhase\r\n1\t1\r\n2\t1\r\n3\t2\r\n\r\n",
        "frame;phase\n1;1\n2;1\n3;2",
        "1 1\n2   1\n3 2\n",
        "Frame,Phase\r1,1\r2,1\r3,2\r",
        "Frame\tPhase\n3\t2\n1\t1\n2\t1\n",
        "Frame\tPhase\n1\tPreparation\n2\tpreparation\n3\tdividing-ligament-and-peritoneum\n",
        "Frame\tPhase\n1.0\t1.0\n2.0\t1.0\n3.0\t2.0\n",
        '"Frame","Phase"\n"1","1"\n"2","1"\n"3","2"\n',
        "Frame\tPhase\n1\t1\n2\t1\n3\t2\n".encode("utf-16"),
    ],
    ids=["plain", "mark", "semicolons", "spaces", "old-mac", "order", "names", "decimals", "quotes", "utf-16"],
)
def test_a_table_is_read_however_it_was_saved(rows, tmp_path):
    manifest = written(tmp_path, rows)
    assert told(manifest) == []
    assert phases(manifest) == RIGHT


@pytest.mark.parametrize(
    ("rows", "said", "left"),
    [
        ("", "the file is empty", None),
        ("Frame\tPhase\n", "no rows under the header", None),
        ("1\t1\n2\t8\n3\t2\n", "row 2: a phase of no class; expected 1 to 7, or a name, found '8'", {0: 0, 2: 1}),
        ("1\t1\n2\tSuturning\n3\t2\n", "row 2: not the id of a class", {0: 0, 2: 1}),
        ("Frame\tPhase\n1\tPreparation\n2\tSuturning\n", "a phase of no class", {0: 0}),
        ("1\t1\n2\tnan\n3\t2\n", "row 2: not the id of a class; expected the id of a class, found 'nan'", {0: 0, 2: 1}),
        ("1\t1\nx\t1\n3\t2\n", "row 2: not a number from 0; expected a number from 0, found 'x'", {0: 0, 2: 1}),
        ("1\t1\n-2\t1\n3\t2\n", "row 2: not a number from 0", {0: 0, 2: 1}),
        ("1\t1\n1e99\t1\n3\t2\n", "row 2: not a number from 0", {0: 0, 2: 1}),
        ("1\t1\n2\n3\t2\n", "row 2: too few columns; expected 2 or more, found 1", {0: 0, 2: 1}),
        ("1\t1\n2\t1\n2\t2\n3\t2\n", "row 3: two labels for one second; expected each once, found row 2 too", RIGHT),
        ("1\t1\n2\t1\n2\t1\n3\t2\n", "row 3: a second twice", RIGHT),
        ("1\t1\n2\t1\n3\t2\n9\t2\n", "row 3: 5 rows are missing; expected a row every 1 seconds", {**RIGHT, 8: 1}),
        ("0\t1\n1\t1\n2\t2\n", "row 1: seconds are counted from 0; expected second 1, as the card says", RIGHT),
    ],
)
def test_what_is_wrong_with_a_table_is_one_line_and_the_rest_is_read(rows, said, left, tmp_path):
    manifest = written(tmp_path, rows)
    assert any(said in line for line in told(manifest)), told(manifest)
    assert all("\n" not in line for line in told(manifest))
    assert (phases(manifest) if manifest.labels else None) == left


def test_frames_that_are_counted_from_1_are_an_error(tmp_path):
    assert any("frames are counted from 1" in line for line in told(written(tmp_path, "1,0\n2,0\n3,1\n", "heichole")))


def test_a_column_by_name_needs_a_header(tmp_path):
    manifest = written(tmp_path, "1,0,3,-1,-2\n", "pitvis")
    assert any("no column int_time; expected a header with int_time" in line for line in told(manifest))


def test_out_of_the_patient_is_no_label_and_no_instrument_is_one(tmp_path):
    header = "int_video,int_time,int_step,int_instrument1,int_instrument2\n"
    manifest = written(
        tmp_path, f"{header}1,0,-1,-1,-2\n1,1,3,0,-2\n1,2,3,16,-2\n1,3,14,13,16\n1,4,15,19,-2\n", "pitvis"
    )
    assert phases(manifest, "step") == {1: 2, 2: 2, 3: 13}
    tools = phases(manifest, "tools")
    assert [[k for k, flag in enumerate(tools[second]) if flag] for second in sorted(tools)] == [[], [15], [12, 15]]
    lines = told(manifest)
    assert any("row 6: a step of no class; expected 1 to 14" in line for line in lines)
    assert any("row 6: not an id from 1 to 18, or 0, -2, -1" in line for line in lines)


def test_labels_without_a_video_a_video_without_labels_and_two_files(tmp_path):
    written(tmp_path, "1\t1\n")
    (tmp_path / "02.mp4").write_bytes(b"x")
    (tmp_path / "label_03.txt").write_text("1\t1\n")
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy/label_01.txt").write_text("1\t1\n")
    (tmp_path / "copy/01.mp4").write_bytes(b"x")
    (tmp_path / "22.mp4").write_bytes(b"x")
    manifest = open_dataset(load_card("autolaparo"), tmp_path)
    lines = told(manifest)
    assert any("label_02.txt: 02 has no phase labels; found no such file" in line for line in lines)
    assert any("label_03.txt: labels without a video" in line for line in lines)
    assert any("two files for one video; found" in line for line in lines)
    assert any("22.mp4: not a video of autolaparo; expected numbers 1-21" in line for line in lines)
    assert any("01.mp4 is read and copy/01.mp4 is not" in note for note in manifest.notes)


def test_a_video_that_the_release_did_not_label_is_no_fault(tmp_path):
    written(tmp_path, "int_time,int_step,int_instrument1,int_instrument2\n0,1,0,-2\n", "pitvis")
    (tmp_path / "video_19.mp4").write_bytes(b"x")
    assert told(open_dataset(load_card("pitvis"), tmp_path)) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels": []}, "dataset.workflow.labels"),
        ({"video": "no number"}, "dataset.workflow.video"),
        ({"labels": [{"kind": "phase", "file": "#.csv", "unit": "second", "columns": [1, 2]}]}, "one column for phase"),
        ({"labels": [{"kind": "mood", "file": "#.csv", "unit": "second"}]}, "dataset.workflow.labels"),
    ],
)
def test_a_layout_that_cannot_be_is_one_line(change, said):
    workflow = {"video": "#", "labels": [{"kind": "phase", "file": "#.csv", "unit": "second"}], **change}
    with pytest.raises(SurgdinoError, match=said):
        Card.from_dict({"name": "x", "adapter": "workflow", "workflow": workflow})


# Spans, and the folds of MultiBypass140


def spans(root: Path, **lists) -> Manifest:
    (root / "BBP01.mp4").write_bytes(b"x")
    content = {"phases": [], "steps": [], **lists}
    (root / "BBP01.mp4.json").write_text(json.dumps(content))
    return open_dataset(load_card("multibypass140"), root)


def span(start: object, end: object, label: int = 0, name: str | None = None) -> dict:
    known = (*load_card("multibypass140").phases, "out_of_body", "severe_index")
    return {"start": start, "end": end, "label_id": label, "label_name": name or known[label]}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([span(0, 900), span(800, 2000, 1)], "phases[1]: two phase spans overlap; expected a start of 900 or later"),
        ([span(900, 900)], "phases[0]: a span that ends before it starts"),
        ([span(-5, 900)], "a span that ends before it starts; expected a start from 0"),
        (
            [span(0, 900, 0, "omentum_division")],
            "the name of a phase is not the one of its id; expected preparation for 0",
        ),
        ([{**span(0, 9), "label_id": 14}], "a phase of no class; expected 0 to 11, found 14"),
        ([{"start": 0}], "phases"),
        ([span(float("nan"), 5)], "not valid JSON"),
        ("none", "expected"),
    ],
)
def test_what_is_wrong_with_spans_is_one_line(rows, said, tmp_path):
    assert any(said in line for line in told(spans(tmp_path, phases=rows)))


def test_gaps_stay_unlabelled_and_what_lies_across_is_no_phase(tmp_path):
    manifest = spans(tmp_path, phases=[span(3000, 5000, 2), span(500, 4000, 12), span(0, 1500), span(100, 200, 13)])
    assert told(manifest) == []
    values = manifest.labels["phase"].values["BBP01"]
    assert isinstance(values, SegmentLabels)
    present, ids = values.at(np.arange(6), np.arange(6.0))
    assert [int(i) if p else None for p, i in zip(present, ids, strict=True)] == [0, 0, None, 2, 2, None]


@pytest.fixture(scope="module")
def bypass(tmp_path_factory):
    root = tmp_path_factory.mktemp("bypass")
    return root, write_workflow(root, "multibypass140", videos=4, seconds=3, public_ids=True)


def test_published_folds_are_those_of_the_pickles(bypass):
    root, _ = bypass
    parts = [
        {video.id: video.split for video in open_dataset(load_card("multibypass140"), root, split=fold).videos}
        for fold in ("fold1", "fold2", "bern-to-strasbourg")
    ]
    assert parts[0] == {"BBP01": "test", "BBP02": "train", "SBP01": "test", "SBP02": "train"}
    assert parts[1] == {"BBP01": "train", "BBP02": "test", "SBP01": "train", "SBP02": "test"}
    assert parts[2] == {"BBP01": "train", "BBP02": "train", "SBP01": "test", "SBP02": "test"}
    with pytest.raises(SurgdinoError, match="no split 'fold3'"):
        open_dataset(load_card("multibypass140"), root, split="fold3")


def test_without_json_the_labels_are_those_of_the_pickles(bypass, tmp_path):
    root, truths = bypass
    for path in [*root.rglob("*.mp4"), *root.rglob("*.pickle")]:
        copy = tmp_path / path.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.symlink_to(path)
    manifest = open_dataset(load_card("multibypass140"), tmp_path)
    assert told(manifest) == []
    for kind in ("phase", "step"):
        for video, truth in truths.items():
            assert manifest.labels[kind].values[video].array.tolist() == truth[kind].tolist()


def test_pictures_are_counted_from_1(bypass, tmp_path):
    root, truths = bypass
    (tmp_path / "BBP01").mkdir()
    for number in (1, 2, 3):
        (tmp_path / f"BBP01/img{number}.jpg").write_bytes(b"x")
    (tmp_path / "BBP01.mp4.json").symlink_to(root / "labels/bern/labels_by70/BBP01.mp4.json")
    manifest = open_dataset(load_card("multibypass140"), tmp_path)
    present, ids = manifest.labels["phase"].values["BBP01"].at(np.arange(5))
    assert present.tolist() == [False, True, True, True, False]
    assert ids[1:4].tolist() == truths["BBP01"]["phase"].tolist()


class Program:
    def __reduce__(self):
        return Path.touch, (Path("touched"),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "content",
    [Program(), [{"a": Program()}], collections.OrderedDict(a=1), np.arange(3), {1, 2}, len, b"x"],
    ids=["program", "program inside", "ordered", "array", "set", "function", "bytes"],
)
def test_a_pickle_of_anything_but_plain_containers_is_refused(content, protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "1fps_0.pickle"
    path.write_bytes(pickle.dumps(content, protocol))
    with pytest.raises(SurgdinoError, match="not a pickle of plain containers"):
        read_pickle(path)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_plain_containers_come_back_as_they_were(protocol, tmp_path):
    path, content = (
        tmp_path / "x",
        {"é": [{"a": 1, "b": -70000, "c": 2**40, "d": 0.5}] * 2, "e": (None, True, (), "x" * 255)},
    )
    path.write_bytes(pickle.dumps(content, protocol))
    assert read_pickle(path) == content
    path.write_bytes(path.read_bytes()[:-3] + b".")
    with pytest.raises(SurgdinoError, match=r"damaged|plain containers"):
        read_pickle(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([1], "not a fold"),
        ({"BBP01": [{"Original_frame_id": 0}]}, "not the rows of a video"),
        ({"BBP01": 3}, "not the rows"),
    ],
)
def test_pickles_of_another_form_are_one_line(content, said, tmp_path):
    (tmp_path / "BBP01.mp4").write_bytes(b"x")
    (tmp_path / "train").mkdir()
    (tmp_path / "train/1fps_100_0.pickle").write_bytes(pickle.dumps(content, 4))
    assert any(said in line for line in told(open_dataset(load_card("multibypass140"), tmp_path)))


def test_the_real_labels_of_140_operations(real_data, tmp_path):
    """Videos are made up, their labels are not."""
    for path in (real_data / "multibypass140-labels").glob("*/*.json"):
        (tmp_path / path.name).symlink_to(path)
        (tmp_path / path.stem).write_bytes(b"x")
    manifest = open_dataset(load_card("multibypass140"), tmp_path)
    assert manifest.problems == ()
    counts = {kind: sum(map(len, labels.values.values())) for kind, labels in manifest.labels.items()}
    assert counts == {"phase": 1428, "step": 5429}
    assert len(manifest.videos) == len(manifest.operations) == 140


def test_the_masks_of_autolaparo_are_grey_values_by_clip(tmp_path):
    card = load_card("autolaparo_masks")
    for folder in ("imgs", "masks"):
        (tmp_path / folder).mkdir()
    for clip in (*range(1, 4), 171, 228):
        mask = np.zeros((24, 32, 3), np.uint8)
        mask[:, :16], mask[:8, 16:] = 60, 180
        Image.fromarray(np.full((24, 32, 3), clip % 200, np.uint8)).save(tmp_path / f"imgs/{clip:03d}025.jpg")
        Image.fromarray(mask).save(tmp_path / f"masks/{clip:03d}025.png")
    split = {"train": [1, 2, 3], "val": [171], "test": [228]}
    manifest = open_dataset(card, tmp_path, split=split, options={"operation_pattern": "([0-9]{3})[0-9]{3}"})
    assert manifest.errors == ()
    assert manifest.operations == tuple(f"autolaparo_masks/{clip:03d}" for clip in (1, 2, 3, 171, 228))
    frame = next(iter(manifest.labels["masks"].values["228025"].values()))
    masks, _ = read_masks(frame, card.mask_classes)
    sizes = {name: int(mask.sum()) for name, mask in zip(card.mask_classes, masks, strict=True) if mask.any()}
    assert sizes == {"ligasure_manipulator": 24 * 16, "uterus": 8 * 16}
