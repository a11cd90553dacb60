"""Pictures with depth: every layout is read to the millimetre, and what cannot be depth is refused in one line."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from surgdino.datasets.card import Card, card_names, load_card
from surgdino.datasets.depth import DepthMap
from surgdino.datasets.files import image_size, numbered_images
from surgdino.datasets.manifest import Manifest
from surgdino.datasets.masks import read_masks
from surgdino.datasets.open import open_dataset
from surgdino.datasets.synthetic.depth import write_depth
from surgdino.errors import SurgdinoError
from surgdino.frames.store import StoreSettings, build_store

LAYOUTS = [name for name in card_names() if load_card(name).adapter == "depth"]
STEP = {"simcol3d": 200 / 255, "c3vd": 100 / 65535, "hamlyn": 1.0, "scared": 1e-4}  # mm that a file tells apart


def depth_of(manifest: Manifest, video: str, number: int) -> np.ndarray:
    frame = manifest.labels["depth"].values[video][number]
    return frame.files["depth"].read(*image_size(frame.image))


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_read_to_the_millimetre(name, tmp_path):
    truth = write_depth(tmp_path / "set", name, public_ids=True)
    manifest = open_dataset(load_card(name), tmp_path / "set")
    assert {video.id for video in manifest.videos} == truth.keys()
    assert len(manifest.operations) == 4
    assert [problem.message for problem in manifest.problems if "not here" not in problem.message] == []
    for video, frames in truth.items():
        assert manifest.labels["depth"].values[video].numbers.tolist() == sorted(frames)
        for number, expected in frames.items():
            found = depth_of(manifest, video, number)
            assert (np.isnan(found) == np.isnan(expected)).all()
            assert np.nanmax(np.abs(found - expected)) <= STEP[name] / 2 + 1e-4
            masks, _ = read_masks(manifest.labels["depth"].values[video][number], ("depth",))
            assert (masks[0] == np.isfinite(expected)).all()
    store = build_store(manifest, tmp_path / "store", StoreSettings.of(), workers=1, progress=False)
    assert len(store) == sum(map(len, truth.values()))


def test_maps_beside_pictures_are_no_frames(tmp_path):
    write_depth(tmp_path, "c3vd", recordings=1)
    names = [path.name for path in numbered_images(tmp_path / "cecum_t1_a").values()]
    assert names == [f"{n:04d}_color.png" for n in range(4)]
    cv2.imwrite(str(tmp_path / "depth_1.png"), np.zeros((4, 4), np.uint8))
    assert list(numbered_images(tmp_path)) == [1], "a folder of nothing else is somebody's pictures"


@pytest.fixture
def one(tmp_path) -> Path:
    write_depth(tmp_path, "simcol3d", recordings=1, frames=1, public_ids=True)
    return tmp_path / "SyntheticColon_I" / "Frames_S1" / "Depth_0000.png"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.zeros((20, 20), np.uint16), "another size than its picture; expected 64x48, found 20x20"),
        (np.zeros((48, 64, 3), np.uint8), "expected one channel, found 3 channels of uint8"),
    ],
)
def test_what_is_no_depth_map_of_the_picture_is_one_line(values, said, one):
    cv2.imwrite(str(one), values)
    manifest = open_dataset(load_card("simcol3d"), one.parents[2])
    with pytest.raises(SurgdinoError, match=said) as caught:
        depth_of(manifest, "Frames_S1", 0)
    assert caught.value.file == one


@pytest.mark.parametrize("content", [b"", b"no picture", b"half"])
def test_a_broken_depth_map_is_one_line(content, one):
    one.write_bytes(one.read_bytes()[:-30] if content == b"half" else content)
    with pytest.raises(SurgdinoError, match=r"empty|readable|cut short"):
        DepthMap(one, 1.0, 1.0, 2.0).read(64, 48)


def test_nan_zero_and_what_is_out_of_range_are_unknown(tmp_path):
    path = tmp_path / "map.tiff"
    cv2.imwrite(str(path), np.array([[0, -1, np.nan, np.inf, 0.5, 3, 99]], np.float32))
    found = DepthMap(path, 2.0, 1.5, 100.0).read(7, 1)
    assert found[0].tolist() == pytest.approx([*[np.nan] * 5, 6.0, np.nan], nan_ok=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"millimetres": None}, "dataset.depth.millimetres"),
        ({"millimetres": 0}, "dataset.depth.millimetres cannot be used"),
        ({"nearest": 300}, "dataset.depth.nearest cannot be used; expected less than farthest, 200"),
        ({"pairs": [["a_#", "b"]]}, "# for the frame's number in both names"),
        ({"pairs": [["a_#_cam2", "b_#"]]}, "dataset.depth.pairs"),
        ({"operation": "no group"}, "a regular expression with one group, found no group"),
    ],
)
def test_a_card_without_unit_or_with_wrong_names_is_one_line(change, said):
    depth = {"pairs": [["a_#", "b_#"]], "millimetres": 1, "nearest": 1, "farthest": 200, **change}
    depth = {key: value for key, value in depth.items() if value is not None}
    with pytest.raises(SurgdinoError, match=said):
        Card.from_dict({"name": "x", "adapter": "depth", "depth": depth})


def test_two_recordings_of_one_name_and_missing_maps_are_told(tmp_path):
    for part in ("a", "b"):
        write_depth(tmp_path / part, "simcol3d", recordings=1, frames=2, public_ids=True)
    (tmp_path / "a/SyntheticColon_I/Frames_S1/Depth_0001.png").unlink()
    told = [problem.error().line() for problem in open_dataset(load_card("simcol3d"), tmp_path).problems]
    assert any("two recordings of one name; found Frames_S1" in line for line in told)
    assert any("1 of 2 pictures have no depth map; found the first is FrameBuffer_0001.png" in line for line in told)


def test_a_card_without_depth_says_what_is_missing(tmp_path):
    (tmp_path / "a_1.png").write_bytes(b"x")
    with pytest.raises(SurgdinoError, match="dataset=x does not say what its depth maps are"):
        open_dataset(Card.from_dict({"name": "x", "adapter": "depth"}), tmp_path)
