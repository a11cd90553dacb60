"""Single objects in COCO, LabelMe, CholecT50 and Endoscapes, and masks taken apart by region."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from surgdino.datasets.card import load_card
from surgdino.datasets.cvat import read_cvat
from surgdino.datasets.files import image_size
from surgdino.datasets.manifest import Labels, Manifest
from surgdino.datasets.objects import Objects, read_objects
from surgdino.datasets.open import open_dataset
from surgdino.datasets.synthetic.cholect50 import write_cholect50
from surgdino.datasets.synthetic.masks import write_masks
from surgdino.errors import SurgdinoError
from tests.datasets.object_sets import CLASSES, write_objects

SIZE = 64, 48


def labels_in(manifest: Manifest) -> Labels:
    found = manifest.labels_for("objects")
    assert found is not None
    return found


def objects_in(manifest: Manifest, video: str, number: int = 0, size: tuple[int, int] = SIZE) -> Objects:
    labels = labels_in(manifest)
    return read_objects(labels.values[video].frames[number], labels.classes, size)  # type: ignore[union-attr]


def opened(root: Path, name: str = "folder") -> Manifest:
    return open_dataset(load_card(name), root)


@pytest.fixture(scope="module")
def coco(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("coco")
    write_objects(root, 8)
    return root


def changed(coco: Path, folder: Path, change) -> Manifest:
    (folder / "images").symlink_to(coco / "images")
    content = json.loads((coco / "annotations.json").read_text())
    change(content)
    (folder / "annotations.json").write_text(json.dumps(content))
    return opened(folder)


@pytest.mark.parametrize("layout", ["coco", "labelme"])
def test_each_object_has_its_class_box_and_mask_and_an_empty_picture_is_labelled(tmp_path, layout):
    truth = write_objects(tmp_path, 8, layout=layout)
    manifest = opened(tmp_path)
    assert manifest.errors == ()
    labels = labels_in(manifest)
    assert labels.classes == CLASSES
    assert len(labels.values) == 8, "the pictures without an object too"
    for name, expected in truth.items():
        found = objects_in(manifest, Path(name).stem)
        assert [CLASSES[kind] for kind in found.classes] == [kind for kind, _ in expected]
        for (_, mask), own, box in zip(expected, found.masks, found.boxes, strict=True):
            assert own is not None
            assert (own & mask).sum() / (own | mask).sum() > 0.8
            assert box == pytest.approx(cv2.boundingRect(mask.astype(np.uint8)), abs=1)
    assert len(objects_in(manifest, "case005").classes) == 0


def test_a_class_that_is_listed_and_never_drawn_is_a_class(coco, tmp_path):
    manifest = changed(coco, tmp_path, lambda c: c["categories"].append({"id": 5, "name": "clipper"}))
    labels = labels_in(manifest)
    assert labels.classes == ("clipper", *CLASSES)
    assert labels.values["case000"].array[:, 0].tolist() == [0]


def test_crowds_boxes_alone_and_boxes_without_extent(coco, tmp_path):
    def change(content: dict) -> None:
        first = next(row for row in content["annotations"] if row["image_id"] == 100)
        first["iscrowd"] = 1
        content["annotations"] += [
            {"id": 90, "image_id": 100, "category_id": 10, "bbox": [1, 2, 30, 40]},
            {"id": 91, "image_id": 100, "category_id": 10, "bbox": [1, 2, 0, 40]},
        ]

    manifest = changed(coco, tmp_path, change)
    assert [p.message for p in manifest.problems if "extent" in p.message] == ["boxes without extent are left out"]
    found = objects_in(manifest, "case000")
    assert found.crowd.tolist().count(True) == 1
    assert found.boxes[-1].tolist() == [1, 2, 30, 40]
    assert found.masks[-1] is None
    assert any("1 boxes without a mask: grasper" in note for note in manifest.notes)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c: c["annotations"][0].update(bbox=[1, 2, -3, 4]), "a box of negative size"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 300, 4]), "a box outside of its picture"),
        (lambda c: c["annotations"][0].update(bbox=["1", 2, 3, 4]), "not a box"),
        (lambda c: c["annotations"][0].update(bbox=[True, 2, 3, 4]), "not a box"),
        (lambda c: c["annotations"][0].update(bbox=[10**400, 2, 3, 4]), "a box outside of its picture"),
        (lambda c: c["annotations"][0].update(iscrowd=7), "neither one object nor a crowd"),
        (
            lambda c: c["annotations"].append({"id": 99, "image_id": 100, "category_id": 10}),
            "an annotation without box",
        ),
    ],
)
def test_a_box_that_cannot_be_is_an_error_with_its_place(coco, tmp_path, change, told):
    problem = changed(coco, tmp_path, change).errors[0]
    assert problem.message.startswith(told)
    assert str(problem.place).startswith("annotations[")
    assert problem.file == tmp_path / "annotations.json"


def test_a_picture_of_another_size_is_refused_by_name(coco):
    with pytest.raises(SurgdinoError, match=r"annotations\.json, images\[0\]: drawn on a picture of another size"):
        objects_in(opened(coco), "case000", size=(10, 10))


def test_outlines_of_one_group_are_one_instrument_and_rectangles_are_boxes(tmp_path):
    cv2.imwrite(str(tmp_path / "p0.png"), np.zeros((48, 64, 3), np.uint8))
    square = [[2, 2], [12, 2], [12, 12], [2, 12]]
    beside = [[x + 20, y] for x, y in square]
    shapes = [
        {"label": "grasper", "points": square, "shape_type": "polygon", "group_id": 1},
        {"label": "grasper", "points": beside, "shape_type": "polygon", "group_id": 1},
        {"label": "grasper", "points": beside, "shape_type": "polygon", "group_id": None},
        {"label": "hook", "points": [[40, 30], [20, 10]], "shape_type": "rectangle", "group_id": 1},
    ]
    content = {"imagePath": "p0.png", "imageWidth": 64, "imageHeight": 48, "shapes": shapes}
    (tmp_path / "p0.json").write_text(json.dumps(content))
    found = objects_in(opened(tmp_path), "p0")
    assert found.boxes.tolist() == [[2, 2, 30, 10], [22, 2, 10, 10], [20, 10, 20, 20]]
    assert [None if mask is None else int(mask.sum()) for mask in found.masks] == [200, 100, None]


def test_boxes_as_cvat_tracks_them_and_label_studio_has_them(tmp_path):
    cv2.imwrite(str(tmp_path / "p0.png"), np.zeros((40, 100, 3), np.uint8))
    box = {"x": 10, "y": 25, "width": 50, "height": 50, "rectanglelabels": ["hook"]}
    shape = {"type": "rectanglelabels", "value": box, "original_width": 100, "original_height": 40}
    task = [{"id": 1, "data": {"image": "p0.png"}, "annotations": [{"result": [shape]}]}]
    (tmp_path / "a.json").write_text(json.dumps(task))
    assert objects_in(opened(tmp_path), "p0", 0, (100, 40)).boxes.tolist() == [[10, 10, 50, 20]]
    corners = 'outside="0" xtl="{0}" ytl="10" xbr="{1}" ybr="20"/>'
    ends = "".join(f'<box frame="{n}" keyframe="1" {corners.format(x, x + 20)}' for n, x in ((0, 10), (2, 30)))
    meta = "<meta><task><size>3</size><original_size><width>64</width><height>48</height></original_size></task></meta>"
    text = f'<annotations>{meta}<track id="0" label="hook">{ends}</track></annotations>'
    (export,) = read_cvat(tmp_path / "b.xml", text.encode()).films
    drawn = [next(iter(export.frames[number].objects.values())).box for number in range(3)]
    assert drawn == [(10, 10, 20, 10), (20, 10, 20, 10), (30, 10, 20, 10)]


def test_boxes_of_cholect50_and_frames_of_which_an_instrument_has_none(tmp_path):
    write_cholect50(tmp_path, (1,), frames=4, public_ids=True)
    file = tmp_path / "labels" / "VID01.json"
    assert "objects" not in opened(tmp_path, "cholect50").labels, "the full release has no coordinates"
    content = json.loads(file.read_text())
    row = [17, 0, 1, 0.25, 0.5, 0.5, 0.25, 1, 0, 1, -1, -1, -1, -1, 0]
    twice, bare = [*row[:7], 0, *row[8:]], [*row[:3], -1, -1, -1, -1, *row[7:]]
    beyond = [*row[:3], 0.9, 0.5, 0.5, 0.25, *row[7:]]
    content["annotations"] = {"0": [row, twice], "1": [row, bare], "2": [[-1] * 14 + [0]], "3": [beyond]}
    file.write_text(json.dumps(content))
    manifest = opened(tmp_path, "cholect50")
    labels = labels_in(manifest)
    assert labels.classes == load_card("cholect50").instruments
    assert labels.values["VID01"].numbers.tolist() == [0, 2]  # type: ignore[union-attr]
    assert objects_in(manifest, "VID01", 0, (100, 40)).boxes.tolist() == [[25, 20, 50, 10]]
    assert len(objects_in(manifest, "VID01", 2).classes) == 0
    (problem,) = (p for p in manifest.problems if "not a box" in p.message)
    assert (problem.place, problem.severity) == ("frame 3, row 1, values 4 to 7", "warning")


def test_boxes_of_endoscapes_and_its_masks_by_instance_in_their_place(tmp_path):
    truth = write_masks(tmp_path, "endoscapes", frames=2, public_ids=True)
    manifest, classes = opened(tmp_path, "endoscapes"), load_card("endoscapes").mask_classes
    assert labels_in(manifest).classes == classes
    number, ids = next(iter(truth["1"].items()))
    size = ids.shape[1], ids.shape[0]
    found = objects_in(manifest, "1", number, size)
    assert sorted(found.classes + 1) == sorted({*np.unique(ids).tolist()} - {0})
    assert all(mask is None for mask in found.masks)
    seg, name = tmp_path / "train_seg", f"1_{number}.jpg"
    seg.mkdir()
    row = {"id": 1, "image_id": 3, "category_id": 6, "segmentation": [[5, 5, 20, 5, 20, 20]], "iscrowd": 0}
    image = {"id": 3, "file_name": name, "width": size[0], "height": size[1]}
    content = {"images": [image], "categories": [{"id": 6, "name": "tool"}], "annotations": [row]}
    (seg / "annotation_coco.json").write_text(json.dumps(content))
    again = opened(tmp_path, "endoscapes")
    found = objects_in(again, "1", number, size)
    assert [classes[kind] for kind in found.classes] == ["tool"]
    assert found.masks[0] is not None
    structures = manifest.labels["structures"].values["1"].array  # type: ignore[union-attr]
    assert (again.labels["structures"].values["1"].array == structures).all()  # type: ignore[union-attr]


def test_masks_of_classes_are_taken_apart_by_region_without_specks(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    mask = np.zeros((100, 100), np.uint8)
    mask[10:30, 10:30] = mask[50:60, 50:80] = mask[90, 90] = 255
    for name in ("a0.png", "b1.png"):
        cv2.imwrite(str(tmp_path / "images" / name), np.zeros((100, 100, 3), np.uint8))
        cv2.imwrite(str(tmp_path / "masks" / name), mask * (name == "a0.png"))
    manifest = opened(tmp_path)
    assert objects_in(manifest, "a0").boxes.tolist() == [[10, 10, 20, 20], [50, 50, 30, 10]]
    assert len(objects_in(manifest, "b1").classes) == 0


@pytest.mark.real
def test_objects_of_the_real_sets(real_data):
    boxes = opened(real_data / "cholect50", "cholect50")
    assert {v: len(each) for v, each in labels_in(boxes).values.items()} == {"VID68": 243, "VID73": 160, "VID75": 120}
    outlines = opened(real_data / "instruments", "cholecinstanceseg")
    path = outlines["t80_VID03_000090"].path
    found = objects_in(outlines, "t80_VID03_000090", 0, image_size(path))
    assert len(found.classes) == 3
    assert all(mask is not None for mask in found.masks)
