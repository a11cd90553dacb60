"""Structure from motion: every point is read where it is seen, and files that do not fit are one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from surgdino.datasets.card import load_card
from surgdino.datasets.files import image_size
from surgdino.datasets.manifest import Manifest
from surgdino.datasets.open import open_dataset
from surgdino.datasets.structure_from_motion import Reconstruction
from surgdino.datasets.synthetic.structure_from_motion import write_structure_from_motion
from surgdino.errors import SurgdinoError


def opened(root: Path) -> Manifest:
    return open_dataset(load_card("sinus_sfm"), root)


@pytest.mark.parametrize("shrunk", [1, 2])
def test_every_point_is_read_where_it_is_seen(shrunk, tmp_path):
    truth = write_structure_from_motion(tmp_path, shrunk=shrunk, public_ids=True)
    manifest = opened(tmp_path)
    assert [problem.message for problem in manifest.problems] == []
    assert {video.id: video.operation for video in manifest.videos} == {
        name: f"sinus-sfm/{name.split('/')[0]}" for name in truth
    }
    assert len(manifest.notes) == (2 if shrunk == 2 else 0)
    for video, frames in truth.items():
        middle = np.median(np.concatenate([points[:, 2] for points in frames.values()]))
        masks = manifest.labels["depth"].values[video]
        assert masks.numbers.tolist() == sorted(frames)
        for number, points in frames.items():
            found = masks[number].files["depth"].read(*image_size(masks[number].image))
            expected = np.full_like(found, np.nan)
            for x, y, depth in sorted(points.tolist(), key=lambda point: -point[2]):
                expected[int(y), int(x)] = depth / middle
            # Files have 6 to 8 digits, so that a point at a pixel's edge may fall beside it.
            assert (np.isnan(found) != np.isnan(expected)).sum() <= 2
            both = np.isfinite(found) & np.isfinite(expected)
            assert both.sum() > 10
            assert found[both] == pytest.approx(expected[both], rel=1e-4)


def changed(path: Path, change) -> None:
    path.write_text(change(path.read_text()))


def turned(text: str) -> str:
    """Poses from the world to the camera, nearly: every place mirrored."""
    lines = text.split("\n")
    for k, line in enumerate(lines):
        if "position" in line:
            lines[k + 1 : k + 4] = [f"      {axis}: 9" for axis in "xyz"]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("structure.ply", lambda text: text[: len(text) // 2], "120 rows of x, y and z"),
        ("structure.ply", lambda text: text.replace("ascii", "binary_little_endian"), "PLY in text"),
        ("structure.ply", lambda text: text.replace("vertex 120", "vertex 999999999"), "999999999 rows"),
        ("structure.ply", lambda _: "", "PLY in text"),
        ("motion.yaml", lambda text: text[: text.index("poses[4]")], "6 poses, as visible_view_indexes, found 4"),
        ("motion.yaml", lambda text: text.replace("x:", "q:", 1), "a position"),
        ("motion.yaml", lambda text: text.replace("w: ", "w: 9"), "quaternions of length 1"),
        ("motion.yaml", turned, "the points do not lie in the pictures that see them; expected 99%"),
        ("camera_intrinsics_per_view", lambda _: "1\n2\n3\n", "4 numbers"),
        ("camera_intrinsics_per_view", lambda _: "nan\n2\n3\n4", "4 numbers"),
        ("view_indexes_per_point", lambda text: text.replace("-1\n", "", 1), "120 lists, each opened by -1"),
        ("visible_view_indexes", lambda text: text.replace("11\n", "10\n"), "frame numbers, each once"),
        ("visible_view_indexes", lambda _: "one\n", "whole numbers, one a line, found one"),
    ],
)
def test_a_broken_file_costs_its_own_depths_and_is_one_line(file, change, said, tmp_path):
    one, other = write_structure_from_motion(tmp_path)
    changed(tmp_path / one / file, change)
    manifest = opened(tmp_path)
    lines = [problem.error().line() for problem in manifest.problems]
    assert len(lines) == 1
    assert said in lines[0]
    assert manifest.labels["depth"].values.keys() == {other}
    assert len(manifest.videos) == 2


def test_a_missing_file_is_one_line(tmp_path):
    one, _ = write_structure_from_motion(tmp_path)
    (tmp_path / one / "motion.yaml").unlink()
    with pytest.raises(SurgdinoError, match=r"motion\.yaml"):
        Reconstruction.read(tmp_path / one)
    assert len(opened(tmp_path).problems) == 1


def test_frames_without_a_camera_or_a_picture_have_no_depth(tmp_path):
    one, _ = write_structure_from_motion(tmp_path)
    (tmp_path / one / "00000012.jpg").unlink()
    folder = tmp_path / one / "frames"
    folder.mkdir()
    for path in (tmp_path / one).glob("*.jpg"):
        path.rename(folder / path.name)
    (folder / "00000099.jpg").write_bytes((folder / "00000010.jpg").read_bytes())
    assert opened(tmp_path).labels["depth"].values[one].numbers.tolist() == [10, 11, 13, 14, 15]


def test_the_real_sequence_is_read_whole(real_data):
    manifest = opened(real_data / "sinus-sfm")
    assert manifest.problems == ()
    frames = manifest.labels["depth"].values["sinus-sfm"]
    assert frames.numbers.tolist() == list(range(4584, 4619))
    assert sum(len(frame.files["depth"].points) for frame in frames.values()) == 6585
    assert manifest.notes == ("sinus-sfm: the cameras are of pictures 2 times as large",)
