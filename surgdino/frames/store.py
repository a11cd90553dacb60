"""The frame store: every sampled frame of a dataset as JPEG, cropped to its content, read by position in microseconds.

Decoding a random frame of long-GOP video costs several hundred times a stored JPEG, so each video is decoded once.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from surgdino.datasets.manifest import Manifest, Video
from surgdino.errors import SurgdinoError
from surgdino.frames.build import ShardTask, StoreSettings, expected_header, shard_path
from surgdino.frames.content import Content
from surgdino.frames.engines import LOCAL
from surgdino.frames.pool import build_all
from surgdino.frames.prints import Printer, Prints, unpack
from surgdino.frames.shard import FLAGS, Shard, ShardReader, read_shard, remove_leftovers

logger = logging.getLogger(__name__)

__all__ = ["FrameStore", "StoreSettings", "build_store", "open_store"]


# Loader workers keep this many shards open; the usual limit is 1,024 files a process.
_OPEN_SHARDS = 256


@dataclass(frozen=True)
class StoredVideo:
    """One video of the store: what the manifest calls it, and its shard."""

    id: str
    operation: str
    shard: Shard


class FrameStore:
    """Random access to the stored frames of a dataset.

    It pickles (arrays and paths only); each loader worker opens the shards that it reads.
    """

    def __init__(
        self, videos: Iterable[StoredVideo], set_aside: Mapping[str, str] | None = None, flagged: bool = False
    ) -> None:
        """Args:
        videos: in the order in which their frames are numbered.
        set_aside: video id -> why the video is not in the store.
        flagged: whether frames flagged as black or out of the body are kept too.
        """
        self.videos = tuple(videos)
        self.set_aside = dict(set_aside or {})
        self.flagged = flagged
        kept = [np.flatnonzero((video.shard.columns["flags"] == 0) | flagged).astype(np.int32) for video in self.videos]
        self._rows = np.concatenate(kept) if kept else np.empty(0, np.int32)
        # Frame i belongs to the last video that starts at or before it.
        self._starts = np.cumsum([0, *map(len, kept)])
        self._readers: dict[int, ShardReader] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_readers": {}}  # file descriptors belong to their process

    def read(self, index: int) -> np.ndarray:
        """The stored frame as uint8 [H, W, 3] RGB.

        Raises:
            SurgdinoError: the shard was damaged, replaced or removed after the store was opened.
        """
        return self._picture(*self._locate(index))

    def prints(self, place: int) -> Prints:
        """The prints of `videos[place]`; made from its frames where the shard is of before there were prints.

        Raises:
            SurgdinoError: as `read`.
        """
        shard = self.videos[place].shard
        times, data = shard.columns["time"], self._reader(place).prints()
        if data is None:
            printer = Printer(tuple(shard.header["content"]["box"]))
            for row in map(int, np.flatnonzero(shard.columns["flags"] == 0)):
                if printer.wants(times[row]):
                    printer.add(row, times[row], self._picture(place, row))
            rows = printer.rows()
        else:
            try:
                rows = unpack(data, len(shard))
            except ValueError as error:
                raise shard.damaged(f"prints.npy: {error}") from None
        return Prints(times[rows["row"]], rows["bits"])

    def prints_of(self, operations: Collection[str]) -> dict[str, list[Prints]]:
        """Operation -> the prints of each of its videos; of those that the store has."""
        found: dict[str, list[Prints]] = {}
        for place, video in enumerate(self.videos):
            if video.operation in operations:
                found.setdefault(video.operation, []).append(self.prints(place))
        return found

    def _picture(self, place: int, row: int) -> np.ndarray:
        shard = self.videos[place].shard
        image = cv2.imdecode(np.frombuffer(self._reader(place).jpeg(row), np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            raise shard.damaged(f"frame {shard.columns['number'][row]}")
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)

    def _reader(self, place: int) -> ShardReader:
        if place not in self._readers:
            if len(self._readers) >= _OPEN_SHARDS:
                self._readers.pop(next(iter(self._readers)))  # closes the file
            self._readers[place] = ShardReader(self.videos[place].shard)
        return self._readers[place]

    def video_id(self, index: int) -> str:
        """The id of the video that frame `index` is from."""
        return self.videos[self._locate(index)[0]].id

    def operation(self, index: int) -> str:
        """The operation that frame `index` shows."""
        return self.videos[self._locate(index)[0]].operation

    def number(self, index: int) -> int:
        """The frame's number in its source, 0-based; the key of every label."""
        return int(self._value(index, "number"))

    def time(self, index: int) -> float:
        """Seconds from the first frame of its source."""
        return float(self._value(index, "time"))

    def near(self, index: int, seconds: float) -> range:
        """The frames of the same video at most `seconds` before or after frame `index`, which is one of them.

        A hundredth of a second is ignored: 30 frames of 29.97 a second are 1.001 s.
        """
        seconds += 0.01
        place, row = self._locate(index)
        first, last = int(self._starts[place]), int(self._starts[place + 1])
        times = self.videos[place].shard.columns["time"]
        # Searched among all frames of the shard: selecting the kept ones first would copy an hour's times at each call.
        begin = np.searchsorted(times, times[row] - seconds, side="left")
        end = np.searchsorted(times, times[row] + seconds, side="right")
        begin, end = np.searchsorted(self._rows[first:last], (begin, end))
        return range(first + int(begin), first + int(end))

    def content(self, index: int) -> Content:
        """Where the picture is in the stored frame, in its pixels."""
        place, row = self._locate(index)
        return self.videos[place].shard.content(row)

    def of_video(self, place: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All frames of `videos[place]`: positions int64 [n], numbers int64 [n], times float64 [n] in seconds."""
        positions = np.arange(self._starts[place], self._starts[place + 1])
        rows, columns = self._rows[positions], self.videos[place].shard.columns
        return positions, columns["number"][rows], columns["time"][rows]

    def select(self, videos: Iterable[str] | None = None, flagged: bool | None = None) -> FrameStore:
        """The store with some of its videos (by id, in the store's order), with or without flagged frames."""
        ids = None if videos is None else set(videos)
        unknown = sorted((ids or set()) - {video.id for video in self.videos} - set(self.set_aside))
        if unknown:
            raise SurgdinoError(f"the frame store has no video {unknown[0]!r}", fix="see its summary for those it has")
        kept = [video for video in self.videos if ids is None or video.id in ids]
        return FrameStore(kept, self.set_aside, self.flagged if flagged is None else flagged)

    def only(self, kept: np.ndarray) -> FrameStore:
        """The store with the frames of `kept` alone, bool [len(self)], and the videos that they are of."""
        counts = np.diff(np.concatenate([[0], np.cumsum(kept)])[self._starts])
        videos = [video for video, count in zip(self.videos, counts, strict=True) if count]
        store = FrameStore(videos, self.set_aside, self.flagged)
        store._rows, store._starts = self._rows[kept], np.cumsum([0, *counts[counts > 0]])
        return store

    def summary(self) -> dict[str, Any]:
        """Counts, for display and reports.

        Returns:
            `videos`, `frames` (those that `len` counts), `left_out` (reason -> frames), `set_aside` (video id ->
            reason), and `content` (video id -> kind, share of the stored frame that is content, sizes).
        """
        left_out: dict[str, int] = {}
        for video in self.videos:
            flags = video.shard.columns["flags"]
            for place, flag in enumerate(FLAGS):
                left_out[flag] = left_out.get(flag, 0) + int(np.count_nonzero(flags >> place & 1))
            for reason, count in video.shard.header["missing"].items():
                left_out[reason] = left_out.get(reason, 0) + count
        return {
            "videos": len(self.videos),
            "frames": len(self),
            "left_out": {reason: count for reason, count in left_out.items() if count},
            "set_aside": dict(self.set_aside),
            "content": {video.id: video.shard.describe() for video in self.videos},
        }

    def _locate(self, index: int) -> tuple[int, int]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"frame {index} of a store of {len(self)}")
        index %= len(self)
        return int(np.searchsorted(self._starts, index, side="right")) - 1, int(self._rows[index])

    def _value(self, index: int, column: str) -> Any:
        place, row = self._locate(index)
        return self.videos[place].shard.columns[column][row]


def build_store(
    manifest: Manifest,
    folder: str | Path,
    settings: StoreSettings,
    *,
    workers: int = 0,
    max_bad_share: float = 0.25,
    progress: bool = True,
    engine: str = LOCAL,
) -> FrameStore:
    """Build the shards that are missing, damaged or out of date, and open the store.

    Finished shards are used again. A video that cannot be read is set aside by name; the others continue. Two processes
    may build the same store at once: each shard is renamed into place whole, and the last one stays.

    Args:
        manifest: the videos.
        folder: of the store; created where missing.
        settings: what a stored frame looks like.
        workers: processes, 0 for one a core.
        max_bad_share: the share of videos that may be set aside.
        progress: whether to draw a bar.
        engine: where shards are built: `data.engine`.

    Raises:
        SurgdinoError: more than `max_bad_share` of the videos are bad; the disk is full or refuses; no videos.
    """
    folder, root = Path(folder).absolute(), manifest.root.absolute()  # workers elsewhere count from another folder
    if not manifest.videos:
        raise SurgdinoError(
            "no videos to build a frame store from", file=manifest.root, fix="check data.root and data.part"
        )
    set_aside: dict[str, str] = {}
    tasks = []
    for video in manifest.videos:
        shard = shard_path(folder, manifest, video, settings)
        if _usable(video, manifest.root, shard, settings) is None:
            tasks.append(ShardTask(replace(video, path=video.path.absolute()), root, shard, settings))
    for directory in {task.shard.parent for task in tasks}:
        remove_leftovers(directory)
    # Closing stops the workers at once; an error's traceback would keep the iteration alive.
    with closing(build_all(tasks, workers, progress, engine)) as results:
        for task, error in results:
            if error is None:
                continue
            if error.file == task.shard:
                raise error  # the store's own disk, not the video
            set_aside[task.video.id] = error.line()
            if len(set_aside) > max_bad_share * len(manifest.videos):
                raise _too_many_bad(manifest, set_aside, max_bad_share)
    return open_store(folder, manifest, settings, set_aside=set_aside)


def open_store(
    folder: str | Path,
    manifest: Manifest,
    settings: StoreSettings,
    *,
    set_aside: Mapping[str, str] | None = None,
) -> FrameStore:
    """Open a store that was built before.

    Args:
        folder: of the store.
        manifest: the videos to have in it, in this order.
        settings: those it was built with.
        set_aside: video id -> reason, for videos that are known to be missing.

    Raises:
        SurgdinoError: a shard is missing, damaged, or made from another source or with other settings.
    """
    set_aside = dict(set_aside or {})
    videos = []
    for video in manifest.videos:
        if video.id in set_aside:
            continue
        path = shard_path(Path(folder), manifest, video, settings)
        shard = _usable(video, manifest.root, path, settings)
        if shard is None:
            raise SurgdinoError(
                "the frame store lacks this shard, or it is out of date", file=path, fix="build the store"
            )
        videos.append(StoredVideo(video.id, video.operation, shard))
    return FrameStore(videos, set_aside)


def _usable(video: Video, root: Path, path: Path, settings: StoreSettings) -> Shard | None:
    """The shard, if it is whole and matches the source and the settings."""
    try:
        shard = read_shard(path)
    except FileNotFoundError:
        return None
    except SurgdinoError as error:
        logger.warning("%s", error.line())
        return None
    try:
        expected = expected_header(video, root, settings)
    except SurgdinoError:
        return None  # building it will say what is wrong with the source
    return shard if all(shard.header.get(key) == value for key, value in expected.items()) else None


def _too_many_bad(manifest: Manifest, set_aside: Mapping[str, str], share: float) -> SurgdinoError:
    first = next(iter(set_aside.values()))
    return SurgdinoError(
        f"too many videos are bad; the first: {first}",
        file=manifest.root,
        expected=f"at most {share:.0%} of {len(manifest.videos)}",
        found=f"{len(set_aside)} so far ({', '.join(sorted(set_aside))})",
        fix="repair or remove them, or raise data.max_bad_share; finished videos are kept",
    )
