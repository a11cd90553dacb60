"""GraSP's layout: a folder of pictures a case, one a second, and JSON files with phase and step of many pictures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from surgdino.datasets.adapter import Adapter
from surgdino.datasets.class_names import class_key
from surgdino.datasets.files import is_image, numbered_images, walk
from surgdino.datasets.manifest import FrameLabels, Labels, Manifest, Problem, Video
from surgdino.errors import SurgdinoError
from surgdino.records import checked, read_json

_CASE = re.compile(r"CASE0*(\d{1,6})", re.IGNORECASE)
_IMAGE = re.compile(r"CASE0*(\d{1,6})/0*(\d{1,9})\.[a-z]+", re.IGNORECASE)
_FILE = re.compile(r"grasp_long-term_(train|test|fold1|fold2)\.json", re.IGNORECASE)
_LIMIT = 256 << 20  # bytes; the training file has 117,000 rows
_COPY = "copy it again from the release"


@dataclass(frozen=True)
class _Category:
    id: int
    name: str


@dataclass(frozen=True)
class _Row:
    image_name: str
    phases: int
    steps: int


@dataclass(frozen=True)
class _File:
    annotations: list[_Row]
    phases_categories: list[_Category]
    steps_categories: list[_Category]


class Grasp(Adapter):
    """Cases anywhere in the folder; labels are joined by the pictures' names, whatever they count from."""

    def read(self) -> Manifest:
        folders = list(walk(self.root))
        pictures = [
            folder for folder, files in folders if folder.parent.name != "segmentations" and any(map(is_image, files))
        ]
        cases = self.keyed(pictures, _number)
        files = self.keyed((path for _, paths in folders for path in paths), _part)
        found = {part: rows for part, path in files.items() if (rows := self._rows(path))}
        labels = self._labels(found, cases)
        self.check_complete(cases, self.root)
        for number, path in sorted(cases.items()):
            self.check_video(path, number)
        videos = [Video(self.video_id(n), self.card.operation_of(n), path, 1.0) for n, path in sorted(cases.items())]
        of_fold = {part: tuple(sorted({self.video_id(case) for case, *_ in found[part]})) for part in found}
        splits = {
            fold: {"train": of_fold[other], "test": of_fold[fold]}
            for fold, other in (("fold1", "fold2"), ("fold2", "fold1"))
            if {fold, other} <= of_fold.keys()
        }
        return replace(self.manifest(videos, labels), splits=splits)

    def video_id(self, key: int | str) -> str:
        return f"CASE{key:03d}"

    def _rows(self, path: Path) -> list[tuple[int, int, int, int]]:
        """(case, picture's number, phase, step) of one file; what is wrong with it is told."""
        try:
            content = checked(_File, read_json(path, _LIMIT, _COPY), path, _COPY, more=True)
        except SurgdinoError as error:
            self.problems.append(Problem.of(error, _COPY))
            return []
        classes = (
            ("phase", content.phases_categories, self.card.phases),
            ("step", content.steps_categories, self.card.steps),
        )
        for kind, categories, names in classes:
            self._check_names(path, kind, categories, names)
        rows, faults = [], []
        for place, row in enumerate(content.annotations):
            match = _IMAGE.fullmatch(row.image_name)
            if match and 0 <= row.phases < len(self.card.phases) and 0 <= row.steps < len(self.card.steps):
                rows.append((int(match[1]), int(match[2]), row.phases, row.steps))
            else:
                faults.append((place, f"{row.image_name[:80]}, {row.phases}, {row.steps}"))
        if faults:
            what, (place, found) = f"{len(faults)} rows that are not a picture's phase and step", faults[0]
            expected = f"CASE001/00001.jpg, phases below {len(self.card.phases)}, steps below {len(self.card.steps)}"
            self.problem("error", what, path, place=f"annotations[{place}]", expected=expected, found=found, fix=_COPY)
        return rows

    def _check_names(self, path: Path, kind: str, categories: Sequence[_Category], names: Sequence[str]) -> None:
        for each in categories:
            known = names[each.id] if 0 <= each.id < len(names) else None
            if known is None or class_key(known) != class_key(each.name):
                fix = "nothing, if it means the same: ids are read"
                what = f"{kind} {each.id} has another name than in the card"
                self.problem(
                    "warning", what, path, expected=known or f"ids below {len(names)}", found=each.name, fix=fix
                )
                return

    def _labels(self, found: dict[str, list[tuple[int, int, int, int]]], cases: dict[int, Path]) -> list[Labels]:
        """Phases and steps of all files; the folds repeat the training file."""
        rows = sorted({row for of_file in found.values() for row in of_file})
        if not rows:
            fix = "pretraining needs none; copy them from the release"
            self.problem(
                "warning", "no phase annotations", self.root, expected="grasp_long-term_train.json, ...", fix=fix
            )
            return []
        table = np.array(rows)
        if (twice := np.flatnonzero((np.diff(table[:, :2], axis=0) == 0).all(1))).size:
            case, number = table[twice[0], :2].tolist()
            what, place = "two labels for one picture", f"{self.video_id(case)}/{number}"
            self.problem("error", what, self.root, place=place, expected="one in all files", found="two", fix=_COPY)
            table = np.delete(table, twice + 1, axis=0)
        values: dict[str, dict[str, FrameLabels]] = {"phase": {}, "step": {}}
        for case in np.unique(table[:, 0]).tolist():
            of_case = table[table[:, 0] == case]
            if case not in cases:
                expected = f"frames/{self.video_id(case)}/"
                self.problem(
                    "warning", "labels without pictures", self.root, place=self.video_id(case), expected=expected
                )
                continue
            bare = np.setdiff1d(of_case[:, 1], list(numbered_images(cases[case])))
            if len(bare):
                what = f"{len(bare)} labels without a picture, the first is {bare[0]}"
                self.problem("error", what, cases[case], fix="copy the pictures again")
            for column, kind in ((2, "phase"), (3, "step")):
                values[kind][self.video_id(case)] = FrameLabels(of_case[:, 1], of_case[:, column].astype(np.int16))
        classes = {"phase": self.card.phases, "step": self.card.steps}
        return [Labels(kind, classes[kind], found) for kind, found in values.items()]


def _number(folder: Path) -> int | None:
    match = _CASE.fullmatch(folder.name)
    return int(match[1]) if match else None


def _part(path: Path) -> str | None:
    match = _FILE.fullmatch(path.name)
    return match[1].lower() if match else None
