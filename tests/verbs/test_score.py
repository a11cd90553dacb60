"""`surgdino score`: two folders of files in, every protocol's numbers out, in all formats and on real labels."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from surgdino.cli.main import main
from surgdino.datasets.card import load_card
from surgdino.datasets.mask_files import read_mask
from surgdino.datasets.synthetic.cholect50 import write_cholect50
from surgdino.datasets.triplet_files import read_triplet_json
from surgdino.discovery import files
from surgdino.metrics.triplet import triplet_map
from surgdino.paths import file_of, write_text
from surgdino.tasks import task_names
from surgdino.tasks.phase.files import read_phase, write_phase
from surgdino.tasks.scoring.scoring import open_scoring
from surgdino.tasks.segmentation.files import write_masks
from surgdino.tasks.tools.files import write_presence
from surgdino.tasks.triplet.files import write_triplets
from surgdino.tasks.vqa.files import write_layout, write_replies
from surgdino.tasks.vqa.replies import Replies
from tests import ROOT
from tests.datasets.mask_sets import write_dsad, write_pairs
from tests.metrics.triplet_inputs import mapping_table, recipe

ORACLE = json.loads((ROOT / "tests" / "metrics" / "triplet_ivtmetrics.json").read_text())
PHASES, CHOLECT50, DSAD = load_card("cholec80").phases, load_card("cholect50"), load_card("dsad")


def score(task: str, truth: Path, predictions: Path, out: Path, *settings: str) -> dict:
    words = ["score", f"task={task}", f"truth={truth}", f"predictions={predictions}", f"out={out}"]
    assert main([*words, *settings]) == 0
    return json.loads((out / "results.json").read_text())


def refused(capsys, *words: str) -> str:
    assert main(["score", *words]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def values(results: dict, protocol: str) -> dict[str, float]:
    return {row["name"]: row["value"] for row in results["scores"] if row["protocol"] == protocol}


@pytest.fixture(scope="module")
def phase_files(synthetic_cholec80, tmp_path_factory) -> tuple[Path, Path]:
    """The synthetic set's phase files, and predictions that are half a second late."""
    folder = tmp_path_factory.mktemp("predictions")
    for path in (synthetic_cholec80 / "phase_annotations").glob("*.txt"):
        frames, phases = read_phase(path, PHASES)
        late = np.concatenate([np.repeat(phases[:1], 12), phases[:-12]])
        write_phase(folder, path.stem.removesuffix("-phase"), frames, late, PHASES)
    return synthetic_cholec80, folder


def both(phase_files) -> tuple[np.ndarray, np.ndarray]:
    root, predictions = phase_files
    files = [(root / "phase_annotations" / f"{p.stem}-phase.txt", p) for p in sorted(predictions.glob("*.txt"))]
    truth, guess = zip(*[[read_phase(path, PHASES)[1] for path in pair] for pair in files], strict=True)
    return np.concatenate(truth), np.concatenate(guess)


def test_every_task_has_settings():
    assert {"phase", "segmentation", "triplet"} <= set(task_names())
    assert set(task_names()) <= set(files("configs/task"))


@pytest.mark.parametrize("task", task_names())
def test_the_documentation_explains_every_protocol(task):
    page = (ROOT / "docs" / "metrics.md").read_text()
    assert all(f"`{protocol}`" in page for protocol in open_scoring(task).PROTOCOLS)


def test_phases_of_a_dataset_under_every_protocol(phase_files, tmp_path, capsys):
    root, predictions = phase_files
    results = score("phase", root, predictions, tmp_path, "dataset=cholec80", "tolerance_seconds=0.4")
    shown = capsys.readouterr().out
    for protocol in open_scoring("phase").PROTOCOLS:
        assert values(results, protocol)
        assert f"protocol {protocol}" in shown
    truth, guess = both(phase_files)
    pooled = values(results, "phase/pooled-macro")
    assert pooled["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(truth, guess))
    assert pooled["jaccard"] == pytest.approx(sklearn_metrics.jaccard_score(truth, guess, average="macro"))
    strict, relaxed = (values(results, f"phase/{name}")["accuracy"] for name in ("script", "relaxed-corrected"))
    assert strict < relaxed < 1, "0.4 s forgive 10 of the 12 late frames at 25 labels a second"
    assert results["operations"] == 4
    assert list(results["scores"][0]["per_operation"]) == ["camma/1", "camma/2", "camma/3", "camma/4"]
    assert results["dataset"] == "cholec80"
    assert results["command"]
    with (tmp_path / "per_operation.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * len(results["scores"])
    assert (rows[0]["operation"], rows[0]["metric"]) == ("camma/1", "accuracy")


@pytest.mark.parametrize("layout", ["phase", "tools", "triplet", "vqa", "segmentation"])
def test_what_predict_writes_of_several_videos_is_scored_as_it_lies(layout, tmp_path):
    """A folder a video, each with more files than the predictions."""
    truth, predicted, frames, eye = tmp_path / "truth", tmp_path / "predicted", np.arange(4), np.eye(4, dtype=bool)
    for video in ("video01", "site/video02"):
        folder = file_of(predicted, video)
        if layout == "phase":
            for place in (truth, folder):
                write_phase(place, video, frames, frames, PHASES)
            file_of(folder, video, ".csv").write_text("frame,seconds,phase\n")
        if layout == "tools":
            for place in (truth, folder):
                write_presence(place, video, frames, eye, "abcd")
            write_presence(folder, video, frames, eye, "abcd", ".csv")
        if layout == "triplet":
            write_triplets(folder, video, frames, np.eye(4, 100))
            file_of(folder, video, "-top.csv").write_text("frame,seconds,triplet1\n")
            rows = "".join(f"{k},{','.join(map(str, np.eye(4, 100, dtype=int)[k]))}\n" for k in frames)
            write_text(file_of(truth, video, ".txt"), rows)
        if layout == "vqa":
            said = Replies(frames, ["what?"] * 4, list("abcd"), list("abcd"))
            for place in (truth, folder):
                write_replies(place, video, said)
            write_layout(folder, video, said)
        if layout == "segmentation":
            masks = np.ones((1, 8, 8), bool)
            for place in (truth, folder / "masks"):
                write_masks(place, video, 3, masks, ["foreground"])
            write_masks(folder / "overlays", video, 3, masks, ["foreground"])
    scores = score(layout, truth, predicted, tmp_path / "out")
    assert scores["operations"] == 2
    assert scores["headline"]["value"] == 1


def test_every_25th_frame_as_those_who_predict_once_a_second(phase_files, tmp_path):
    root, predictions = phase_files
    sparse = tmp_path / "sparse"
    for path in predictions.glob("*.txt"):
        frames, phases = read_phase(path, PHASES)
        write_phase(sparse, path.stem, frames[::25], phases[::25], PHASES)
    results = score("phase", root, sparse, tmp_path / "out", "dataset=cholec80", "every=25", "protocol=all")
    offsets = np.concatenate([np.arange(300) for _ in range(4)])
    truth, guess = (side[offsets % 25 == 0] for side in both(phase_files))
    assert values(results, "phase/pooled-macro")["accuracy"] == pytest.approx((truth == guess).mean())
    assert values(results, "phase/relaxed-script"), "12 labels at one a second, 10 s forgiven"


def test_files_alone_name_their_phases(tmp_path):
    for folder, guess in (("truth", ["b", "b", "c"]), ("predictions", ["a", "b", "c"])):
        (tmp_path / folder).mkdir()
        rows = "".join(f"{frame}\t{name}\n" for frame, name in enumerate(["a", *guess]))
        (tmp_path / folder / "op1.txt").write_text(f"Frame\tPhase\n{rows}")
    results = score("phase", tmp_path / "truth", tmp_path / "predictions", tmp_path / "out")
    assert values(results, "phase/script")["accuracy"] == 0.75
    assert list(results["classes"][0]["rows"]) == ["a", "b", "c"]
    assert any("fps" in note for note in results["notes"])
    ids = score("phase", tmp_path / "truth", tmp_path / "predictions", tmp_path / "again", "classes=[c,b,a]")
    assert list(ids["classes"][0]["rows"]) == ["c", "b", "a"]


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda rows: rows[:-2], "2 of the truth's 300 frames have no prediction; expected frame 298"),
        (lambda rows: [*rows, "300\tPreparation"], "row 302: 1 predicted frames are not in the truth"),
        (lambda rows: [f"{int(n) + 1}\t{name}" for n, name in (row.split("\t") for row in rows)], "counted from 1"),
        (
            lambda rows: [*rows[:4], rows[4].split("\t")[0] + "\tPreperation", *rows[5:]],
            "row 6: unknown phase 'Preperation'",
        ),
        (lambda rows: [rows[1], rows[0], *rows[2:]], "row 3: the frames do not ascend"),
    ],
)
def test_a_prediction_file_that_does_not_fit_is_one_line(phase_files, tmp_path, capsys, edit, words):
    root, predictions = phase_files
    for path in predictions.glob("*.txt"):
        (tmp_path / path.name).write_text(path.read_text())
    header, *rows = (tmp_path / "video02.txt").read_text().splitlines()
    (tmp_path / "video02.txt").write_text("\n".join([header, *edit(rows)]) + "\n")
    said = refused(capsys, "task=phase", f"truth={root}", f"predictions={tmp_path}", "dataset=cholec80")
    assert str(tmp_path / "video02.txt") in said
    assert words in said


def test_missing_videos_and_mistyped_words_are_one_line(phase_files, tmp_path, capsys):
    root, predictions = phase_files
    case = [f"truth={root}", "dataset=cholec80"]
    (tmp_path / "video01.txt").write_text((predictions / "video01.txt").read_text())
    said = refused(capsys, "task=phase", *case, f"predictions={tmp_path}")
    assert "3 of 4 videos have no prediction; expected a file for video02" in said
    given = [*case, f"predictions={predictions}"]
    assert "phase" in refused(capsys, *given)
    assert "'phase'" in refused(capsys, "task=phas", *given)
    assert "'phase/script'" in refused(capsys, "task=phase", "protocol=phase/scrpt", *given)
    assert "'tolerance_seconds'" in refused(capsys, "task=phase", "tolerance_second=3", *given)
    assert "every cannot be used; expected a whole number" in refused(capsys, "task=phase", "every=often", *given)
    assert "every cannot be used; expected at least 1, found 0" in refused(capsys, "task=phase", "every=0", *given)
    assert "truth is not set" in refused(capsys, "task=phase", "predictions=x")


@pytest.mark.parametrize("layout", ["cholect50", "cholect45"])
def test_triplets_of_the_recipe_through_files_are_ivtmetrics(layout, tmp_path):
    truths, scores = recipe()
    table = mapping_table()
    for place, video in enumerate(truths):
        name = f"VID{place:02d}"
        write_triplets(tmp_path / "predictions", name, np.arange(len(scores[video])), scores[video])
        if layout == "cholect45":
            rows = np.column_stack([np.arange(len(truths[video])), truths[video].astype(int)])
            (tmp_path / "truth").mkdir(exist_ok=True)
            np.savetxt(tmp_path / "truth" / f"{name}.txt", rows, fmt="%d", delimiter=",")
        else:
            write_json(tmp_path / "truth" / f"{name}.json", place, truths[video], table)
    results = score("triplet", tmp_path / "truth", tmp_path / "predictions", tmp_path / "out")
    for protocol, stored in (("triplet/video-wise", "video_wise"), ("triplet/global", "global")):
        expected = {f"AP_{component}": value for component, value in ORACLE[stored].items()}
        assert values(results, f"{protocol}/component-maximum") == pytest.approx(expected, abs=1e-12)
    assert values(results, "triplet/challenge-global")["AP_IVT"] == pytest.approx(ORACLE["challenge_global"], abs=1e-12)
    assert values(results, "triplet/top-k")["top-5"] == pytest.approx(ORACLE["top_k"]["IVT"]["5"], abs=1e-12)
    assert results["headline"]["name"] == "AP_IVT"
    null = [row["AP"] for name, row in results["classes"][3]["rows"].items() if "null_verb" in name]
    assert len(null) == 6


def write_json(path: Path, video: int, truth: np.ndarray, table: np.ndarray) -> None:
    rows = {}
    for frame, flags in enumerate(truth):
        parts = [(int(t), *map(int, table[t, 1:4])) for t in np.flatnonzero(flags)]
        rows[str(frame)] = [[t, i, 1, -1, -1, -1, -1, v, target, 1, -1, -1, -1, -1, 0] for t, i, v, target in parts]
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"video": video, "annotations": rows}))


@pytest.mark.slow
def test_own_heads_in_the_file_are_scored_beside_the_maximum(tmp_path):
    truth = write_cholect50(tmp_path / "set", videos=(1, 2), frames=16)
    mapping = triplet_map(mapping_table(), null_verb=9)
    for number, frames in truth.items():
        flags = np.zeros((len(frames), 100), np.float32)
        for row, triplets in enumerate(frames.values()):
            flags[row, triplets] = 1
        own = {"I": np.stack([flags[:, mapping.ids["I"] == i].max(1) for i in range(6)], 1)}
        noise = np.random.default_rng(0).random(flags.shape).astype(np.float32)
        write_triplets(tmp_path / "p", f"VID{number:02d}", np.array(list(frames)), noise, own)
    results = score("triplet", tmp_path / "set", tmp_path / "p", tmp_path / "out", "dataset=cholect50")
    assert values(results, "triplet/video-wise/own-heads") == {"AP_I": 1.0}
    assert values(results, "triplet/video-wise/component-maximum")["AP_I"] < 1
    header, *rows = (tmp_path / "p" / "VID02.csv").read_text().splitlines()
    (tmp_path / "p" / "VID02.csv").write_text("\n".join(line.rsplit(",", 6)[0] for line in (header, *rows)) + "\n")
    words = ["score", "task=triplet", f"truth={tmp_path / 'set'}", f"predictions={tmp_path / 'p'}"]
    assert main(words) == 2


@pytest.mark.slow
def test_a_test_part_is_scored_against_a_whole_release_if_asked(tmp_path, capsys):
    truth = write_cholect50(tmp_path / "set", videos=(1, 2, 4), frames=24)
    for video in (2, 4):
        frames = np.array(sorted(truth[video]))
        write_triplets(tmp_path / "p", f"VID{video:02d}", frames, np.ones((len(frames), 100)))
    words = ["task=triplet", f"truth={tmp_path / 'set' / 'labels'}", f"predictions={tmp_path / 'p'}"]
    assert "1 of 3 videos have no prediction" in refused(capsys, *words)
    results = score("triplet", tmp_path / "set" / "labels", tmp_path / "p", tmp_path / "out", "missing=ignore")
    assert list(results["scores"][0]["per_operation"]) == ["VID02", "VID04"]
    (tmp_path / "none").mkdir()
    write_triplets(tmp_path / "none", "VID09", np.arange(3), np.ones((3, 100)))
    words = [*words[:2], f"predictions={tmp_path / 'none'}", "missing=ignore"]
    assert "3 of 3 videos have no prediction" in refused(capsys, *words)


def test_pictures_that_the_truth_does_not_annotate_are_ignored_if_asked(tmp_path, capsys):
    truth = write_cholect50(tmp_path / "set", videos=(1,), frames=24, sparse=True)
    pictures = [int(path.stem) for path in sorted((tmp_path / "set" / "videos" / "VID01").iterdir())]
    assert len(pictures) > len(truth[1])
    write_triplets(tmp_path / "p", "VID01", np.array(pictures), np.ones((len(pictures), 100)))
    words = ["task=triplet", f"truth={tmp_path / 'set' / 'labels'}", f"predictions={tmp_path / 'p'}"]
    assert "extra=ignore" in refused(capsys, *words)
    assert main(["score", *words, "extra=ignore"]) == 0


@pytest.mark.parametrize("flat", [True, False], ids=["flat", "as finetune writes"])
def test_binary_masks_by_name(flat, tmp_path, capsys):
    write_pairs(tmp_path / "set", images=6)
    names = sorted(path.stem for path in (tmp_path / "set" / "masks").iterdir())
    for name in names:
        mask = read_mask(tmp_path / "set" / "masks" / f"{name}.jpg")[None]
        write_masks(tmp_path / "p", name, 0, mask if name != names[0] else ~mask, ["polyp"])
        if flat:
            (tmp_path / "p" / name / "000000.png").rename(tmp_path / "p" / f"{name}.png")
            (tmp_path / "p" / name).rmdir()
    results = score("segmentation", tmp_path / "set", tmp_path / "p", tmp_path / "out", "classes=[polyp]", "hd95=false")
    assert values(results, "segmentation/image-wise") == pytest.approx({"dice": 5 / 6, "iou": 5 / 6})
    assert results["operations"] == 6, "pictures that lie flat are an operation each"
    next((tmp_path / "p").rglob("*.png")).unlink()
    words = ["task=segmentation", f"truth={tmp_path / 'set'}", f"predictions={tmp_path / 'p'}", "hd95=false"]
    assert "1 of 6 pictures have no predicted mask" in refused(capsys, *words)


def test_organs_as_dsad_keeps_them(tmp_path, capsys):
    write_dsad(tmp_path / "set", organs=("liver",), surgeries=(1, 4), images=2, raters=("merged",))
    truth, classes = tmp_path / "set" / "multilabel", DSAD.multilabel
    pictures = sorted(truth.glob("*/image*.png"))
    for path in pictures:
        files = {c: path.with_name(f"mask{path.stem[5:]}_{c}.png") for c in classes}
        masks = [cv2.imread(str(f), 0) > 0 if f.exists() else np.zeros((96, 160), bool) for f in files.values()]
        write_masks(tmp_path / "p", path.parent.name, int(path.stem[5:]), np.stack(masks), classes)
    results = score("segmentation", truth, tmp_path / "p", tmp_path / "out", "dataset=dsad")
    assert values(results, "segmentation/image-wise") == pytest.approx({"dice": 1, "iou": 1, "hd95": 0})
    assert list(results["scores"][0]["per_operation"]) == ["dsad/1", "dsad/4"]
    rows = results["classes"][0]["rows"]
    assert list(rows) == list(classes)
    assert rows["stomach"]["both_empty"] == 0
    liver = score(
        "segmentation",
        tmp_path / "set" / "liver",
        tmp_path / "set" / "liver",
        tmp_path / "l",
        "classes=[liver]",
        "extra=ignore",
    )
    assert liver["classes"][0]["rows"]["liver"]["images"] == 4, "the raters' masks are left out"
    for path in sorted((tmp_path / "p").rglob("*.png"), reverse=True):
        frame, _, organ = path.stem.partition("_")
        path.rename(path.with_name(f"{int(frame) + 1:06d}_{organ}.png"))
    words = ["task=segmentation", f"truth={truth}", f"predictions={tmp_path / 'p'}", "dataset=dsad", "hd95=false"]
    assert "all frames are shifted by 1: they are counted from 1" in refused(capsys, *words)


def test_masks_of_another_size_are_told_by_file(tmp_path, capsys):
    for folder, width in (("truth", 8), ("p", 9)):
        write_masks(tmp_path / folder, "v", 3, np.ones((1, 6, width), bool), ["polyp"])
    words = ["task=segmentation", f"truth={tmp_path / 'truth'}", f"predictions={tmp_path / 'p'}"]
    said = refused(capsys, *words)
    assert "000003.png: the mask has another size; expected 8x6, found 9x6" in said
    assert str(tmp_path / "p") in said


@pytest.fixture
def real_labels(real_data) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    files = sorted((real_data / "cholect50" / "labels").glob("*.json"))
    read = {path.stem: read_triplet_json(path, CHOLECT50)[0]["triplet"] for path in files}
    return {video: (labels.numbers, labels.array) for video, labels in read.items()}


@pytest.mark.slow
@pytest.mark.real
def test_real_labels_score_1_against_themselves_and_less_when_shuffled(real_data, real_labels, tmp_path):
    rng = np.random.default_rng(0)
    for video, (frames, truth) in real_labels.items():
        write_triplets(tmp_path / "perfect", video, frames, truth + 0.01 * rng.random(truth.shape))
        write_triplets(tmp_path / "shuffled", video, frames, rng.permutation(truth))
    case = ("triplet", real_data / "cholect50")
    perfect = score(*case, tmp_path / "perfect", tmp_path / "a", "dataset=cholect50")
    shuffled = score(*case, tmp_path / "shuffled", tmp_path / "b", "dataset=cholect50")
    for pooling in ("video-wise", "global"):
        protocol = f"triplet/{pooling}/component-maximum"
        assert values(perfect, protocol) == pytest.approx(dict.fromkeys(values(perfect, protocol), 1.0))
        assert values(shuffled, protocol)["AP_IVT"] < 0.5
    assert list(perfect["scores"][0]["per_operation"]) == ["camma/68", "camma/73", "camma/75"]


@pytest.mark.real
def test_real_phases_stand_in_the_same_json(real_data, tmp_path):
    for path in (real_data / "cholect50" / "labels").glob("*.json"):
        labels = read_triplet_json(path, CHOLECT50)[0]["phase"]
        write_phase(tmp_path / "p", path.stem, labels.numbers, labels.array, CHOLECT50.phases)
    results = score("phase", real_data / "cholect50", tmp_path / "p", tmp_path / "out", "dataset=cholect50")
    assert set(values(results, "phase/script").values()) == {1.0}
    assert any("leave gaps" in note for note in results["notes"]), "the challenge's frame numbers are sparse"


def phases_of(folder: Path, rows: dict[str, list[int]]) -> Path:
    folder.mkdir()
    for video, ids in rows.items():
        text = "".join(f"{frame}\t{phase}\n" for frame, phase in enumerate(ids))
        (folder / f"{video}.txt").write_text(f"Frame\tPhase\n{text}")
    return folder


def test_ids_that_two_sides_count_otherwise_are_told(tmp_path, capsys):
    truth = phases_of(tmp_path / "truth", {"a": [1, 2], "b": [3, 3]})
    predictions = phases_of(tmp_path / "predictions", {"a": [0, 1], "b": [2, 2]})
    said = refused(capsys, "task=phase", f"truth={truth}", f"predictions={predictions}")
    assert "the truth's ids seem to count from 1 and the predictions' from 0" in said
    said = refused(capsys, "task=phase", f"truth={predictions}", f"predictions={truth}")
    assert "The ids seem to count from 1" in said


def test_videos_of_one_frame_are_scored(tmp_path, capsys):
    truth = phases_of(tmp_path / "truth", {"a": [0], "b": [1]})
    predictions = phases_of(tmp_path / "predictions", {"a": [0], "b": [0]})
    found = score("phase", truth, predictions, tmp_path / "out", "dataset=cholec80")
    assert values(found, "phase/script") == {"accuracy": 0.5, "precision": 1, "recall": 0.5, "jaccard": 0.5, "f1": 0.5}
    assert values(found, "phase/segmental") == {"edit": 0.5, "f1@10": 0.5, "f1@25": 0.5, "f1@50": 0.5}
    assert "phase/relaxed-script was not computed: no video has two labelled frames" in " ".join(found["notes"])
    longer = phases_of(tmp_path / "longer", {"a": [0], "b": [1], "c": [1, 1]})
    phases_of(tmp_path / "guesses", {"a": [1], "b": [0], "c": [1, 0]})
    found = score("phase", longer, tmp_path / "guesses", tmp_path / "out", "dataset=cholec80", "fps=1")
    assert values(found, "phase/relaxed-corrected")["accuracy"] == 1
