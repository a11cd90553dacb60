"""The best, the median and the worst frames of a test, with what was predicted; for pages that may hold frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from surgdino.csv_files import as_meant, csv_rows
from surgdino.errors import SurgdinoError
from surgdino.paths import read_bytes
from surgdino.report.blocks import Block, Heading, Legend, Paragraph, Strip, Strips, picture
from surgdino.report.colours import class_colours, readable_name
from surgdino.report.record import RunRecord
from surgdino.report.sections import Section

SHOWN = 4  # frames of each kind
_APART = 10.0  # seconds between two that are shown of one video: neighbours look alike
_MOST_BYTES = 256 << 20  # of the table
_WIDTH, _NAMED = 320, 24  # pixels of a picture; classes in a legend
_MARKS = {"yes": "hit", "no": "miss"}
_MARKED = "✓ in an unbroken frame: right. ✗ in a dashed frame: wrong."


@dataclass(frozen=True)
class Scored:
    """A frame and how good it is: a row of per_frame.csv."""

    video: str
    frame: int
    value: float
    said: str = ""
    right: str = ""  # `yes`, `no`, or nothing where frames are neither, as in files before that column


def read_scored(path: Path) -> tuple[str, list[Scored]]:
    """The measure and the frames of a per_frame.csv.

    Raises:
        SurgdinoError: it cannot be read, or a row is none.
    """
    fix = "run surgdino finetune again to write it"
    try:
        text = read_bytes(path, _MOST_BYTES).decode()
    except UnicodeDecodeError as error:
        raise SurgdinoError("not a table of frames", file=path, expected="text in UTF-8", fix=fix) from error
    header, *rows = csv_rows(text, path) or [[]]
    if len(header) < 3:
        raise SurgdinoError("not a table of frames", file=path, expected="a measure in column 3", fix=fix)
    measure, found = header[2], []
    for number, row in enumerate(rows, 2):
        try:
            video, frame, value, said, right = row if len(row) != 4 else [*row, ""]
            found.append(Scored(as_meant(video), int(frame), float(value), as_meant(said), right))
        except ValueError as error:
            expected = "video, frame, value, text, yes or no"
            raise SurgdinoError(
                "not a row", file=path, place=f"row {number}", expected=expected, found=row, fix=fix
            ) from error
    return measure, found


def chosen(scored: Sequence[Scored], seconds: Callable[[Scored], float]) -> dict[str, list[Scored]]:
    """`best`, `median` and `worst` -> a few frames each: none twice, and those of one video and kind apart in time."""
    order = sorted((each for each in scored if np.isfinite(each.value)), key=lambda each: -each.value)
    middle = sorted(order, key=lambda each: abs(each.value - order[len(order) // 2].value))
    taken = set[Scored]()
    kinds: dict[str, list[Scored]] = {"best": [], "median": [], "worst": []}
    for kind, ranked in (("best", order), ("worst", order[::-1]), ("median", middle)):
        own = kinds[kind]
        for each in (each for each in ranked if each not in taken):
            if len(own) == SHOWN:
                break
            if all(other.video != each.video or abs(seconds(other) - seconds(each)) >= _APART for other in own):
                own.append(each)
        taken.update(own)
    return kinds


class Examples(Section):
    """Frames with what was predicted of them.

    Args:
        measure: by which they are the best and the worst.
        kinds: as `chosen` gives them.
        draw: a frame as the task shows it: what it is called -> uint8 [H, W, 3] RGB.
        classes: names of what is drawn.
    """

    id, title, order = "examples", "Best, median and worst frames", 7

    def __init__(
        self,
        measure: str,
        kinds: dict[str, list[Scored]],
        draw: Callable[[Scored], Mapping[str, np.ndarray]],
        classes: Sequence[str],
        note: str = "",
    ) -> None:
        self.measure, self.kinds, self.draw, self.classes, self.note = measure, kinds, draw, classes, note

    def of_run(self, record: RunRecord) -> list[Block]:
        """For each kind a strip a frame: itself, and truth and prediction over it where the task draws them."""
        marked = any(each.right in _MARKS for frames in self.kinds.values() for each in frames)
        told = f"By {self.measure}. {_MARKED if marked else ''} {self.note}"
        blocks: list[Block] = [Paragraph(" ".join(told.split()), note=True)]
        drawn = False
        for kind, frames in self.kinds.items():
            strips = [self._strip(each) for each in frames]
            blocks += [Heading(kind.capitalize()), Strips(strips)] if strips else []
            drawn |= any(len(strip.pictures) > 1 for strip in strips)
        if drawn and len(self.classes) <= _NAMED:
            colours = class_colours(self.classes)
            blocks.insert(1, Legend([(colour, readable_name(name)) for name, colour in colours.items()]))
        return blocks

    def _strip(self, scored: Scored) -> Strip:
        pictures = []
        for name, image in self.draw(scored).items():
            scale = min(1.0, _WIDTH / image.shape[1])
            pictures.append((name, cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)))
        title, alone = f"{scored.value:.3f} · {scored.video}, frame {scored.frame}", len(pictures) == 1
        if scored.said and not alone:
            title += f" · {scored.said}"
        mark = _MARKS.get(scored.right, "")
        return Strip(title, [picture(image, scored.said or name if alone else name, mark) for name, image in pictures])
