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
import tempfile
import time
from pathlib import Path

from surgdino.bench.store import EXCERPT_SECONDS, bare, best_times, generated_video, reader, store
from surgdino.frames.store import StoreSettings
from surgdino.frames.video.decode import probe, sample_numbers

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
        videos = arguments.video or [generated_video(Path(folder), EXCERPT_SECONDS)]
        print(
            f"{'video':24} {'fps':>4} {'frames':>6} {'bare':>8} {'reader':>8} {'store':>8}  frames/s and ratio to bare"
        )
        for path in videos:
            for fps in arguments.fps or [1.0]:
                report(path, fps, arguments.threads, arguments.rounds, Path(folder))


def report(path: Path, fps: float, threads: int, rounds: int, folder: Path) -> None:
    """Measure one video at one rate and print a line."""
    settings = StoreSettings.of(fps=fps)
    frames = len(sample_numbers(probe(path).times, fps))
    contestants = {
        "bare": lambda: bare(path, fps, threads),
        "reader": lambda: reader(path, settings, threads),
        "store": lambda: store(path, settings, threads, folder),
    }
    best = best_times(contestants, time.process_time if threads == 1 else time.perf_counter, rounds=rounds)
    speeds = {name: frames / seconds for name, seconds in best.items()}
    ratio = speeds["store"] / speeds["bare"]
    columns = " ".join(f"{speeds[name]:8.1f}" for name in contestants)
    verdict = "met" if ratio >= GOAL else "missed"
    print(f"{path.name[:24]:24} {fps:4g} {frames:6d} {columns}  {ratio:.2f} (goal {GOAL}: {verdict})")


if __name__ == "__main__":
    main()
