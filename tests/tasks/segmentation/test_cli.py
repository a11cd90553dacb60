"""`surgdino finetune task=segmentation` as its user runs it: pictures with masks, DSAD, windows, every head."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from surgdino import discovery
from surgdino.cli.main import main
from surgdino.config import shipped_settings
from surgdino.datasets.card import load_card
from surgdino.datasets.synthetic.masks import write_masks
from surgdino.errors import SurgdinoError
from surgdino.tasks.task import open_task
from tests.datasets.mask_sets import write_dsad, write_pairs
from tests.frames.numbered_video import write_video

DSAD = "{train: [1, 4], val: [3], test: [2]}"


def finetune(root: Path, run: Path, *more: str, dataset: str = "folder", split: str = "fifth") -> int:
    words = ["finetune", "task=segmentation", f"dataset={dataset}", f"data.root={root}", f"data.split={split}"]
    words += [f"data.store={root.parent / 'store'}", "model=vit_toy", "image_size=32", f"run.dir={run}"]
    return main([*words, "train.batch_size=8", "data.workers=1", "hardware.loader_workers=0", "run.names=plain", *more])


def results(run: Path) -> dict:
    return json.loads((run / "results.json").read_text())


def value(run: Path, name: str) -> float:
    [row] = [row for row in results(run)["scores"] if row["name"] == name]
    return row["value"]


def losses(run: Path) -> list[float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("pairs") / "set"
    write_pairs(root, images=30, size=(96, 80))
    return root


@pytest.fixture(scope="module")
def dsad(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("dsad") / "set"
    write_dsad(root, images=4)
    return root


QUICK = ("linear", "decoder")
HEADS = [
    name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
    for name in discovery.names("surgdino.tasks.segmentation.heads")
]


@pytest.fixture(scope="module", params=HEADS)
def finished(request, pairs, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp(request.param) / "run"
    assert finetune(pairs, run, f"task.head={request.param}", "train.steps=60") == 0
    return run


def test_a_head_over_a_frozen_backbone_learns(finished):
    found = losses(finished)
    assert np.mean(found[-2:]) < 0.8 * found[0]
    assert value(finished, "dice") > 0.3
    assert value(finished, "hd95") > 0


def test_predictions_are_of_the_pictures_own_size_and_name(finished, pairs):
    files = sorted((finished / "predictions").iterdir())
    assert [file.stem for file in files] == [f"case{number:03d}" for number in range(0, 30, 5)]
    for file in files:
        mask = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        assert mask.shape == (80, 96)
        assert set(np.unique(mask)) <= {0, 255}


def test_the_numbers_are_those_of_the_written_masks(finished, pairs):
    dice = []
    for file in sorted((finished / "predictions").iterdir()):
        found = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) > 127
        truth = cv2.imread(str(pairs / "masks" / f"{file.stem}.jpg"), cv2.IMREAD_GRAYSCALE) > 127
        dice.append(2 * (found & truth).sum() / (found.sum() + truth.sum()))
    assert value(finished, "dice") == pytest.approx(np.mean(dice), abs=1e-12)


def test_evaluate_repeats_the_numbers_from_the_checkpoint_alone(finished):
    assert main(["evaluate", f"checkpoint={finished}", "hardware.loader_workers=0"]) == 0
    again = finished / "evaluation" / "folder-test"
    assert results(again)["scores"] == results(finished)["scores"]
    assert (again / "per_operation.csv").read_bytes() == (finished / "per_operation.csv").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(("tuning", "head"), [("last4", "decoder"), ("full", "linear")])
def test_a_backbone_that_learns_sees_pictures_and_masks_cut_together(pairs, tmp_path, tuning, head):
    words = (f"task.head={head}", f"backbone={tuning}", "train.steps=12", "train.lr=1e-3", "train.log_every=1")
    assert finetune(pairs, tmp_path / "run", *words) == 0
    found = losses(tmp_path / "run")
    assert np.mean(found[-3:]) < np.mean(found[:3])


@pytest.mark.slow
def test_windows_over_pictures_larger_than_the_backbones_input(pairs, tmp_path):
    words = ("task.head=decoder", "task.window=32", "train.steps=30", "train.log_every=1")
    assert finetune(pairs, tmp_path / "run", *words) == 0
    found = losses(tmp_path / "run")
    assert np.mean(found[-5:]) < 0.9 * np.mean(found[:5])
    mask = cv2.imread(str(tmp_path / "run" / "predictions" / "case000.png"), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (80, 96)


@pytest.mark.slow
def test_one_organ_of_dsad_is_binary(dsad, tmp_path):
    words = ("data.organ=liver", "train.steps=10")
    assert finetune(dsad, tmp_path / "run", *words, dataset="dsad", split=DSAD) == 0
    table, *_ = results(tmp_path / "run")["classes"]
    assert list(table["rows"]) == ["liver"]
    assert table["rows"]["liver"]["images"] == 4
    files = sorted(path.relative_to(tmp_path / "run/predictions").as_posix() for path in _pngs(tmp_path / "run"))
    assert files == [f"liver/02/{number:06d}.png" for number in range(4)]


@pytest.mark.slow
def test_multilabel_scores_absent_organs_and_all_organs_only_what_is_labelled(dsad, tmp_path):
    for organ, known in (("multilabel", load_card("dsad").multilabel), (None, load_card("dsad").mask_classes)):
        run = tmp_path / str(organ)
        words = ("train.steps=10", *(() if organ is None else (f"data.organ={organ}",)))
        assert finetune(dsad, run, *words, dataset="dsad", split=DSAD) == 0
        table, *_ = results(run)["classes"]
        counts = {name: row["images"] for name, row in table["rows"].items()}
        assert set(counts) == set(known)
        # The test surgery has 4 pictures in liver/, 4 in stomach/ and 4 in multilabel/.
        if organ == "multilabel":
            assert set(counts.values()) == {4}
        else:
            in_folders = {"liver": 4, "stomach": 4}
            in_multilabel = load_card("dsad").multilabel
            assert counts == {name: in_folders.get(name, 0) + 4 * (name in in_multilabel) for name in known}


@pytest.mark.slow
def test_the_validation_part_chooses_by_dice(dsad, tmp_path):
    words = ("data.organ=liver", "train.epochs=6", "train.lr=0.01")
    assert finetune(dsad, tmp_path / "run", *words, dataset="dsad", split=DSAD) == 0
    [stage] = results(tmp_path / "run")["stages"]
    assert stage["score_name"] == "dice"
    assert 0 <= stage["score"] <= 1


def test_a_window_that_does_not_divide_into_patches_is_refused(pairs, tmp_path, capsys):
    assert finetune(pairs, tmp_path / "run", "task.window=33") != 0
    assert "task.window=32" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("key", "wrong", "told"),
    [
        ("overlap", 1.0, "task.overlap"),
        ("head", "lineer", "linear"),
        ("maps", 0, "task.maps"),
        ("loss", "dice", "dice_ce"),
    ],
)
def test_settings_that_cannot_be_are_refused(key, wrong, told):
    with pytest.raises(SurgdinoError) as refused:
        open_task({**shipped_settings("task", "segmentation"), key: wrong})
    assert told in refused.value.line()


def _pngs(run: Path) -> list[Path]:
    return sorted((run / "predictions").rglob("*.png"))


@pytest.mark.slow
@pytest.mark.real
def test_the_probe_on_real_pictures(real_data, tmp_path):
    """Few steps on few pictures, at a low resolution; docs/tasks.md has the full figures."""
    root = tmp_path / "part"
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
        for file in sorted((real_data / "kvasir-seg" / kind).iterdir())[:60]:
            (root / kind / file.name).symlink_to(file)
    weights = real_data / "weights" / "vit_tiny_patch16_224.safetensors"
    words = ("model=vit_tiny_patch16", f"model.weights={weights}", "image_size=112", "train.steps=60")
    assert finetune(root, tmp_path / "run", *words) == 0
    assert value(tmp_path / "run", "dice") > 0.4


@pytest.mark.slow
def test_masks_on_frames_of_videos_are_learned_and_scored(tmp_path):
    """Tracks that CVAT exported: between two key frames the square moves as the one in the video does."""
    root = tmp_path / "films"
    root.mkdir()
    for video in range(4):
        noise, pictures, shapes = np.random.default_rng(video), [], []
        tissue = cv2.resize(
            noise.integers(40, 160, (6, 8, 3), dtype=np.uint8), (128, 96), interpolation=cv2.INTER_CUBIC
        )
        for number in range(100):
            image, x = (
                np.maximum(tissue, noise.integers(0, 60, tissue.shape, dtype=np.uint8)),
                10 + 5 * video + number // 2,
            )
            image[30:60, x : x + 30] = (240, 230, 60)
            pictures.append(image)
            if number in (0, 98):
                points = f"{x},30;{x + 30},30;{x + 30},60;{x},60"
                shapes.append(f'<polygon frame="{number}" keyframe="1" outside="0" points="{points}"/>')
        write_video(root / f"op{video}.mp4", 100, pictures=pictures)
        size = "<original_size><width>128</width><height>96</height></original_size>"
        meta = f"<meta><task><stop_frame>99</stop_frame>{size}<source>op{video}.mp4</source></task></meta>"
        track = f'<track id="0" label="liver">{"".join(shapes)}</track>'
        (root / f"task{video}.xml").write_text(f"<annotations>{meta}{track}</annotations>")
    split = "{train: rest, val: [op2], test: [op3]}"
    assert finetune(root, tmp_path / "run", "data.fps=5", "train.lr=1e-2", "leakage=allow", split=split) == 0
    assert value(tmp_path / "run", "dice") > 0.6
    assert len(list((tmp_path / "run/predictions").rglob("*.png"))) == 20


@pytest.mark.slow
def test_exclusive_classes_share_no_pixel_and_are_told_apart(tmp_path):
    write_masks(tmp_path / "set", "cholecseg8k", recordings=3, frames=6, public_ids=True)
    recordings = sorted(path.name for path in (tmp_path / "set").iterdir() if path.is_dir())
    numbers = [int(name.removeprefix("video")) for name in recordings]
    split = f"{{train: {numbers[:2]}, test: {numbers[2:]}}}"
    words = ("task.classes=exclusive", "train.steps=30", "train.log_every=1", "task.loss=dice_focal")
    assert finetune(tmp_path / "set", tmp_path / "run", *words, dataset="cholecseg8k", split=split) == 0
    found = losses(tmp_path / "run")
    assert np.mean(found[-5:]) < 0.9 * np.mean(found[:5])
    [table] = results(tmp_path / "run")["confusions"]
    assert len(table["counts"]) == len(table["rows"]) == len(results(tmp_path / "run")["classes"][0]["rows"]) + 1
    pictures: dict[str, list[np.ndarray]] = {}
    for file in (tmp_path / "run" / "predictions").rglob("*.png"):
        pictures.setdefault(file.name[:6], []).append(cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) > 127)
    assert pictures
    assert all(np.sum(masks, 0).max() <= 1 for masks in pictures.values())
    assert any(np.any(masks) for masks in pictures.values())
