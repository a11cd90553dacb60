"""What labelling tools export, damaged or by hand: COCO, CVAT, LabelMe, Label Studio; and COCO results to be scored."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tests.campaigns.hostile.case import Case, either, refused, shows
from tests.campaigns.hostile.making import VERIFY, anew, operations, picture, png_bomb

NUMBERS: dict[str, Any] = {
    "null": None,
    "a text": "7",
    "a flag": True,
    "a list": [],
    "a mapping": {},
    "negative": -7,
    "half": 7.5,
    "huge": 10**30,
    "1e300": 1e300,
}
Row = dict[str, Any]
_SCORE = ("score", "task=instances", "truth=truth.json", "predictions=found.json")


def cases() -> Iterator[Case]:
    told = either(refused("labels|masks|export"), shows("labels|p0"))
    for name, content in _coco().items():
        yield Case("COCO exports", name, partial(_beside, "labels.json", content), VERIFY, told)
    for name, content in _labelme().items():
        yield Case("LabelMe exports", name, partial(_beside, "labels.json", content), VERIFY, told)
    for name, content in _studio().items():
        yield Case("Label Studio exports", name, partial(_beside, "labels.json", content), VERIFY, told)
    for name, content in _cvat().items():
        yield Case("CVAT exports", name, partial(_beside_videos, content), anew(*VERIFY), told)
    for name, (truth, found) in _results().items():
        made = partial(_scored, truth, found)
        yield Case(
            "scored objects", name, made, _SCORE, either(shows("AP|objects"), refused(r"truth\.json|found\.json"))
        )


def _beside(file: str, content: bytes, folder: Path) -> None:
    (folder / "d").mkdir()
    for number in range(3):
        picture(number).save(folder / "d" / f"p{number:02d}.png")
    (folder / "d" / file).write_bytes(content)


def _beside_videos(content: bytes, folder: Path) -> None:
    operations(folder / "d", 2)
    (folder / "d" / "labels.xml").write_bytes(content)


def _scored(truth: Any, found: Any, folder: Path) -> None:
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "found.json").write_text(json.dumps(found))


def _sound_coco() -> Row:
    square = [10, 10, 40, 10, 40, 40, 10, 40]
    return {
        "images": [{"id": n, "file_name": f"p{n:02d}.png", "width": 96, "height": 64} for n in range(3)],
        "categories": [{"id": 1, "name": "tool"}, {"id": 2, "name": "organ"}],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1, "bbox": [10, 10, 30, 30], "segmentation": [square], "iscrowd": 0}
            for n in range(3)
        ],
    }


def _changed(change: Callable[[Row], object]) -> bytes:
    content = _sound_coco()
    change(content)
    return json.dumps(content).encode()


def _shape(value: Any) -> bytes:
    return _changed(lambda c: c["annotations"][1].update(segmentation=value))


def _coco() -> dict[str, bytes]:
    made = {"sound": _changed(lambda c: None)}
    for part, keys in (
        ("images", ("id", "file_name", "width", "height")),
        ("categories", ("id", "name")),
        ("annotations", ("image_id", "category_id", "bbox", "segmentation", "iscrowd")),
    ):
        for key in keys:
            for name, value in NUMBERS.items():
                made[f"{part}.{key} is {name}"] = _changed(lambda c, p=part, k=key, v=value: c[p][1].update({k: v}))
            made[f"{part}.{key} is missing"] = _changed(lambda c, p=part, k=key: c[p][1].pop(k))
        made[f"{part} is a mapping"] = _changed(lambda c, p=part: c.update({p: {"0": c[p][0]}}))
        made[f"{part} holds texts"] = _changed(lambda c, p=part: c.update({p: ["x", None, 5]}))
        made[f"{part} is empty"] = _changed(lambda c, p=part: c.update({p: []}))
        made[f"{part} twice"] = _changed(lambda c, p=part: c[p].extend(c[p]))
    shapes: dict[str, Any] = {
        "a polygon of one point": [[5, 5]],
        "a polygon of an odd count": [[1, 2, 30, 4, 5, 6, 7]],
        "a polygon outside": [[-500, -500, 900, -500, 900, 900]],
        "a polygon of texts": [["a", "b", "c", "d", "e", "f"]],
        "a polygon that crosses itself": [[5, 5, 60, 50, 60, 5, 5, 50]],
        "a polygon of 200,000 points": [[n % 60 for n in range(400_000)]],
        "a polygon without extent": [[5, 5, 5, 5, 5, 5]],
        "polygons deep": json.loads("[" * 60 + "]" * 60),
        "runs of another size": {"size": [640, 960], "counts": [640 * 960]},
        "runs too short": {"size": [64, 96], "counts": [5, 5]},
        "runs too long": {"size": [64, 96], "counts": [0, 10**12]},
        "runs negative": {"size": [64, 96], "counts": [-5, 64 * 96 + 5]},
        "runs of texts": {"size": [64, 96], "counts": ["5", "x"]},
        "runs of halves": {"size": [64, 96], "counts": [0.5, 6143.5]},
        "runs packed badly": {"size": [64, 96], "counts": "\u00ff\u0100zz~~~"},
        "runs packed huge": {"size": [64, 96], "counts": "o" * 20 + "0"},
        "runs empty": {"size": [64, 96], "counts": []},
        "runs without a size": {"counts": [6144]},
        "runs of a mapping": {"size": [64, 96], "counts": {"a": 1}},
    }
    made |= {name: _shape(value) for name, value in shapes.items()}
    boxes = {
        "of negative sides": [40, 40, -20, -20],
        "outside": [500, 500, 30, 30],
        "of NaN": "NaN",
        "of three": [1, 2, 3],
    }
    for name, value in boxes.items():
        made[f"a box {name}"] = _changed(lambda c, v=value: c["annotations"][1].update(bbox=v, segmentation=[]))
    names = {
        "leads out": "../../p01.png",
        "is absolute": "/etc/passwd",
        "has a null character": "p01\0.png",
        "of Windows": "C:\\Users\\anna\\p01.png",
        "in capitals": "P01.PNG",
        "a link's": "https://x/p01.png?token=1",
        "of escape codes": "p01\x1b[31m.png",
        "of right to left": "p\u202e01.png",
        "of a lone surrogate": "p01\ud800.png",
        "of 100,000 letters": "p" * 100_000,
    }
    for name, value in names.items():
        made[f"a name {name}"] = _changed(lambda c, v=value: c["images"][1].update(file_name=v))
        made[f"a class {name}"] = _changed(lambda c, v=value: c["categories"][0].update(name=v))
    text = json.dumps(_sound_coco())
    made |= {
        "NaN": text.replace("[10, 10, 30, 30]", "[NaN, 10, Infinity, 30]").encode(),
        "keys twice": text.replace('"images"', '"images": [], "images"', 1).encode(),
        "UTF-16": text.encode("utf-16"),
        "byte order mark": text.encode("utf-8-sig"),
        "cut": text[: len(text) // 2].encode(),
        "two documents": (text + text).encode(),
        "a comma at the end": text[:-1].encode() + b",}",
        "comments": b"// by hand\n" + text.encode(),
        "null characters": text.encode() + bytes(100),
        "two names of one picture": _changed(lambda c: c["images"][1].update(file_name="p00.png")),
        "300 classes": _changed(_many_classes),
        "a million annotations": _changed(lambda c: c.update(annotations=c["annotations"][:1] * 100_000)),
    }
    return made


def _many_classes(content: Row) -> None:
    content["categories"] = [{"id": n, "name": f"class {n}"} for n in range(300)]
    square = content["annotations"][0]["segmentation"]
    content["annotations"] = [{"image_id": 0, "category_id": n, "segmentation": square} for n in range(300)]


def _labelme() -> dict[str, bytes]:
    def made(**changes: Any) -> bytes:
        shape = {"label": "tool", "shape_type": "polygon", "points": [[10, 10], [40, 10], [40, 40]], "group_id": None}
        shape |= {key: value for key, value in changes.items() if key in (*shape, "mask")}
        head = {"imagePath": "p01.png", "imageWidth": 96, "imageHeight": 64, "imageData": None}
        head |= {key: value for key, value in changes.items() if key in head}
        return json.dumps({"version": "5", **head, "shapes": [shape]}).encode()

    bomb = base64.b64encode(png_bomb(30000, 30000)).decode()
    small = base64.b64encode(png_bomb(30, 30)).decode()
    found = {"sound": made(), "sound mask": made(shape_type="mask", points=[[5, 5], [35, 35]], mask=small)}
    for key in ("label", "points", "group_id", "imagePath", "imageWidth", "shape_type"):
        for name, value in NUMBERS.items():
            found[f"{key} is {name}"] = made(**{key: value})
    found |= {
        "a rectangle of one point": made(shape_type="rectangle", points=[[1, 2]]),
        "a rectangle backwards": made(shape_type="rectangle", points=[[40, 40], [10, 10]]),
        "a circle": made(shape_type="circle", points=[[1, 2], [3, 4]]),
        "a mask that is a bomb": made(shape_type="mask", points=[[0, 0]], mask=bomb),
        "a mask that is no picture": made(shape_type="mask", points=[[0, 0]], mask="AAAA"),
        "a mask that is no text": made(shape_type="mask", points=[[0, 0]], mask=5),
        "a mask outside": made(shape_type="mask", points=[[90, 60]], mask=small),
        "a mask at NaN": made(shape_type="mask", points=[[1e300, -1e300]], mask=small),
    }
    return found


def _studio() -> dict[str, bytes]:
    def made(kind: str = "polygonlabels", more: Row | None = None, **value: Any) -> bytes:
        value = {"points": [[10, 10], [40, 10], [40, 60]], kind: ["tool"], **value}
        row = {"id": "a", "type": kind, "value": value, "original_width": 96, "original_height": 64, **(more or {})}
        task = {"id": 1, "data": {"image": "/data/upload/1/0a1b2c3d-p01.png"}, "annotations": [{"result": [row]}]}
        return json.dumps([task]).encode()

    found = {"sound": made()}
    for key in ("points", "polygonlabels"):
        for name, value in NUMBERS.items():
            found[f"{key} is {name}"] = made(**{key: value})
    for name, value in NUMBERS.items():
        found[f"rle is {name}"] = made("brushlabels", rle=value)
        found[f"original_width is {name}"] = made(more={"original_width": value})
        found[f"value is {name}"] = made(more={"value": value})
        found[f"a box whose x is {name}"] = made("rectanglelabels", x=value, y=1, width=5, height=5)
        found[f"annotations is {name}"] = json.dumps(
            [{"id": 1, "data": {"image": "p01.png"}, "annotations": value}]
        ).encode()
        found[f"data is {name}"] = json.dumps([{"id": 1, "data": value, "annotations": [{"result": []}]}]).encode()
    found["a brush of zeros"] = made("brushlabels", rle=[0] * 40)
    found["a brush that claims 4 GB"] = made("brushlabels", rle=[255] * 40)
    found["a brush cut short"] = made("brushlabels", rle=[0, 0, 96, 0, 57])
    return found


def _cvat() -> dict[str, bytes]:
    def made(track: str = "", size: str = "<width>96</width><height>64</height>", head: str = "", **task: str) -> bytes:
        told = {"id": "1", "source": "op1.mp4", "size": "60", "start_frame": "0", "stop_frame": "59", **task}
        meta = "".join(f"<{key}>{value}</{key}>" for key, value in told.items())
        body = f"<track id='0' label='tool'>{track or _polygon() + _polygon(20)}</track>"
        meta = f"<meta><task>{meta}<original_size>{size}</original_size></task></meta>"
        return f"<?xml version='1.0' encoding='utf-8'?>{head}<annotations>{meta}{body}</annotations>".encode()

    found = {"sound": made(), "no end": made()[:-20], "no text": b"", "HTML": b"<html><body></body></html>"}
    values = ("nan", "inf", "-inf", "-5", "1e300", "9" * 400, "x", "", "1.5", "0")
    for value in values:
        found[f"width {value[:9]}"] = made(size=f"<width>{value}</width><height>64</height>")
        found[f"height {value[:9]}"] = made(size=f"<width>96</width><height>{value}</height>")
        for key in ("size", "start_frame", "stop_frame"):
            found[f"{key} {value[:9]}"] = made(**{key: value})
        found[f"step {value[:9]}"] = made(frame_filter=f"step={value}")
        found[f"frame {value[:9]}"] = made(_polygon(value))
        found[f"a point {value[:9]}"] = made(_polygon(0, f"{value},10;40,10;40,40"))
        found[f"a box {value[:9]}"] = made(f"<box frame='0' outside='0' xtl='1' ytl='1' xbr='{value}' ybr='9'/>")
        found[f"an ellipse {value[:9]}"] = made(
            f"<ellipse frame='0' outside='0' cx='{value}' cy='9' rx='5' ry='{value}'/>"
        )
        found[f"a mask {value[:9]}"] = made(
            f"<mask frame='0' outside='0' rle='3, {value}, 9' left='1' top='{value}' width='5' height='5'/>"
        )
    entities = "<!DOCTYPE a [<!ENTITY b 'ha'><!ENTITY c '&b;&b;&b;&b;'>]>"
    found |= {
        "entities": made(head=entities),
        "a foreign file": made(head="<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]>"),
        "a foreign DTD": made(head="<!DOCTYPE a SYSTEM 'http://127.0.0.1:9/x.dtd'>"),
        "deep": b"<annotations>" + b"<a>" * 100_000,
        "UTF-16": made().decode().replace("utf-8", "utf-16").encode("utf-16"),
        "UTF-7": made().replace(b"utf-8", b"utf-7"),
        "unknown encoding": made().replace(b"utf-8", b"klingon"),
        "null characters": made() + bytes(10),
        "a track of 40 days": made(stop_frame="99999999", size="<width>96</width><height>64</height>"),
        "a name that leads out": made(source="../../op1.mp4"),
        "a name of escape codes": made(source="op1&#27;[31m.mp4"),
        "a label of right to left": made().replace(b"'tool'", "'to\u202eol'".encode()),
        "another video": made(source="op77.mp4"),
        "a mask bomb": made(
            "<mask frame='0' outside='0' rle='0,999999999' left='0' top='0' width='99999' height='9999'/>"
        ),
        "10,000 tracks": made().replace(
            b"</annotations>", b"<track id='1' label='x'></track>" * 10_000 + b"</annotations>"
        ),
    }
    return found


def _polygon(frame: object = 0, points: str = "10,10;40,10;40,40") -> str:
    return f"<polygon frame='{frame}' outside='0' occluded='0' keyframe='1' points='{points}'/>"


def _results() -> dict[str, tuple[Any, Any]]:
    """Name -> a truth and what was found, both in COCO's form."""
    rows = [{"image_id": 0, "category_id": 1, "score": 0.9, "bbox": [10, 10, 30, 30]}]
    made: dict[str, tuple[Any, Any]] = {"sound": (_sound_coco(), rows)}
    for key in ("image_id", "category_id", "score", "bbox", "segmentation"):
        for name, value in NUMBERS.items():
            made[f"{key} is {name}"] = _sound_coco(), [rows[0] | {key: value}]
    for name, value in NUMBERS.items():
        made[f"results are {name}"] = _sound_coco(), value
        made[f"truth is {name}"] = value, rows
        made[f"area is {name}"] = json.loads(_changed(lambda c, v=value: c["annotations"][0].update(area=v))), rows
        made[f"an id is {name}"] = json.loads(_changed(lambda c, v=value: c["images"][0].update(id=v))), rows
    for name, value in {
        "runs too short": [5, 5],
        "a text": "\u00ff",
        "negative": [-5, 6149],
        "halves": [0.5] * 9,
    }.items():
        made[name] = _sound_coco(), [rows[0] | {"segmentation": {"size": [64, 96], "counts": value}}]
    huge = _sound_coco()
    for image in huge["images"]:
        image.update(width=65_536, height=65_536)
    made["65,536 x 65,536"] = huge, rows
    crowd = _sound_coco()
    crowd["annotations"][0]["iscrowd"] = 1
    made["only crowds"] = crowd | {"annotations": crowd["annotations"][:1]}, rows
    return made
