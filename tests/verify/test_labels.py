"""`surgdino verify` covers labels: counts per class and part, rows beyond the end, masks of another size."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from surgdino.cli.main import main
from surgdino.datasets.synthetic.cholect50 import write_cholect50
from tests.datasets.mask_sets import write_pairs


@pytest.fixture
def verify(capsys, monkeypatch):
    """Run the verb; give its exit code and what it printed, without the tables' lines and line breaks."""
    monkeypatch.setenv("COLUMNS", "180")

    def run(root: Path, *words: str, dataset: str = "folder") -> tuple[int, str]:
        code = main(["verify", f"dataset={dataset}", f"data.root={root}", *words])
        said = capsys.readouterr()
        return code, " ".join((said.out + said.err).replace("│", " ").split())

    return run


@pytest.fixture
def videos(synthetic_cholec80: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(synthetic_cholec80 / "videos", tmp_path / "ours"))


def test_triplets_and_their_parts_are_counted_by_part(verify, tmp_path):
    truth = write_cholect50(tmp_path, (68, 73), frames=12, size=(64, 48), sparse=True)
    code, text = verify(tmp_path, "data.split={train: [68], test: [73]}", dataset="cholect50")
    assert code == 0
    assert "Frames by triplet" in text
    assert "Frames by target" in text
    count = sum(17 in triplets for triplets in truth[68].values())
    assert f"grasper,retract,gallbladder {count} " in text
    assert f"labelled frames {len(truth[68])} {len(truth[73])}" in text
    assert "1 of 7 images have no annotation" in text


def test_a_label_file_cut_in_two(verify, tmp_path):
    write_cholect50(tmp_path, (68,), frames=4, size=(64, 48))
    file = tmp_path / "labels/VID68.json"
    file.write_text(file.read_text()[:-30])
    code, text = verify(tmp_path, dataset="cholect50")
    assert code == 1
    assert "labels/VID68.json" in text
    assert "line 1 column" in text
    assert "not valid JSON" in text


@pytest.mark.parametrize(
    ("unit", "last", "expected"), [("frame", 300, "301 frames or more"), ("second", 13, "13 seconds or more")]
)
def test_rows_beyond_the_videos_end(verify, videos, unit, last, expected):
    rows = "".join(f"video0{n},{k},a\n" for n in range(1, 5) for k in range(last))
    (videos / "labels.csv").write_text(f"video,{unit},label\n{rows}video02,{last},a\n")
    code, text = verify(videos)
    assert code == 1
    assert "1 phase label lies beyond the video's end" in text
    assert f"expected {expected}" in text
    assert "1 error, no warnings" in text


def test_seconds_up_to_the_end_are_sound(verify, videos):
    rows = "".join(f"video0{n},{k},a\n" for n in range(1, 5) for k in range(13))
    (videos / "labels.csv").write_text(f"video,second,label\n{rows}")
    code, text = verify(videos)
    assert (code, "no errors, no warnings" in text) == (0, True)
    assert "a 52 " in text


def test_pictures_with_masks(verify, tmp_path):
    write_pairs(tmp_path / "polyps", images=5, size=(48, 32), suffix=".png")
    code, text = verify(tmp_path / "polyps", "data.split={train: rest, test: every 5th}")
    assert code == 0
    assert "train 4 4 4 - 4 4" in text
    assert "5 x png 48x32" in text
    assert "foreground 4 7.8% 1 9.8% pictures with masks 4 1" in text


def test_masks_of_another_size_cut_short_or_without_image(verify, tmp_path):
    root = tmp_path / "polyps"
    write_pairs(root, images=6, size=(48, 32), suffix=".png")
    for name in ("case001", "case002"):
        cv2.imwrite(str(root / f"masks/{name}.png"), np.zeros((16, 16), np.uint8))
    whole = (root / "masks/case003.png").read_bytes()
    (root / "masks/case003.png").write_bytes(whole[:-20])
    (root / "masks/case004.png").unlink()
    (root / "images/case005.png").unlink()
    code, text = verify(root)
    assert code == 1
    assert "the mask has another size than its picture, and 1 more like it" in text
    assert "expected 48x32" in text
    assert "found 16x16" in text
    assert "masks/case003.png the image is cut short" in text
    assert "1 images without a mask" in text
    assert "1 masks without an image" in text
    assert "3 errors, 1 warning" in text


def test_settings_of_another_dataset_are_refused(verify, videos):
    code, text = verify(videos, "data.organ=liver")
    assert code == 2
    assert "dataset=folder has no use for data.organ" in text


@pytest.mark.slow
def test_test_sets_are_left_out_by_name(verify, synthetic_cholec80):
    code, text = verify(synthetic_cholec80, "data.exclude=[test-of:cholect50/fold1]", dataset="cholec80")
    assert code == 0
    assert "all 3 3 3 0:00:36" in text, "2 is in fold1's test part"
    assert verify(synthetic_cholec80, "data.exclude=[test-of:cholect50/challenge]", dataset="cholec80")[0] == 0
    code, text = verify(synthetic_cholec80, "data.exclude=[test-of:cholect50/fold9]", dataset="cholec80")
    assert code == 2
    assert "no split 'fold9'" in text


@pytest.mark.slow
@pytest.mark.real
def test_real_labels_are_sound(verify, real_data):
    code, text = verify(real_data / "cholect50", "data.split={train: [68, 73], test: [75]}", dataset="cholect50")
    assert code == 0
    assert "labelled frames 403 120" in text
    assert "grasper,retract,gallbladder 63 " in text
    code, text = verify(real_data / "kvasir-seg", "data.split=fifth")
    assert (code, "no errors, no warnings" in text) == (0, True)
