"""Short videos of one class each, and a table (CSV) of them: `file,label`, and `operation` and `split` where known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from surgdino.datasets.adapter import Adapter
from surgdino.datasets.files import (
    entries,
    is_image,
    is_table,
    is_video,
    letters,
    name_of,
    plain_name,
    read_cells,
    walk,
)
from surgdino.datasets.manifest import Labels, Manifest, SegmentLabels, Video
from surgdino.datasets.picture_sets import PARTS
from surgdino.errors import SurgdinoError, nearest

CLIP = "clip"  # the kind of their labels
_COLUMNS = {
    "file": ("file", "clip", "video", "filename", "path"),
    "label": ("label", "class", "action", "category"),
    "operation": ("operation", "patient", "case", "procedure"),
    "split": ("split", "part", "subset"),
}


class Clips(Adapter):
    """A clip is called by its path, with its part before it where the table has one (`train/knots/001`).

    Without operations each clip is its own. Option `labels` names the table where there are several.
    """

    takes = ("labels",)

    def read(self) -> Manifest:
        table = self._table()
        columns, rows = self._rows(table)
        here, videos, classes = self._spelled(), list[Video](), dict[str, str]()
        used: dict[Path, str] = {}
        for place, cells in rows:
            row = {name: plain_name(cells[column]) for name, column in columns.items()}
            path = here.get(row["file"])
            part = PARTS.get(letters(row.get("split", "")))
            fault = ""
            if path is None:
                fault, expected, found = "a row names no clip", "a video in the folder", row["file"]
            elif path in used:
                fault, expected, found = "a second row of a clip", f"one ({used[path]})", row["file"]
            elif not row["label"]:
                fault, expected, found = "a row without a label", "a label", "nothing"
            elif row.get("split") and part is None:
                fault, expected, found = "no part of a split", "train, val or test", row["split"]
            if fault or path is None:
                self.problem("error", fault, table, place=place, expected=expected, found=found, fix="correct the row")
                continue
            used[path] = place
            name = name_of(path, self.root)
            called = f"{part}/{name}" if part else name
            videos.append(Video(called, row.get("operation") or name, path))
            classes[called] = row["label"]
        if unused := [path for path in dict.fromkeys(here.values()) if path not in used]:
            what = f"{len(unused)} clip{'s have' if len(unused) > 1 else ' has'} no row"
            self.problem("warning", what, unused[0], fix="they are left out; add rows where they belong to the set")
        first: dict[str, Path] = {}
        for video in sorted(videos, key=lambda video: video.path):
            first.setdefault(video.operation, video.path)
        operations = {place: self.named(place, path) for place, path in first.items()}
        videos = [replace(video, operation=operations[video.operation]) for video in videos]
        names = tuple(sorted(set(classes.values())))
        whole = {
            video: SegmentLabels(np.zeros(1), np.full(1, np.inf), np.array([names.index(name)]), by_frame=True)
            for video, name in classes.items()
        }
        self.notes.append(f"{table.name}: {len(videos):,} clips of {len(names)} classes")
        return self.manifest(videos, [Labels(CLIP, names, whole)])

    def _table(self) -> Path:
        if "labels" in self.options:
            named = Path(self.options["labels"]).expanduser()
            tables = [path for path in (named, self.root / named) if path.is_file()][:1]
        else:
            tables = [path for path in entries(self.root) if path.is_file() and is_table(path)]
        if len(tables) != 1:
            found = ", ".join(path.name for path in tables) or "none"
            fix = "name it: data.labels=labels.csv"
            raise SurgdinoError("which table has the classes?", file=self.root, expected="one", found=found, fix=fix)
        return tables[0]

    def _rows(self, table: Path) -> tuple[dict[str, int], list[tuple[str, list[str]]]]:
        """Meaning -> column, and (place, cells) of the rows below the header."""
        header, *rows = read_cells(table) or [[]]
        names = [letters(name) for name in header]
        columns = {}
        for meaning, spellings in _COLUMNS.items():
            if (column := next((names.index(each) for each in spellings if each in names), None)) is not None:
                columns[meaning] = column
        for meaning in ("file", "label"):
            if meaning not in columns:
                found, fix = ", ".join(header) or "an empty file", nearest(meaning, header)
                raise SurgdinoError(f"no column {meaning}", file=table, expected="file,label", found=found, fix=fix)
        filled = [[*cells, *[""] * (len(header) - len(cells))] for cells in rows]
        return columns, [(f"row {place}", cells) for place, cells in enumerate(filled, start=2)]

    def _spelled(self) -> dict[str, Path]:
        """Every way to write a clip: its path in the folder with and without suffix, and its name where one has it."""
        clips: list[Path] = []
        for folder, files in walk(self.root):
            found = [path for path in files if is_video(path)]
            clips += found
            if not found and any(is_image(path) for path in files):
                clips.append(folder)
        spelled: dict[str, set[Path]] = {}
        for path in clips:
            inside = path.relative_to(self.root)
            for name in (inside.as_posix(), inside.with_suffix("").as_posix(), inside.name, inside.stem):
                spelled.setdefault(plain_name(name), set()).add(path)
        exact = {plain_name(path.relative_to(self.root).as_posix()): path for path in clips}
        return {name: next(iter(paths)) for name, paths in spelled.items() if len(paths) == 1} | exact
