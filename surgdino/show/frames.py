"""What `surgdino show` draws: its settings, and frames chosen from the store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import cv2
import numpy as np
from pydantic import Field

from surgdino.backbone.settings import ModelSettings
from surgdino.config import Location, Seed
from surgdino.crops.settings import CropSettings
from surgdino.frames.content import Content
from surgdino.frames.store import FrameStore
from surgdino.inputs.settings import DataSettings
from surgdino.report.sheet import rgb

# A frame is the best lit and most detailed of this many of its video: a sheet of dark frames shows nothing.
_CANDIDATES = 12
_VIDEOS = 24  # that frames are chosen from, about


@dataclass(frozen=True)
class ShowSettings:
    """The `show` section."""

    frames: Annotated[int, Field(ge=1, le=16)]
    seed: Seed
    out: Location | None


@dataclass(frozen=True)
class ShowConfig:
    """The sections that are used here; a recipe may bring others. Without `data` frames are generated."""

    data: DataSettings | None
    dataset: dict[str, Any]
    crops: CropSettings
    augment: dict[str, Any]
    model: ModelSettings
    show: ShowSettings


@dataclass(frozen=True)
class StoredFrame:
    """A frame of the store: uint8 [H, W, 3] RGB, where its picture is, its video and time, its place in the store."""

    image: np.ndarray
    content: Content
    video: str
    time: float
    index: int

    @classmethod
    def of(cls, store: FrameStore, index: int) -> StoredFrame:
        """One frame of the store."""
        return cls(store.read(index), store.content(index), store.video_id(index), store.time(index), index)

    def outline(self, picture: np.ndarray, colour: str, thickness: int) -> None:
        """Draw the disc, or the rectangle, around the content into `picture`, which is `image` at another size."""
        factor, content = picture.shape[1] / self.image.shape[1], self.content
        if content.cx is not None and content.cy is not None and content.radius is not None:
            centre = (round((content.cx + 0.5) * factor), round((content.cy + 0.5) * factor))
            cv2.circle(picture, centre, round(content.radius * factor), rgb(colour), thickness, cv2.LINE_AA)
        else:
            x0, y0, x1, y1 = (round(edge * factor) for edge in content.box)
            cv2.rectangle(picture, (x0, y0), (x1 - 1, y1 - 1), rgb(colour), thickness, cv2.LINE_AA)

    @property
    def quality(self) -> float:
        """How well lit, coloured and detailed the frame is."""
        small = cv2.resize(self.image, (64, 64), interpolation=cv2.INTER_AREA)
        hsv = cv2.cvtColor(small, cv2.COLOR_RGB2HSV).astype(np.float32)
        light, colour = np.minimum(hsv[..., 2], 200).mean(), hsv[..., 1].mean()
        return float(light * colour * np.abs(cv2.Laplacian(hsv[..., 2], cv2.CV_32F)).mean())


def choose(store: FrameStore, count: int, seed: int) -> list[StoredFrame]:
    """Frames from as many videos as there are, each the best lit and most detailed of a few, the best videos first."""
    rng = np.random.default_rng(seed)
    videos: dict[str, list[int]] = {}
    for index in rng.permutation(len(store))[: _CANDIDATES * _VIDEOS]:
        videos.setdefault(store.video_id(int(index)), []).append(int(index))
    rounds = -(-count // len(videos))
    ranked: list[StoredFrame] = []
    for turn in range(rounds):
        pools = [indices[turn::rounds][:_CANDIDATES] or indices[:1] for indices in videos.values()]
        best = [max((StoredFrame.of(store, i) for i in pool), key=lambda frame: frame.quality) for pool in pools]
        ranked += sorted(best, key=lambda frame: frame.quality, reverse=True)
    return sorted(ranked[:count], key=lambda frame: (frame.video, frame.time))
