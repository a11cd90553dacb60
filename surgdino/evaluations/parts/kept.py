"""Features of an evaluation's own frames, computed once and kept beside the others of their backbone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

from surgdino.array_files import map_array
from surgdino.errors import SurgdinoError
from surgdino.frames.store import FrameStore
from surgdino.paths import atomic_write
from surgdino.tasks.features.cache import FeatureCache


def kept(
    cache: FeatureCache,
    store: FrameStore,
    index: np.ndarray,
    name: str,
    compute: Callable[[], Iterable[np.ndarray]],
    *facts: object,
) -> np.ndarray:
    """[n, ...]: those of the frames at `index`, from their file, or computed and put there.

    Args:
        name: of the file inside the cache's folder, to which a hash is added.
        compute: gives them in blocks.
        facts: what else they depend on.
    """
    shards = [video.shard.crc for video in store.videos]
    known = repr((shards, store.flagged, index.tolist(), *facts, torch.__version__))
    file = cache.identified() / f"{name}{hashlib.sha256(known.encode()).hexdigest()[:16]}.npy"
    found = _read(file, len(index))
    if found is None:
        found = np.concatenate(list(compute()))
        with atomic_write(file) as temporary, temporary.open("wb") as stream:
            np.save(stream, found)
    return found


def _read(file: Path, count: int) -> np.ndarray | None:
    """None where it is not there, or damaged."""
    try:
        found = map_array(file)
    except SurgdinoError:
        return None
    return np.array(found) if len(found) == count else None
