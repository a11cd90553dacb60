"""Searches in pieces: here, one by one, or by the workers of a Dask cluster (`data.engine`), with the same bits."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path

import numpy as np

from surgdino import console
from surgdino.frames.engines import LOCAL, processes_for, spread
from surgdino.paths import atomic_write

Arrays = Mapping[str, np.ndarray]
# What a search looks at, and the numbers of a piece, in; what it found there out
Search = Callable[..., tuple[np.ndarray, ...]]


@dataclass(frozen=True)
class Searchers:
    """Who searches.

    Attributes:
        engine, processes: `data.engine` and `data.workers`.
        folder: that all workers see; arrays and answers lie below it meanwhile.
    """

    engine: str = LOCAL
    processes: int = 0
    folder: Path = Path()

    def __call__(
        self, title: str, search: Search, arrays: Arrays, pieces: Sequence[tuple[int, ...]]
    ) -> Iterator[tuple[np.ndarray, ...]]:
        """`search(arrays, *piece)` of every piece, in their order; a single one is not worth sending.

        Raises:
            SurgdinoError: of a cluster (`spread`); the disk is full.
        """
        with console.bar(title, len(pieces), shown=len(pieces) > 1, stays=False) as bar:
            if self.engine == LOCAL or len(pieces) < 2:
                for piece in pieces:
                    yield search(arrays, *piece)
                    bar.advance()
                return
            folder = self.folder / "search"
            shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
            try:
                files = {name: _file_of(array, folder / f"{name}.npy") for name, array in arrays.items()}
                outs = [folder / f"found-{number}.npz" for number in range(len(pieces))]
                jobs = {out: (search, files, piece, out) for out, piece in zip(outs, pieces, strict=True)}
                for _ in spread(self.engine, processes_for(self.processes, len(jobs)), _answer, jobs, {folder}):
                    bar.advance()
                for out in outs:
                    with np.load(out, allow_pickle=False) as found:
                        yield tuple(found[name] for name in found.files)
            finally:
                shutil.rmtree(folder, ignore_errors=True)


HERE = Searchers()


def _file_of(array: np.ndarray, target: Path) -> Path:
    """Where an array lies: a mapped one does already."""
    if isinstance(array, np.memmap) and isinstance(array.base, mmap) and array.filename is not None:
        return Path(array.filename)
    with atomic_write(target) as temporary, temporary.open("wb") as stream:
        np.save(stream, array)
    return target


def _answer(search: Search, files: Mapping[str, Path], piece: tuple[int, ...], out: Path) -> None:
    """In a worker: search a piece and write what was found."""
    found = search({name: np.load(file, mmap_mode="r", allow_pickle=False) for name, file in files.items()}, *piece)
    with atomic_write(out) as temporary, temporary.open("wb") as stream:
        np.savez(stream, *found)
