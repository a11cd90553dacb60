"""Sets of pictures and films with masks of ids or colours: every layout is read to the pixel."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from surgdino.datasets.card import Card, load_card
from surgdino.datasets.files import numbered_images
from surgdino.datasets.held import Length, held_against
from surgdino.datasets.manifest import Manifest
from surgdino.datasets.masks import read_truth
from surgdino.datasets.open import open_dataset
from surgdino.datasets.synthetic.masks import LAYOUTS, write_masks
from surgdino.errors import SurgdinoError
from surgdino.frames.store import StoreSettings, build_store
from surgdino.verify.verb import check_masks


def shown(manifest: Manifest, video: str, number: int, unlabelled: np.ndarray | None = None) -> np.ndarray:
    labels = manifest.labels["masks"]
    masks, labelled, known = read_truth(labels.values[video][number], labels.classes)
    assert labelled.all()
    np.testing.assert_array_equal(known, np.ones_like(known) if unlabelled is None else ~unlabelled)
    return masks


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_read_to_the_pixel(name, tmp_path):
    truth = write_masks(tmp_path / "set", name, public_ids=True)
    manifest = open_dataset(load_card(name), tmp_path / "set")
    assert {video.id for video in manifest.videos} == truth.keys()
    assert set(manifest.operations) <= {load_card(name).operation_of(entry) for entry in load_card(name).videos}
    assert len(manifest.operations) == 4
    assert [problem.message for problem in manifest.problems if "not here" not in problem.message] == []
    classes = np.arange(1, len(load_card(name).mask_classes) + 1)[:, None, None]
    for video, frames in truth.items():
        assert manifest.labels["masks"].values[video].numbers.tolist() == sorted(frames)
        for number, ids in frames.items():
            np.testing.assert_array_equal(shown(manifest, video, number, ids == 255), ids == classes)
    store = build_store(manifest, tmp_path / "store", StoreSettings.of(), workers=1, progress=False)
    assert not store.set_aside
    for place, video in enumerate(store.videos):
        assert set(truth[video.id]) <= set(store.of_video(place)[1].tolist())


def told(manifest: Manifest) -> list[str]:
    """All that is said of a folder and of its masks, a line each."""
    faults, _ = check_masks(manifest)
    return [problem.error().line() for problem in (*manifest.problems, *faults)]


def _ids(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def changed(path: Path) -> None:
        cv2.imwrite(str(path), change(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)))

    return changed


def _one_pixel(value: int | tuple[int, ...]) -> Callable[[np.ndarray], np.ndarray]:
    def changed(ids: np.ndarray) -> np.ndarray:
        ids[5, 5] = value
        return ids

    return changed


def _boxes(path: Path) -> Path:
    return path.parents[1] / "train/annotation_coco.json"


def _box(path: Path, **change: int) -> None:
    values = json.loads(_boxes(path).read_text())
    values["annotations"][0] |= change
    _boxes(path).write_text(json.dumps(values))


def _table(path: Path, before: str, after: str) -> None:
    table = path.parents[1] / "all_metadata.csv"
    assert before in table.read_text()
    table.write_text(table.read_text().replace(before, after, 1))


FIRST = {
    "endoscapes": "semseg/1_29375.png",
    "cholecseg8k": "video01/video01_00080/frame_80_endo_watershed_mask.png",
    "endovis17": "instrument_1_4_training/instrument_dataset_1/ground_truth/Left_Bipolar_Forceps_labels/frame000.png",
    "endovis18": "miccai_challenge_release_1/seq_1/labels/frame000.png",
    "sar_rarp50": "train1/video_1/segmentation/000000000.png",
}
FAULTS = {
    "no such frame": (
        "endoscapes",
        lambda path: path.rename(path.with_name("1_7.png")),
        "1 masks without a picture",
    ),
    "broken boxes": ("endoscapes", lambda path: _boxes(path).write_text("{"), "annotation_coco.json"),
    "boxes of no form": ("endoscapes", lambda path: _boxes(path).write_text('{"images": 3}'), "not COCO's form"),
    "box of no picture": ("endoscapes", lambda path: _box(path, image_id=7), "annotations.0.: an annotation of no pic"),
    "box of no class": ("endoscapes", lambda path: _box(path, category_id=9), "annotations.0.: an annotation of no cl"),
    "boxes of no frame": (
        "endoscapes",
        lambda path: _boxes(path).write_text(_boxes(path).read_text().replace("1_29375", "1_11")),
        "1 annotated frames without a picture",
    ),
    "no view": (
        "endoscapes",
        lambda path: (path.parents[1] / "all_metadata.csv").unlink(),
        "no annotations of the crit",
    ),
    "two raters": (
        "endoscapes",
        lambda path: _table(path, "cvs_annotator_3", "other"),
        "row 1: no column cvs_annotator_3",
    ),
    "four criteria": ("endoscapes", lambda path: _table(path, "[1, 1, 1]", "[1, 1, 1, 1]"), "row 2: not 3 scores"),
    "half a score": ("endoscapes", lambda path: _table(path, "[1, 1, 1]", "[1, 0.5, 1]"), "row 2: not 3 scores"),
    "rater's pause": ("endoscapes", lambda path: _table(path, '"[1, 1, 0]"', ""), "row 2: not 3 scores"),
    "a row of no frame": (
        "endoscapes",
        lambda path: _table(path, "1,29375", "1,11"),
        "1 annotated frames without a pic",
    ),
    "id out of range": ("sar_rarp50", _ids(_one_pixel(10)), "a value of no class in the mask.*found 10 "),
    "part of none": ("endovis17", _ids(_one_pixel(11)), "a value of no class in the mask.*found 11 "),
    "colour of none": ("endovis18", _ids(_one_pixel((1, 2, 3))), "a value of no class in the mask.*found #030201"),
    "grey in colours": ("endovis18", _ids(lambda m: m[..., 1] // 100), "a value of no class in the mask.*#"),
    "nothing known": ("cholecseg8k", _ids(lambda m: m * 0 + 77), "found 77 .100.0% of the pixels"),
    "another size": ("sar_rarp50", _ids(lambda m: m[:-2]), "another size"),
    "empty file": ("cholecseg8k", lambda path: path.write_bytes(b""), "empty"),
    "no picture": ("endovis18", lambda path: path.write_bytes(b"masks"), "not a readable"),
    "no mask": ("endovis18", Path.unlink, "1 of 2 pictures have no mask; found the first is frame000.png"),
    "one instrument's": ("endovis17", Path.unlink, "1 of 2 pictures have no mask, or not of every instrument"),
    "no frame": (
        "cholecseg8k",
        lambda path: shutil.copy(path, path.with_name("frame_99_endo_watershed_mask.png")),
        "1 files of a mask without a picture",
    ),
    "beyond": ("sar_rarp50", lambda path: shutil.copy(path, path.with_name("000099999.png")), "beyond the video's end"),
    "no instrument": (
        "endovis17",
        lambda path: shutil.copytree(path.parent, path.parents[1] / "Spoon"),
        "no instrument",
    ),
    "other legend": (
        "endovis18",
        lambda path: (path.parents[2] / "labels.json").write_text('[{"name": "thread", "color": [1, 2, 3]}]'),
        "thread: another colour of a class than the card has",
    ),
    "broken legend": ("endovis18", lambda path: (path.parents[2] / "labels.json").write_text("[{"), "labels.json"),
    "no action": ("sar_rarp50", lambda path: (path.parents[1] / "action_discrete.txt").write_text("0,8\n"), "0 to 7"),
    "actions back": (
        "sar_rarp50",
        lambda path: (path.parents[1] / "action_discrete.txt").write_text("6,1\n0,1\n"),
        "row 2: frames that do not ascend",
    ),
    "words": ("sar_rarp50", lambda path: (path.parents[1] / "action_discrete.txt").write_text("a,b\n"), "row 1"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_is_one_line(fault, tmp_path):
    name, change, said = FAULTS[fault]
    write_masks(tmp_path, name, recordings=1, frames=2, size=(32, 24), public_ids=True)
    change(tmp_path / FIRST[name])
    manifest = open_dataset(load_card(name), tmp_path)
    lines = told(manifest)
    if fault == "beyond":
        (video,) = manifest.videos
        lines = [p.error().line() for p in held_against(video, Length(120, 2.0, (32, 24)), manifest.labels["masks"])]
    (line,) = [line for line in lines if "not here" not in line and "no picture shows" not in line]
    assert re.search(said, line)
    assert "\n" not in line


def test_a_palette_png_says_the_same_as_a_grey_one(tmp_path):
    truth = write_masks(tmp_path, "sar_rarp50", recordings=1, frames=2, public_ids=True)
    path = tmp_path / FIRST["sar_rarp50"]
    mask = Image.open(path)
    coloured = Image.fromarray(np.asarray(mask))
    coloured.putpalette([0, 0, 0, *range(10, 40)])
    coloured.save(path)
    manifest = open_dataset(load_card("sar_rarp50"), tmp_path)
    classes = np.arange(1, 10)[:, None, None]
    np.testing.assert_array_equal(shown(manifest, "video_1", 0), truth["video_1"][0] == classes)


def test_frames_taken_from_a_film_are_read_in_its_place(tmp_path):
    write_masks(tmp_path, "sar_rarp50", recordings=1, frames=2, public_ids=True)
    rgb = tmp_path / "train1/video_1/rgb"
    rgb.mkdir()
    for number in (0, 6, 60):
        cv2.imwrite(str(rgb / f"{number:09d}.png"), np.zeros((48, 64, 3), np.uint8))
    manifest = open_dataset(load_card("sar_rarp50"), tmp_path)
    assert [(video.id, video.path) for video in manifest.videos] == [("video_1", rgb)]
    assert manifest.labels["masks"].values["video_1"].numbers.tolist() == [0, 60]
    assert [manifest.labels["action"].values["video_1"][n] for n in (0, 54, 60)] == [0, 0, 1]


def test_endovis17_has_masks_of_types_parts_and_both(tmp_path):
    truth = write_masks(tmp_path, "endovis17", recordings=9, frames=1, public_ids=True)
    card = load_card("endovis17")
    for kind, classes in (("parts", tuple(card.parts)), ("binary", ("instrument",))):
        manifest = open_dataset(card, tmp_path, options={"masks": kind})
        assert manifest.labels["masks"].classes == classes
        assert len(manifest.labels["masks"].values) == 9
        for video, frames in truth.items():
            for number, ids in frames.items():
                other = (ids == 1 + list(card.masks).index("other")) & ("test" not in video) & (kind == "binary")
                np.testing.assert_array_equal(shown(manifest, video, number).any(0), (ids > 0) & ~other)
    with pytest.raises(SurgdinoError, match=r"no masks='part'.*Did you mean 'parts'"):
        open_dataset(card, tmp_path, options={"masks": "part"})


def test_endoscapes_has_the_view_of_safety_and_boxes_of_the_frames_that_were_looked_at(tmp_path):
    truth = write_masks(tmp_path, "endoscapes", frames=2, public_ids=True)
    card = load_card("endoscapes")
    manifest = open_dataset(card, tmp_path, split="official")
    assert [(v.id, v.operation, v.split) for v in manifest.videos] == [
        ("1", "camma/67", "train"),
        ("5", "endoscapes/5", "train"),
        ("122", "endoscapes/122", "val"),
        ("162", "endoscapes/162", "test"),
    ]
    for video, frames in truth.items():
        for number, ids in frames.items():
            there = [int((ids == kind).any()) for kind in range(1, 7)]
            assert manifest.labels["structures"].values[video][number] == tuple(there)
            assert manifest.labels["cvs"].values[video][number] == tuple(there[:3])
            assert number + 25 not in manifest.labels["cvs"].values[video]
    assert len(numbered_images(manifest["1"].path)) == 4
    assert manifest["1"].is_image_folder
    assert manifest.labels["cvs"].classes == card.cvs


def test_a_video_that_shows_anothers_operation_goes_by_its_own_number(tmp_path):
    write_masks(tmp_path, "endoscapes", recordings=2, frames=1, public_ids=True)
    for path in (tmp_path / "train").glob("5_*"):
        path.rename(path.with_name(path.name.replace("5_", "67_", 1)))
    split = {"train": [1], "test": [67]}
    videos = open_dataset(load_card("endoscapes"), tmp_path, split=split).videos
    assert {video.operation: video.split for video in videos} == {"camma/67": "train", "endoscapes/67": "test"}


def test_a_card_without_masks_says_what_is_missing(tmp_path):
    with pytest.raises(SurgdinoError, match="dataset=x does not say what its masks are"):
        open_dataset(Card.from_dict({"name": "x", "adapter": "masks"}), tmp_path)


def test_outlines_of_cholecinstanceseg_are_of_the_operation_in_their_names(real_data):
    manifest = open_dataset(load_card("cholecinstanceseg"), real_data / "instruments")
    assert not manifest.errors
    assert manifest.operations == ("camma/3",)
    assert manifest.labels["masks"].classes == load_card("cholecinstanceseg").mask_classes
    first = shown(manifest, "t80_VID03_000150", 0).any((1, 2))
    assert first.tolist() == [True, False, True, False, False, False, False]
