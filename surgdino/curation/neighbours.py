"""Nearest neighbours by cosine: exact for up to 200,000 frames, beyond through an inverted file."""

from __future__ import annotations

import math
from dataclasses import dataclass

import faiss
import numpy as np

from surgdino.curation.embeddings import at, blocks_of

EXACT = 200_000
_PROBED = 16  # cells of the inverted file that a query looks into
_PER_CELL = 64  # frames that a cell is trained on


@dataclass(frozen=True)
class Neighbours:
    """Of m queries, the k nearest: `cosines` float32 [m, k], descending, and `rows` int64 [m, k]; -1 where fewer."""

    cosines: np.ndarray
    rows: np.ndarray


class Index:
    """Frames to search among.

    Args:
        embeddings: unit vectors [n, D], any float type, mapped or not.
        rows: int64 [m], those to search among; None: all. What is found are rows of `embeddings`.
        seed: of the inverted file's cells; the same gives the same neighbours.
        exact: up to how many frames every one is compared.
    """

    def __init__(
        self, embeddings: np.ndarray, rows: np.ndarray | None = None, *, seed: int = 0, exact: int = EXACT
    ) -> None:
        self._embeddings, self._rows = embeddings, rows
        count, width = len(embeddings) if rows is None else len(rows), embeddings.shape[1]
        self._index: faiss.Index = faiss.IndexFlatIP(width)
        if count > exact:
            cells, half = 4 * round(math.sqrt(count)), faiss.ScalarQuantizer.QT_fp16
            self._cells = self._index  # owned here: the inverted file only points to it
            inverted = faiss.IndexIVFScalarQuantizer(self._cells, width, cells, half, faiss.METRIC_INNER_PRODUCT)
            inverted.cp.seed, inverted.nprobe = seed, _PROBED
            self._index = inverted
            places = np.random.default_rng(seed).choice(count, min(count, _PER_CELL * cells), replace=False)
            places.sort()
            self._index.train(at(embeddings, places if rows is None else rows[places]))
        for _, block in blocks_of(embeddings, rows):
            self._index.add(block)

    def search(self, queries: np.ndarray, k: int) -> Neighbours:
        """The k nearest of unit vectors [m, D]; a frame finds itself too."""
        found = [self._index.search(block, k) for _, block in blocks_of(queries)]
        if not found:
            return Neighbours(np.empty((0, k), np.float32), np.empty((0, k), np.int64))
        rows = np.concatenate([each[1] for each in found])
        if self._rows is not None:
            rows = np.where(rows >= 0, self._rows[rows], -1)
        return Neighbours(np.concatenate([each[0] for each in found]), rows)
