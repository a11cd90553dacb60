"""The contact sheet of every augmentation, at rising strength, and of the whole chain as training draws it."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from surgdino.crops.augment.build import build_augment, transforms
from surgdino.crops.augment.settings import VIEWS
from surgdino.crops.augment.transform import FrameTransform
from surgdino.frames.content import content_mask
from surgdino.frames.store import FrameStore
from surgdino.report.sheet import ACCENT, INK, MARGIN, SOFT, WARM, Sheet, fitted
from surgdino.show.frames import ShowConfig, StoredFrame, choose

STRENGTHS = (0.25, 0.5, 0.75, 1.0)
_TILE_WIDTH, _TILE_HEIGHT, _GAP = 252, 168, 8
_LABEL, _BETWEEN, _HEAD, _BAND = 420, 28, 168, 74
_PAIR = 1 + len(STRENGTHS)  # a frame as it is, then at each strength
_COLUMNS = 2 * _PAIR


@dataclass(frozen=True)
class Tile:
    """A frame at the size in which it is shown; it is augmented at this size, as small crops are in training.

    Attributes:
        image: uint8 [h, w, 3].
        continued: the same with a blurred continuation of the picture instead of the black surround: crops in training
            are inside the disc, and its rim must not attract highlights.
        surround: bool [h, w].
    """

    image: np.ndarray
    continued: np.ndarray
    surround: np.ndarray

    def augmented(self, transform: FrameTransform, strength: float, seed: int) -> np.ndarray:
        """The tile after one application at `strength`, its surround black again."""
        rng = random.Random(seed)
        return self.framed(transform.effect(self.continued, strength, rng))

    def framed(self, image: np.ndarray) -> np.ndarray:
        """`image` with this tile's black surround."""
        out = image.copy()
        out[self.surround] = 0
        return out


def draw(config: ShowConfig, store: FrameStore) -> Sheet:
    """Every transform that is discovered, those of the chosen set first and in its order."""
    augment, seed = config.augment, config.show.seed
    tiles = [tile_of(frame) for frame in choose(store, config.show.frames, seed)]
    chosen = {name: given for name, given in (augment.get("transforms") or {}).items() if given is not None}
    others = sorted(transforms().keys() - chosen.keys())
    step = _TILE_HEIGHT + _GAP
    height = _HEAD + step * (len(chosen) + len(others)) + (_BAND if others else 0) + _BAND + 3 * step + MARGIN
    sheet = Sheet(2 * MARGIN + _LABEL + _COLUMNS * (_TILE_WIDTH + _GAP) + _BETWEEN, height)
    name, videos = augment.get("name", ""), store.summary()["videos"]
    plural = "" if videos == 1 else "s"
    sheet.heading("Augmentations", f"augment={name}, on {len(tiles)} frames of {videos} video{plural}")
    _column_titles(sheet)
    y = _HEAD
    for place, (transform, given) in enumerate(chosen.items()):
        y = _row(sheet, y, transform, given, tiles, place, seed)
    if others:
        y = _section(sheet, y, f"Not in augment={name}", "add them by name under augment.transforms")
    for place, transform in enumerate(others, start=len(chosen)):
        y = _row(sheet, y, transform, None, tiles, place, seed)
    y = _section(sheet, y, "All together", "the whole chain, drawn as training draws it for each of its views")
    _chains(sheet, y, augment, tiles, seed)
    return sheet


def tile_of(frame: StoredFrame) -> Tile:
    """Fit a stored frame into a tile."""
    image = fitted(frame.image, _TILE_WIDTH, _TILE_HEIGHT)
    height, width = image.shape[:2]
    content = frame.content.crop_and_scale((0, 0, frame.image.shape[1], frame.image.shape[0]), height, width)
    if content.radius is not None:
        content = replace(content, radius=content.radius * 0.985)  # the disc's last pixels are half dark
    inside = content_mask(content, height, width)
    return Tile(image, _continued(image, inside), ~inside)


def _continued(image: np.ndarray, inside: np.ndarray) -> np.ndarray:
    weight = inside.astype(np.float32)
    total, sums = np.full(inside.shape, 1e-3, np.float32), 1e-3 * image.astype(np.float32)
    for sigma in (4, 16, 64):  # the nearest picture counts most, the farthest reaches every corner
        fade = (4 / sigma) ** 2
        total += fade * cv2.GaussianBlur(weight, (0, 0), sigma)
        sums += fade * cv2.GaussianBlur(image * weight[..., None], (0, 0), sigma)
    filled = np.clip(sums / total[..., None], 0, 255).astype(np.uint8)
    filled[inside] = image[inside]
    return filled


def _x(column: int) -> int:
    return MARGIN + _LABEL + column * (_TILE_WIDTH + _GAP) + (_BETWEEN if column >= _PAIR else 0)


def _column_titles(sheet: Sheet) -> None:
    for column in range(_COLUMNS):
        place = column % _PAIR
        title = "as it is" if place == 0 else f"strength {STRENGTHS[place - 1]:g}"
        colour = ACCENT if place == 0 else INK
        sheet.words(_x(column) + _TILE_WIDTH / 2, _HEAD - 22, title, size=18, colour=colour, at="center")
    sheet.rule(MARGIN, sheet.canvas.shape[1] - MARGIN, _HEAD - 10)


def _row(
    sheet: Sheet, y: int, name: str, given: Mapping[str, Any] | None, tiles: list[Tile], place: int, seed: int
) -> int:
    kind = transforms()[name]
    middle = y + _TILE_HEIGHT // 2
    sheet.words(MARGIN, middle - 18, kind.shows, size=20, bold=True, colour=INK if given is not None else SOFT)
    sheet.words(MARGIN, middle + 8, name, size=16, colour=ACCENT)
    if given is not None:
        for line, text in enumerate(_settings_lines(given)):
            sheet.words(MARGIN, middle + 32 + 21 * line, text, size=15, colour=SOFT)
    transform = kind()
    for half in range(2):
        tile = tiles[(place + half * max(1, len(tiles) // 2)) % len(tiles)]
        for step in range(_PAIR):
            drawn = 1000 * (seed + 1) + 100 * place + 10 * half + step
            image = tile.image if step == 0 else tile.augmented(transform, STRENGTHS[step - 1], drawn)
            _put(sheet, half * _PAIR + step, y, image)
    return y + _TILE_HEIGHT + _GAP


def _settings_lines(given: Mapping[str, Any]) -> list[str]:
    p = given.get("p", 0.5)
    if isinstance(p, Mapping):
        p = " / ".join(f"{p[view]:g}" for view in VIEWS) + "  (global 1, 2, local)"
    low, high = given.get("strength", (0.0, 1.0))
    return [f"p {p}", f"strength {low:g} to {high:g}"]


def _put(sheet: Sheet, column: int, y: int, image: np.ndarray) -> None:
    height, width = image.shape[:2]
    sheet.picture(_x(column) + (_TILE_WIDTH - width) // 2, y + (_TILE_HEIGHT - height) // 2, image)


def _section(sheet: Sheet, y: int, title: str, subtitle: str) -> int:
    sheet.rule(MARGIN, sheet.canvas.shape[1] - MARGIN, y + 14)
    sheet.words(MARGIN, y + 50, title, size=24, bold=True, colour=WARM)
    sheet.words(MARGIN + _LABEL, y + 50, subtitle, size=17, colour=SOFT)
    return y + _BAND


def _chains(sheet: Sheet, y: int, augment: Mapping[str, Any], tiles: list[Tile], seed: int) -> None:
    titles = {"global_1": "First global view", "global_2": "Second global view", "local": "Local views"}
    for view in VIEWS:
        chain = build_augment(augment, view)
        chain.horizontal_flip = chain.vertical_flip = 0.0  # the surround is the unflipped frame's
        sheet.words(MARGIN, y + _TILE_HEIGHT // 2, titles[view], size=20, bold=True)
        for column in range(_COLUMNS):
            tile = tiles[column % len(tiles)]
            rng = random.Random(f"{seed} {view} {column}")
            _put(sheet, column, y, tile.framed(chain(tile.continued, rng)))
        y += _TILE_HEIGHT + _GAP
