"""Frames made worse, as theatres make them: the effects of the augmentations, and interlacing, at fixed severities.

The same frame, corruption and severity give the same pixels anywhere: all that is random follows from the frame's own
pixels and the corruption's name, and a severity changes the strength alone.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from surgdino.crops.augment.build import transforms
from surgdino.errors import SurgdinoError, nearest
from surgdino.evaluations.parts.kept import kept
from surgdino.frames.store import FrameStore
from surgdino.tasks.features.cache import FeatureCache

SEVERITIES = 5
INTERLACING = "interlacing"
_COMB = 8.0  # pixels of a frame 256 high that the camera moves between the two fields, at the highest severity

Corruption = Callable[[np.ndarray, float], np.ndarray]


def corruption_names() -> list[str]:
    """What `corruption_named` takes."""
    return sorted([*transforms(), INTERLACING])


def corruption_named(name: str) -> Corruption:
    """The corruption as a function of a frame, uint8 [H, W, 3], and its strength in (0, 1].

    Raises:
        SurgdinoError: there is none of that name.
    """
    if name == INTERLACING:
        return _interlaced
    if name not in transforms():
        raise SurgdinoError(f"there is no corruption {name!r}", fix=nearest(name, corruption_names()))
    effect = transforms()[name]()

    def corrupted(image: np.ndarray, strength: float) -> np.ndarray:
        rng = random.Random(f"{name} {zlib.crc32(np.ascontiguousarray(image).data)}")
        return effect.paint(image, effect.draw(strength, rng, *image.shape[:2]))

    return corrupted


def _interlaced(image: np.ndarray, strength: float) -> np.ndarray:
    """Every second line was taken a moment later, when the camera had moved to the side."""
    found = image.copy()
    found[1::2] = np.roll(image[1::2], round(_COMB * strength * len(image) / 256), axis=1)
    return found


class CorruptedStore(FrameStore):
    """A frame store whose frames are corrupted when they are read."""

    def __init__(self, store: FrameStore, name: str, severity: int) -> None:
        super().__init__(store.videos, store.set_aside, store.flagged)
        self.name, self.strength = name, severity / SEVERITIES

    def read(self, index: int) -> np.ndarray:
        return corruption_named(self.name)(super().read(index), self.strength)


def corrupted_tokens(cache: FeatureCache, store: FrameStore, index: np.ndarray, name: str, severity: int) -> Tensor:
    """float32 [n, D], class tokens of the corrupted frames at `index`; computed once and kept beside the clean ones."""

    def computed() -> Iterator[np.ndarray]:
        return (block.cls.cpu().numpy() for block in cache.extract(CorruptedStore(store, name, severity), index))

    found = kept(cache, store, index, f"corrupted/{name}-", computed, severity)
    return torch.from_numpy(found).to(cache.backbone.mask_token.device)
