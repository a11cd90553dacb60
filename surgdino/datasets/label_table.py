"""A group's own phases as a table (CSV): rows of moments, rows of segments, or rows of starts.

The header names the columns. `video` (its id or file name) may be missing where there is one video, or where the file
is named after its video. `label` is the phase. When it is: `frame` (0-based) or `second` from the first frame for
single moments; `start` and `end` (or `duration`) for segments, the end not being part of it; `start` alone where every
phase lasts until the next one starts. Other names for the same are accepted (`phase`, `begin`, `time_ms`, ...). Times
are seconds, `hh:mm:ss`, `mm:ss`, or `hh:mm:ss:ff` where the dataset has an fps; columns in `ms` are milliseconds, in
`frame(s)` frames. Frames count their end where each segment starts one frame after the end of the one before.

Commas, semicolons, tabs and bars separate; a first line `sep=;` says which. A decimal comma is read where it can be
told from a separator. The text may be UTF-8, UTF-16 or Windows-1252.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from surgdino.csv_files import csv_rows
from surgdino.datasets.class_names import corrected
from surgdino.datasets.drawn_pictures import plain_source
from surgdino.datasets.files import plain_name, read_text
from surgdino.datasets.manifest import Problem, Video
from surgdino.datasets.timelines import SUFFIXES, timeline_rows
from surgdino.errors import SurgdinoError, nearest

_HEADER = "columns video, label, and frame, second, or start (and end)"
_COLUMNS = {
    "video": ("video", "file", "filename", "recording", "clip"),
    "label": ("label", "phase", "class", "annotation", "step", "category", "event", "activity", "action", "state"),
    "moment": ("frame", "second", "time", "timestamp", "seconds", "sec", "ms", "milliseconds", "millisecond", "frames"),
    "start": ("start", "begin", "onset", "from"),
    "end": ("end", "stop", "offset", "to"),
    "duration": ("duration", "length"),
}
_EMPTY_WORDS = ("", "in", "id", "name", "number", "path", "file", "time")
_UNITS = {
    "frame": ("frame", "frames"),
    "millisecond": ("ms", "millisecond", "milliseconds", "msec"),
    "second": ("s", "sec", "second", "seconds", "time"),
}
_MOST = {"frame": 10**8, "second": 10**6}  # 40 days at 30 frames a second, 11 days
_DECIMAL = re.compile(r"^(\d+),(\d+)$")  # as spreadsheets write it in half of Europe
_QUOTED_DECIMAL = re.compile(r"^(\d+),(\d{1,2})$")  # between commas; three digits may be thousands
_CLOCK = re.compile(r"(?:(\d{1,4}):)?(\d{1,3}):(\d{1,2}(?:[.,]\d+)?)(?::(\d{1,3}))?")
END_OF_VIDEO = math.inf


@dataclass(frozen=True)
class LabelRow:
    place: str
    video: str
    start: float
    end: float
    label: str


class LabelTable:
    """One file: its columns, its unit, and the first problem of each kind; a script repeats its fault in each row."""

    def __init__(self, path: Path, videos: Sequence[Video], own: Video | None) -> None:
        self.path, self.videos = path, videos
        self.own = own if own is not None or len(videos) > 1 else videos[0]
        self.problems: dict[str, Problem] = {}
        self.header, self.rows = self._cells()
        self.columns, self.unit = self._columns()
        self.ids = video_spellings(videos)
        self.how = ""  # how the ends are counted, where that is not the usual way

    def tell(self, what: str, place: str | None, expected: object, found: object, fix: str, error: bool = True) -> None:
        severity = "error" if error else "warning"
        self.problems.setdefault(what, Problem(severity, what, self.path, place, expected, found, fix))  # type: ignore[arg-type]

    def _cells(self) -> tuple[list[str], list[tuple[str, list[str]]]]:
        """The header, and (place, cells) of every row that is not empty."""
        if self.path.suffix.lower() in SUFFIXES:
            found = timeline_rows(self.path)
            if found is None:
                raise SurgdinoError("not a table of phases", file=self.path, expected=_HEADER)
            return found
        text = read_text(self.path, spreadsheet=True)
        first, _, rest = text.partition("\n")
        said = re.fullmatch(r' *"?sep=(.)"? *', first)
        if said:
            text, separator = f"\n{rest}", said[1]
        else:
            head = next((line for line in text.split("\n") if line.strip() and not line.startswith("#")), "")
            separator = max(";\t,|", key=head.count)
        rows = csv_rows(text, self.path, separator)
        stripped = [(f"row {n}", [cell.strip() for cell in cells]) for n, cells in enumerate(rows, start=1)]
        filled = [(place, cells) for place, cells in stripped if any(cells)]
        while filled and filled[0][1][0].startswith("#"):  # what a tool says of itself
            filled.pop(0)
        if not filled:
            raise SurgdinoError("the file is empty", file=self.path, expected=_HEADER)
        decimal = _QUOTED_DECIMAL if separator == "," else _DECIMAL
        filled = [
            (place, [decimal.sub(r"\1.\2", cell) if "," in cell else cell for cell in cells]) for place, cells in filled
        ]
        return [name.lower() for name in filled[0][1]], filled[1:]

    def _columns(self) -> tuple[dict[str, int], str]:
        """Meaning -> position of the columns that count, and the unit of the times."""
        columns: dict[str, int] = {}
        units = set()
        for position, name in enumerate(self.header):
            every = re.split(r"[\W_]+", name)
            words = [word for place, word in enumerate(every) if word not in _EMPTY_WORDS or (not place and word)]
            unit = next((unit for unit, known in _UNITS.items() if words and words[-1] in known), None)
            meaning = next((m for m, known in _COLUMNS.items() if words and words[0] in known), None)
            if len(words) > 1 and words[-1] in (*_COLUMNS["start"], *_COLUMNS["end"]):  # frame_start
                meaning = "start" if words[-1] in _COLUMNS["start"] else "end"
                unit = next((unit for unit, known in _UNITS.items() if words[0] in known), None)
            if meaning is None or (meaning in ("video", "label") and len(words) > 1):
                continue
            if meaning in columns:
                self._refuse_columns(f"two columns for the {meaning}")
            columns[meaning] = position
            if meaning not in ("video", "label"):
                units.add("second" if unit is None or "mm" in words else unit)  # hh:mm:ss.ms is no count of ms
        if {"end", "duration"} <= columns.keys():
            del columns["duration"]
        when = columns.keys() & {"moment", "start", "end", "duration"}
        known = ({"moment"}, {"start"}, {"start", "end"}, {"start", "duration"})
        if "label" not in columns or when not in known:
            self._refuse_columns("the CSV has other columns")
        if len(units) > 1:
            self._refuse_columns("the columns count in two units", "one of frames, seconds, milliseconds")
        if "video" not in columns and self.own is None:
            expected = f"a column video: there are {len(self.videos)} of them; or a file named after each"
            self._refuse_columns("the CSV names no videos", expected)
        return columns, units.pop()

    def _refuse_columns(self, what: str, expected: str = _HEADER) -> None:
        found, fix = ", ".join(self.header), "name the columns in the first row"
        raise SurgdinoError(what, file=self.path, place="row 1", expected=expected, found=found, fix=fix)

    def parsed(self) -> Iterator[LabelRow]:
        """The rows without those that have a fault."""
        most = max(self.columns.values())
        for place, cells in self.rows:
            if len(cells) <= most:
                self.tell("too few columns", place, f"{most + 1} or more", len(cells), "complete the row")
                continue
            video = self._video(cells, place)
            label = corrected(plain_name(" ".join(cells[self.columns["label"]].split())))
            start = self._when(cells, "moment" if "moment" in self.columns else "start", place, video)
            end: float | None = END_OF_VIDEO
            if last := self.columns.keys() & {"end", "duration"}:
                end = self._when(cells, "end" if "end" in last else "duration", place, video)
            if "duration" in last and start is not None and end is not None:
                end += start
            if not label:
                self.tell("no label", place, "a label", "nothing", "leave the whole row out where there is none")
            elif video is not None and start is not None and end is not None:
                if end > start:
                    yield LabelRow(place, video.id, start, end, label)
                else:
                    self.tell(
                        "a segment that ends before it starts", place, f"more than {start:g}", f"{end:g}", "correct it"
                    )

    def _video(self, cells: list[str], place: str) -> Video | None:
        if "video" not in self.columns:
            return self.own
        name = plain_name(cells[self.columns["video"]])
        if not name and self.own is not None:
            return self.own
        for spelling in (*plain_source(name), name.casefold()):
            if spelling in self.ids:
                return self.ids[spelling]
        names = [video.id for video in self.videos]
        self.tell("unknown video", place, "a video of the folder", name, nearest(name, names))
        return None

    def _when(self, cells: list[str], column: str, place: str, video: Video | None) -> float | None:
        """Seconds, or frames where the column holds frames."""
        text = cells[self.columns[column]]
        unit = "frame" if self.unit == "frame" else "second"
        if column in ("end", "duration") and not text:
            return END_OF_VIDEO
        fps = video.fps if video is not None else None
        clock = _CLOCK.fullmatch(text) if unit == "second" else None
        if clock and clock[4] and fps is None:
            fix = "set dataset.fps=25, or whatever the numbers count in"
            self.tell("a time that counts frames", place, "hh:mm:ss, or a known fps", repr(text), fix)
            return None
        if clock and (float(clock[3].replace(",", ".")) >= 60 or (clock[1] and int(clock[2]) >= 60)):
            expected = "minutes and seconds below 60"
            self.tell("not a time", place, expected, repr(text), "correct the row")
            return None
        if clock and clock[4] and fps and int(clock[4]) >= fps:
            expected = f"less than {fps:g} frames after the last colon"
            self.tell("not a time", place, expected, repr(text), "correct the row, or dataset.fps")
            return None
        if clock:
            value = 3600 * int(clock[1] or 0) + 60 * int(clock[2]) + float(clock[3].replace(",", "."))
            value += int(clock[4]) / fps if clock[4] and fps else 0
        elif re.fullmatch(r"\d+" if unit == "frame" else r"\d+(\.\d+)?", text):
            value = float(text) / (1000 if self.unit == "millisecond" else 1)
        else:
            expected = "a whole number from 0" if unit == "frame" else "a number from 0, or hh:mm:ss"
            self.tell(f"not a {unit}", place, expected, repr(text), "correct the row")
            return None
        if value > _MOST[unit]:
            self.tell(f"not a {unit}", place, f"at most {_MOST[unit]:,}", repr(text[:40]), "correct the row")
            return None
        return value


def video_spellings(videos: Sequence[Video]) -> dict[str, Video]:
    """Every way to write a video that means just one: its id, its file's name, with and without what is before it."""
    spellings: dict[str, dict[str, Video]] = {}
    for video in videos:
        suffix = video.path.suffix if video.path.is_file() else ""
        for name in (video.id, video.id + suffix, video.id.rpartition("/")[2], plain_name(video.path.name)):
            for spelling in (name, name.casefold()):
                spellings.setdefault(spelling, {})[video.id] = video
    exact = {video.id: video for video in videos}
    return {name: next(iter(found.values())) for name, found in spellings.items() if len(found) == 1} | exact
