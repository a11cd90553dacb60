"""`surgdino verify` says what is in a folder and what is wrong with it; 1 on errors, 0 on none."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from surgdino.cli.main import main
from surgdino.datasets.synthetic.cholec80 import PHASES, write_cholec80


@pytest.fixture
def root(synthetic_cholec80: Path, tmp_path: Path) -> Path:
    """A copy of the synthetic set that a test may spoil."""
    return Path(shutil.copytree(synthetic_cholec80, tmp_path / "Übung 1, März=x"))


@pytest.fixture
def verify(capsys, monkeypatch):
    """Run the verb; give its exit code and what it printed, without the tables' lines and line breaks."""
    monkeypatch.setenv("COLUMNS", "160")

    def run(root: Path, *words: str, dataset: str = "cholec80") -> tuple[int, str]:
        code = main(["verify", f"dataset={dataset}", f"data.root={root}", *words])
        said = capsys.readouterr()
        return code, " ".join((said.out + said.err).replace("│", " ").split())

    return run


def test_a_sound_folder_passes_and_is_described(verify, root):
    code, text = verify(root, "data.split={train: [1, 2, 3], test: [4]}")
    assert code == 0
    assert "no errors, 1 warning" in text
    assert "4 x h264 240x160 25 fps" in text
    assert all(phase in text for phase in PHASES)
    assert "train 3 3 3 0:00:36 900 3 3" in text, "videos, readable, operations, length, frames, with labels"
    assert "labelled frames 900 300" in text


@pytest.mark.parametrize("part", ["phase_annotations", "tool_annotations"])
def test_a_video_without_labels_and_labels_without_a_video(verify, root, part):
    file = next((root / part).glob("video02*"))
    file.rename(file.with_name(file.name.replace("02", "07")))
    code, text = verify(root)
    assert code == 1
    assert "video02 has no" in text
    assert "labels without a video" in text
    assert "videos/video07.mp4" in text


def test_videos_that_cannot_be_read_are_named(verify, root):
    (root / "videos/video01.mp4").write_bytes(b"")
    whole = (root / "videos/video02.mp4").read_bytes()
    (root / "videos/video02.mp4").write_bytes(whole[: len(whole) // 2])
    (root / "videos/video03.mp4").write_bytes(b"this is no video at all" * 99)
    code, text = verify(root)
    assert code == 1
    assert text.count("videos/video01.mp4") == 1
    for number in (1, 2, 3):
        assert f"videos/video{number:02d}.mp4" in text
    assert "3 errors" in text
    assert "all 4 1 4 0:00:12 300 4 4" in text


def test_labels_beyond_the_videos_end(verify, root):
    shutil.copy(write_cholec80(root.parent / "short", videos=1, seconds=4, size=(240, 160))[0].path, root / "videos")
    code, text = verify(root)
    assert code == 1
    assert "200 phase labels lie beyond the video's end" in text
    assert "expected 300 frames or more" in text


@pytest.mark.slow
def test_a_video_at_another_frame_rate_shifts_every_label(verify, root):
    made = write_cholec80(root.parent / "slow", videos=1, seconds=20, fps=15, size=(64, 48))
    shutil.copy(made[0].path, root / "videos")
    code, text = verify(root)
    assert code == 1
    assert "the labels count in another frame rate" in text


def test_a_video_that_goes_on_after_its_labels_is_a_warning(verify, root):
    file = root / "phase_annotations/video01-phase.txt"
    file.write_text("\n".join(file.read_text().splitlines()[:202]))
    file = root / "tool_annotations/video01-tool.txt"
    file.write_text("\n".join(file.read_text().splitlines()[:9]))
    code, text = verify(root)
    assert code == 0
    assert "the labels end before the video does" in text


def test_a_folder_of_ones_own(verify, root):
    code, text = verify(root / "videos", dataset="folder")
    assert code == 0
    assert "no errors, no warnings" in text
    assert "all 4 4 4 0:00:48" in text


def test_excluded_operations_are_left_out_and_a_mistyped_one_is_named(verify, root):
    assert "all 3 3 3" in verify(root, "data.exclude=[camma/2]")[1]
    code, text = verify(root, "data.exclude=[camma/22]")
    assert code == 2
    assert "'camma/2'" in text


def test_markup_in_names_is_shown_as_it_is(verify, root):
    (root / "videos" / "[bold]x[red].txt").write_text("x")
    assert "[bold]x[red].txt" in verify(root)[1]


@pytest.mark.real
def test_real_images_have_a_count_but_no_length(verify, real_data):
    code, text = verify(real_data / "cholect50" / "videos", dataset="folder")
    assert code == 0
    assert "all 3 3 3 - 583" in text
    assert "1 x images 774x434" in text


@pytest.mark.real
def test_the_real_excerpt_is_sound(verify, real_data):
    code, text = verify(real_data / "cholec80")
    assert code == 0
    assert "5 x h264 854x480 25 fps" in text
    assert "75 of 80 videos are not here" in text
    assert "no phase annotations" in text


def test_verify_does_not_load_torch(synthetic_cholec80):
    program = (
        "import sys; from surgdino.cli.main import main; "
        f"main(['verify', 'dataset=cholec80', 'data.root={synthetic_cholec80}']); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)
    assert done.stdout.split()[-1] == "False", done.stdout + done.stderr
