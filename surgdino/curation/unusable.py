"""Frames that show nothing to learn from: dark, outside the body, blurred, over-exposed, screens, a camera at rest.

Black frames and those outside the body are flagged when the store is built. The others are judged here from few numbers
of each frame, so that a limit can change without reading pictures again.
"""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np

from surgdino.curation.settings import UnusableSettings
from surgdino.frames.content import Content, content_mask
from surgdino.frames.shard import FLAGS

_SIDE = 128  # of the grey picture that sharpness and flatness are measured on
_THUMB = 16
_TILE = 8  # pixels of a tile's side
_FLAT = 0.75  # grey levels of standard deviation; tissue and drapes have more, drawn areas less
_GLARE = 250
_DARK = 24
QUALITY = np.dtype([("sharpness", "<f4"), ("glare", "<f4"), ("flat", "<f4"), ("thumb", "u1", (_THUMB, _THUMB))])


def quality(image: np.ndarray, content: Content) -> np.ndarray:
    """A row of QUALITY for uint8 [H, W, 3] RGB.

    `sharpness`: standard deviation of the Laplacian as a share of that of the grey levels, over the content; `glare`:
    share of the content in which the darkest of the three channels is 250 or more; `flat`: share of its tiles of 8 x 8
    pixels that are lit and hardly vary, as drawn areas do; `thumb`: 16 x 16 grey levels.
    """
    height, width = image.shape[:2]
    small = cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    inside = content_mask(content.crop_and_scale((0, 0, width, height), _SIDE, _SIDE), _SIDE, _SIDE)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    edges = cv2.Laplacian(grey, cv2.CV_32F)
    eroded = cv2.erode(inside.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)  # without the content's rim
    spread = float(grey[eroded].std()) if eroded.any() else 0.0
    tiles = grey.reshape(_SIDE // _TILE, _TILE, -1, _TILE).swapaxes(1, 2).reshape(-1, _TILE * _TILE).astype(np.float32)
    of_content = inside.reshape(_SIDE // _TILE, _TILE, -1, _TILE).all((1, 3)).reshape(-1)
    flat = (tiles.std(1) < _FLAT) & (tiles.mean(1) > _DARK)
    row = np.zeros((), QUALITY)
    row["sharpness"] = edges[eroded].std() / spread if spread > 1 else 0.0
    row["glare"] = (small.min(2) >= _GLARE)[inside].mean() if inside.any() else 0.0
    row["flat"] = flat[of_content].mean() if of_content.any() else 0.0
    row["thumb"] = cv2.resize(grey, (_THUMB, _THUMB), interpolation=cv2.INTER_AREA)
    return row


def unusable(
    flags: np.ndarray, rows: np.ndarray, times: np.ndarray, video_of: np.ndarray, limits: UnusableSettings
) -> np.ndarray:
    """The first reason that holds of each frame, "" where none does; object [n].

    Args:
        flags: uint8 [n], of the shards.
        rows: QUALITY [n].
        times: float64 [n], seconds.
        video_of: int [n]; a video's frames are together.
    """
    found: dict[str, np.ndarray | None] = {
        **{name: (flags >> place & 1).astype(bool) if _on(limits, name) else None for place, name in enumerate(FLAGS)},
        "screen": None if limits.screen is None else rows["flat"] >= limits.screen,
        "over-exposed": None if limits.over_exposed is None else rows["glare"] >= limits.over_exposed,
        "blurred": None if limits.blurred is None else rows["sharpness"] < limits.blurred,
        "still": None if limits.still_seconds is None else still(rows["thumb"], times, video_of, limits),
    }
    reasons = np.full(len(rows), "", object)
    for name, holds in reversed(found.items()):
        if holds is not None:
            reasons[holds] = name.replace("_", " ")
    return reasons


def _on(limits: UnusableSettings, flag: str) -> bool:
    return {"black": limits.black, "out_of_body": limits.out_of_body}[flag]


def still(thumbs: np.ndarray, times: np.ndarray, video_of: np.ndarray, limits: UnusableSettings) -> np.ndarray:
    """bool [n]: frames of a stretch of `still_seconds` or more in which nothing moves; the first of each stays.

    Nothing moves as long as the thumbnails differ from the stretch's first by less than `still_change` grey levels.
    """
    assert limits.still_seconds is not None
    out = np.zeros(len(thumbs), bool)
    for start, stop in pairwise(np.flatnonzero(np.diff(video_of, prepend=-1, append=-1)).tolist()):
        first = start
        for i in range(start + 1, stop + 1):
            alike = i < stop and np.abs(thumbs[i].astype(np.int16) - thumbs[first]).mean() < limits.still_change
            if not alike:
                if times[i - 1] - times[first] >= limits.still_seconds:
                    out[first + 1 : i] = True
                first = i
    return out
