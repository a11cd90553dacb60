"""The frames that `surgdino bench` works on: some of one's own, else generated ones."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from surgdino.datasets.card import Card, load_card
from surgdino.datasets.manifest import Manifest
from surgdino.datasets.open import open_dataset
from surgdino.datasets.synthetic.cholec80 import write_cholec80
from surgdino.errors import SurgdinoError
from surgdino.frames.store import FrameStore, StoredVideo, build_store, open_store
from surgdino.inputs.settings import DataSettings, manifest_of


@dataclass(frozen=True)
class BenchFrames:
    """Frames enough for a batch, and where they are from, in words."""

    store: FrameStore
    source: str


@contextmanager
def bench_frames(cfg: Mapping[str, Any], at_least: int) -> Iterator[BenchFrames]:
    """What the store of `data.root` holds already, or one video's shard of it; generated frames where it is null.

    Args:
        at_least: frames to have; where there are fewer, the same ones come again, which costs as much to cut.

    Raises:
        SurgdinoError: no such data, or no usable frame in it.
    """
    if cfg["data"]["root"] is not None:
        store = own_frames(cfg)
        yield BenchFrames(repeated(store, at_least), f"{len(store):,} of your frames")
        return
    with tempfile.TemporaryDirectory() as folder:
        manifest = generated(Path(folder), videos=2, seconds=11, fps=12)
        data = replace(DataSettings.of({"data": {**cfg["data"], "root": str(manifest.root)}}), fps=4.0)
        store = build_store(manifest, Path(folder) / "store", data.store_settings, workers=1, progress=False)
        yield BenchFrames(repeated(store, at_least), f"{len(store):,} generated frames")


def generated(folder: Path, videos: int, seconds: float, fps: int) -> Manifest:
    """A synthetic set of Cholec80's own picture size."""
    root = folder / "generated"
    write_cholec80(root, videos=videos, seconds=seconds, fps=fps, size=(854, 480), annotations=False)
    return open_dataset(load_card("cholec80"), root)


def own_frames(cfg: Mapping[str, Any]) -> FrameStore:
    """Those of `data.root` that are stored already; without any, the smallest video is stored now."""
    data = DataSettings.of(cfg)
    manifest = manifest_of(Card.from_dict(cfg["dataset"]), data)
    ready = list(_stored(manifest, data))
    if not ready:
        smallest = min(manifest.videos, key=lambda video: (video.is_image_folder, video.path.stat().st_size))
        one = replace(manifest, videos=(smallest,))
        ready = list(build_store(one, data.store, data.store_settings, workers=1, max_bad_share=0.0).videos)
    store = FrameStore(ready)
    if not len(store):
        raise SurgdinoError("no usable frame to measure with", file=data.store, fix="run surgdino verify on data.root")
    return store


def _stored(manifest: Manifest, data: DataSettings) -> Iterator[StoredVideo]:
    for video in manifest.videos:
        try:
            yield from open_store(data.store, replace(manifest, videos=(video,)), data.store_settings).videos
        except SurgdinoError:
            continue  # not built yet, or out of date: building it is not a benchmark's work


def repeated(store: FrameStore, at_least: int) -> FrameStore:
    """The store, its videos several times over if it has fewer frames than `at_least`."""
    times = -(-at_least // max(len(store), 1))
    return store if times <= 1 else FrameStore(store.videos * times, store.set_aside, store.flagged)
