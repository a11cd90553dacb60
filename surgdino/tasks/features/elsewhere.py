"""Features of a frozen backbone computed through Dask (`data.engine`): by one worker a GPU or CPU, into the same files.

Workers read its weights once, from the folder of the features, and the frames from the store: nothing large travels.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing import current_process
from pathlib import Path

import torch

from surgdino import console, machine
from surgdino.backbone.checkpoint import load, save_backbone
from surgdino.backbone.preprocess import Preprocess
from surgdino.backbone.vit import Backbone
from surgdino.engine.hardware import Hardware, loader_workers
from surgdino.engine.precision import name_of
from surgdino.engine.settings import HardwareSettings
from surgdino.frames.engines import DASK, LOCAL, spread
from surgdino.frames.store import FrameStore, StoredVideo
from surgdino.tasks.features.cache import Blocks, FeatureCache
from surgdino.tasks.labelled_frames import every_frame

_AT_ONCE = 1024  # frames that a worker takes at a time, or one video where it has more
TURN = threading.Lock()  # a worker may have several threads, and has one device


@dataclass(frozen=True)
class Elsewhere:
    """Fills a `FeatureCache`'s files in its stead; the bits are the same on devices of the same kind.

    Attributes:
        engine: `data.engine`, not `local`.
        hardware: by which each worker chooses its device; with the precision that was chosen here.
        processes: workers on this machine for `dask`; 0: one a GPU or processor.
    """

    engine: str
    hardware: HardwareSettings
    processes: int = 0

    @classmethod
    def of(cls, engine: str, settings: HardwareSettings, here: Hardware, processes: int) -> Elsewhere | None:
        """Of the settings; None where features are computed here."""
        dtype = name_of(here.dtype)
        return None if engine == LOCAL else cls(engine, replace(settings, precision=dtype), processes)  # type: ignore[arg-type]

    def __call__(self, cache: FeatureCache, missing: dict[Path, StoredVideo], patches: Blocks, classes: Blocks) -> None:
        """Extract these videos into their files; those of single images many at a time."""
        groups = dict[Path, list[StoredVideo]]()
        frames = _AT_ONCE
        for path, video in missing.items():
            if frames >= _AT_ONCE:
                group, frames = groups.setdefault(path, []), 0
            group.append(video)
            frames += len(video.shard)
        size = self.workers(cache, len(groups))
        recipe = self.recipe(cache, size)
        jobs = {path: (recipe, FrameStore(videos, flagged=True), patches, classes) for path, videos in groups.items()}
        total = sum(len(video.shard) for video in missing.values())
        with console.bar("features", total, stays=False) as bar:
            for path in spread(self.engine, size, _extract, jobs, {path.parent for path in missing}):
                bar.advance(sum(len(video.shard) for video in groups[path]))

    def workers(self, cache: FeatureCache, jobs: int) -> int:
        """How many on this machine for so many jobs, where they are ours."""
        gpus = torch.cuda.device_count() if cache.backbone.mask_token.device.type == "cuda" else 0
        return max(1, min(gpus or self.processes or machine.cores(), jobs))

    def recipe(self, cache: FeatureCache, size: int) -> Recipe:
        """What each of `size` workers needs; the backbone's weights are put beside its features."""
        weights = cache.identified() / "weights"
        if not (weights / "backbone.safetensors").is_file():
            save_backbone(weights, cache.backbone, {})
        hardware = self.hardware
        if self.engine == DASK:
            threads = max(1, machine.cores() // size) if hardware.threads == "auto" else hardware.threads
            hardware = replace(hardware, threads=threads, loader_workers=cache.workers // size)
        return Recipe(weights, hardware, cache.folder, cache.preprocess, cache.batch_size)


@dataclass(frozen=True)
class Recipe:
    """What a worker needs to compute as we would; `weights` is a folder that it sees, as `folder` of the cache is."""

    weights: Path
    hardware: HardwareSettings
    folder: Path
    preprocess: Preprocess
    batch_size: int

    def cache(self) -> FeatureCache:
        """In a worker: our cache, with a backbone on the worker's device. Call it while `TURN` is held."""
        here = Hardware.of(self.hardware)
        # Dask's workers may start no processes unless they were told that they may (docs/cluster.md).
        feeds = here.device.type == "cuda" and not current_process().daemon
        return FeatureCache(
            folder=self.folder,
            backbone=_loaded(self.weights, here.device),
            preprocess=self.preprocess,
            autocast=here.autocast,
            precision=str(here.dtype).removeprefix("torch."),
            workers=loader_workers(self.hardware) if feeds else 0,
            batch_size=self.batch_size,
            progress=False,
        )


def _extract(recipe: Recipe, store: FrameStore, patches: Blocks, classes: Blocks) -> None:
    """In a Dask worker: the features of all frames of a store, into their files."""
    with TURN:
        recipe.cache().keep(every_frame(store), patches, classes)


@lru_cache(maxsize=2)
def _loaded(weights: Path, device: torch.device) -> Backbone:
    """Once a worker: the weights are read from the shared folder."""
    return load(weights, device).backbone.eval()
