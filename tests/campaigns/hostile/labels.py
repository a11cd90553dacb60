"""Label tables and masks as people and programs write them: read as what they mean, or refused by file and row."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from surgdino.errors import SurgdinoError
from tests.campaigns.hostile.case import Case, Outcome, done, either, refused, shows
from tests.campaigns.hostile.making import MASKS, PHASE, VERIFY, grey, label_rows, operations, squares

_PLAIN = [(f"op{n}", f, "ab"[f >= 30]) for n in (1, 2, 3) for f in range(0, 60, 5)]


def _rows(header: str, row: Callable[[str, int, str], str], end: str = "\n") -> str:
    return end.join([header, *(row(*each) for each in _PLAIN), ""])


def _segments(header: str, row: Callable[[str, int, int, str], str]) -> str:
    parts = [
        (video, a, b, label) for video in ("op1", "op2", "op3") for a, b, label in ((0, 3, "access"), (3, 6, "closure"))
    ]
    return "\n".join([header, *(row(*part) for part in parts), ""])


# What is written in another way than ours and must be understood: name -> (text, encoding).
READ: dict[str, tuple[str, str]] = {
    "ours": (_rows("video,frame,label", "{},{},{}".format), "utf-8"),
    "semicolons": (_rows("video;frame;label", "{};{};{}".format), "utf-8"),
    "tabs": (_rows("video\tframe\tlabel", "{}\t{}\t{}".format), "utf-8"),
    "sep= line": ("sep=;\n" + _rows("video;frame;label", "{};{};{}".format), "utf-8"),
    "byte order mark": (_rows("video,frame,label", "{},{},{}".format), "utf-8-sig"),
    "UTF-16": (_rows("video,frame,label", "{},{},{}".format), "utf-16"),
    "Windows-1252": (_rows("video,frame,label", "{},{},Präparation {}".format), "cp1252"),
    "CR LF": (_rows("video,frame,label", "{},{},{}".format, "\r\n"), "utf-8"),
    "CR alone": (_rows("video,frame,label", "{},{},{}".format, "\r"), "utf-8"),
    "quoted cells": (_rows("video,frame,label", '"{}","{}","{}, of it"'.format), "utf-8"),
    "empty lines": (_rows("video,frame,label", "{},{},{}\n".format), "utf-8"),
    "other order": (_rows("label,frame,video", lambda v, f, c: f"{c},{f},{v}"), "utf-8"),
    "capital header": (_rows("Video,Frame,Label", "{},{},{}".format), "utf-8"),
    "file names": (_rows("video,frame,label", "{}.mp4,{},{}".format), "utf-8"),
    "seconds": (_rows("video,second,label", lambda v, f, c: f"{v},{f / 10},{c}"), "utf-8"),
    "decimal comma": (_rows("video;second;label", lambda v, f, c: f"{v};{str(f / 10).replace('.', ',')};{c}"), "utf-8"),
    "clock": (_rows("video,time,label", lambda v, f, c: f"{v},00:00:{f / 10:06.3f},{c}"), "utf-8"),
    "segments in seconds": (_segments("video,start,end,label", "{},{},{},{}".format), "utf-8"),
    "segments by the clock": (_segments("video,start,end,phase", "{},00:00:{:02d},00:00:{:02d},{}".format), "utf-8"),
    "segments in milliseconds": (
        _segments("video,start_ms,end_ms,label", lambda v, a, b, c: f"{v},{a * 1000},{b * 1000},{c}"),
        "utf-8",
    ),
    "starts only": (_segments("video,start,label", lambda v, a, b, c: f"{v},{a},{c}"), "utf-8"),
    "from and to": (_segments("video,from,to,label", "{},{},{},{}".format), "utf-8"),
}
# What cannot be meant: name -> text. `verify` must not call it sound, and no verb may break.
WRONG = {
    "empty": "",
    "only a header": "video,frame,label\n",
    "no header": "op1,0,a\nop1,5,b\n",
    "a column too few": "video,frame,label\nop1,0\n",
    "a column too many": "video,frame,label\nop1,0,a,b,c\n",
    "negative frame": "video,frame,label\nop1,-5,a\nop2,0,b\n",
    "half a frame": "video,frame,label\nop1,0.5,a\nop2,0,b\n",
    "25 digits": f"video,frame,label\nop1,{'9' * 25},a\nop2,0,b\n",
    "5000 digits": f"video,frame,label\nop1,{'9' * 5000},a\nop2,0,b\n",
    "NaN": "video,frame,label\nop1,nan,a\nop2,0,b\n",
    "infinite second": "video,second,label\nop1,inf,a\nop2,0,b\n",
    "1e300 seconds": "video,second,label\nop1,1e300,a\nop2,0,b\n",
    "no number": "video,frame,label\nop1,five,a\nop2,0,b\n",
    "beyond the end": "video,frame,label\nop1,0,a\nop1,6000,b\nop2,0,a\n",
    "unknown video": "video,frame,label\nop1,0,a\nop77,0,b\n",
    "two labels of one frame": "video,frame,label\nop1,0,a\nop1,0,b\nop2,0,a\n",
    "empty label": "video,frame,label\nop1,0,\nop2,0,a\n",
    "end before start": "video,start,end,label\nop1,5,2,a\nop2,0,5,b\n",
    "overlapping": "video,start,end,label\nop1,0,4,a\nop1,2,6,b\nop2,0,6,a\n",
    "segments of years": "video,start,end,label\nop1,0,99999999999,a\nop2,0,6,b\n",
    "near-equal spellings": "video,frame,label\nop1,0,Dissection\nop1,5,dissection \nop2,0,DISSECTION\n",
    "null character": "video,frame,label\nop1,0,a\x00b\nop2,0,a\n",
    "escape codes": "video,frame,label\nop1,0,\x1b[31mred\nop77,0,a\n",
    "brackets": "video,frame,label\nop1,0,a\nop77[/bold],0,[/x]\n",
    "an open quote": 'video,frame,label\nop1,0,"a\nop2,0,b\n',
    "a path as video": "video,frame,label\n../../op1.mp4,0,a\nop77,0,b\n",
    "40000 classes": "video,frame,label\n" + "".join(f"op1,{n},c{n}\n" for n in range(40000)),
    "milliseconds as frames": "video,frame,label\n" + "".join(f"op1,{n * 1000},a\n" for n in range(6)),
    "HTML": "<html><body>login</body></html>\n",
    "zip": "PK\x03\x04" + "\x00" * 100,
}
COLOURS = {"red": (128, 0, 0), "blue": (0, 0, 255), "dark": (20, 20, 20), "white": (255, 255, 255)}


def cases() -> Iterator[Case]:
    for name, (text, encoding) in READ.items():
        made = partial(_labelled, text, encoding)
        yield Case("label tables", name, made, VERIFY, done(r"label|phase|class"), sound=True)
        yield Case(
            "labels in finetune",
            name,
            made,
            (*PHASE[:-1], _SPLIT),
            either(done("frames labelled"), refused("op|label")),
        )
    for name, text in WRONG.items():
        made = partial(_labelled, text, "utf-8")
        yield Case("wrong labels", name, made, VERIFY, either(refused("label"), shows("label")))
        yield Case("wrong labels", f"{name}, finetune", made, (*PHASE[:-1], _SPLIT), either(refused(), done("label")))
    yield Case("wrong labels", "a named pipe", _piped, VERIFY, shows("labels.csv"))
    yield Case(
        "wrong labels", "a folder", lambda d: operations(d / "d", 2) or (d / "d/labels.csv").mkdir(), VERIFY, shows()
    )
    for name, write in _masks().items():
        made = partial(_squares, write)
        yield Case("masks", name, made, VERIFY, either(refused(), shows("p0", status=(1,)), _as_shown))
        yield Case("masks in finetune", name, made, MASKS, either(refused("mask|p0"), done()))
    for images, masks in (("Images", "Masks"), ("JPEGImages", "SegmentationClass"), ("image", "mask"), ("img", "gt")):
        made = partial(_squares, grey, images=images, masks=masks)
        yield Case("layouts", f"{images} and {masks}", made, VERIFY, shows(masks))
    for suffix in ("dcm", "mod", "MTS", "3gp", "xyz", "zip", "mp4.part"):
        yield Case("left out", f".{suffix}", partial(_left_out, suffix), VERIFY, shows(rf"other\.{suffix}|{suffix}"))
    for name, rows in _triplets().items():
        yield Case(
            "triplet files",
            name,
            partial(_cholect, rows),
            ("verify", "dataset=cholect50", "data.root=d"),
            shows("VID7"),
        )


_SPLIT = "data.split={train: [op1], val: [op2], test: [op3]}"


def _as_shown(outcome: Outcome) -> str | None:
    """Every mask covers 900 of 6,144 pixels: that share, as `read_mask` has it."""
    from surgdino.datasets.masks import read_mask

    try:
        shares = [read_mask(path).mean() for path in sorted((outcome.folder / "d/masks").iterdir())]
    except SurgdinoError as error:
        return str(error)
    wrong = [share for share in shares if abs(share - 900 / 6144) > 0.01]
    return f"a mask is read as {wrong[0]:.1%} of the image" if wrong else None


def _labelled(text: str, encoding: str, folder: Path) -> None:
    operations(folder / "d", 3)
    label_rows(folder / "d", text, encoding=encoding)


def _piped(folder: Path) -> None:
    operations(folder / "d", 2)
    os.mkfifo(folder / "d" / "labels.csv")


def _left_out(suffix: str, folder: Path) -> None:
    operations(folder / "d", 2)
    (folder / "d" / f"other.{suffix}").write_bytes(b"x" * 1000)


def _squares(write: Callable, folder: Path, images: str = "images", masks: str = "masks") -> None:
    squares(folder / "d", write, images, masks)


def _masks() -> dict[str, Callable[[np.ndarray, Path], object]]:
    """Name -> how a mask, bool [64, 96], is stored."""

    def saved(change: Callable[[np.ndarray], np.ndarray], suffix: str = "png") -> Callable[[np.ndarray, Path], object]:
        return lambda mask, path: Image.fromarray(change(mask)).save(f"{path}.{suffix}")

    def palette(mask: np.ndarray, path: Path) -> None:
        image = Image.fromarray(mask.astype(np.uint8)).convert("P")
        image.putpalette([0, 0, 0, 128, 0, 0] + [0] * 750)
        image.save(f"{path}.png")

    kinds: dict[str, Callable[[np.ndarray, Path], object]] = {
        "0 and 255": grey,
        "0 and 1": saved(lambda m: m.astype(np.uint8)),
        "0 and 100": saved(lambda m: m.astype(np.uint8) * 100),
        "one bit": saved(lambda m: m),
        "palette": palette,
        "16 bit, 0 and 1": saved(lambda m: m.astype(np.uint16)),
        "16 bit, 0 and 65535": saved(lambda m: m.astype(np.uint16) * 65535),
        "float": saved(lambda m: m.astype(np.float32), "tiff"),
        "three ids": saved(lambda m: np.where(np.arange(96) > 90, 2, m).astype(np.uint8)),
        "alpha alone": saved(lambda m: np.dstack([np.zeros((*m.shape, 3), np.uint8), m.astype(np.uint8) * 255])),
        "JPEG": saved(lambda m: m.astype(np.uint8) * 255, "jpg"),
        "another size": saved(lambda m: m[::2, ::2].astype(np.uint8) * 255),
        "turned": saved(lambda m: np.ascontiguousarray(m.T).astype(np.uint8) * 255),
        "damaged": lambda m, path: Path(f"{path}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50)),
        "empty file": lambda m, path: Path(f"{path}.png").touch(),
    }
    for name, colour in COLOURS.items():
        kinds[name] = saved(lambda m, c=colour: (m[..., None] * np.array(c)).astype(np.uint8))
    return kinds


def _triplets() -> dict[str, Callable[[dict], object]]:
    """Name -> what is done to the JSON of a CholecT50 video."""
    return {
        "annotations are a list": lambda v: v.update(annotations=[]),
        "annotations are texts": lambda v: v.update(annotations={"1": "x", "2": {"a": 1}, "3": [None]}),
        "rows too short": lambda v: v["annotations"].update({"3": [[1, 2]]}),
        "NaN": lambda v: v["annotations"]["3"][0].__setitem__(0, float("nan")),
        "an id of 1e30": lambda v: v["annotations"]["3"][0].__setitem__(0, 10**30),
        "a frame of 30 digits": lambda v: v["annotations"].update({"9" * 30: []}),
        "a negative frame": lambda v: v["annotations"].update({"-1": []}),
        "deep": lambda v: v.update(annotations=json.loads("[" * 500 + "]" * 500)),
        "nothing": lambda v: v.clear(),
        "an unknown triplet": lambda v: v["annotations"]["3"][0].__setitem__(0, 100),
    }


def _cholect(change: Callable[[dict], object], folder: Path) -> None:
    from tests.campaigns.hostile.making import pictures

    row = [17, 0, 1.0, 0.2, 0.1, 0.2, 0.3, 1, 0, 1.0, -1.0, -1.0, -1.0, -1.0, 0]
    (folder / "d" / "labels").mkdir(parents=True)
    for number in (73, 74):
        pictures(folder / "d" / "videos" / f"VID{number}", 6)
        info = {"video": number, "fps": 1, "num_frames": 6, "annotations": {str(k): [list(row)] for k in range(6)}}
        if number == 74:
            change(info)
        (folder / "d" / "labels" / f"VID{number}.json").write_text(json.dumps(info))
