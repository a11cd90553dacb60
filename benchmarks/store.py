"""Building the frame store against bare PyAV decoding of the same video at the same sampling, in one run.

    python benchmarks/store.py                                   # a generated 854x480 video of a minute, about a minute
    python benchmarks/store.py --video /data/cholec80/videos/video05.mp4 --fps 1 --fps 5

Bare decoding is what anyone would write first: decode every frame, convert those that are sampled to RGB, keep
nothing. The store does the same with one process and the same decoder threads, and besides finds the disc, crops,
shrinks, flags, encodes, writes and syncs. Rounds of both alternate, and the best of each counts; with one thread,
which is how each core of a machine builds with enough videos, processor time is measured, which a busy machine does
not change. As a second yardstick the store's own reader runs alone: it leaves out decoding that no sampled frame
needs.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np

from surgdino.datasets.manifest import Manifest, Video
from surgdino.datasets.synthetic import write_cholec80
from surgdino.frames.build import ShardTask, build_shard, shard_path
from surgdino.frames.decode import probe, read_frames
from surgdino.frames.sampling import sample_numbers
from surgdino.frames.store import StoreSettings

GOAL = 0.9


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path, action="append", help="a video file; may be given several times")
    parser.add_argument("--fps", type=float, action="append", help="sampling rate; 1 by default")
    parser.add_argument("--threads", type=int, default=1, help="decoder threads; the store takes 1 with enough videos")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        videos = arguments.video or [generated(Path(folder))]
        print(
            f"{'video':24} {'fps':>4} {'frames':>6} {'bare':>8} {'reader':>8} {'store':>8}  frames/s and ratio to bare"
        )
        for path in videos:
            for fps in arguments.fps or [1.0]:
                report(path, fps, arguments.threads, arguments.rounds, Path(folder) / "store")


def report(path: Path, fps: float, threads: int, rounds: int, folder: Path) -> None:
    """Measure one video at one rate and print a line."""
    frames = len(sample_numbers(probe(path).times, fps))
    contestants: dict[str, Callable[[], None]] = {
        "bare": lambda: bare(path, fps, threads),
        "reader": lambda: reader(path, fps, threads),
        "store": lambda: store(path, fps, threads, folder),
    }
    clock = time.process_time if threads == 1 else time.perf_counter
    best = dict.fromkeys(contestants, float("inf"))
    for _ in range(rounds):
        for name, contestant in contestants.items():
            started = clock()
            contestant()
            best[name] = min(best[name], clock() - started)
    speeds = {name: frames / seconds for name, seconds in best.items()}
    ratio = speeds["store"] / speeds["bare"]
    columns = " ".join(f"{speeds[name]:8.1f}" for name in contestants)
    verdict = "met" if ratio >= GOAL else "missed"
    print(f"{path.name[:24]:24} {fps:4g} {frames:6d} {columns}  {ratio:.2f} (goal {GOAL}: {verdict})")


def bare(path: Path, fps: float, threads: int) -> None:
    """Decode all of the video; the sampled frames become RGB arrays."""
    wanted = set(sample_numbers(probe(path).times, fps).tolist())
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = threads
        stream.thread_type = "AUTO" if threads > 1 else "NONE"
        for number, frame in enumerate(container.decode(stream)):
            if number in wanted:
                np.asarray(frame.to_ndarray(format="rgb24"))


def reader(path: Path, fps: float, threads: int) -> None:
    """Read the sampled frames as the store does, at full size, and keep nothing."""
    info = probe(path)
    for _ in read_frames(path, sample_numbers(info.times, fps), info=info, threads=threads):
        pass


def store(path: Path, fps: float, threads: int, folder: Path) -> None:
    """Build the video's shard from nothing."""
    shutil.rmtree(folder, ignore_errors=True)
    video, settings = Video("video", "operation", path, None), StoreSettings(fps=fps)
    shard = shard_path(folder, Manifest("benchmark", path.parent, (video,)), video, settings)
    build_shard(ShardTask(video, path.parent, shard, settings, threads), lambda frames: None, lambda: None)


def generated(folder: Path) -> Path:
    """A minute of synthetic Cholec80 at its own size."""
    write_cholec80(folder / "cholec80", videos=1, seconds=60, size=(854, 480), annotations=False)
    return next((folder / "cholec80" / "videos").glob("*.mp4"))


if __name__ == "__main__":
    main()
