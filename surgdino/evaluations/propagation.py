"""Masks of a video's first frame carried on by the likeness of patches, without training: DAVIS' J and F"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from surgdino.config import PositiveInt, Side
from surgdino.console import warn
from surgdino.datasets.masks import read_masks
from surgdino.evaluations.parts.evaluation import Evaluation, Reading
from surgdino.evaluations.parts.given import Given
from surgdino.evaluations.parts.outcome import Better, Outcome, pooled
from surgdino.metrics.arrays import nanmean
from surgdino.metrics.propagation import boundary_scores, course, region_scores
from surgdino.tasks.features.cache import FeatureCache
from surgdino.tasks.segmentation.carry import Reach, carry
from surgdino.tasks.segmentation.targets import Placement, placements

Protocol = Literal["dino", "dinov3"]
_BLOCK = 64  # px, of which both sides are multiples in DINO's script
_AT_ONCE = 4  # frames that the backbone is given
_DRAWN = "drawn where absent"


@dataclass(frozen=True)
class PropagationSettings:
    """How masks are carried on.

    Attributes:
        short_side: of the frames, in pixels, before both sides are rounded.
        protocol: `dino` (sides rounded down to multiples of 64, neighbours in a square) or `dinov3` (up to multiples of
            the patch, in a disc).
        context: previous frames that are looked at beside the first one.
        neighbours: patches of theirs that vote on a patch.
        radius: how far from its place these may be, in patches.
        temperature: of the votes, a softmax over cosines.
        smallest: a mask of fewer pixels shows no object.
        absent: frames in which an object is not: `scored` as DAVIS does, 1 where it is not drawn and 0 where it is, or
            `left_out` and counted apart.
        within: seconds from the first mask; J&F is also given of the frames until then.
    """

    short_side: Side
    protocol: Protocol
    context: Annotated[int, Field(ge=0, le=100)]
    neighbours: Annotated[int, Field(ge=1, le=1000)]
    radius: Annotated[int, Field(ge=1, le=1000)]
    temperature: Annotated[float, Field(gt=0, le=10)]
    smallest: PositiveInt
    absent: Literal["scored", "left_out"]
    within: Annotated[tuple[Annotated[float, Field(gt=0, le=86_400)], ...], Field(max_length=10)]


@dataclass(frozen=True)
class Followed:
    """One video with objects to follow.

    Attributes:
        objects: classes of the first mask, names.
        first: bool [objects, H, W], that mask.
        positions: int64 [t] in the store, from the first mask's frame to the last one that is scored.
        rows: int64 [s] of the labelled frames that are scored, ascending.
        seconds: float64 [s], of each, from the first mask.
        placement: where the stored frames lie in the picture.
    """

    objects: tuple[str, ...]
    first: np.ndarray
    positions: np.ndarray
    rows: np.ndarray
    seconds: np.ndarray
    placement: Placement


class Propagation(Evaluation[PropagationSettings]):
    """J (region), F (boundary) and their mean, each object of the set weighing the same; recall and decay.

    The objects of a video's first mask are followed through all stored frames. Scored are the later masks, but not that
    of the video's last frame, as in DAVIS; what enters later counts for nothing.
    """

    Settings = PropagationSettings

    def labels(self) -> tuple[str, ...]:
        return ("objects", "masks")

    def reads(self, features: FeatureCache) -> list[Reading]:
        """None that are kept: it sees its frames at a size of its own."""
        return []

    def outcomes(self, given: Given) -> Iterator[Outcome]:
        videos = [
            (given.operations[video.rows[0]], self._measured(video, given)) for video in _followed(given, self.settings)
        ]
        owners = [operation for operation, found in videos for _ in found["J&F"]]
        for name in videos[0][1] if videos else ():
            values = np.concatenate([found[name] for _, found in videos])
            decay = name.endswith("decay")  # may be below 0
            if not np.isnan(values).all():
                better: Better = "lower" if decay or name == _DRAWN else "higher"
                yield from pooled(partial(_over_objects, name, values), owners, better, percent=not decay)

    def _measured(self, video: Followed, given: Given) -> dict[str, np.ndarray]:
        """Name -> float64 [objects]; NaN where undefined."""
        scores = np.full((2, len(video.objects), len(video.rows)), np.nan)
        drawn = np.full(scores.shape[1:], np.nan)
        for place, (row, predicted) in enumerate(zip(video.rows, self._carried(video, given), strict=True)):
            truth, known = read_objects(given, row, video.objects, self.settings.smallest)
            absent = known & ~truth.any((1, 2))
            scored = known if self.settings.absent == "scored" else known & ~absent
            scores[0, scored, place] = region_scores(truth, predicted)[scored]
            scores[1, scored, place] = boundary_scores(truth, predicted)[scored]
            drawn[absent, place] = np.asarray(predicted.any((1, 2)))[absent]
        courses = np.array([[course(values) for values in each] for each in scores])
        found = {"J&F": courses[..., 0].mean(0)}
        for name, each in zip("JF", courses, strict=True):
            found |= {name: each[:, 0], f"{name} recall": each[:, 1], f"{name} decay": each[:, 2]}
        for seconds in self.settings.within:
            early = video.seconds <= seconds + 1e-3  # times are rounded
            found[f"J&F within {seconds:g} s"] = nanmean(scores[..., early], 2).mean(0)
        if self.settings.absent == "left_out":
            found[_DRAWN] = nanmean(drawn, 1)
        return found

    def _carried(self, video: Followed, given: Given) -> Iterator[np.ndarray]:
        """bool [objects, H, W], what is predicted at each of `video.rows`."""
        settings, wanted = self.settings, {*given.frames.index[video.rows].tolist()}
        size = input_size(
            video.placement.stored, settings.short_side, settings.protocol, given.features.backbone.patch_size
        )
        frames = _features(given, video.positions, size)
        patches = next(frames)
        grid = patches.shape[0], patches.shape[1]
        first = patches, on_grid(video.first, grid, video.placement).to(patches.device)
        reach = Reach.of(patches.shape[1], settings.radius, settings.protocol == "dinov3", patches.device)
        context: deque[tuple[Tensor, Tensor]] = deque(maxlen=settings.context)
        for position, patches in zip(video.positions[1:].tolist(), frames, strict=True):
            seen, labels = (torch.stack(parts, 1) for parts in zip(first, *context, strict=True))
            carried = carry(patches, seen, labels, reach, settings.neighbours, settings.temperature)
            context.append((patches, carried))
            if position in wanted:
                yield drawn_masks(carried, size, video.placement)


def read_objects(given: Given, row: int, objects: tuple[str, ...], smallest: int) -> tuple[np.ndarray, np.ndarray]:
    """bool [objects, H, W], empty where it has fewer than `smallest` pixels; bool [objects], whether it is labelled."""
    masks, known = read_masks(given.frames.masks(row), objects)
    masks[masks.sum((1, 2)) < smallest] = False
    return masks, known


def _followed(given: Given, settings: PropagationSettings) -> Iterator[Followed]:
    """The tested videos whose masks show an object, and a later frame to score."""
    frames, where = given.frames, placements(given.frames)
    places = {video.id: place for place, video in enumerate(frames.store.videos)}
    for place, video in enumerate(frames.videos):
        positions = frames.store.of_video(places[video])[0]
        rows = np.arange(len(frames))[frames.span(place)]
        rows = rows[frames.index[rows] < positions[-1]]
        if len(rows) < 2 or not given.tested[rows[0]]:
            continue
        for start, row in enumerate(rows[:-1], start=1):
            masks = read_objects(given, row, given.classes, settings.smallest)[0]
            shown = np.asarray(masks.any((1, 2)))
            if shown.any():
                objects = tuple(name for name, there in zip(given.classes, shown, strict=True) if there)
                between = slice(*np.searchsorted(positions, (frames.index[row], frames.index[rows[-1]] + 1)))
                _warn_of_small(where[place], settings.short_side)
                seconds = frames.times[rows[start:]] - frames.times[row]
                yield Followed(objects, masks[shown], positions[between], rows[start:], seconds, where[place])
                break


def _warn_of_small(placement: Placement, short_side: int) -> None:
    x0, y0, x1, y1 = placement.box
    stored, there = min(placement.stored), min(x1 - x0, y1 - y0, short_side)
    if stored < there:
        warn(f"frames are stored with a short side of {stored} px and enlarged to {short_side}: set data.short_side")


def input_size(stored: tuple[int, int], short_side: int, protocol: Protocol, patch: int) -> tuple[int, int]:
    """(height, width) of what the backbone is given, multiples of the patch, from (width, height) of a stored frame."""
    unit = _BLOCK if protocol == "dino" and not _BLOCK % patch else patch
    rounded = math.floor if protocol == "dino" else math.ceil
    sides = (side * short_side / min(stored) / unit for side in reversed(stored))
    height, width = (max(rounded(round(side, 6)), 1) * unit for side in sides)
    return height, width


def _features(given: Given, positions: np.ndarray, size: tuple[int, int]) -> Iterator[Tensor]:
    """float32 [h, w, D], of unit length, of each frame."""
    height, width = size
    patch = given.features.backbone.patch_size
    for start in range(0, len(positions), _AT_ONCE):
        pictures = [given.frames.store.read(int(position)) for position in positions[start : start + _AT_ONCE]]
        how = cv2.INTER_AREA if min(pictures[0].shape[:2]) > height else cv2.INTER_CUBIC
        resized = np.stack([cv2.resize(picture, (width, height), interpolation=how) for picture in pictures])
        patches = given.features.dense(torch.from_numpy(resized).permute(0, 3, 1, 2))
        yield from F.normalize(patches, dim=-1).unflatten(1, (height // patch, width // patch))


def drawn_masks(carried: Tensor, size: tuple[int, int], placement: Placement) -> np.ndarray:
    """bool [k - 1, H, W] of the picture: enlarged, each label stretched to 0..1, then the largest; the first is none.

    Args:
        carried: float32 [h, w, k].
        size: (height, width) of the backbone's input.
    """
    maps = F.interpolate(carried.permute(2, 0, 1)[None], size, mode="bilinear")[0]
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    chosen = ((maps - low) / (high - low).clamp_min(1e-12)).argmax(0).cpu().numpy().astype(np.uint8)
    x0, y0, x1, y1 = placement.box
    ids = np.zeros(placement.source[::-1], np.uint8)
    ids[y0:y1, x0:x1] = cv2.resize(chosen, (x1 - x0, y1 - y0), interpolation=cv2.INTER_NEAREST_EXACT)
    return ids == np.arange(1, carried.shape[-1], dtype=np.uint8)[:, None, None]


def on_grid(masks: np.ndarray, grid: tuple[int, int], placement: Placement) -> Tensor:
    """float32 [h, w, objects + 1], one-hot, the first being none: the nearest pixel's object; of two the later one."""
    x0, y0, x1, y1 = placement.box
    ids = np.zeros(masks.shape[1:], np.uint8)
    for number, mask in enumerate(masks, start=1):
        ids[mask] = number
    small = cv2.resize(ids[y0:y1, x0:x1], grid[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return F.one_hot(torch.from_numpy(small).long(), len(masks) + 1).float()


def _over_objects(name: str, values: np.ndarray, rows: np.ndarray) -> dict[str, float]:
    """The mean over objects, each weighing the same."""
    return {name: float(nanmean(values[rows]))}
