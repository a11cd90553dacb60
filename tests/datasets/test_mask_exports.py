"""Masks as CVAT, COCO, LabelMe and Label Studio export them, and what such a file must not do."""

from __future__ import annotations

import base64
import io
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from surgdino.datasets.card import load_card
from surgdino.datasets.drawings import Drawing, coco_counts
from surgdino.datasets.manifest import Manifest
from surgdino.datasets.masks import read_masks
from surgdino.datasets.open import open_dataset
from surgdino.errors import SurgdinoError

CARD = load_card("folder")
SIZE = WIDTH, HEIGHT = 40, 30
LIVER = np.zeros((HEIGHT, WIDTH), bool)
LIVER[5:15, 8:20] = True
TOOL = np.zeros((HEIGHT, WIDTH), bool)
TOOL[20:26, 10:36] = True
CORNERS = {"liver": [[8, 5], [20, 5], [20, 15], [8, 15]], "tool": [[10, 20], [36, 20], [36, 26], [10, 26]]}
MASKS = {"liver": LIVER, "tool": TOOL}


def runs(mask: np.ndarray) -> list[int]:
    flat = np.concatenate([[0], mask.ravel(), [2]]).astype(int)
    edges = np.flatnonzero(np.diff(flat))
    return np.diff([0, *edges]).tolist()


def packed(counts: list[int]) -> str:
    """COCO's compressed form, as its own C code writes it."""
    text = ""
    for place, count in enumerate(counts):
        value, more = count - (counts[place - 2] if place > 2 else 0), True
        while more:
            code = value & 31
            value >>= 5
            more = value != (-1 if code & 16 else 0)
            text += chr((code | 32 if more else code) + 48)
    return text


def brush(mask: np.ndarray) -> list[int]:
    """Label Studio's form, without any run: every value by itself."""
    values = np.zeros((mask.size, 4), np.uint8)
    values[mask.ravel()] = 255
    flat = values.ravel()
    bits = f"{len(flat):032b}{7:05b}{3:04b}{7:04b}{11:04b}{15:04b}"
    place = 0
    while place < len(flat):
        same = 1
        while same < 16 and place + same < len(flat) and flat[place + same] == flat[place]:
            same += 1
        count = same if same > 1 else 1
        bits += f"{int(same > 1)}00{count - 1:04b}{flat[place]:08b}"
        place += count
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def coco(how: str) -> dict:
    def shape(name: str) -> object:
        if how == "outlines":
            return [[float(n) for point in CORNERS[name] for n in point]]
        counts = runs(MASKS[name].T)
        return {"size": [HEIGHT, WIDTH], "counts": packed(counts) if how == "packed runs" else counts}

    return {
        "images": [{"id": 7, "file_name": "p0.png", "width": WIDTH, "height": HEIGHT}],
        "categories": [{"id": 3, "name": "liver"}, {"id": 5, "name": "tool"}],
        "annotations": [
            {"id": n, "image_id": 7, "category_id": c, "segmentation": shape(name), "iscrowd": 0, "bbox": [0, 0, 1, 1]}
            for n, (c, name) in enumerate(((3, "liver"), (5, "tool")))
        ],
    }


def labelme() -> dict:
    stamp = io.BytesIO()
    Image.fromarray(np.ones((6, 26), bool)).save(stamp, "PNG")
    text = base64.b64encode(stamp.getvalue()).decode()
    shapes = [
        {"label": "liver", "points": CORNERS["liver"], "shape_type": "polygon"},
        {"label": "tool", "points": [[10, 20], [35, 25]], "shape_type": "mask", "mask": text},
        {"label": "tool", "points": [[1, 1], [2, 2]], "shape_type": "line"},
    ]
    size = {"imageWidth": WIDTH, "imageHeight": HEIGHT}
    return {"version": "5.4.1", "imagePath": "..\\pictures\\p0.png", "imageData": None, "shapes": shapes, **size}


def label_studio() -> list:
    size = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
    points = [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in CORNERS["liver"]]
    results = [
        {"id": "a", "type": "polygonlabels", "value": {"points": points, "polygonlabels": ["liver"]}, **size},
        {
            "id": "b",
            "type": "brushlabels",
            "value": {"format": "rle", "rle": brush(TOOL), "brushlabels": ["tool"]},
            **size,
        },
    ]
    data = {"image": "/data/upload/1/0a1b2c3d-p0.png"}
    return [{"id": 1, "data": data, "annotations": [{"result": results}]}, {"id": 2, "data": data, "annotations": []}]


def cvat() -> str:
    points = ";".join(f"{x:.2f},{y:.2f}" for x, y in CORNERS["liver"])
    counts = ", ".join(map(str, runs(TOOL[20:26, 10:36])))
    return f"""<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><job><size>1</size></job></meta>
<image id="0" name="p0.png" width="{WIDTH}" height="{HEIGHT}">
<polygon label="liver" source="manual" occluded="0" points="{points}" z_order="0"></polygon>
<mask label="tool" source="manual" occluded="0" rle="{counts}" left="10" top="20" width="26" height="6" z_order="0"/>
</image></annotations>"""


EXPORTS = {
    "COCO, outlines": lambda: coco("outlines"),
    "COCO, runs": lambda: coco("runs"),
    "COCO, packed runs": lambda: coco("packed runs"),
    "LabelMe": labelme,
    "Label Studio": label_studio,
    "CVAT": cvat,
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("p0.png", "p1.png"):
        Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(tmp_path / name)
    return tmp_path


def opened(root: Path, content: object, **options: str) -> Manifest:
    text = content if isinstance(content, str) else json.dumps(content)
    (root / ("export.xml" if text.startswith("<") else "export.json")).write_text(text)
    return open_dataset(CARD, root, options=options)


@pytest.mark.parametrize("kind", EXPORTS)
def test_each_tool_says_the_same(root, kind):
    manifest = opened(root, EXPORTS[kind]())
    assert manifest.errors == ()
    labels = manifest.labels["masks"]
    assert labels.classes == ("liver", "tool")
    masks, labelled = read_masks(labels.values["p0"][0], labels.classes)
    assert labelled.all()
    assert (masks[0] == LIVER).all()
    assert (masks[1] == TOOL).all()
    (note,) = manifest.notes
    assert kind.partition(",")[0] in note
    assert note.endswith("2 masks of 2 classes, 1 of 2 pictures: liver, tool")
    assert "1 of 2 pictures have no outline" in [problem.message for problem in manifest.problems]


def test_pictures_in_subfolders_and_classes_of_the_card(root):
    (root / "images/op1").mkdir(parents=True)
    for name in ("p0.png", "p1.png"):
        (root / name).rename(root / "images/op1" / name)
    content = coco("outlines")
    content["images"][0]["file_name"] = "op1/p0.png"
    manifest = opened(root, content)
    assert list(manifest.labels["masks"].values) == ["op1/p0"]
    assert {v.operation.partition("~")[0] for v in manifest.videos} == {"own/op1"}
    (root / "set").mkdir()
    (root / "images").rename(root / "set/images")
    assert opened(root, content).operations == manifest.operations, "opened one level up"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["images"][0].update(file_name="p9.png"), "1 pictures of the export are not here"),
        (lambda c: c["images"][0].update(width="40"), "a picture without a size"),
        (lambda c: c["annotations"][0].update(image_id=99), "an annotation of no picture"),
        (lambda c: c["annotations"][0].update(category_id=[1]), "an annotation of no class"),
        (
            lambda c: c["annotations"][0].update(segmentation=[[0, 0, 500, 0, 500, 20]]),
            "an outline outside of its picture",
        ),
        (lambda c: c["annotations"][0].update(segmentation=[["a", "b"]]), "not an outline"),
        (lambda c: c["annotations"][0].update(segmentation=[[10**400, 0, 5, 5, 1, 1]]), "not an outline"),
        (lambda c: c["annotations"][0].update(segmentation={"size": [3, 3], "counts": [9]}), "a mask of another size"),
        (lambda c: c["annotations"][0].update(segmentation={"size": [30, 40], "counts": "\u00e9"}), "not a mask"),
        (lambda c: c["categories"][0].update(name=None), "a shape without a label"),
        (lambda c: c["annotations"].append("x"), "an annotation of no picture"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_place(root, change, said):
    content = coco("outlines")
    change(content)
    problem = opened(root, content).errors[0]
    assert problem.message.startswith(said)
    assert problem.file == root / "export.json"
    assert problem.place is not None


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ({"size": [30, 40], "counts": [5, 5]}, "runs of 10 pixels in a box of 40x30"),
        ({"size": [30, 40], "counts": [1 << 62, 1 << 62, 1 << 62, (1 << 62) + 1200]}, "pixels in a box"),
        ({"size": [30, 40], "counts": [1300, -100]}, "pixels in a box"),
    ],
)
def test_masks_that_cannot_be_drawn(root, shape, said):
    content = coco("outlines")
    content["annotations"][0]["segmentation"] = shape
    frame = opened(root, content).labels["masks"].values["p0"][0]
    with pytest.raises(Exception, match=rf"export\.json, images\[0\], liver: a mask that cannot be drawn.*{said}"):
        read_masks(frame, ["liver"])


def test_a_picture_of_another_size(root):
    Image.fromarray(np.zeros((WIDTH, HEIGHT, 3), np.uint8)).save(root / "p0.png")
    frame = opened(root, cvat()).labels["masks"].values["p0"][0]
    with pytest.raises(Exception, match="drawn on a picture of another size; expected 30x40"):
        read_masks(frame, ["liver"])


BOMB = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "xxxxxxxx">]><annotations>&b;</annotations>'


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (BOMB, "declares a document type or entities"),
        ("<annotations><image", "not valid XML"),
        ("<annotations>" * 50, "nested too deeply"),
        ("[" * 100_000, "nested too deeply"),
        ('{"images": [NaN], "annotations": []}', "not valid JSON"),
    ],
)
def test_files_that_are_refused_whole(root, content, said):
    (root / ("x.xml" if content.startswith("<") else "x.json")).write_text(content)
    (problem,) = open_dataset(CARD, root).errors
    assert said in problem.error().line()


def test_a_pipe_and_too_many_classes(root):
    os.mkfifo(root / "pipe.json")
    assert "found a named pipe" in opened(root, coco("runs")).errors[0].error().line()
    content = coco("outlines")
    content["categories"] = [{"id": n, "name": f"c{n}"} for n in range(300)]
    content["annotations"] = [dict(content["annotations"][0], category_id=n) for n in range(300)]
    with pytest.raises(SurgdinoError, match="too many classes; expected at most 254, found 300"):
        opened(root, content)


def test_what_is_no_mask_is_said(root):
    tasks = [{"id": 1, "data": {"video": "p0.mp4"}, "annotations": [{"result": [{"type": "timelinelabels"}]}]}]
    assert "found timelinelabels" in opened(root, tasks).problems[-1].error().line()


def test_other_json_files_are_none_of_ours(root):
    for number, content in enumerate(({}, [], [1], {"images": 5, "annotations": []}, {"version": 1}, 7)):
        (root / f"{number}.json").write_text(json.dumps(content))
    assert open_dataset(CARD, root).errors == ()


def test_two_spellings_of_a_class(root):
    content = coco("outlines")
    content["categories"][1]["name"] = "Liver"
    assert any(p.message.startswith("two spellings of one label") for p in opened(root, content).problems)


def test_runs_of_coco_both_ways():
    counts = runs(LIVER.T)
    assert coco_counts(packed(counts)).tolist() == counts
    with pytest.raises(ValueError, match="not COCO"):
        coco_counts("~" * 30)


def test_outlines_cover_the_pixels_whose_greater_part_lies_inside():
    from surgdino.datasets.drawings import Outline

    circle = np.stack([20 + 9.7 * np.cos(np.arange(0, 6.28, 0.02)), 15 + 9.7 * np.sin(np.arange(0, 6.28, 0.02))], 1)
    mask = Drawing(Path("x"), "", SIZE, (Outline(circle),)).draw(*SIZE)
    assert mask.sum() == pytest.approx(np.pi * 9.7**2, rel=0.03)
    beyond = Drawing(Path("x"), "", SIZE, (Outline(circle + 14), Outline(circle + 400))).draw(*SIZE)
    assert 0 < beyond.sum() < mask.sum()
    assert cv2.connectedComponents(mask.astype(np.uint8))[0] == 2
