"""Videos in time, to scroll: truth, prediction, instruments, and frames below where a page may have any."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from surgdino.paths import read_bytes
from surgdino.report.blocks import Block, Paragraph, Picture, Pictures, Ribbon, Timeline, picture, png_picture
from surgdino.report.colours import ALARM, LINE, class_colours, readable_name
from surgdino.report.operation import Band, OperationTimeline, read_timelines
from surgdino.report.record import RunRecord
from surgdino.report.sections import Section
from surgdino.report.timeline import clock, time_ticks

Frames = Callable[[str, Sequence[float]], Sequence[tuple[float, np.ndarray]]]
_MOST = 12  # videos in a page
_FRAMES, _WIDTH, _BETWEEN = 24, 112, 6  # under a video; pixels of each, and between two
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 180, 300, 600, 900, 1800, 3600)  # seconds between them
_MINUTE = 24  # pixels without frames
_PNG_LIMIT = 16 << 20  # bytes


class Timelines(Section):
    """The tested videos of a run; left out where nothing was predicted in time.

    Args:
        frames: (video, seconds) -> the second and the frame, uint8 RGB [H, W, 3], nearest to each; None where the page
            may show no frames.
    """

    id, title, order = "timelines", "Operations in time", 7

    def __init__(self, frames: Frames | None = None, handled: str = "") -> None:
        self.frames, self.handled = frames, handled

    def of_run(self, record: RunRecord) -> list[Block]:
        """A timeline a video; ribbons as pictures, of runs of before there were any."""
        found = read_timelines(record.folder, _MOST)
        if not found:
            files = sorted((record.folder / "predictions").glob("*-ribbon.png"))[:_MOST]
            old = [png_picture(read_bytes(file, _PNG_LIMIT), file.stem.removesuffix("-ribbon")) for file in files]
            return [Pictures(old, 1)] if old else []
        text = "Scroll sideways, with the arrow keys too; hover over a part to read what it is and from when to when."
        if self.frames is not None:
            text += f" {self.handled}"
        return [Paragraph(text, note=True), *(self._timeline(each) for each in found)]

    def _timeline(self, video: OperationTimeline) -> Timeline:
        length = max(video.end - video.start, 1e-6)
        step = next((step for step in _STEPS if length / step <= _FRAMES), _STEPS[-1])
        width, pictures = round(length / 60 * _MINUTE), list[tuple[float, Picture]]()
        if self.frames is not None:
            wanted = np.arange(video.start + step / 2, video.end, step) if length > step else [video.start + length / 2]
            width = max(width, round(length / step * (_WIDTH + _BETWEEN)))
            pictures = _apart(self.frames(video.video, [float(each) for each in wanted]), video, _WIDTH / width)
        colours = class_colours(video.classes)
        bands = [*video.bands, *video.instruments]
        ribbons = [Ribbon(band.name, band.kind, _parts(band, video, colours, length)) for band in bands]
        there = {label for band in video.bands if band.kind == "classes" for label, _, _ in band.spans}
        legend = [(colours[name], readable_name(name)) for k, name in enumerate(video.classes) if k in there]
        ticks = [((second - video.start) / length, clock(second)) for second in time_ticks(video.start, video.end)]
        right = "" if video.accuracy is None else f"{100 * video.accuracy:.1f} % of frames right"
        return Timeline(video.video, right, width, ribbons, _sure(video), ticks, pictures, legend)


def _parts(
    band: Band, video: OperationTimeline, colours: dict[str, str], length: float
) -> list[tuple[float, float, str, str]]:
    """(from, width, colour, what it is) of each part, as shares of the length."""
    parts = []
    for label, first, last in band.spans:
        name = video.classes[label] if band.kind == "classes" else band.name
        colour = colours[name] if band.kind == "classes" else ALARM if band.kind == "wrong" else LINE
        said = f"{readable_name(name)}, {clock(first)} to {clock(last)}"
        parts.append(((first - video.start) / length, (last - first) / length, colour, said))
    return parts


def _sure(video: OperationTimeline) -> str:
    """How sure the model was, as the points of a polygon in 1000 x 100."""
    if len(video.sure) < 2:
        return ""
    step = 1000 / (len(video.sure) - 1)
    points = " ".join(f"{k * step:.0f},{100 - 100 * value:.0f}" for k, value in enumerate(video.sure))
    return f"0,100 {points} 1000,100"


def _apart(
    frames: Sequence[tuple[float, np.ndarray]], video: OperationTimeline, least: float
) -> list[tuple[float, Picture]]:
    """Frames where they are in the whole, without those nearer to the one before than `least` of it."""
    found: list[tuple[float, Picture]] = []
    for second, image in frames:
        at = (second - video.start) / max(video.end - video.start, 1e-6)
        if not found or at - found[-1][0] >= least:
            found.append((at, picture(_small(image), clock(second))))
    return found


def _small(image: np.ndarray) -> np.ndarray:
    height = round(_WIDTH * image.shape[0] / image.shape[1])
    return cv2.resize(image, (_WIDTH, max(height, 1)), interpolation=cv2.INTER_AREA)
