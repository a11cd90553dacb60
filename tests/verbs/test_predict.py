"""`surgdino predict`: the numbers that a run tests with, for any video, with pictures, and nothing left behind."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from surgdino.cli.main import main
from surgdino.datasets.card import load_card
from surgdino.datasets.synthetic.cholec80 import write_cholec80
from surgdino.datasets.synthetic.cholect50 import write_cholect50
from surgdino.frames.video.decode import probe, read_frames
from surgdino.report.operation import read_timeline
from tests.datasets.mask_sets import write_pairs
from tests.tasks.sets import words_of

PHASES = load_card("cholec80").phases


def predict(checkpoint: Path, *words: object) -> int:
    paths = [str(word) for word in words if isinstance(word, Path)]
    settings = [word for word in words if isinstance(word, str)]
    return main(["predict", *paths, f"checkpoint={checkpoint}", "hardware.loader_workers=0", *settings])


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def picture(path: Path) -> np.ndarray:
    """uint8 [H, W, 3], from a path of any letters."""
    return cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)


def trained(task: str, write, tmp_path_factory) -> tuple[Path, Path]:
    root, run = (tmp_path_factory.mktemp(task) / name for name in ("data", "run"))
    write(root)
    assert main(words_of(task, root, run, "train.steps=3")) == 0
    return root, run


@pytest.fixture(scope="module")
def phase(tmp_path_factory) -> tuple[Path, Path]:
    def write(root: Path) -> None:
        write_cholec80(root, videos=4, seconds=12, size=(160, 96), seed=0, public_ids=True)

    return trained("phase", write, tmp_path_factory)


@pytest.fixture(scope="module")
def triplet(tmp_path_factory) -> tuple[Path, Path]:
    return trained(
        "triplet", lambda root: write_cholect50(root, (1, 2, 4, 5), frames=24, public_ids=True), tmp_path_factory
    )


@pytest.fixture(scope="module")
def segmentation(tmp_path_factory) -> tuple[Path, Path]:
    return trained("segmentation", lambda root: write_pairs(root, images=24), tmp_path_factory)


def test_a_video_of_the_test_part_gets_the_predictions_of_the_run(phase, tmp_path):
    root, run = phase
    assert predict(run, root / "videos" / "video04.mp4", f"out={tmp_path}") == 0
    assert (tmp_path / "video04.txt").read_bytes() == (run / "predictions" / "video04.txt").read_bytes()
    files = ["video04-timeline.json", "video04.csv", "video04.html", "video04.png", "video04.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == files
    page = (tmp_path / "video04.html").read_text()
    assert "<b>Truth</b>" in page
    assert "prediction, task phase" in page
    assert "data:image" not in page


def test_the_table_has_name_truth_and_probabilities_of_every_frame(phase, tmp_path):
    root, run = phase
    assert predict(run, root / "videos" / "video04.mp4", f"out={tmp_path}") == 0
    rows = rows_of(tmp_path / "video04.csv")
    labels = (root / "phase_annotations" / "video04-phase.txt").read_text().splitlines()[1:]
    truth = dict(line.split("\t") for line in labels)
    assert [float(row["seconds"]) for row in rows] == pytest.approx([int(row["frame"]) / 25 for row in rows], abs=1e-3)
    for row in rows:
        probabilities = [float(row[name]) for name in PHASES]
        assert sum(probabilities) == pytest.approx(1, abs=1e-3)
        assert row["phase"] == PHASES[int(np.argmax(probabilities))]
        assert row["truth"] == truth[row["frame"]]


def test_a_video_from_elsewhere_has_no_truth_unless_it_is_given(phase, tmp_path):
    root, run = phase
    video = tmp_path / "OP=3 left.mp4"
    shutil.copy(root / "videos" / "video04.mp4", video)
    assert predict(run, video, f"out={tmp_path / 'bare'}") == 0
    bare = rows_of(tmp_path / "bare" / f"{video.stem}.csv")
    assert "truth" not in bare[0]
    truth = root / "phase_annotations" / "video04-phase.txt"
    assert predict(run, video, f"out={tmp_path / 'told'}", f"truth={truth}") == 0
    told = rows_of(tmp_path / "told" / f"{video.stem}.csv")
    assert [row["phase"] for row in told] == [row["phase"] for row in bare]
    assert all(row["truth"] in PHASES for row in told)


@pytest.mark.slow
def test_a_folder_of_images_is_a_video_too_and_table_page_and_timeline_count_its_gap_alike(phase, tmp_path, capsys):
    root, run = phase
    images = tmp_path / "frames"
    images.mkdir()
    video = root / "videos" / "video04.mp4"
    for frame in read_frames(video, probe(video).numbers[::25]):
        cv2.imwrite(str(images / f"{frame.number:06d}.png"), cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR))
    assert predict(run, images, f"out={tmp_path / 'out'}") == 0
    rows = rows_of(tmp_path / "out" / "frames.csv")
    assert [(int(row["frame"]), float(row["seconds"])) for row in rows] == [(25 * k, k) for k in range(12)]
    for number in range(100, 250, 25):
        (images / f"{number:06d}.png").unlink()
    capsys.readouterr()
    assert predict(run, images, f"out={tmp_path / 'slow'}", "image_fps=5") == 0
    assert [float(row["seconds"]) for row in rows_of(tmp_path / "slow" / "frames.csv")] == [0, 5, 10, 15, 50, 55]
    assert "30 s (and gaps of 30 s) in all" in capsys.readouterr().out
    assert "frames, 0:30 (and gaps of 0:30):" in (tmp_path / "slow" / "frames.html").read_text()
    assert sum(read_timeline(tmp_path / "slow" / "frames-timeline.json").durations().values()) == 30


@pytest.mark.slow
def test_the_page_of_a_video_has_its_frames_where_they_were_asked_for(phase, tmp_path):
    root, run = phase
    assert predict(run, root / "videos" / "video04.mp4", f"out={tmp_path}", "report.frames=true") == 0
    page = (tmp_path / "video04.html").read_text()
    assert page.count("data:image/jpeg") > 3
    assert "They are frames of patients" in page


@pytest.mark.slow
def test_several_videos_have_a_folder_each(phase, tmp_path):
    root, run = phase
    videos = [root / "videos" / f"video0{k}.mp4" for k in (1, 4)]
    assert predict(run, *videos, f"out={tmp_path}") == 0
    assert (tmp_path / "video01" / "video01.png").is_file()
    assert (tmp_path / "video04" / "video04.txt").is_file()


@pytest.mark.slow
def test_a_video_that_cannot_be_read_does_not_cost_the_others(phase, tmp_path, capsys):
    root, run = phase
    (tmp_path / "bad.mp4").write_bytes(b"bad")
    assert predict(run, tmp_path / "bad.mp4", root / "videos" / "video04.mp4", f"out={tmp_path}") == 2
    assert (tmp_path / "video04" / "video04.txt").is_file()
    assert "1 of 2 videos could not be predicted; found bad" in capsys.readouterr().err


@pytest.mark.slow
def test_triplets_come_as_scores_as_a_list_and_as_a_picture(triplet, tmp_path):
    root, run = triplet
    assert predict(run, root / "videos" / "VID05", f"out={tmp_path}") == 0
    assert (tmp_path / "VID05.csv").read_bytes() == (run / "predictions" / "VID05.csv").read_bytes()
    scores = rows_of(tmp_path / "VID05.csv")
    triplets = load_card("cholect50").triplets
    for row, listed in zip(scores, rows_of(tmp_path / "VID05-top.csv"), strict=True):
        best = max(range(100), key=lambda k: float(row[str(k)]))
        assert listed["triplet1"] == triplets[best]
        assert float(listed["score1"]) == pytest.approx(float(row[str(best)]), abs=1e-5)
    assert cv2.imread(str(tmp_path / "VID05.png")).std() > 10


@pytest.mark.slow
def test_pictures_of_any_name_and_size_get_masks_and_overlays(segmentation, tmp_path):
    root, run = segmentation
    sizes = {"liver": (100, 60), "left, upper": (64, 80), "ö": (120, 90)}
    folder = tmp_path / "pictures"
    folder.mkdir()
    for (name, size), source in zip(sizes.items(), sorted((root / "images").iterdir()), strict=False):
        _, data = cv2.imencode(".png", cv2.resize(cv2.imread(str(source)), size))
        (folder / f"{name}.png").write_bytes(data.tobytes())
    assert predict(run, folder, f"out={tmp_path / 'out'}") == 0
    rows = {row["video"]: row for row in rows_of(tmp_path / "out" / "pictures.csv")}
    assert set(rows) == set(sizes)
    for name, (width, height) in sizes.items():
        mask = picture(tmp_path / "out" / "masks" / f"{name}.png")
        assert mask.shape[:2] == (height, width)
        assert float(rows[name]["foreground"]) == pytest.approx((mask[..., 0] > 127).mean(), abs=1e-4)
        overlay = picture(tmp_path / "out" / "overlays" / f"{name}.jpg")
        assert overlay.shape[1] == width
        assert overlay.shape[0] > height  # the legend


@pytest.mark.slow
def test_digits_inside_names_are_no_frame_numbers(segmentation, tmp_path):
    root, run = segmentation
    names = {"cju0qkwl35piu0993l0dewei2", "cju0s2a9ekvms080138tjjpxr"}
    for name, source in zip(sorted(names), sorted((root / "images").iterdir()), strict=False):
        (tmp_path / "pictures").mkdir(exist_ok=True)
        (tmp_path / "pictures" / f"{name}.png").write_bytes(source.read_bytes())
    assert predict(run, tmp_path / "pictures", f"out={tmp_path / 'out'}") == 0
    assert {path.stem for path in (tmp_path / "out" / "masks").iterdir()} == names


def test_numbered_pictures_of_one_size_are_frames(segmentation, tmp_path):
    root, run = segmentation
    assert predict(run, root / "images", f"out={tmp_path}") == 0
    numbers = [int(row["frame"]) for row in rows_of(tmp_path / "images.csv")]
    assert numbers == list(range(len(numbers)))
    assert len(list((tmp_path / "masks" / "images").iterdir())) == len(numbers) == 24


def test_a_picture_that_cannot_be_read_is_named_and_left_out(segmentation, tmp_path, capsys):
    root, run = segmentation
    folder = tmp_path / "pictures"
    folder.mkdir()
    shutil.copy(next((root / "images").iterdir()), folder / "good.png")
    (folder / "bad.png").write_bytes(b"no picture")
    assert predict(run, folder, f"out={tmp_path / 'out'}") == 0
    assert "left out:" in (said := capsys.readouterr().out)
    assert "bad.png" in said
    (folder / "good.png").unlink()
    assert predict(run, folder, f"out={tmp_path / 'none'}") == 2
    assert "bad.png" in capsys.readouterr().err


def test_an_interrupted_prediction_goes_on_and_cleans_up(phase, tmp_path, monkeypatch):
    root, run = phase
    video = root / "videos" / "video04.mp4"
    from surgdino.tasks.phase import task as phase_task

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(phase_task, "draw_ribbon", interrupted)
        assert predict(run, video, f"out={tmp_path}") == 130
    shards = list((tmp_path / ".frames").rglob("*.zip"))
    assert len(shards) == 1
    built = shards[0].stat().st_mtime_ns
    monkeypatch.setattr("surgdino.verbs.predict.shutil.rmtree", lambda path: None)
    assert predict(run, video, f"out={tmp_path}") == 0
    assert shards[0].stat().st_mtime_ns == built  # used again


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "surgdino predict of what?"),
        ((Path("nowhere.mp4"),), "nowhere.mp4: does not exist"),
        ((Path("VIDEO"), "truth=TRUTH"), "row 2: unknown phase 'Preparing'; expected a phase of the class list"),
        ((Path("VIDEO"), "image_fps=0"), "image_fps cannot be used"),
        ((Path("VIDEO"), Path("VIDEO")), "two videos are called 'video04'"),
        ((Path("EMPTY"),), "the folder holds no images"),
    ],
)
def test_what_cannot_be_predicted_is_told_in_one_line(phase, tmp_path, capsys, words, told):
    root, run = phase
    truth, empty = tmp_path / "truth.txt", tmp_path / "empty"
    truth.write_text("Frame\tPhase\n0\tPreparing\n")
    empty.mkdir()
    places = {"VIDEO": root / "videos" / "video04.mp4", "EMPTY": empty}
    put = [places.get(str(w), w) if isinstance(w, Path) else w.replace("TRUTH", str(truth)) for w in words]
    assert predict(run, *put, f"out={tmp_path / 'out'}") == 2
    assert told in capsys.readouterr().err.replace("\n", " ")


def test_a_checkpoint_without_a_head_is_refused(tmp_path, capsys, phase):
    root, run = phase
    for file in (run / "checkpoint").iterdir():
        if file.name.startswith(("backbone", "model")):
            (tmp_path / "checkpoint").mkdir(exist_ok=True)
            shutil.copy(file, tmp_path / "checkpoint")
    assert predict(tmp_path, root / "videos" / "video04.mp4") == 2
    assert "a backbone without a task's head" in capsys.readouterr().err


def test_a_task_that_answers_no_questions_says_so(phase, capsys):
    root, run = phase
    assert predict(run, root / "videos/video04.mp4", "questions=what is the phase?") == 2
    assert "task=phase answers no questions; found what is the phase?" in capsys.readouterr().err
