"""Where the picture was found in each video: the disc, the largest crop in it, drawn on some of its frames."""

from __future__ import annotations

import cv2
import numpy as np

from surgdino.crops.region import Region, largest_inscribed
from surgdino.frames.store import FrameStore
from surgdino.report.sheet import ACCENT, MARGIN, SOFT, WARM, Sheet, fitted, rgb
from surgdino.show.frames import ShowConfig, StoredFrame

_CELL_WIDTH, _CELL_HEIGHT, _GAP, _LABEL, _HEAD = 380, 232, 12, 300, 128
_MOST_VIDEOS = 24


def draw(config: ShowConfig, store: FrameStore) -> Sheet:
    """A row for each video, `show.frames` of its frames spread over it."""
    places: dict[str, list[int]] = {}
    for index in range(len(store)):
        places.setdefault(store.video_id(index), []).append(index)
    shown = list(places)[:_MOST_VIDEOS]
    width = 2 * MARGIN + _LABEL + config.show.frames * (_CELL_WIDTH + _GAP)
    sheet = Sheet(max(width, 1200), _HEAD + len(shown) * (_CELL_HEIGHT + _GAP) + MARGIN)
    more = f", the first {len(shown)} of {len(places)} videos" if len(places) > len(shown) else ""
    sheet.heading(
        "Content",
        f"the endoscope's disc (teal) and the largest square crop inside it (amber), in the stored frames{more}",
    )
    for row, video in enumerate(shown):
        _row(sheet, _HEAD + row * (_CELL_HEIGHT + _GAP), video, places[video], store, config.show.frames)
    return sheet


def _row(sheet: Sheet, y: int, video: str, indices: list[int], store: FrameStore, count: int) -> None:
    spread = np.linspace(0, len(indices) - 1, min(count, len(indices)) + 2)[1:-1]
    picked = [StoredFrame.of(store, indices[round(place)]) for place in spread]
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


def outlined(frame: StoredFrame) -> np.ndarray:
    """The frame with its content and the largest square crop drawn into it."""
    height, width = frame.image.shape[:2]
    picture = fitted(frame.image, _CELL_WIDTH, _CELL_HEIGHT)
    factor = picture.shape[1] / width
    frame.outline(picture, ACCENT, 2)
    box_width, box_height = largest_inscribed(frame.content, height, width, 1.0)
    x, y = Region.of(frame.content, height, width).anchor(box_width, box_height)
    x0, x1 = (round((x + side * box_width / 2) * factor) for side in (-1, 1))
    y0, y1 = (round((y + side * box_height / 2) * factor) for side in (-1, 1))
    cv2.rectangle(picture, (x0, y0), (x1 - 1, y1 - 1), rgb(WARM), 1, cv2.LINE_AA)
    return picture
