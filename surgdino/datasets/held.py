"""Labels held against their video: beyond its end, ending early, counted in another unit.

Every verb asks this, with the video's length as it knows it: `verify` from the file, training from the frame store.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from surgdino.datasets.manifest import FrameLabels, Labels, Problem, SecondLabels, SegmentLabels, Video
from surgdino.datasets.masks import VideoMasks
from surgdino.datasets.objects import OBJECTS

# Label files may stop this long before the video does, or end their last segment this long after it (seconds):
# releases round, and the last rows are often cut.
SLACK = 2.0
_OVER = 0.1  # of a video: segments that end this much after it count in another unit, or are another video's
_SHORT = 0.5  # of a video: labels that end before this, likewise
_NEAR = 0.1  # how near a video's length in another unit must be for that unit to be named
_UNITS = {"frame": "frames", "second": "seconds", "ms": "milliseconds"}


@dataclass(frozen=True)
class Length:
    """How long a video is, at most, and how large.

    Attributes:
        frames: that it has; their numbers are below this.
        seconds: from the first frame to the end.
        size: (width, height) in pixels as shown.
    """

    frames: int
    seconds: float
    size: tuple[int, int] | None = None

    def __str__(self) -> str:
        return f"{self.frames} frames, {self.seconds:.2f} seconds"


def held_against(video: Video, length: Length, labels: Labels) -> Iterator[Problem]:
    """What does not fit between a video and its labels of one task; at most one problem."""
    values = labels.values.get(video.id)
    if values is None or not len(values) or video.is_image_folder:
        return
    if isinstance(values, VideoMasks):
        yield from _of_masks(video, length, values)
        return
    unit, starts, ends, reach = _moments(values)
    end = length.frames if unit == "frame" else length.seconds
    slack = SLACK * length.frames / max(length.seconds, 1e-9) if unit == "frame" else SLACK
    finite = ends[np.isfinite(ends)]
    last = float(finite.max()) if len(finite) else float(starts[-1])
    found = f"{length.frames} frames" if unit == "frame" else f"{length.seconds:.2f} seconds"
    # A row of the second in which the video ends is for the frames before it.
    if beyond := int((starts >= end + reach).sum()):
        what = f"{beyond} {labels.task} label{'s lie' if beyond > 1 else ' lies'} beyond the video's end"
        expected = f"{starts[-1] + (unit == 'frame'):g} {unit}s or more"
        fix = _other_unit(last, unit, length) or "the video is cut short, or the labels are another's"
        yield Problem("error", what, video.path, None, expected, found, fix)
    elif (over := int((finite > end + max(slack, _OVER * end)).sum())) and isinstance(values, SegmentLabels):
        what = f"{over} {labels.task} segment{'s end' if over > 1 else ' ends'} long after the video does"
        fix = _other_unit(last, unit, length) or "the video is cut short, or the labels are another's"
        yield Problem("error", what, video.path, None, f"{last:g} {unit}s", found, fix)
    elif labels.task != OBJECTS and not video.frame_count and np.isfinite(ends).all() and last < _SHORT * end:
        what, expected = f"the {labels.task} labels end long before the video does", "labels up to the end"
        fix = _other_unit(last, unit, length) or "check what the numbers count: frames, seconds or milliseconds"
        yield Problem("warning", what, video.path, None, expected, f"{last:g} of {found}", fix)


def _of_masks(video: Video, length: Length, values: VideoMasks) -> Iterator[Problem]:
    """Masks of frames that the video does not have, or of another size."""
    size = next(iter(values.values())).size  # None of pictures, whose files are compared one by one
    slack = SLACK * length.frames / max(length.seconds, 1e-9)
    what, found = "", ""
    if size and length.size and size != length.size:
        what, found = "the masks were drawn on a video of another size", "{}x{}".format(*length.size)
        expected = "{}x{}".format(*size)
    elif beyond := int((values.numbers >= length.frames + slack).sum()):
        what, found = f"masks of {beyond} frames beyond the video's end", f"{length.frames} frames"
        expected = f"{values.numbers[-1] + 1} frames or more"
    if what:
        fix = "the export is another video's, or this one was cut or converted after it was labelled"
        yield Problem("error", what, video.path, None, expected, found, fix)


def _moments(values: FrameLabels | SecondLabels | SegmentLabels) -> tuple[str, np.ndarray, np.ndarray, float]:
    """(unit, first moments, moments after the last, how far before its row a label reaches)."""
    if isinstance(values, FrameLabels):
        return "frame", values.numbers, values.numbers + 1, 0.0
    if isinstance(values, SecondLabels):
        return "second", values.seconds, values.seconds + values.reach, values.reach
    return "frame" if values.by_frame else "second", values.starts, values.ends, 0.0


def _other_unit(last: float, unit: str, length: Length) -> str | None:
    """What to do where the labels would fit in another unit."""
    lengths = {"frame": length.frames, "second": length.seconds, "ms": 1000 * length.seconds}
    for other, end in lengths.items():
        if other != unit and abs(last - end) <= max(_NEAR * end, 1.5):
            return f"the numbers look like {_UNITS[other]}: call the column `{other}` (or start_{other}) if they are"
    return None
