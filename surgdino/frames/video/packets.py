"""The packets of a video stream: which frames can be presented, when, and where decoding may start."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import av
import numpy as np

from surgdino.errors import SurgdinoError
from surgdino.frames.video.container import truncated

# This much (seconds or frames, or a share) may be missing of what a header promises before a file counts as truncated.
_MISSING, _MISSING_SHARE = 2.0, 0.02
# A clock that goes back this far, or ahead, was set anew: parts were joined, or it began to tell the time of day.
_BACK, _AHEAD = 0.5, 12 * 3600.0  # seconds


@dataclass(frozen=True)
class PacketIndex:
    """The result of demuxing the whole stream; times in ticks of `time_base` seconds.

    Attributes:
        ticks: int64 [n], presentation times of the presentable frames, ascending: entry i belongs to frame number i.
        key_pts: int64 [k], presentation times of the key frames, ascending; an edit list may hide such a frame.
        key_dts: int64 [k], their decoding times, by which demuxers seek.
        exact: False where the container has no presentation times, or repeats them; frames are then counted.
        resets: numbers of the frames at which the clock was set anew; `ticks` go on as if it had not been.
        stream: its index in the file.
    """

    ticks: np.ndarray
    key_pts: np.ndarray
    key_dts: np.ndarray
    time_base: float
    exact: bool
    resets: tuple[int, ...]
    stream: int

    def number_of(self, tick: int | None) -> int | None:
        """The number of the frame presented at `tick`, if there is one."""
        if tick is None:
            return None
        number = int(np.searchsorted(self.ticks, tick))
        return number if number < len(self.ticks) and self.ticks[number] == tick else None

    def next_key(self, tick: int | None) -> int:
        """The number of the first frame that damage at `tick` cannot have touched, or one past the last."""
        if tick is None or not self.exact:
            return len(self.ticks)
        later = self.key_pts[self.key_pts > tick]
        return int(np.searchsorted(self.ticks, later[0])) if len(later) else len(self.ticks)


class PacketQueue:
    """The packets in decoding order, from any key frame on; packets that were read too far can be put back."""

    def __init__(self, container: av.container.InputContainer, stream: av.VideoStream) -> None:
        self._container, self._stream = container, stream
        self._packets: Iterator[av.Packet] = container.demux(stream)
        self._since_key: list[av.Packet] = []

    def seek(self, key_dts: int) -> None:
        """Go to the key frame with this decoding time."""
        self._container.seek(key_dts, stream=self._stream, backward=True)
        self._packets = self._container.demux(self._stream)

    def from_key(self, key_pts: int) -> Iterator[av.Packet]:
        """The packets from that key frame on, without the leading pictures that refer to what came before it."""
        started, self._since_key = False, []
        for packet in self._packets:
            if not packet.size:  # the end of the file
                return
            if started and packet.is_keyframe:
                self._since_key = []
            if started or (packet.is_keyframe and packet.pts == key_pts):
                self._since_key.append(packet)
                if packet.pts is not None and packet.pts >= key_pts:
                    yield packet
                started = True

    def put_back(self, packet: av.Packet) -> None:
        """Yield `packet`, the last one yielded, again, and before it all that the next group needs."""
        again = self._since_key if self._since_key and self._since_key[0].is_keyframe else [packet]
        self._packets = chain(again, self._packets)


def index_packets(path: Path, container: av.container.InputContainer, stream: av.VideoStream) -> PacketIndex:
    """Demux the whole stream, decoding nothing.

    Raises:
        SurgdinoError: no presentable frame; or far fewer than the container's declared duration.
    """
    rows: list[tuple[int | None, int | None, bool, bool]] = []
    empty = 0
    for packet in container.demux(stream):
        if packet.size:
            rows.append((packet.pts, packet.dts, packet.is_keyframe, packet.is_discard))
        else:
            empty += 1
    if container.format.name == "avi":
        _check_promise(path, stream.frames, len(rows) + empty, "frames")
    first_key = next((i for i, row in enumerate(rows) if row[2]), None)
    if first_key is None:
        raise SurgdinoError("has no key frame", file=path, expected="a video", fix="copy or re-encode it")
    rows = rows[first_key:]  # what comes before cannot be decoded
    # AVI stores no presentation times; what FFmpeg makes up for it is wrong where there are B-frames.
    exact = container.format.name != "avi" and all(pts is not None for pts, *_ in rows)
    rate = float(stream.average_rate or stream.guessed_rate or 25)
    time_base = float(stream.time_base or 1 / 90_000)  # a stream without one has MPEG's
    clock, resets = _growing(rows, rate, time_base)
    exact = exact and not resets
    if exact:
        # Matroska leaves out decoding times at the start; it seeks by presentation times anyway.
        keys = sorted((pts, pts if dts is None else dts) for pts, dts, is_key, _ in rows if is_key)
        key_pts, key_dts = np.array(keys, dtype=np.int64).T
        times = np.array([pts for pts, *_ in rows], dtype=np.int64)
        kept = ~np.array([discard for *_, discard in rows])
        shown = np.sort(times[kept & (times >= times[0])])
        ticks = np.unique(shown)
        exact = len(ticks) == len(shown)
    if not exact:
        ticks = np.sort(clock)
        key_pts = key_dts = ticks[:1]
    if not len(ticks):
        raise SurgdinoError("has no presentable frame", file=path, expected="a video", fix="leave the file out")
    # Only where the video is alone: a sound track may well go on after the picture.
    if container.duration is not None and len(container.streams) == 1 and not resets:
        declared = (container.duration + (container.start_time or 0)) / av.time_base
        _check_promise(path, round(declared, 1), round(float(ticks[-1]) * time_base + 1 / rate, 1), "s")
    return PacketIndex(ticks, key_pts, key_dts, time_base, exact, resets, stream.index)


def _growing(rows: list[tuple[int | None, int | None, bool, bool]], rate: float, time_base: float) -> tuple:
    """Decoding times as one growing clock, int64 [n], and the places at which the recorder's clock was set anew."""
    steady = np.round(np.arange(len(rows)) / rate / time_base)
    clock = np.array([at if dts is None else dts for at, (_, dts, *_) in zip(steady, rows, strict=True)], np.int64)
    seconds = np.diff(clock.astype(float)) * time_base
    anew = (seconds < -_BACK) | (seconds > _AHEAD)
    if not anew.any():
        return clock, ()
    steps = np.diff(clock)
    steps[anew] = np.median(steps[~anew]) if not anew.all() else round(1 / rate / time_base)
    return np.concatenate([[0], np.cumsum(steps)]), tuple((np.flatnonzero(anew) + 1).tolist())


def _check_promise(path: Path, promised: float, found: float, unit: str) -> None:
    """Compare what the container's header promises with what is there; headers round."""
    if promised - found > max(_MISSING, _MISSING_SHARE * promised):
        raise truncated(path, f"{promised} {unit}", f"{found} {unit}")
