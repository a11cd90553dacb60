"""Time and memory of each stage of a curation, with made-up embeddings that behave like those of an archive.

    OMP_NUM_THREADS=1 python benchmarks/curation_scale.py --frames 100000 1000000 --width 384 --folder SCRATCH

Operations of 5,000 frames a second apart show scenes of some minutes, partly seen in other operations too, now moving
and now at rest; one stretch in fifty is another operation's again. Embeddings lie on disk as float16. Each size runs in
a process of its own; memory is what a stage had of its own at most (the mapped embeddings, which the system may drop,
are counted apart). The across stage is compared with all products where that is feasible, k-means with FAISS's own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import faiss
import numpy as np
from scipy.signal import lfilter

from surgdino.curation.clusters import assign, clustered, kmeans
from surgdino.curation.copies import stretches
from surgdino.curation.embeddings import at, open_unit, write_unit
from surgdino.curation.settings import BalanceSettings, DuplicateSettings, RetrievalSettings
from surgdino.curation.stages import SHARED, Frames, deduplicate, keep_apart, rebalance, retrieve
from surgdino.curation.table import Curation, read_curation
from surgdino.frames.prints import Prints

_OPERATION, _SCENES = 5000, 400
T = TypeVar("T")


def archive(n: int, width: int) -> Iterator[np.ndarray]:
    """float32 [5000, width] of one operation after another.

    A frame is the sum of what all share, its scene, the operation's look, the stretch's view, a slow walk and noise;
    directions count less and less, as those of real features do.
    """
    rng = np.random.default_rng(0)
    scale = (np.arange(1, width + 1) ** -0.5).astype(np.float32)
    scale *= np.sqrt(width / (scale**2).sum())

    def drawn(count: int) -> np.ndarray:
        return rng.standard_normal((count, width), np.float32) * scale

    common, scenes, shown, pool = drawn(1), drawn(_SCENES), [], drawn(1 << 16)

    def noise(count: int) -> np.ndarray:
        start = int(rng.integers(len(pool) - count))
        return pool[start : start + count]

    for first in range(0, n, _OPERATION):
        length, look, place, rows = min(_OPERATION, n - first), 0.5 * drawn(1), 0, []
        while place < length:
            count = min(int(rng.integers(40, 400)), length - place)
            if shown and rng.random() < 0.02:
                again = shown[rng.integers(len(shown))][:count]
                rows.append(again + 0.1 * noise(len(again)))
            else:
                moving = rng.choice([0.02, 0.1, 0.3], p=[0.3, 0.5, 0.2])
                filtered = np.array([1.5 * moving], np.float32), np.array([1, moving - 1], np.float32)
                walk = lfilter(*filtered, noise(count), axis=0)
                scene = scenes[min(int(rng.exponential(_SCENES / 6)), _SCENES - 1)]
                view = common + 0.7 * scene + look + 0.4 * drawn(1)
                walk += view
                walk += 0.25 * noise(count)
                rows.append(walk)
                if len(shown) < 200:
                    shown.append(rows[-1])
            place += len(rows[-1])
        yield np.concatenate(rows)[:length]


class Stages:
    """Runs and times stages; says what each had of memory of its own at most."""

    def __init__(self, n: int) -> None:
        self.n, self.peak = n, 0.0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.peak = max(self.peak, memory("RssAnon"))
            time.sleep(0.02)

    def __call__(self, name: str, work: Callable[[], T]) -> T:
        """What the work returns."""
        self.peak = 0.0
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        self.peak = max(self.peak, memory("RssAnon"))
        mapped = memory("RssFile")
        line = f"{wall:8.1f} s {cpu:8.1f} CPU s {self.peak:6.2f} GiB own, {mapped:5.2f} mapped"
        print(f"{self.n:>10,} {name:24} {line}", flush=True)
        return result


def memory(kind: str) -> float:
    """GiB of this process now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(kind):
            return int(line.split()[1]) / 2**20
    return 0.0


def measure(n: int, width: int, folder: Path) -> None:
    """Every stage on n frames, in this process."""
    stage, file = Stages(n), folder / f"{n}.npy"
    if not file.exists():
        stage("made up, written", lambda: write_unit(file, archive(n, width), n, width))
    vectors = open_unit(file)
    operations = np.arange(n) // _OPERATION
    times = (np.arange(n) % _OPERATION).astype(float)
    frames = stage("thresholds", lambda: Frames(vectors, times, operations, operations, 0))
    unused = {"copies": False, "across_by": "groups", "order": "hard", "against": None}
    along = DuplicateSettings(
        along=None, along_quantile=0.5, across=None, across_quantile=None, against_quantile=None, **unused
    )
    stage("along time", lambda: deduplicate(frames, along))
    among = frames.left
    across = DuplicateSettings(
        along=None, along_quantile=None, across=None, across_quantile=0.9, against_quantile=0.9, **unused
    )
    stage("across operations", lambda: deduplicate(frames, across))
    if n <= 200_000:
        stage("  all products", lambda: compared(frames, among))
    print(f"{n:>10,} {len(among):,} left along time, {len(frames.left):,} across", flush=True)
    rows, wanted = frames.left, RetrievalSettings("sample", 4, 3, 10_000)
    stage("hierarchy and choice", lambda: rebalance(frames, balance(n), max(1, len(rows) // 4)))
    stage("table written", lambda: table(frames).write(folder))
    stage("table read", lambda: read_curation(folder))
    frames.reason[rows] = ""
    other = at(vectors, np.sort(np.random.default_rng(1).choice(n, 2000, replace=False)))
    stage("like 2,000", lambda: retrieve(frames, other, wanted, balance(n)))
    frames.reason[rows] = ""
    stage("against 2,000", lambda: keep_apart(frames, other, np.zeros(n, bool), across))
    videos = filmed(n)
    found = stage("copies by prints", lambda: stretches(videos))
    print(f"{n:>10,} {len({each.copy for each in found})} of {len(videos)} videos are copies", flush=True)
    k = len(frames.levels[0].centroids)
    if n <= 200_000:
        against_faiss(vectors, k)


def filmed(n: int) -> list[Prints]:
    """Prints of n frames whose bits change slowly; every fifth operation is an earlier one, encoded again."""
    rng, videos = np.random.default_rng(0), []
    for place in range(0, n, _OPERATION):
        count = min(_OPERATION, n - place)
        if len(videos) % 5 == 4:
            bits = videos[5 * int(rng.integers(len(videos) // 5 + 1))].bits[:count].copy()
            wrong = rng.random(bits.shape) < 0.2
            bits ^= (np.uint8(1) << rng.integers(0, 8, bits.shape, np.uint8)) * wrong
        else:
            flips = rng.random((count, 9, 256)) < 0.04
            flips[::100] = rng.random((len(flips[::100]), 9, 256)) < 0.5
            flips[..., 255] = False
            bits = np.packbits(np.logical_xor.accumulate(flips, axis=0), axis=-1)
        videos.append(Prints(np.arange(float(len(bits))), bits))
    return videos


def balance(n: int) -> BalanceSettings:
    """As configs/curate.yaml has it."""
    return BalanceSettings("frames", "hierarchy", None, 5, None)


def compared(frames: Frames, rows: np.ndarray) -> None:
    """All products: says how many frames would be left out, which should be those that were."""
    vectors, threshold = at(frames.embeddings, rows), frames.thresholds["across"]
    met = np.zeros(len(rows), bool)  # by an earlier frame
    for start in range(0, len(rows), 2048):
        later = vectors[start : start + 2048] @ vectors[start:].T >= threshold
        met[start:] |= np.triu(later, 1).any(0)
    out = frames.reason[rows] == SHARED
    print(f"{'':10} {out.sum():,} left out, {met.sum():,} have an earlier one as near", flush=True)


def table(frames: Frames) -> Curation:
    """What was decided."""
    videos = tuple(map(str, range(int(frames.video_of[-1]) + 1)))
    return Curation(
        videos=videos,
        operations=videos,
        video_of=frames.video_of,
        frame=frames.times.astype(np.int64),
        time=frames.times,
        group=frames.group,
        levels=[level.of for level in frames.levels],
        similarity=frames.similarity,
        weight=(frames.reason == "").astype(np.float32),
        reason=frames.reason,
    )


def against_faiss(vectors: np.ndarray, k: int) -> None:
    """k-means here and FAISS's own on the same 64 points a cluster, by turns, and how far points then are."""
    sample = at(
        vectors, np.sort(np.random.default_rng(0).choice(len(vectors), min(len(vectors), 64 * k), replace=False))
    )

    def bare() -> np.ndarray:
        learnt = faiss.Kmeans(sample.shape[1], k, niter=15, seed=1, min_points_per_centroid=1)
        learnt.train(sample)
        return learnt.centroids

    ways: dict[str, Callable[[], np.ndarray]] = {
        "bare FAISS": bare,
        "one k-means": lambda: kmeans(sample, k, 0),
        "clustered": lambda: clustered(sample, k, 0).centroids,
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    apart = {}
    for _ in range(3):
        for name, way in ways.items():
            began = time.process_time()
            centroids = way()
            taken[name].append(time.process_time() - began)
            apart[name] = float(assign(sample, centroids)[1].mean())
    for name, seconds in taken.items():
        speed = float(np.median([a / b for a, b in zip(taken["bare FAISS"], seconds, strict=True)]))
        print(
            f"{k} clusters, {name:12} {np.median(seconds):6.1f} CPU s, speed {speed:5.2f}, distance {apart[name]:.4f}"
        )


def main() -> None:
    """A process for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, nargs="+", default=[100_000])
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--folder", type=Path, default=None, help="keeps the embeddings; null: a temporary one")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = words.folder or Path(temporary)
        for n in words.frames:
            process = multiprocessing.get_context("spawn").Process(target=measure, args=(n, words.width, folder))
            process.start()
            process.join()


if __name__ == "__main__":
    main()
