"""The files of the feature cache: named by what they depend on, written aside, read by row without being loaded."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from surgdino.errors import from_os_error
from surgdino.frames.store import FrameStore, StoredVideo
from surgdino.paths import atomic_write
from surgdino.tasks.labelled_frames import LabelledFrames

IDENTITY = "identity.json"


@dataclass(frozen=True)
class FeatureFile:
    """Where the features of one video are.

    Attributes:
        path: `<weights and settings>/<kind>/<video>-<shard's checksum>.npy`.
        shape, dtype: of the array in it.
        video: its name in the file's name, by which an outdated file is known.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    video: str

    @classmethod
    def of(
        cls,
        folder: Path,
        identity: Mapping[str, Any],
        kind: str,
        video: StoredVideo,
        row: tuple[int, ...],
        dtype: type,
    ) -> FeatureFile:
        """The file of one video.

        Args:
            folder: of the cache.
            identity: what all its files depend on, weights among it.
            kind: which features.
            row: shape of a frame's features.
        """
        text = json.dumps(identity, sort_keys=True)
        name = video.shard.path.stem
        place = folder / hashlib.sha256(text.encode()).hexdigest()[:16] / kind
        said = place.parent / IDENTITY
        if not said.is_file():
            with atomic_write(said) as temporary:
                temporary.write_text(json.dumps(identity, indent=2) + "\n", encoding="utf-8")
        path = place / f"{name}-{video.shard.crc:08x}.npy"
        return cls(path, (len(video.shard), *row), np.dtype(dtype), name)

    def is_whole(self) -> bool:
        """Whether the features are there, as many as there should be."""
        try:
            found = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return False
        return found.shape == self.shape and found.dtype == self.dtype

    def open(self) -> np.ndarray:
        """The features [frames of the shard, ...], mapped, not loaded."""
        try:
            return np.load(self.path, mmap_mode="r", allow_pickle=False)
        except OSError as error:
            raise from_os_error(error, self.path) from error

    def remove_outdated(self) -> None:
        """Delete features of the same video's earlier shards, and what a killed process left half written."""
        for old in (*self.path.parent.glob("*.npy"), *self.path.parent.glob(".*.tmp")):
            stem = old.name.removeprefix(".").partition(".npy")[0]
            if stem.rpartition("-")[0] == self.video and old != self.path:
                with suppress(OSError):
                    old.unlink()


class FileWriter:
    """Takes the features of several videos one after another, in blocks that may span the border between two.

    A block goes to disk as it comes: memory does not grow with the video's length.
    """

    def __init__(self, files: Sequence[FeatureFile], ends: np.ndarray) -> None:
        """Args:
        files: one a video.
        ends: int64 [videos], frames of the stream up to each video's end.
        """
        self._files, self._ends = files, ends
        self._place, self.written = 0, 0
        self._stream: Any = None
        self._aside: Any = None

    def __enter__(self) -> FileWriter:
        return self

    def __exit__(self, *failure: Any) -> None:
        if self._aside is not None:
            self._close(*failure) if failure[0] else self._close(GeneratorExit, GeneratorExit(), None)

    def add(self, rows: np.ndarray) -> None:
        """The next rows of the stream."""
        while len(rows):
            if self._aside is None:
                self._open(self._files[self._place])
            here = rows[: int(self._ends[self._place]) - self.written]
            self._write(here)
            self.written += len(here)
            rows = rows[len(here) :]
            if self.written == self._ends[self._place]:
                self._close(None, None, None)
                self._place += 1

    def _open(self, file: FeatureFile) -> None:
        file.path.parent.mkdir(parents=True, exist_ok=True)
        file.remove_outdated()
        self._aside = atomic_write(file.path)
        self._stream = self._aside.__enter__().open("wb")
        header = {"descr": np.lib.format.dtype_to_descr(file.dtype), "fortran_order": False, "shape": file.shape}
        np.lib.format.write_array_header_1_0(self._stream, header)

    def _write(self, rows: np.ndarray) -> None:
        try:
            self._stream.write(np.ascontiguousarray(rows, self._files[self._place].dtype).data)
        except OSError as error:
            raise from_os_error(error, self._files[self._place].path) from error

    def _close(self, *failure: Any) -> None:
        aside, self._aside = self._aside, None
        try:
            self._stream.close()  # writes what is still in its buffer
        except OSError as error:
            failure = failure if failure[0] else (type(error), error, error.__traceback__)
        aside.__exit__(*failure)


class FeatureRows:
    """Features of n frames that lie in the files of their videos: `rows[positions]` reads those alone.

    Attributes:
        shape: (n, ...).
        dtype: of the files.
    """

    def __init__(self, arrays: Sequence[np.ndarray], file_of: np.ndarray, row_of: np.ndarray) -> None:
        """Args:
        arrays: mapped files, one a video.
        file_of, row_of: int64 [n], where each frame's features are.
        """
        self._arrays, self._file_of, self._row_of = list(arrays), file_of, row_of
        inner = arrays[0].shape[1:] if arrays else ()
        self.shape = (len(file_of), *inner)
        self.dtype = arrays[0].dtype if arrays else np.dtype(np.float32)

    @classmethod
    def of(cls, frames: LabelledFrames, store: FrameStore, files: Sequence[FeatureFile]) -> FeatureRows:
        """Those of `frames`; `files` are in the order of the videos of `store`."""
        place_of = {video.id: place for place, video in enumerate(store.videos)}
        places = np.array([place_of[video] for video in frames.videos], np.int64)
        rows = np.empty(len(frames), np.int64)
        for k, place in enumerate(places):
            rows[frames.span(k)] = np.searchsorted(store.of_video(int(place))[1], frames.numbers[frames.span(k)])
        return cls([file.open() for file in files], places[frames.video_of], rows)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, positions: Any) -> np.ndarray:
        """[m, ...] of a slice, an array of positions, or one position (then [...])."""
        if isinstance(positions, int | np.integer):
            return self[np.array([positions])][0]
        chosen = np.arange(len(self))[positions]
        found = np.empty((len(chosen), *self.shape[1:]), self.dtype)
        of_file = self._file_of[chosen]
        for place in np.unique(of_file):
            here = np.flatnonzero(of_file == place)
            found[here] = self._arrays[place][self._row_of[chosen[here]]]
        return found


def size_on_disk(files: Sequence[FeatureFile]) -> int:
    """Bytes that all of them take."""
    return sum(int(np.prod(file.shape)) * file.dtype.itemsize for file in files)


def free_bytes(folder: Path) -> int:
    """Bytes that a folder's disk has left."""
    while not folder.exists():
        folder = folder.parent
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize
