"""`surgdino show augment|crops|content`: pictures of what training sees, from one's own videos or generated ones."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console

from surgdino.config import typed
from surgdino.datasets.card import Card, load_card
from surgdino.datasets.open import open_dataset
from surgdino.datasets.synthetic.cholec80 import write_cholec80
from surgdino.errors import SurgdinoError
from surgdino.frames.content import Content
from surgdino.frames.store import FrameStore, StoreSettings, build_store
from surgdino.inputs.settings import DataSettings, manifest_of
from surgdino.report.sheet import Sheet, rgb

# A frame is the most telling of this many of its video: a sheet of dark frames shows nothing.
_CANDIDATES = 12
_LOOKED_AT = 24  # videos, about


@dataclass(frozen=True)
class ShowSettings:
    """The `show` section of the configuration, key for key."""

    frames: int = 4
    seed: int = 0
    out: Path | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.frames <= 16:
            raise SurgdinoError("unusable setting", place="show.frames", expected="1 to 16", found=self.frames)


@dataclass(frozen=True)
class Shown:
    """One frame of the store to be shown: uint8 [H, W, 3] RGB, where its picture is, whence it comes, its position."""

    image: np.ndarray
    content: Content
    video: str
    time: float
    index: int


def main(cfg: Mapping[str, Any], what: str) -> int:
    """Draw one sheet and print where it lies."""
    settings = typed(ShowSettings, cfg["show"], "show")
    draw: Callable[[Mapping[str, Any], FrameStore, ShowSettings], Sheet] = import_module(f"surgdino.show.{what}").draw
    with frames_to_show(cfg) as store:
        if not len(store):
            raise SurgdinoError(
                "no usable frame in any video", file=cfg["data"]["root"], fix="run surgdino verify on it"
            )
        sheet = draw(cfg, store, settings)
    picture = sheet.save(settings.out or Path("show") / f"{what}.png")
    Console().print(f"[bold]{what}[/bold]  {picture}", soft_wrap=True)
    return 0


@contextmanager
def frames_to_show(cfg: Mapping[str, Any]) -> Iterator[FrameStore]:
    """The store of `data.root`, or of two generated videos where it is null."""
    if cfg["data"]["root"] is not None:
        data = DataSettings.of(cfg)
        manifest = manifest_of(Card.from_dict(cfg["dataset"]), data)
        yield build_store(
            manifest, data.store, data.store_settings, workers=data.worker_count, max_bad_share=data.max_bad_share
        )
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "generated"
        write_cholec80(root, videos=4, seconds=10, size=(428, 240), seed=0)
        manifest = open_dataset(load_card("cholec80"), root)
        yield build_store(manifest, Path(folder) / "store", StoreSettings(), progress=False)


def choose(store: FrameStore, count: int, seed: int) -> list[Shown]:
    """Frames from as many videos as there are, each the best lit and most detailed of a few, the best videos first."""
    rng = np.random.default_rng(seed)
    videos: dict[str, list[int]] = {}
    for index in rng.permutation(len(store))[: _CANDIDATES * _LOOKED_AT]:
        videos.setdefault(store.video_id(int(index)), []).append(int(index))
    rounds = -(-count // len(videos))
    best = []
    for turn in range(rounds):
        pools = [indices[turn::rounds][:_CANDIDATES] or indices[:1] for indices in videos.values()]
        best.append([max((show(store, index) for index in pool), key=_telling) for pool in pools])
    ranked = [shown for turn in best for shown in sorted(turn, key=_telling, reverse=True)]
    return sorted(ranked[:count], key=lambda shown: (shown.video, shown.time))


def show(store: FrameStore, index: int) -> Shown:
    """One frame of the store."""
    return Shown(store.read(index), store.content(index), store.video_id(index), store.time(index), index)


def outline(frame: np.ndarray, shown: Shown, colour: str, thickness: int) -> None:
    """Draw the disc, or the rectangle, around the picture; `frame` is `shown.image` at another size and is drawn on."""
    factor, content = frame.shape[1] / shown.image.shape[1], shown.content
    if content.cx is not None and content.cy is not None and content.radius is not None:
        centre = (round((content.cx + 0.5) * factor), round((content.cy + 0.5) * factor))
        cv2.circle(frame, centre, round(content.radius * factor), rgb(colour), thickness, cv2.LINE_AA)
    else:
        x0, y0, x1, y1 = (round(edge * factor) for edge in content.box)
        cv2.rectangle(frame, (x0, y0), (x1 - 1, y1 - 1), rgb(colour), thickness, cv2.LINE_AA)


def _telling(shown: Shown) -> float:
    small = cv2.resize(shown.image, (64, 64), interpolation=cv2.INTER_AREA)
    hsv = cv2.cvtColor(small, cv2.COLOR_RGB2HSV).astype(np.float32)
    light, colour = np.minimum(hsv[..., 2], 200).mean(), hsv[..., 1].mean()
    return float(light * colour * np.abs(cv2.Laplacian(hsv[..., 2], cv2.CV_32F)).mean())
