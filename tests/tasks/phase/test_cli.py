"""`surgdino finetune task=phase` as its user runs it: two stages, every temporal model, numbers that repeat."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from surgdino.cli.main import main
from surgdino.datasets.card import load_card
from surgdino.errors import SurgdinoError
from surgdino.tasks.phase.files import read_phase
from surgdino.tasks.phase.settings import NONE, temporal_names
from surgdino.tasks.phase.stages import aligned, level_of

PHASES = load_card("cholec80").phases
SPLIT = "{train: [1, 2], val: [3], test: [4]}"
STRICT = {f"phase/{average}" for average in ("script", "pooled-macro", "video-macro")}


def finetune(root: Path, run: Path, *more: str, split: str = SPLIT) -> int:
    words = ["finetune", "task=phase", "dataset=cholec80", f"data.root={root}", f"data.store={root.parent / 'store'}"]
    words += [] if any(word.startswith("task.temporal=") for word in more) else ["task.temporal=tcn"]
    words += [f"data.split={split}", "data.fps=5", "data.workers=1", "model=vit_toy", "image_size=32"]
    return main([*words, f"run.dir={run}", "hardware.loader_workers=0", *more])


def results_of(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def losses_of(run: Path) -> dict[str, list[float]]:
    losses: dict[str, list[float]] = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        if "loss" in row:
            losses.setdefault(row["stage"], []).append(row["loss"])
    return losses


@pytest.fixture(scope="module")
def finished(synthetic_cholec80, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("phase") / "run"
    assert finetune(synthetic_cholec80, run, "train.steps=60", "train.patience=0", "train.lr=0.005") == 0
    return run


def test_a_classifier_of_frames_is_trained_and_then_a_temporal_model(finished):
    assert [stage["stage"] for stage in results_of(finished)["stages"]] == ["frame", "temporal"]
    for stage, losses in losses_of(finished).items():
        assert losses[-1] < losses[0] / 1.5, stage


def test_every_protocol_is_reported(finished):
    found = {row["protocol"] for row in results_of(finished)["scores"]}
    assert found == STRICT | {"phase/relaxed-script", "phase/relaxed-corrected", "phase/segmental"}
    values = {row["name"]: row["value"] for row in results_of(finished)["scores"] if row["protocol"] == "phase/script"}
    assert set(values) == {"accuracy", "precision", "recall", "jaccard", "f1"}


def test_predictions_are_the_files_that_the_accuracy_comes_from(finished, synthetic_cholec80):
    numbers, predicted = read_phase(finished / "predictions" / "video04.txt", PHASES)
    labels = synthetic_cholec80 / "phase_annotations" / "video04-phase.txt"
    frames, truth = read_phase(labels, PHASES)
    assert (np.diff(numbers) == 5).all()  # 25 fps looked at five times a second
    accuracy = (truth[np.searchsorted(frames, numbers)] == predicted).mean()
    [row] = [r for r in results_of(finished)["scores"] if (r["name"], r["protocol"]) == ("accuracy", "phase/script")]
    assert row["value"] == pytest.approx(accuracy)


def test_the_report_shows_every_tested_video_in_time_with_its_instruments(finished):
    videos = {path.stem for path in (finished / "predictions").glob("*.txt")}
    assert {path.stem for path in (finished / "predictions").glob("*.png")} == {f"{v}-ribbon" for v in videos}
    section = (finished / "report.html").read_text().partition('<section id="timelines">')[2].partition("</section>")[0]
    assert section.count('class="timeline"') == len(videos)
    assert {"Truth", "Prediction", "Grasper"} <= {*re.findall("<b>(.*?)</b>", section)}
    assert "data:image" not in section


def test_evaluate_repeats_the_numbers_from_the_checkpoint_alone(finished):
    assert main(["evaluate", f"checkpoint={finished}", "hardware.loader_workers=0"]) == 0
    again = finished / "evaluation" / "cholec80-test"
    assert results_of(again)["scores"] == results_of(finished)["scores"]
    name = "predictions/video04.txt"
    assert (again / name).read_bytes() == (finished / name).read_bytes()
    page = (again / "report.html").read_text()
    assert 'id="timelines"' in page
    assert "no patient frames" in page
    assert "evaluation, task phase" in page


@pytest.mark.quick("clip]")
@pytest.mark.parametrize("temporal", temporal_names())
def test_every_temporal_model_goes_the_whole_way(synthetic_cholec80, tmp_path, temporal):
    words = (f"task.temporal={temporal}", "train.steps=2", "task.tokens=cls", "task.smoothing=0.15")
    assert finetune(synthetic_cholec80, tmp_path, *words) == 0
    stages = [stage["stage"] for stage in results_of(tmp_path)["stages"]]
    assert stages == (["frame"] if temporal == NONE else ["frame", "temporal"])
    assert {row["protocol"] for row in results_of(tmp_path)["scores"]} >= STRICT


@pytest.mark.slow
def test_the_temporal_model_reads_the_features_of_the_backbone_that_was_tuned(synthetic_cholec80, tmp_path):
    words = ("backbone=last4", "train.steps=2", "train.batch_size=8", "task.temporal_epochs=3")
    assert finetune(synthetic_cholec80, tmp_path, *words) == 0
    frame, temporal = results_of(tmp_path)["stages"]
    assert (frame["step"], temporal["step"]) == (2, 6)  # three passes over two videos
    assert main(["evaluate", f"checkpoint={tmp_path}", "hardware.loader_workers=0"]) == 0
    assert results_of(tmp_path / "evaluation" / "cholec80-test")["scores"] == results_of(tmp_path)["scores"]


@pytest.mark.slow
def test_aligned_videos_are_judged_on_their_own_level(finished, synthetic_cholec80, tmp_path, capsys):
    words = ("task.align=true", "task.temporal=none", "train.steps=60", "train.patience=0", "train.lr=0.005")
    assert finetune(synthetic_cholec80, tmp_path, *words) == 0
    assert "numbers are of finished recordings" in capsys.readouterr().out
    assert losses_of(tmp_path)["frame"] != losses_of(finished)["frame"]
    assert main(["evaluate", f"checkpoint={tmp_path}", "hardware.loader_workers=0"]) == 0
    assert results_of(tmp_path / "evaluation" / "cholec80-test")["scores"] == results_of(tmp_path)["scores"]
    capsys.readouterr()
    video = next((synthetic_cholec80 / "videos").iterdir())
    words = [f"checkpoint={tmp_path}", f"out={tmp_path / 'out'}", "hardware.loader_workers=0"]
    assert main(["predict", str(video), *words]) == 0
    assert "of a piece the mean is part of what it shows" in " ".join(capsys.readouterr().out.split())


def test_the_level_of_a_video_is_its_own_and_its_length_does_not_matter(monkeypatch):
    rng = np.random.default_rng(0)
    steady = rng.normal(size=(50, 4))
    pooled = np.concatenate([steady, 100 + 7 * steady, np.ones((3, 4))]).astype(np.float32)
    frames = SimpleNamespace(videos=("a", "b", "c"), span=[slice(0, 50), slice(50, 100), slice(100, 103)].__getitem__)
    found = aligned(pooled, frames)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:50], found[50:100], atol=1e-4)
    assert (found[100:] == 0).all()  # a video that does not move
    with pytest.raises(SurgdinoError, match=r"task\.align needs videos of several frames; found a video of one"):
        level_of(pooled, slice(0, 1))
    monkeypatch.setattr("surgdino.tasks.phase.stages._BLOCK", 7)
    np.testing.assert_allclose(aligned(pooled, frames), found, atol=1e-5)


@pytest.mark.slow
def test_validation_chooses_the_state_and_ends_the_stage(synthetic_cholec80, tmp_path):
    words = ("task.temporal=none", "train.epochs=60", "train.patience=2", "train.lr=0.02")
    assert finetune(synthetic_cholec80, tmp_path, *words) == 0
    [stage] = results_of(tmp_path)["stages"]
    assert stage["score_name"] == "accuracy"
    assert stage["ended_early"]
    assert stage["best_step"] < stage["step"] < stage["steps"]


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("task.temporal=tnc", "Did you mean 'tcn'?"),
        ("task.width=30", "task.width cannot be used"),
        ("task.align=true", "task.align needs the whole video"),
        ("task.align=true task.temporal=none backbone=last4", "task.align needs features that stay as they are"),
        ("task.hidden=-1", "task.hidden cannot be used"),
        ("task.tokens=mean", "expected cls or cls+mean"),
        ("task.balance=median", "expected median-frequency or none"),
    ],
)
def test_settings_that_cannot_be_are_told_in_one_line(synthetic_cholec80, tmp_path, capsys, word, told):
    words = ("task.temporal=transformer", word) if word.startswith("task.width") else word.split()
    assert finetune(synthetic_cholec80, tmp_path / "run", *words) == 2
    told_us = capsys.readouterr().err
    assert told in told_us
    assert told_us.count("\n") == 1


@pytest.mark.slow
def test_attentive_tokens_go_through_both_stages_and_do_without_room_on_the_disk(
    synthetic_cholec80, tmp_path, monkeypatch, capsys
):
    more = ("task.tokens=attentive", "train.steps=4", "hardware.precision=fp32")
    assert finetune(synthetic_cholec80, tmp_path / "kept", *more) == 0
    assert main(["evaluate", f"checkpoint={tmp_path / 'kept'}", "hardware.loader_workers=0"]) == 0
    assert "reproduced: all values equal" in capsys.readouterr().out
    monkeypatch.setattr("surgdino.tasks.features.cache.FeatureCache.fits", lambda *_: False)
    assert finetune(synthetic_cholec80, tmp_path / "computed", *more, "task.temporal=none") == 0
    assert "no room on the disk: computed for each batch" in " ".join(capsys.readouterr().out.split())
    kept, computed = (losses_of(tmp_path / name)["frame"] for name in ("kept", "computed"))
    assert computed == pytest.approx(kept, rel=1e-3)
    assert finetune(synthetic_cholec80, tmp_path / "no", *more, "task.align=true", "task.temporal=none") == 2
    assert "task.tokens: task.align needs features that stay as they are" in capsys.readouterr().err
