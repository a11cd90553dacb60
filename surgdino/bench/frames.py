"""What `surgdino bench` works on: its configuration, and frames of the user's own or generated ones."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from surgdino.backbone.settings import ModelSettings
from surgdino.config import typed
from surgdino.crops.settings import CropSettings
from surgdino.datasets.card import Card, load_card
from surgdino.datasets.manifest import Manifest
from surgdino.datasets.open import open_dataset
from surgdino.datasets.synthetic.cholec80 import write_cholec80
from surgdino.engine.settings import HardwareSettings, PretrainSettings
from surgdino.errors import SurgdinoError
from surgdino.frames.store import FrameStore, StoredVideo, build_store, open_store
from surgdino.inputs.settings import DataSettings, RunSettings, manifest_of


@dataclass(frozen=True)
class BenchSettings:
    """The `bench` section."""

    seconds: Annotated[float, Field(gt=0, le=3600)]
    images_per_second: Annotated[float, Field(gt=0, le=1e6)] | None


@dataclass(frozen=True)
class BenchConfig:
    """The sections that are used here.

    Attributes:
        data: where `generated`, its root is of no meaning.
        generated: whether data.root is null, so that frames are generated.
    """

    bench: BenchSettings
    data: DataSettings
    dataset: dict[str, Any]
    model: ModelSettings
    method: dict[str, Any]
    augment: dict[str, Any]
    crops: CropSettings
    train: PretrainSettings
    hardware: HardwareSettings
    run: RunSettings
    generated: bool

    @classmethod
    def of(cls, cfg: Mapping[str, Any]) -> BenchConfig:
        """The checked configuration."""
        names = [field.name for field in fields(cls) if field.name in cfg]
        data = {**cfg["data"], "root": cfg["data"]["root"] or "."}
        sections = {**{name: cfg[name] for name in names}, "data": data, "generated": cfg["data"]["root"] is None}
        return typed(cls, sections, "")

    @property
    def manifest(self) -> Manifest:
        """The user's videos."""
        return manifest_of(Card.from_dict(self.dataset), self.data)


@contextmanager
def bench_frames(config: BenchConfig) -> Iterator[tuple[FrameStore, str]]:
    """Enough frames for a batch, and their source in words.

    Fewer frames are repeated, which costs as much to cut.

    Raises:
        SurgdinoError: no such data, or no usable frame in it.
    """
    if not config.generated:
        store = own_frames(config.manifest, config.data)
        yield repeated(store, config.train.batch_size), f"{len(store):,} of your frames"
        return
    with tempfile.TemporaryDirectory() as folder:
        manifest = generated(Path(folder), videos=2, seconds=11, fps=12)
        settings = replace(config.data, fps=4.0).store_settings
        store = build_store(manifest, Path(folder) / "store", settings, workers=1, progress=False)
        yield repeated(store, config.train.batch_size), f"{len(store):,} generated frames"


def generated(folder: Path, videos: int, seconds: float, fps: int) -> Manifest:
    """A synthetic set of the picture size of Cholec80."""
    root = folder / "generated"
    write_cholec80(root, videos=videos, seconds=seconds, fps=fps, size=(854, 480), annotations=False)
    return open_dataset(load_card("cholec80"), root)


def own_frames(manifest: Manifest, data: DataSettings) -> FrameStore:
    """The frames of `data.root` that are stored already; where there are none, the smallest video is stored now."""
    ready: list[StoredVideo] = []
    for video in manifest.videos:
        try:
            ready += open_store(data.store, replace(manifest, videos=(video,)), data.store_settings).videos
        except SurgdinoError:
            continue  # not built yet, or out of date: a benchmark does not build it
    if not ready:
        smallest = min(
            manifest.videos, key=lambda v: (v.is_image_folder, 0 if v.is_image_folder else v.path.stat().st_size)
        )
        one = replace(manifest, videos=(smallest,))
        ready = list(build_store(one, data.store, data.store_settings, workers=1, max_bad_share=0.0).videos)
    store = FrameStore(ready)
    if not len(store):
        raise SurgdinoError("no usable frame to measure with", file=data.store, fix="run surgdino verify on data.root")
    return store


def repeated(store: FrameStore, at_least: int) -> FrameStore:
    """The store, with its videos several times if it has fewer frames than `at_least`."""
    times = -(-at_least // max(len(store), 1))
    return store if times <= 1 else FrameStore(store.videos * times, store.set_aside, store.flagged)
