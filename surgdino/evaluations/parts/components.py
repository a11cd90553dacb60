"""Patch features as colours: the first three principal components of an operation's frames, alike for all backbones"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from surgdino.engine.probing.frames import even
from surgdino.evaluations.parts.given import Given
from surgdino.evaluations.parts.kept import kept
from surgdino.frames.store import FrameStore
from surgdino.report.views import as_grid, component_colours, patches_inside
from surgdino.tasks.features.cache import FeatureCache

_SHOWN, _FITTED = 4, 8  # pictures of a dataset; frames of an operation that its components are of


@dataclass(frozen=True)
class _Shown:
    """Frames of one operation by their positions in the store, and which of them is shown."""

    operation: str
    index: np.ndarray
    shown: int


def component_pictures(given: Given, caches: Mapping[str, FeatureCache]) -> list[dict[str, Any]]:
    """A row of pictures an operation: its name, and backbone -> a PNG in base64, a pixel a patch, the border black.

    The components of the first backbone are those of greatest variance over the operation's frames without the border;
    those of the others are turned towards them, so that a colour means about the same.

    Args:
        caches: of all backbones, the first one first. A few frames are encoded, once.
    """
    chosen = list(_chosen(given))
    ends = np.cumsum([len(each.index) for each in chosen])
    index, found = np.concatenate([each.index for each in chosen]), [dict[str, str]() for _ in chosen]
    references: list[np.ndarray] = []
    for name, cache in caches.items():
        patches = _patches(cache, given.frames.store, index)
        side = round(patches.shape[1] ** 0.5)
        inside = _inside(given.frames.store, index, side)
        for place, (each, end) in enumerate(zip(chosen, ends.tolist(), strict=True)):
            own = slice(end - len(each.index), end)
            reference = _at_side(references[place], side) if len(references) > place else None
            colours = component_colours(patches[own], reference, inside[own])
            if reference is None:
                references.append(colours)
            done, data = cv2.imencode(".png", as_grid(colours[each.shown])[..., ::-1])
            assert done  # an encoder in memory fails for impossible shapes only
            found[place][name] = base64.b64encode(data.tobytes()).decode()
    return [{"operation": each.operation, "pictures": found[place]} for place, each in enumerate(chosen)]


def _chosen(given: Given) -> list[_Shown]:
    """Tested frames that are shown, every operation's evenly over its time, with others of their operation."""
    every = given.of_operations(np.flatnonzero(given.tested))
    chosen = []
    for row in even(given.sample(_SHOWN), _SHOWN).tolist():
        operation = str(given.operations[row])
        rows = np.union1d(even(every[operation], _FITTED - 1), [row])
        chosen.append(_Shown(operation, given.frames.index[rows], int(np.searchsorted(rows, row))))
    return chosen


def _patches(cache: FeatureCache, store: FrameStore, index: np.ndarray) -> np.ndarray:
    """float16 [n, N, D] of the last block, kept beside the other features."""

    def computed() -> Iterator[np.ndarray]:
        blocks = cache.extract(store, index, (cache.backbone.depth - 1,))
        return (block.patches.half().cpu().numpy() for block in blocks)

    return kept(cache, store, index, "components/", computed)


def _inside(store: FrameStore, index: np.ndarray, side: int) -> np.ndarray:
    """bool [n, side * side]: the patches that are not of the border."""
    return np.stack([patches_inside(store.content(int(i)), store.read(int(i)).shape, side) for i in index])


def _at_side(colours: np.ndarray, side: int) -> np.ndarray:
    """[n, N, 3] for a grid of another side."""
    own = round(colours.shape[1] ** 0.5)
    if own == side:
        return colours
    grids = [each.reshape(own, own, 3) for each in colours]
    return np.stack([cv2.resize(grid, (side, side)).reshape(-1, 3) for grid in grids])
