"""COCO's numbers are pycocotools' own, for boxes and masks; what people hand in is refused by file and row."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from surgdino.cli.main import main
from surgdino.errors import SurgdinoError
from surgdino.tasks.instances.coco import read_found, read_truth
from surgdino.tasks.instances.fusion import fused
from surgdino.tasks.instances.score import scored

NAMES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR1", "AR10", "AR100")  # as pycocotools lists them
SIZE = 240, 160


def box(rng: np.random.Generator) -> list[float]:
    sides = rng.choice([12, 40, 110], 2) * rng.uniform(0.8, 1.2, 2)
    return [*(float(n) for n in rng.uniform(0, np.array(SIZE) - sides)), *(float(n) for n in sides)]


def outline(sides: list[float]) -> list[list[float]]:
    left, top, width, height = sides
    return [[left, top, left + width, top, left + width, top + height, left, top + 0.7 * height]]


def drawn(seed: int = 0, images: int = 14, crowds: float = 0.1) -> tuple[dict, list[dict]]:
    """A truth and results: pictures and classes without objects, crowds, ties in scores, objects found twice."""
    rng = np.random.default_rng(seed)
    truth: dict = {"images": [], "annotations": []}
    truth["categories"] = [{"id": k, "name": name} for k, name in ((7, "hook"), (2, "grasper"), (5, "never seen"))]
    found = []
    for number in range(images):
        image = 1000 - 13 * number
        truth["images"].append(
            {"id": image, "file_name": f"op{number % 3}/{number:04d}.png", "width": 240, "height": 160}
        )
        for _ in range(rng.integers(0, 5)):
            sides, kind = box(rng), int(rng.choice([7, 2]))
            row = {"id": len(truth["annotations"]), "image_id": image, "category_id": kind, "bbox": sides}
            row |= {
                "area": sides[2] * sides[3] * 0.85,
                "iscrowd": int(rng.random() < crowds),
                "segmentation": outline(sides),
            }
            if row["iscrowd"]:
                runs = masks.merge(masks.frPyObjects(outline(sides), 160, 240))
                row["segmentation"] = {"size": runs["size"], "counts": runs["counts"].decode()}
            truth["annotations"].append(row)
            for _ in range(rng.integers(0, 3)):
                moved = [max(0.0, n + rng.normal(0, 3)) for n in sides]
                found.append({"image_id": image, "category_id": kind, "bbox": moved, "score": round(rng.random(), 1)})
        for _ in range(rng.integers(0, 3)):
            kind, sides = int(rng.choice([7, 2, 5])), box(rng)
            found.append({"image_id": image, "category_id": kind, "bbox": sides, "score": round(rng.random(), 1)})
    return truth, found


def with_masks(found: list[dict]) -> list[dict]:
    rows = []
    for row in found:
        runs = masks.merge(masks.frPyObjects(outline(row["bbox"]), 160, 240))
        rows.append(
            {
                **{k: v for k, v in row.items() if k != "bbox"},
                "segmentation": {**runs, "counts": runs["counts"].decode()},
            }
        )
    return rows


def oracle(truth: dict, found: list[dict], kind: str) -> dict[str, float]:
    """pycocotools' summary. Its annotations count from 1: it takes the id 0 for no match."""
    with contextlib.redirect_stdout(io.StringIO()):
        side = COCO()
        side.dataset = {**truth, "annotations": [{**row, "id": row["id"] + 1} for row in truth["annotations"]]}
        side.createIndex()
        evaluation = COCOeval(side, side.loadRes(json.loads(json.dumps(found))), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(NAMES, evaluation.stats, strict=False))


def written(folder: Path, truth: object, found: object) -> tuple[Path, Path]:
    for name, content in (("truth", truth), ("results", found)):
        (folder / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder / "truth.json", folder / "results.json"


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_the_numbers_are_pycocotools_own(tmp_path, kind, seed):
    truth, found = drawn(seed)
    found = with_masks(found) if kind == "segm" else found
    files = written(tmp_path, truth, found)
    read = read_truth(files[0])
    scores = scored(read, read_found(files[1], read), ["op"] * len(read.images))
    protocol = "instances/coco-mask" if kind == "segm" else "instances/coco-box"
    ours = {row.name: row.value for row in scores.table if row.protocol == protocol}
    expected = {name: np.nan if value == -1 else value for name, value in oracle(truth, found, kind).items()}
    assert ours == {name: pytest.approx(expected[name], abs=1e-12, nan_ok=True) for name in ours}
    assert {"AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR100"} == set(ours)


def test_an_operations_number_is_that_of_its_pictures_alone(tmp_path):
    truth, found = drawn(3, 18)
    files = written(tmp_path, truth, found)
    out = tmp_path / "out"
    assert main(["score", "task=instances", f"truth={files[0]}", f"predictions={files[1]}", f"out={out}"]) == 0
    results = json.loads((out / "results.json").read_text())
    row = next(row for row in results["scores"] if row["name"] == "AP")
    assert row["value"] == pytest.approx(oracle(truth, found, "bbox")["AP"], abs=1e-12)
    for operation in ("op0", "op1", "op2"):
        ids = {image["id"] for image in truth["images"] if image["file_name"].startswith(operation)}
        images = [image for image in truth["images"] if image["id"] in ids]
        some = [each for each in truth["annotations"] if each["image_id"] in ids]
        own = oracle(
            {**truth, "images": images, "annotations": some}, [f for f in found if f["image_id"] in ids], "bbox"
        )
        assert row["per_operation"][operation] == pytest.approx(own["AP"], abs=1e-12)
    rows = results["classes"][0]["rows"]
    assert rows["never seen"]["AP"] is None
    assert rows["never seen"]["objects"] == 0


def test_nothing_found_and_nothing_to_find(tmp_path):
    truth, _ = drawn(0)
    files = written(tmp_path, truth, [])
    read = read_truth(files[0])
    assert scored(read, read_found(files[1], read), ["op"] * 14).headline == ("AP", 0.0)
    bare = {**truth, "annotations": []}
    files = written(tmp_path, bare, [{"image_id": 1000, "category_id": 7, "bbox": [1, 1, 5, 5], "score": 0.9}])
    read = read_truth(files[0])
    scores = scored(read, read_found(files[1], read), ["op"] * 14)
    assert np.isnan(scores.headline[1])
    counts = np.array(scores.confusions[0].counts)
    assert counts[-1].sum() == counts.sum() == 1


def test_each_detection_is_right_once_and_taken_for_what_it_lies_on(tmp_path):
    truth, _ = drawn(0, 1)
    sides = [10.0, 10.0, 50.0, 50.0]
    truth["annotations"] = [{"id": 0, "image_id": 1000, "category_id": 7, "bbox": sides, "area": 2500, "iscrowd": 0}]
    rows = [{"image_id": 1000, "category_id": k, "bbox": sides, "score": s} for k, s in ((2, 0.9), (7, 0.8), (7, 0.1))]
    files = written(tmp_path, truth, rows)
    read = read_truth(files[0])
    scores = scored(read, read_found(files[1], read), ["op"], named=[("v", 3)])
    assert read.classes == ("grasper", "never seen", "hook")
    assert [list(row) for row in scores.confusions[0].counts] == [[0] * 4, [0] * 4, [1, 0, 0, 0], [0, 0, 1, 0]]
    assert scores.frames is not None
    assert scores.frames.rows == [("v", 3, pytest.approx(2 / 3), "", "")]


RUNS = {"size": [160, 240], "counts": [0, 160 * 240]}
FAULTS = [
    ("truth", lambda t, f: t.pop("images"), "not COCO's form"),
    ("truth", lambda t, f: t["images"][1].update(id="7"), r"images\[1\]: no id; expected a whole number, found '7'"),
    ("truth", lambda t, f: t["images"][1].update(id=t["images"][0]["id"]), r"images\[1\]: an id twice"),
    ("truth", lambda t, f: t["images"][2].update(width=0), r"images\[2\]: an image without its size"),
    ("truth", lambda t, f: t["images"][2].update(file_name=None), r"images\[2\]: an image without a name"),
    ("truth", lambda t, f: t["categories"][1].update(name="hook"), "two categories of one name"),
    ("truth", lambda t, f: t["annotations"].append(5), r"annotations\[\d+\]: not a row"),
    (
        "truth",
        lambda t, f: t["annotations"][3].update(image_id=5),
        r"annotations\[3\], image_id: of an image that is not",
    ),
    (
        "truth",
        lambda t, f: t["annotations"][3].update(category_id=True),
        r"annotations\[3\], category_id: of a category",
    ),
    ("truth", lambda t, f: t["annotations"][0].update(bbox=[1, 2, -3, 4]), r"annotations\[0\], bbox: not a box.*-3"),
    ("truth", lambda t, f: t["annotations"][0].update(bbox=[1, 2, 3]), r"annotations\[0\], bbox: not a box"),
    ("truth", lambda t, f: t["annotations"][0].update(iscrowd=2), "neither one object nor a crowd"),
    (
        "truth",
        lambda t, f: t["annotations"][0].update(segmentation=[[1, 2, 3, 4]]),
        "not an outline; expected x, y of three",
    ),
    ("truth", lambda t, f: t["annotations"][0].update(segmentation={**RUNS, "size": [3, 3]}), "a mask of another size"),
    ("truth", lambda t, f: t["annotations"][0].update(segmentation={**RUNS, "counts": [5]}), "runs that do not fill"),
    ("truth", lambda t, f: t["annotations"][0].update(segmentation={**RUNS, "counts": "~~~"}), "runs that do not fill"),
    ("truth", lambda t, f: t["annotations"][0].update(segmentation={**RUNS, "counts": [1 << 70]}), "runs that do not"),
    ("truth", lambda t, f: t["annotations"][0].update(segmentation={**RUNS, "counts": [[1]]}), "runs that do not"),
    ("results", lambda t, f: f.append([1]), r"row \d+: not a row"),
    ("results", lambda t, f: f[0].update(score=None), "row 1, score: not a number"),
    ("results", lambda t, f: f[0].pop("bbox"), "row 1: neither a box nor a mask"),
    ("results", lambda t, f: f[0].update(category_id=99), "row 1, category_id: of a category.*expected one of 2, 5, 7"),
    ("results", lambda t, f: f[0].update(bbox=["1", 2, 3, 4]), "row 1, bbox: not a box"),
]


@pytest.mark.parametrize(("side", "change", "told"), FAULTS, ids=[f"{n}-{each[0]}" for n, each in enumerate(FAULTS)])
def test_a_malformed_file_is_one_line_with_its_row(tmp_path, side, change, told):
    truth, found = drawn(0, 4)
    change(truth, found)
    files = written(tmp_path, truth, found)
    with pytest.raises(SurgdinoError, match=told) as error:
        read_found(files[1], read_truth(files[0]))
    line = error.value.line()
    assert str(tmp_path / f"{side}.json") in line
    assert "\n" not in line


@pytest.mark.parametrize("text", ["", "{", "[NaN]", '[{"image_id": 1000, "category_id": 7, "score": Infinity}]', "{}"])
def test_results_that_are_no_list_of_numbers(tmp_path, text):
    files = written(tmp_path, drawn(0, 4)[0], text)
    with pytest.raises(SurgdinoError, match=r"results\.json"):
        read_found(files[1], read_truth(files[0]))


def test_a_box_without_extent_counts_as_in_pycocotools(tmp_path):
    truth, found = drawn(0, 6, crowds=0)
    truth["annotations"][0] |= {"bbox": [10, 10, 0, 20], "area": 0, "segmentation": []}
    files = written(tmp_path, truth, found)
    read = read_truth(files[0])
    scores = scored(read, read_found(files[1], read), ["op"] * 6)
    assert scores.headline[1] == pytest.approx(oracle(truth, found, "bbox")["AP"], abs=1e-12)


def test_masks_are_asked_of_both_sides(tmp_path, capsys):
    truth, found = drawn(0, 6)
    files = written(tmp_path, truth, found)
    words = ["score", "task=instances", f"truth={files[0]}", f"predictions={files[1]}"]
    assert main([*words, "protocol=coco-mask"]) == 2
    assert "the results have no mask" in capsys.readouterr().err
    written(tmp_path, truth, [*with_masks(found[:3]), *found[3:]])
    assert main(words) == 2
    assert "some results have a mask and some have none" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["every=2", "classes=[grasper]", "missing=ignore", "extra=ignore"])
def test_what_coco_files_say_themselves_is_refused_and_not_ignored(tmp_path, capsys, word):
    files = written(tmp_path, *drawn(0, 6))
    assert main(["score", "task=instances", f"truth={files[0]}", f"predictions={files[1]}", word]) == 2
    assert f"{word.partition('=')[0]}: COCO's files say it themselves" in capsys.readouterr().err


def test_detections_of_several_members_are_one_where_they_overlap():
    rows = [
        {"category_id": 1, "score": s, "bbox": [x, 10.0, 20.0, 20.0], "area": 400.0}
        for s, x in ((0.9, 10.0), (0.6, 12.0))
    ]
    other = {"category_id": 2, "score": 0.5, "bbox": [10.0, 10.0, 20.0, 20.0], "area": 400.0}
    found = fused([[rows[0]], [rows[1], other]])
    assert [(row["category_id"], row["score"]) for row in found] == [(1, 0.75), (2, 0.25)]
    assert found[0]["bbox"] == [10.8, 10.0, 20.0, 20.0]
    assert fused([[], []]) == []
