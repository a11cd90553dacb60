"""The best, the median and the worst frames of a test, with what was predicted; for pages that may hold frames."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from surgdino.csv_files import as_meant
from surgdino.errors import SurgdinoError
from surgdino.report.blocks import Block, Heading, Paragraph, Pictures, picture
from surgdino.report.record import RunRecord
from surgdino.report.sections import Section

SHOWN = 4  # frames of each kind
_APART = 10.0  # seconds between two that are shown of one video: neighbours look alike
_WIDTH, _DOUBLE = 1280, 2.1  # pixels of a row of pictures; how much wider than high two beside each other are


@dataclass(frozen=True)
class Scored:
    """A frame and how good it is: a row of per_frame.csv."""

    video: str
    frame: int
    value: float
    said: str = ""


def read_scored(path: Path) -> tuple[str, list[Scored]]:
    """The measure and the frames of a per_frame.csv.

    Raises:
        SurgdinoError: it cannot be read, or a row is none.
    """
    fix = "run surgdino finetune again to write it"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        measure = header[2]
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise SurgdinoError(
            "not a table of frames", file=path, found=f"{type(error).__name__}: {error}", fix=fix
        ) from error
    found = []
    for number, row in enumerate(rows, 2):
        try:
            video, frame, value, said = row
            found.append(Scored(as_meant(video), int(frame), float(value), as_meant(said)))
        except ValueError as error:
            expected = "video, frame, value, text"
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
    """Frames of patients with what was predicted of them.

    Args:
        measure: by which they are the best and the worst.
        kinds: as `chosen` gives them.
        draw: a frame as the task shows it, uint8 [H, W, 3] RGB.
    """

    id, title, order = "examples", "Best, median and worst frames", 7

    def __init__(
        self, measure: str, kinds: dict[str, list[Scored]], draw: Callable[[Scored], np.ndarray], note: str = ""
    ) -> None:
        self.measure, self.kinds, self.draw, self.note = measure, kinds, draw, note

    def of_run(self, record: RunRecord) -> list[Block]:
        """A row of pictures a kind."""
        text = f"By {self.measure}. {self.note}"
        blocks: list[Block] = [Paragraph(" ".join(text.split()), note=True)]
        for kind, frames in self.kinds.items():
            images = [self.draw(each) for each in frames]
            # Truth and prediction beside each other need the width of two.
            columns = 2 if any(image.shape[1] > _DOUBLE * image.shape[0] for image in images) else 4
            pictures = []
            for each, image in zip(frames, images, strict=True):
                scale = min(1.0, _WIDTH / columns / image.shape[1])
                small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
                caption = f"{each.video}, frame {each.frame}: {each.value:.3f}{'; ' if each.said else ''}{each.said}"
                pictures.append(picture(small, caption))
            blocks += [Heading(kind.capitalize()), Pictures(pictures, columns)] if pictures else []
        return blocks
