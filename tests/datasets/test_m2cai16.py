"""m2cai16-workflow: eight phases, and test videos that are counted from 1 again."""

from __future__ import annotations

from pathlib import Path

import pytest

from surgdino.datasets.card import load_card
from surgdino.datasets.manifest import Manifest, Problem
from surgdino.datasets.open import open_dataset
from surgdino.errors import SurgdinoError

CARD = load_card("m2cai16")


def put(root: Path, name: str, step: int = 1, rows: int = 8) -> None:
    folder = root / ("test_dataset" if name.startswith("test") else "train_dataset")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.mp4").write_bytes(b"x")
    (folder / f"{name}_timestamp.txt").write_text("0\t00:00:00.000\n")
    lines = "".join(f"{step * row}\t{CARD.phases[row % 8]}\n" for row in range(rows))
    (folder / f"{name}.txt").write_text(f"Frame\tPhase\n{lines}")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("workflow_video_01", "workflow_video_27", "test_workflow_video_01"):
        put(tmp_path, name)
    return tmp_path


def opened(root: Path, **how) -> Manifest:
    return open_dataset(CARD, root, **how)


def told(manifest: Manifest) -> list[Problem]:
    return [p for p in manifest.problems if "not here" not in p.message]


def test_training_and_test_videos_are_counted_apart(root):
    manifest = opened(root, split="official")
    assert told(manifest) == []
    assert [(v.id, v.operation, v.split) for v in manifest.videos] == [
        ("workflow_video_01", "m2cai16/1", "train"),
        ("workflow_video_27", "m2cai16/27", "train"),
        ("test_workflow_video_01", "m2cai16/test_workflow_video_01", "test"),
    ]


def test_number_1_is_the_training_video(root):
    manifest = opened(root, split={"train": [1], "test": ["test_workflow_video_01"]})
    assert [v.split for v in manifest.videos] == ["train", None, "test"]


def test_eight_phases_of_which_trocar_placement_is_the_first(root):
    phases = opened(root).labels["phase"]
    assert len(phases.classes) == 8
    assert phases.classes[0] == "TrocarPlacement"
    assert phases.classes[1:] == load_card("cholec80").phases
    assert [phases.values["test_workflow_video_01"][frame] for frame in (0, 7)] == [0, 7]


def test_rows_may_be_every_25th_frame(root):
    put(root, "workflow_video_02", step=25)
    manifest = opened(root)
    assert told(manifest) == []
    assert list(manifest.labels["phase"].values["workflow_video_02"])[:3] == [0, 25, 50]


def test_what_is_wrong_is_named(root):
    (root / "train_dataset/workflow_video_01.txt").unlink()
    (root / "train_dataset/workflow_video_27.mp4").unlink()
    file = root / "test_dataset/test_workflow_video_01.txt"
    file.write_text(file.read_text().replace("TrocarPlacement", "TrocarPlacment"))
    put(root, "workflow_video_28")
    messages = {p.message: p for p in told(opened(root))}
    assert set(messages) == {
        "workflow_video_01 has no phase labels",
        "labels without a video",
        "unknown phase 'TrocarPlacment'",
        "not a video of m2cai16",
    }
    problem = messages["unknown phase 'TrocarPlacment'"]
    assert (problem.file, problem.place) == (file, "row 2")
    assert "'TrocarPlacement'" in problem.fix


def test_videos_without_any_labels_are_enough_for_pretraining(root):
    for path in root.glob("*/*workflow_video_??.txt"):
        path.unlink()
    manifest = opened(root)
    assert manifest.errors == ()
    assert [p.message for p in told(manifest)] == ["no phase annotations"]


def test_an_empty_video_a_second_copy_and_a_folder_of_others(root, tmp_path_factory):
    (root / "train_dataset/workflow_video_01.mp4").write_bytes(b"")
    (root / "workflow_video_27.mkv").write_bytes(b"x")
    assert sorted(p.message for p in opened(root).errors) == ["the file is empty", "two files for one video"]
    with pytest.raises(SurgdinoError, match="no videos in this folder"):
        opened(tmp_path_factory.mktemp("empty"))
