"""Prints: how an operation is known again, whatever it is called and however it was encoded, without a picture of it.

A print of a frame is the pHash of Zauner (2010, "Implementation and Benchmarking of Perceptual Image Hash Functions")
with more bits: the grey frame at 100x100 pixels, its 16x16 lowest frequencies but the mean, each 1 where it is above
their median. Prints of one frame differ in few of the 255 bits after re-encoding or scaling, those of two operations in
about half. Each frame is printed with several margins cut off, so that a copy whose border was cropped meets one.

Shards keep prints of a frame a second. A checkpoint carries those of a few a minute of each operation that it was
trained on, of more where it is short. docs/leaks.md has the benchmark that the limits come from.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import cv2
import numpy as np

BYTES = 32  # a print: 255 bits, and one that is always 0
_SIDE, _LOW = 100, 16
_MARGINS = (0, 3, 6)  # pixels of `_SIDE` at the left and right, and at the top and bottom
_PRINTS = len(_MARGINS) ** 2
_KEPT = (0, _PRINTS - 1)  # a checkpoint carries the print of all of the frame, and that with the widest margins
_FLAT = 6.0  # grey levels of standard deviation: less is a screen or darkness, as in any other operation
_SPACING, _MANY, _MOST = 10.0, 64, 128  # seconds; prints of an operation: of a short one, and of any
# Two prints are of one frame if at most this share of their bits differs, and surely so below the second. An operation
# is the same if at least this share of its prints is met, by two prints or by one that is sure.
_NEAR, _SURE, _SHARE = 0.18, 0.12, 0.08
_BLOCK = 64  # frames

ROW = np.dtype([("row", "<i4"), ("bits", "u1", (_PRINTS, BYTES))])


@dataclass(frozen=True)
class Prints:
    """The prints of one video: `times` in seconds, float64 [n], ascending; `bits` uint8 [n, 9, 32]."""

    times: np.ndarray
    bits: np.ndarray

    @property
    def seconds(self) -> float:
        """How much video they stand for; a second each where they are apart."""
        return float(np.minimum(np.diff(self.times), _SPACING).sum()) + 1.0 if len(self.times) else 0.0


@dataclass(frozen=True)
class References:
    """What a checkpoint carries of an operation: `bits` uint8 [n, 2, 32], standing for `seconds` of video."""

    seconds: float
    bits: np.ndarray

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        # Without slashes, which would look like paths to those who search a checkpoint for them.
        return {"seconds": self.seconds, "bits": base64.urlsafe_b64encode(self.bits.tobytes()).decode()}

    @classmethod
    def from_text(cls, seconds: float, bits: str) -> References:
        """What `as_dict` gave.

        Raises:
            ValueError: it is something else.
        """
        data = np.frombuffer(base64.b64decode(bits, b"-_", validate=True), np.uint8)
        return cls(seconds, data.reshape(-1, len(_KEPT), BYTES))


class Printer:
    """Takes the prints of a video's stored frames, a second apart."""

    def __init__(self, box: tuple[int, int, int, int]) -> None:
        """Args:
        box: of the content that the frames share, (x0, y0, x1, y1) in their pixels.
        """
        self._box, self._next, self._rows = box, -np.inf, list[tuple[int, np.ndarray]]()

    def wants(self, time: float) -> bool:
        """Whether the last print was a second before `time`."""
        return time >= self._next

    def add(self, row: int, time: float, picture: np.ndarray) -> None:
        """Take in a frame, uint8 [H, W, 3] RGB, which is row `row` of the shard; `time` in seconds."""
        if not self.wants(time):
            return
        x0, y0, x1, y1 = self._box
        bits = print_of(picture[y0:y1, x0:x1])
        if bits is not None:
            self._rows.append((row, bits))
            self._next = time + 0.99

    def rows(self) -> np.ndarray:
        """[n] of `ROW`."""
        return np.array(self._rows, ROW)


def print_of(picture: np.ndarray) -> np.ndarray | None:
    """uint8 [9, 32]: the prints of uint8 [H, W, 3] RGB with each margin cut off; None where there is nothing to see."""
    # Picking pixels and averaging four takes a third of the time of averaging all.
    picked = cv2.resize(picture, (2 * _SIDE, 2 * _SIDE), interpolation=cv2.INTER_NEAREST)
    grey = cv2.cvtColor(picked, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    if small.std() < _FLAT:
        return None
    basis = _basis()
    low = (basis @ small @ basis.T).reshape(len(_MARGINS), _LOW, len(_MARGINS), _LOW)
    low = low.swapaxes(1, 2).reshape(_PRINTS, _LOW**2)[:, 1:]
    return np.packbits(low > np.partition(low, _LOW**2 // 2 - 1, axis=1)[:, [_LOW**2 // 2 - 1]], axis=1)


@cache
def _basis() -> np.ndarray:
    """float32 [3 * 16, 100]: the lowest cosines of what is left inside each margin, zero outside."""
    basis = np.zeros((len(_MARGINS), _LOW, _SIDE), np.float32)
    for margin, rows in zip(_MARGINS, basis, strict=True):
        count = _SIDE - 2 * margin
        angles = np.pi * np.arange(_LOW)[:, None] * (2 * np.arange(count) + 1) / (2 * count)
        rows[:, margin : _SIDE - margin] = np.cos(angles)
        rows[0] /= np.sqrt(2)  # orthogonal
    return basis.reshape(-1, _SIDE)


def pack(rows: np.ndarray) -> bytes:
    """`Printer.rows` as a shard keeps them: a .npy file."""
    stream = io.BytesIO()
    np.save(stream, rows, allow_pickle=False)
    return stream.getvalue()


def unpack(data: bytes, frames: int) -> np.ndarray:
    """What `pack` wrote of a shard of `frames` frames.

    Raises:
        ValueError: it is something else.
    """
    rows = np.load(io.BytesIO(data), allow_pickle=False)
    if rows.dtype != ROW or rows.ndim != 1 or not all(-1 < a < b for a, b in pairwise([*rows["row"], frames])):
        raise ValueError(f"no prints, but {rows.dtype} {list(rows.shape)}")
    return rows


def references(videos: Iterable[Prints]) -> References:
    """What a checkpoint carries of an operation's videos: the stillest frame of each few seconds, no scene twice."""
    recorded = [video for video in videos if len(video.times)]
    seconds = sum(video.seconds for video in recorded)
    spacing = min(_SPACING, max(1.0, seconds / _MANY))
    chosen = [video.bits[_still(video, spacing)] for video in recorded]
    bits = np.concatenate(chosen) if chosen else np.empty((0, _PRINTS, BYTES), np.uint8)
    if len(bits) > _MOST:
        bits = bits[np.linspace(0, len(bits) - 1, _MOST).round().astype(int)]
    return References(round(seconds, 1), bits[_apart(bits[:, 0])][:, _KEPT])


def _still(video: Prints, spacing: float) -> np.ndarray:
    """The places of the frames that differ least from their neighbours, one in each `spacing` seconds."""
    first = _signs(video.bits[:, 0])
    moved = _LOW**2 - np.einsum("nb,nb->n", first[:-1], first[1:])
    moved = np.maximum(np.append(moved, 0), np.insert(moved, 0, 0)) if len(moved) else np.zeros(1)
    spans = (video.times // spacing).astype(np.int64)
    order = np.lexsort((moved, spans))
    return order[np.insert(np.diff(spans[order]) > 0, 0, True)]


def _apart(bits: np.ndarray) -> np.ndarray:
    """The places of prints [n, 32] that are like none before them: a picture that stands counts once."""
    signs = _signs(bits)
    near = _differing(signs, signs) <= _NEAR
    kept: list[int] = []
    for place in range(len(bits)):
        if not near[place, kept].any():
            kept.append(place)
    return np.array(kept, np.int64)


def recognise(known: Mapping[str, References], videos: Sequence[Prints]) -> dict[str, float]:
    """Which known operations the videos of one operation show, and roughly what share of the videos, up to 1."""
    names = [name for name, each in known.items() if len(each.bits)]
    recorded = [video for video in videos if len(video.times)]
    if not names or not recorded:
        return {}
    counts, seconds = [len(known[name].bits) for name in names], sum(video.seconds for video in recorded)
    wanted = np.concatenate([known[name].bits for name in names])
    nearest, met = _compared(np.concatenate([video.bits for video in recorded]), wanted, np.cumsum([0, *counts[:-1]]))
    shares = {}
    for name, count, differing, frames in zip(
        names, counts, np.split(nearest, np.cumsum(counts)[:-1]), met, strict=True
    ):
        apart = known[name].seconds / count
        possible = min(count, max(1, round(seconds / apart)))
        matched, sure = (int((differing <= limit).sum()) for limit in (_NEAR, _SURE))
        if matched >= max(2, _SHARE * possible) or sure >= max(1, _SHARE * possible):
            # The prints carried stand for more than themselves; pictures without a clock are better counted.
            shares[name] = min(1.0, max(matched * apart / seconds, frames))
    return shares


def _compared(found: np.ndarray, wanted: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How near frames uint8 [m, 9, 32] come to carried prints uint8 [n, 2, 32], of operations that begin at `starts`.

    Returns:
        For each of `wanted` the share of bits that differ from the nearest frame, [n]; for each operation the share of
        frames that are near any of its prints, [operations].
    """
    nearest, met = np.ones(len(wanted)), np.zeros(len(starts))
    carried = _signs(wanted.reshape(-1, BYTES))
    for first in range(0, len(found), _BLOCK):
        block = found[first : first + _BLOCK]
        differing = _differing(_signs(block.reshape(-1, BYTES)), carried)
        differing = differing.reshape(len(block), _PRINTS, len(wanted), -1).min(axis=(1, 3))
        nearest = np.minimum(nearest, differing.min(0))
        met += (np.minimum.reduceat(differing, starts, axis=1) <= _NEAR).sum(0)
    return nearest, met / len(found)


def _signs(bits: np.ndarray) -> np.ndarray:
    """+1 and -1, float32 [n, 256]; the last is always -1."""
    return np.unpackbits(bits, axis=1).astype(np.float32) * 2 - 1


def _differing(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """[n, m]: the share of the 255 bits in which prints differ, given as `_signs` [n, 256] and [m, 256]."""
    return (_LOW**2 - first @ second.T) / 2 / (_LOW**2 - 1)
