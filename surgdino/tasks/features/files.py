"""The files of the feature cache: named by what they depend on, written aside, read by row without being loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from surgdino.array_files import map_array
from surgdino.errors import SurgdinoError
from surgdino.frames.shard import Shard
from surgdino.frames.store import FrameStore
from surgdino.paths import atomic_write
from surgdino.tasks.labelled_frames import LabelledFrames

_MAPPED = 4096  # files at a time


@dataclass(frozen=True)
class FeatureFile:
    """Where the features of one video are.

    Attributes:
        path: `<weights and settings>/<kind>/<video>-<checksum of the shard>.npy`.
        shape, dtype: of the array in it.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype

    @classmethod
    def of(cls, folder: Path, shard: Shard, row: tuple[int, ...], dtype: type) -> FeatureFile:
        """The file of a shard in the folder of one kind of features; `row` is the shape of a frame's."""
        return cls(folder / f"{shard.path.stem}-{shard.crc:08x}.npy", (len(shard), *row), np.dtype(dtype))

    @property
    def bytes(self) -> int:
        """Of the array."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def is_whole(self) -> bool:
        """Whether the features are there, as many as there should be."""
        try:
            self.open()
        except SurgdinoError:
            return False
        return True

    def open(self) -> np.ndarray:
        """The features [frames of the shard, ...], mapped, not loaded.

        Raises:
            SurgdinoError: as `map_array`, or of another shape or type.
        """
        array = map_array(self.path)
        if array.shape != self.shape or array.dtype != self.dtype:
            expected, found = f"{self.dtype} {list(self.shape)}", f"{array.dtype} {list(array.shape)}"
            fix = "delete it, and run the same command again"
            raise SurgdinoError("other features", file=self.path, expected=expected, found=found, fix=fix)
        return array

    @contextmanager
    def writer(self) -> Iterator[Callable[[np.ndarray], object]]:
        """A function that appends rows: memory does not grow with the video's length.

        The file appears when the block ends, and not at all where it fails. Features of the video's earlier shards go,
        and what a killed process left half written.
        """
        for old in (*self.path.parent.glob("*.npy"), *self.path.parent.glob(".*.tmp")):
            stem = old.name.removeprefix(".").partition(".npy")[0]
            if stem.rpartition("-")[0] == self.path.stem.rpartition("-")[0] and old != self.path:
                with suppress(OSError):
                    old.unlink()
        header = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": self.shape}
        with atomic_write(self.path) as temporary, temporary.open("wb") as stream:
            np.lib.format.write_array_header_1_0(stream, header)
            yield lambda rows: stream.write(np.ascontiguousarray(rows, self.dtype).data)


class FeatureRows:
    """Features of n frames in the files of their videos: `rows[positions]` reads those alone.

    Attributes:
        shape: (n, ...).
        dtype: of the files.
    """

    def __init__(self, files: Sequence[Sequence[FeatureFile]], file_of: np.ndarray, row_of: np.ndarray) -> None:
        """Args:
        files: one a video of each kind; the kinds lie beside each other along the last axis.
        file_of, row_of: int64 [n], where each frame's features are.
        """
        self._file_of, self._row_of, self._kinds = file_of, row_of, range(len(files))
        some = [of_kind[0] for of_kind in files if of_kind]
        inner = (*some[0].shape[1:-1], sum(file.shape[-1] for file in some)) if some else ()
        self.shape = (len(file_of), *inner)
        self.dtype = some[0].dtype if some else np.dtype(np.float32)
        self._array = lru_cache(_MAPPED)(lambda kind, place: files[kind][place].open())

    @classmethod
    def of(cls, frames: LabelledFrames, store: FrameStore, *files: Sequence[FeatureFile]) -> FeatureRows:
        """Those of `frames`; `files` of each kind are in the order of the videos of `store`."""
        place_of = {video.id: place for place, video in enumerate(store.videos)}
        places = np.array([place_of[video] for video in frames.videos], np.int64)
        rows = np.empty(len(frames), np.int64)
        for k, place in enumerate(places):
            rows[frames.span(k)] = np.searchsorted(store.of_video(int(place))[1], frames.numbers[frames.span(k)])
        return cls(files, places[frames.video_of], rows)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, positions: Any) -> np.ndarray:
        """[m, ...] of a slice, an array of positions, or one position (then [...])."""
        if isinstance(positions, int | np.integer):
            return self[np.array([positions])][0]
        chosen = np.arange(len(self))[positions]
        found = np.empty((len(chosen), *self.shape[1:]), self.dtype)
        of_file = self._file_of[chosen]
        for place in np.unique(of_file).tolist():
            here = np.flatnonzero(of_file == place)
            rows, begin = self._row_of[chosen[here]], 0
            for kind in self._kinds:
                part = self._array(kind, place)[rows]
                found[here, ..., begin : begin + part.shape[-1]] = part
                begin += part.shape[-1]
        return found
