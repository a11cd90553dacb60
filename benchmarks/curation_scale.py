"""Time and memory of each stage of a curation with made-up embeddings: random walks, an operation every 5,000 frames.

    OMP_NUM_THREADS=2 python benchmarks/curation_scale.py --frames 100000 1000000 --width 384

Each size runs in a process of its own, whose largest memory is printed; embeddings lie on disk as float16. k-means is
also timed against FAISS's own on the same points, by turns.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import faiss
import numpy as np

from surgdino.curation import clusters
from surgdino.curation.embeddings import BLOCK, write_unit
from surgdino.curation.settings import BalanceSettings, DuplicateSettings
from surgdino.curation.stages import Frames, deduplicate, rebalance

_OPERATION = 5000


def walks(n: int, width: int) -> Iterator[np.ndarray]:
    """Features that change slowly within an operation and jump between operations."""
    rng = np.random.default_rng(0)
    scenes = rng.normal(size=(200, width)).astype(np.float32)
    place = np.zeros(width, np.float32)
    for start in range(0, n, BLOCK):
        count = min(BLOCK, n - start)
        steps = 0.12 * rng.normal(size=(count, width)).astype(np.float32)
        rows = np.empty((count, width), np.float32)
        for i in range(count):
            if (start + i) % (_OPERATION // 20) == 0:
                place = scenes[rng.integers(len(scenes))].copy()
            place = 0.98 * place + steps[i]
            rows[i] = place
        yield rows


def measure(n: int, width: int) -> None:
    """Every stage on n frames, in this process."""
    with tempfile.TemporaryDirectory() as folder:
        vectors = write_unit(Path(folder) / "e.npy", walks(n, width), n, width)
        operations = np.arange(n) // _OPERATION
        times = (np.arange(n) % _OPERATION).astype(float)
        frames = stage("calibration", n, lambda: Frames(vectors, times, operations, operations, 0))
        common = {"copies": False, "across_by": "groups", "order": "hard", "against": None, "against_quantile": None}
        along = DuplicateSettings(along=None, along_quantile=0.5, across=None, across_quantile=None, **common)
        stage("along time", n, lambda: deduplicate(frames, along))
        across = DuplicateSettings(along=None, along_quantile=None, across=None, across_quantile=0.9, **common)
        stage("across operations", n, lambda: deduplicate(frames, across))
        balance = BalanceSettings("frames", "hierarchy", None, 10, None)
        stage("hierarchy and choice", n, lambda: rebalance(frames, balance, max(1, len(frames.left) // 4)))
        if n <= 100_000:
            against_faiss(vectors)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{n:>10,} frames: {len(frames.left):,} kept; peak memory {peak:.2f} GiB", flush=True)


def stage(name: str, n: int, work):
    """Run and time a stage."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{n:>10,} {name:22} {wall:8.1f} s   {cpu:8.1f} CPU s", flush=True)
    return result


def against_faiss(vectors: np.ndarray) -> None:
    """k-means here and FAISS's own, 500 clusters, by turns."""
    vectors = vectors[: 500 * 64]
    sample = np.asarray(vectors, np.float32)
    taken: dict[str, list[float]] = {"ours": [], "faiss": []}
    for _ in range(3):
        began = time.process_time()
        clusters.kmeans(vectors, 500, 0)
        taken["ours"].append(time.process_time() - began)
        began = time.process_time()
        faiss.Kmeans(sample.shape[1], 500, niter=15, seed=1, min_points_per_centroid=1).train(sample)
        taken["faiss"].append(time.process_time() - began)
    ours, bare = (float(np.median(taken[name])) for name in ("ours", "faiss"))
    print(f"k-means against bare FAISS, CPU seconds: {ours:.1f} and {bare:.1f}, speed {bare / ours:.2f}")


def main() -> None:
    """A process for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, nargs="+", default=[100_000])
    parser.add_argument("--width", type=int, default=384)
    words = parser.parse_args()
    for n in words.frames:
        process = multiprocessing.get_context("spawn").Process(target=measure, args=(n, words.width))
        process.start()
        process.join()


if __name__ == "__main__":
    main()
