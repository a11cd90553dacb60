"""Where the toolkit thinks the picture is, video by video: the disc, the largest crop in it, and some of its frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from surgdino.crops.region import Region, largest_inscribed
from surgdino.frames.store import FrameStore
from surgdino.report.sheet import ACCENT, MARGIN, SOFT, WARM, Sheet, fitted, rgb
from surgdino.show.verb import Shown, outline, show

if TYPE_CHECKING:
    from surgdino.show.verb import ShowSettings

_CELL_WIDTH, _CELL_HEIGHT, _GAP, _LABEL, _HEAD = 380, 232, 12, 300, 128
_MOST_VIDEOS = 24


def draw(cfg: Mapping[str, Any], store: FrameStore, settings: ShowSettings) -> Sheet:
    """A row for each video, `show.frames` of its frames spread over it."""
    places = frames_by_video(store)
    shown = list(places)[:_MOST_VIDEOS]
    width = 2 * MARGIN + _LABEL + settings.frames * (_CELL_WIDTH + _GAP)
    sheet = Sheet(max(width, 1200), _HEAD + len(shown) * (_CELL_HEIGHT + _GAP) + MARGIN)
    more = f", the first {len(shown)} of {len(places)} videos" if len(places) > len(shown) else ""
    sheet.heading(
        "Content",
        f"the endoscope's disc (teal) and the largest square crop inside it (amber), in the stored frames{more}",
    )
    for row, video in enumerate(shown):
        _row(sheet, _HEAD + row * (_CELL_HEIGHT + _GAP), video, places[video], store, settings.frames)
    return sheet


def frames_by_video(store: FrameStore) -> dict[str, list[int]]:
    """Video id -> positions of its frames in the store."""
    places: dict[str, list[int]] = {}
    for index in range(len(store)):
        places.setdefault(store.video_id(index), []).append(index)
    return places


def _row(sheet: Sheet, y: int, video: str, indices: list[int], store: FrameStore, count: int) -> None:
    spread = np.linspace(0, len(indices) - 1, min(count, len(indices)) + 2)[1:-1]
    picked = [show(store, indices[round(place)]) for place in spread]
    content = picked[0].content
    height, width = picked[0].image.shape[:2]
    lines = [f"{len(indices)} frames of {width} x {height}", f"content: {content.kind}"]
    if content.radius is not None:
        lines.append(f"radius {content.radius:.0f} at ({content.cx:.0f}, {content.cy:.0f})")
    sheet.words(MARGIN, y + 40, video, size=20, bold=True)
    sheet.words(MARGIN, y + 64, store.operation(indices[0]), size=14, colour=ACCENT)
    for place, line in enumerate(lines):
        sheet.words(MARGIN, y + 92 + 21 * place, line, size=14, colour=SOFT)
    for column, frame in enumerate(picked):
        image = outlined(frame)
        x = MARGIN + _LABEL + column * (_CELL_WIDTH + _GAP)
        sheet.picture(x + (_CELL_WIDTH - image.shape[1]) // 2, y + (_CELL_HEIGHT - image.shape[0]) // 2, image)


def outlined(shown: Shown) -> np.ndarray:
    """The frame with its content drawn around."""
    height, width = shown.image.shape[:2]
    frame = fitted(shown.image, _CELL_WIDTH, _CELL_HEIGHT)
    factor = frame.shape[1] / width
    outline(frame, shown, ACCENT, 2)
    box_width, box_height = largest_inscribed(shown.content, height, width, 1.0)
    x, y = Region.of(shown.content, height, width).anchor(box_width, box_height)
    x0, x1 = (round((x + side * box_width / 2) * factor) for side in (-1, 1))
    y0, y1 = (round((y + side * box_height / 2) * factor) for side in (-1, 1))
    cv2.rectangle(frame, (x0, y0), (x1 - 1, y1 - 1), rgb(WARM), 1, cv2.LINE_AA)
    return frame
