"""What a training step cuts from a frame: the boxes, the crops, the patches that are masked for the student."""

from __future__ import annotations

import random

import cv2
import numpy as np

from surgdino.crops.masks import block_mask
from surgdino.crops.multicrop import MultiCrop
from surgdino.crops.region import Box
from surgdino.crops.sampler import partner
from surgdino.crops.settings import CropSettings
from surgdino.frames.store import FrameStore
from surgdino.report.sheet import ACCENT, MARGIN, SOFT, WARM, Sheet, fitted, rgb
from surgdino.show.frames import ShowConfig, StoredFrame, choose

_ROW, _GAP, _HEAD, _FRAME_WIDTH = 336, 12, 150, 620
_COLOURS = {"global_1": ACCENT, "global_2": WARM, "local": "#c8d2dc"}
_MASK_SHARES = (0.2, 0.4)


def draw(config: ShowConfig, store: FrameStore) -> Sheet:
    """A row for each frame: boxes, two global crops, their masked patches, the local crops.

    With `crops.pair_seconds` the frame stands above its neighbour in time, each with the boxes that were cut from it.
    """
    crops, patch = config.crops.largest, config.model.patch_size or 16
    multicrop = MultiCrop(crops, config.augment)
    local_columns = -(-crops.local_count // 2)
    local = (_ROW - _GAP) // 2
    width = 2 * MARGIN + _FRAME_WIDTH + 4 * (_ROW + _GAP) + local_columns * (local + _GAP)
    sheet = Sheet(width, _HEAD + config.show.frames * (_ROW + 44) + MARGIN)
    inside = "inside the disc" if crops.inside_disc else "anywhere in the frame"
    if crops.pair_seconds is not None:
        inside += f", pairs up to {crops.pair_seconds:g} s apart"
    sheet.heading(
        "Multi-crop",
        f"2 x {crops.global_size} and {crops.local_count} x {crops.local_size} pixels, {inside}, "
        f"augment={config.augment.get('name', '')}, patches of {patch}",
    )
    _titles(sheet, crops)
    for place, frame in enumerate(choose(store, config.show.frames, config.show.seed)):
        seed = config.show.seed + place
        pair = [frame]
        if (index := partner(store, frame.index, crops.pair_seconds, seed)) != frame.index:
            pair.append(StoredFrame.of(store, index))
        _row(sheet, _HEAD + place * (_ROW + 44), pair, multicrop, patch, seed)
    return sheet


def _titles(sheet: Sheet, crops: CropSettings) -> None:
    titles = [("global 1", ACCENT), ("global 2", WARM), ("global 1, masked", ACCENT), ("global 2, masked", WARM)]
    sheet.words(MARGIN, _HEAD - 16, "stored frame", size=16, colour=SOFT)
    for column, (title, colour) in enumerate(titles):
        sheet.words(_x(column), _HEAD - 16, title, size=16, colour=colour)
    if crops.local_count:
        sheet.words(_x(4), _HEAD - 16, "local", size=16, colour=_COLOURS["local"])


def _x(column: int) -> int:
    return MARGIN + _FRAME_WIDTH + column * (_ROW + _GAP)


def _row(sheet: Sheet, y: int, pair: list[StoredFrame], multicrop: MultiCrop, patch: int, seed: int) -> None:
    second = (pair[1].image, pair[1].content) if len(pair) > 1 else None
    views = list(multicrop.views(pair[0].image, pair[0].content, seed, second))
    cell = (_ROW - _GAP * (len(pair) - 1)) // len(pair)
    for place, frame in enumerate(pair):
        of_frame = [
            v for v, from_second in zip(views, multicrop.from_second, strict=True) if from_second == bool(place)
        ]
        boxes: list[tuple[str, Box]] = [(view, box) for view, box, _ in (of_frame if second else views)]
        picture = with_boxes(frame, boxes, cell)
        sheet.picture(MARGIN, y + place * (cell + _GAP) + (cell - picture.shape[0]) // 2, picture)
    times = " and ".join(f"{frame.time:.3g}" for frame in pair)
    sheet.words(MARGIN, y + _ROW + 20, f"{pair[0].video}, {times} s", size=14, colour=SOFT)
    rng = random.Random(seed)
    side = multicrop.settings.global_size // patch
    for column, ((_, _, crop), share) in enumerate(zip(views[:2], _MASK_SHARES, strict=True)):
        mask = block_mask((side, side), share, rng)
        sheet.picture(_x(column), y, cv2.resize(crop, (_ROW, _ROW), interpolation=cv2.INTER_CUBIC))
        sheet.picture(_x(column + 2), y, with_mask(crop, mask))
        sheet.words(_x(column + 2), y + _ROW + 20, f"{mask.mean():.0%} of {mask.size} patches", size=14, colour=SOFT)
    local = (_ROW - _GAP) // 2
    for place, (_, _, crop) in enumerate(views[2:]):
        left, top = _x(4) + place // 2 * (local + _GAP), y + place % 2 * (local + _GAP)
        sheet.picture(left, top, cv2.resize(crop, (local, local), interpolation=cv2.INTER_CUBIC))


def with_boxes(frame: StoredFrame, boxes: list[tuple[str, Box]], height: int = _ROW) -> np.ndarray:
    """The stored frame as large as its cell, with its disc and the views' boxes, the global ones thicker."""
    picture = fitted(frame.image, _FRAME_WIDTH - 2 * _GAP, height)
    factor = picture.shape[1] / frame.image.shape[1]
    frame.outline(picture, SOFT, 1)
    for view, box in sorted(boxes, key=lambda pair: pair[0] != "local"):
        x0, y0, x1, y1 = (round(edge * factor) for edge in box)
        thickness = 1 if view == "local" else 3
        cv2.rectangle(picture, (x0, y0), (x1 - 1, y1 - 1), rgb(_COLOURS[view]), thickness, cv2.LINE_AA)
    return picture


def with_mask(crop: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The crop enlarged, with the masked patches (bool [h, w]) greyed out."""
    large = cv2.resize(crop, (_ROW, _ROW), interpolation=cv2.INTER_CUBIC)
    hidden = cv2.resize(mask.astype(np.uint8), (_ROW, _ROW), interpolation=cv2.INTER_NEAREST).astype(bool)
    grey = np.full_like(large, 58)
    large[hidden] = cv2.addWeighted(large, 0.12, grey, 0.88, 0)[hidden]
    return large
