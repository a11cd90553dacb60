"""Revisited Oxford and Paris (Radenovic et al. 2018): `jpg/NAME.jpg`, and `gnd_DATASET.pkl` or .json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from surgdino.datasets.adapter import Adapter
from surgdino.datasets.files import entries
from surgdino.datasets.manifest import FrameLabels, Labels, Manifest, Video
from surgdino.datasets.pickles import read_pickle
from surgdino.datasets.picture_sets import by_stem
from surgdino.errors import SurgdinoError
from surgdino.records import checked, read_json

INSTANCE = "instance"  # the kind of labels: what a picture is to each query, or that it is that query
NEGATIVE, EASY, HARD, JUNK, QUERY = range(5)
_Places = tuple[Annotated[int, Field(ge=0)], ...]


@dataclass(frozen=True)
class _Query:
    """Places in `imlist`, and where in its picture the query is: x0, y0, x1, y1."""

    easy: _Places
    hard: _Places
    junk: _Places
    bbx: tuple[float, float, float, float]


@dataclass(frozen=True)
class _Truth:
    """What `gnd_DATASET` holds: names of pictures without suffix, and a query each of `qimlist`."""

    imlist: tuple[str, ...]
    qimlist: tuple[str, ...]
    gnd: tuple[_Query, ...]


class OxfordParis(Adapter):
    """A picture of the gallery is the video `gallery/NAME`, a query `query/NAME`: the part of its picture in the box.

    The label of a picture, of kind `instance`, has a number for each query: `NEGATIVE`, `EASY`, `HARD`, `JUNK`, or
    `QUERY` where it is that query itself. All pictures are one operation.
    """

    def read(self) -> Manifest:
        path, truth = self._truth()
        told = np.zeros((len(truth.imlist) + len(truth.qimlist), len(truth.qimlist)), np.int64)
        for number, query in enumerate(truth.gnd):
            for code, places in ((EASY, query.easy), (HARD, query.hard), (JUNK, query.junk)):
                if any(place >= len(truth.imlist) or told[place, number] for place in places) or _twice(places):
                    what, expected = "the places of a query cannot be", f"each below {len(truth.imlist)}, and once"
                    raise SurgdinoError(what, file=path, place=truth.qimlist[number], expected=expected)
                told[list(places), number] = code
            told[len(truth.imlist) + number, number] = QUERY
        pictures, operation = by_stem(self.root / "jpg"), self.operation_at("pictures")
        boxes = [None] * len(truth.imlist) + [_box(query.bbx, path) for query in truth.gnd]
        videos, values, lost = [], {}, list[str]()
        for place, name in enumerate([*truth.imlist, *truth.qimlist]):
            kind = "gallery" if place < len(truth.imlist) else "query"
            if name not in pictures:
                lost.append(name)
                continue
            video = Video(f"{kind}/{name}", operation, pictures[name], box=boxes[place])
            videos.append(video)
            values[video.id] = FrameLabels(np.zeros(1, np.int64), told[place : place + 1])
        if lost:
            what = "a picture of the list is not here" + (
                f", and {len(lost) - 1} more like it" if len(lost) > 1 else ""
            )
            fix = "copy them from the release"
            self.problem("error", what, path, expected=f"jpg/{lost[0]}.jpg", found="no such file", fix=fix)
        return self.manifest(videos, [Labels(INSTANCE, truth.qimlist, values)])

    def _truth(self) -> tuple[Path, _Truth]:
        files = [
            path for path in entries(self.root) if path.stem.startswith("gnd_") and path.suffix in (".pkl", ".json")
        ]
        if len(files) != 1:
            found = ", ".join(path.name for path in files) or "none"
            expected = f"gnd_{self.card.name}.pkl, or the same as .json"
            raise SurgdinoError("which file has the truth?", file=self.root, expected=expected, found=found)
        try:
            content = read_json(files[0]) if files[0].suffix == ".json" else read_pickle(files[0])
        except SurgdinoError as error:
            fix = "write it as JSON: import json, pickle; json.dump(pickle.load(open(PKL, 'rb')), open(JSON, 'w'))"
            raise error.but(fix=fix if files[0].suffix == ".pkl" else error.fix) from error
        truth = checked(_Truth, content, files[0], more=True)
        if len(truth.gnd) != len(truth.qimlist) or _twice(truth.imlist) or _twice(truth.qimlist):
            found = f"{len(truth.qimlist)} names and {len(truth.gnd)} truths"
            raise SurgdinoError(
                "the queries do not fit", file=files[0], expected="a truth each, no name twice", found=found
            )
        return files[0], truth


def _twice(values: Sequence[object]) -> bool:
    return len(set(values)) < len(values)


def _box(bbx: Sequence[float], path: Path) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = (round(side) for side in bbx)
    if not (0 <= x0 < x1 and 0 <= y0 < y1):
        raise SurgdinoError("a box that cannot be", file=path, expected="0 <= x0 < x1, 0 <= y0 < y1", found=list(bbx))
    return x0, y0, x1, y1
