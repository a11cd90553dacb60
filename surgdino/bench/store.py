"""`surgdino bench store`: building a video's shard beside bare decoding of the same frames."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from surgdino.bench.frames import BenchConfig, generated
from surgdino.bench.report import Line, Report, number, unit
from surgdino.datasets.manifest import Manifest, Video
from surgdino.errors import SurgdinoError, from_os_error
from surgdino.frames.build import ShardTask, build_shard, shard_path
from surgdino.frames.store import StoreSettings
from surgdino.frames.video.container import open_video
from surgdino.frames.video.decode import probe, read_frames, sample_numbers

EXCERPT_SECONDS = 60.0  # of a long video: each contestant then takes a second or two
_WRITE_BYTES = 64 << 20


@dataclass(frozen=True)
class StoreFigures:
    """Seconds for the same `frames` of `length` seconds of video; `size` in bytes, `disk` in bytes/s.

    `bare` decodes every frame; `reader` is the store's own reader, which skips what no sampled frame needs.
    """

    bare: float
    reader: float
    store: float
    frames: int
    length: float
    size: int
    disk: float

    @property
    def writing(self) -> float:
        """Bytes/s that building writes."""
        return self.size / self.store


def measure(config: BenchConfig) -> Report:
    """Build shards of one video, on the disk of data.store, for about four times `bench.seconds`."""
    data, seconds = config.data, config.bench.seconds
    above = data.store.absolute()
    disk = next(folder for folder in (above, *above.parents) if folder.is_dir())
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryDirectory(dir=disk, prefix=".bench-") as there:
        videos = () if config.generated else config.manifest.videos
        files = [video.path for video in videos if not video.is_image_folder and video.path.is_file()]
        smallest = min(files, key=lambda file: file.stat().st_size, default=None)
        path = excerpt(smallest, Path(scratch)) if smallest else generated_video(Path(scratch), 15 * seconds)
        figures = store_figures(path, data.store_settings, Path(there), 4 * seconds)
        what = f"{figures.length:.0f} s of {smallest.name}" if smallest else f"{figures.length:.0f} s generated"
        notes = ["data.root has images but no video: a generated video was used"] if videos and not files else []
        return report(figures, f"{what}, {data.fps:g} frames/s, one core", data.decoder, notes)


def store_figures(path: Path, settings: StoreSettings, folder: Path, seconds: float) -> StoreFigures:
    """The contestants in turns, with one decoder thread each, and the best time of each."""
    info = probe(path, settings.decoder)
    numbers = sample_numbers(info.times, settings.fps)
    shard: list[Path] = []
    best = best_times(
        {
            "bare": lambda: bare(path, settings.fps, 1),
            "reader": lambda: reader(path, settings, 1),
            "store": lambda: shard.append(store(path, settings, 1, folder)),
        },
        time.perf_counter,
        seconds=seconds,
    )
    size = shard[-1].stat().st_size
    return StoreFigures(
        best["bare"], best["reader"], best["store"], len(numbers), info.duration, size, write_rate(folder)
    )


def best_times(
    contestants: Mapping[str, Callable[[], object]],
    clock: Callable[[], float],
    *,
    rounds: int | None = None,
    seconds: float = 0.0,
) -> dict[str, float]:
    """The least time of each, in `rounds` rounds or as many as fit in `seconds`; they take turns."""
    best = dict.fromkeys(contestants, float("inf"))
    until = time.perf_counter() + seconds
    for turn in itertools.count(1):
        for name, contestant in contestants.items():
            started = clock()
            contestant()
            best[name] = min(best[name], clock() - started)
        if turn == rounds or (rounds is None and time.perf_counter() > until):
            break
    return best


def bare(path: Path, fps: float, threads: int) -> None:
    """Decode the whole video; the sampled frames become RGB arrays. The simplest way to write it."""
    wanted = set(sample_numbers(probe(path).times, fps).tolist())
    with open_video(path) as (container, stream):
        stream.codec_context.thread_count = threads
        stream.thread_type = "AUTO" if threads > 1 else "NONE"
        for number, frame in enumerate(container.decode(stream)):
            if number in wanted:
                np.asarray(frame.to_ndarray(format="rgb24"))


def reader(path: Path, settings: StoreSettings, threads: int) -> None:
    """Read the sampled frames as the store does, at full size, and discard them."""
    info = probe(path, settings.decoder)
    numbers = sample_numbers(info.times, settings.fps)
    for _ in read_frames(path, numbers, settings.decoder, info=info, threads=threads):
        pass


def store(path: Path, settings: StoreSettings, threads: int, folder: Path) -> Path:
    """Build the video's shard; its path."""
    shutil.rmtree(folder / "store", ignore_errors=True)
    video = Video("video", "operation", path, None)
    shard = shard_path(folder / "store", Manifest("benchmark", path.parent, (video,)), video, settings)
    build_shard(ShardTask(video, path.parent, shard, settings, threads), lambda frames: None, lambda: None)
    return shard


def write_rate(folder: Path) -> float:
    """Bytes/s that the disk under `folder` takes, written at once and synced.

    Raises:
        SurgdinoError: it cannot be written.
    """
    block, file = os.urandom(_WRITE_BYTES), folder / ".bench.tmp"
    try:
        started = time.perf_counter()
        with file.open("wb") as stream:
            stream.write(block)
            stream.flush()
            os.fsync(stream.fileno())
        took = time.perf_counter() - started
    except OSError as error:
        raise from_os_error(error, file) from error
    finally:
        file.unlink(missing_ok=True)
    return _WRITE_BYTES / took


def generated_video(folder: Path, seconds: float) -> Path:
    """Synthetic Cholec80 at its picture size, a minute at most."""
    return generated(folder, videos=1, seconds=min(seconds, EXCERPT_SECONDS), fps=25).videos[0].path


def excerpt(path: Path, folder: Path) -> Path:
    """A minute from the middle of a long video, its packets copied; the video itself where it is short."""
    with suppress(av.error.FFmpegError, SurgdinoError), open_video(path) as (source, stream):
        length = float(source.duration or 0) / av.time_base
        if length <= 2 * EXCERPT_SECONDS:
            return path
        target = folder / "excerpt.mkv"
        with av.open(str(target), "w") as output:
            copied = output.add_stream_from_template(stream)
            source.seek(int(length / 2 * av.time_base))
            first = None
            for packet in source.demux(stream):
                if packet.dts is None:
                    continue
                first = packet.dts if first is None else first
                if float((packet.dts - first) * packet.time_base) > EXCERPT_SECONDS:
                    break
                packet.stream = copied
                output.mux(packet)
        return target
    return path


def report(f: StoreFigures, setting: str, decoder: str, notes: list[str]) -> Report:
    """The table and its figures."""
    lines = (
        Line("bare decoding", f"{number(f.frames / f.bare)} frames/s", f"{number(f.length / f.bare)} x real time"),
        Line(f"the store's reader ({decoder})", f"{number(f.frames / f.reader)} frames/s", "full size, nothing kept"),
        Line(
            "building the shard",
            f"{number(f.frames / f.store)} frames/s",
            _against("bare decoding", f.bare, f),
            f.bare / f.store,
        ),
        Line("  against its own reader", "", _against("the store's reader", f.reader, f), f.reader / f.store),
        Line("writing it", unit(f.writing, "B/s"), f"the disk takes {unit(f.disk, 'B/s')}", f.writing / f.disk),
        Line(
            "an hour of video",
            f"{number(3600 * f.store / f.length)} s",
            f"{unit(3600 * f.size / f.length, 'B')} of store",
        ),
    )
    notes = [
        *notes,
        "in turns, one decoder thread, the best time of each; with enough videos every core builds a shard of its own",
        "after the first turn the video is read from memory: a slow file server does not show in these figures",
    ]
    figures = {
        "bare_frames_per_second": f.frames / f.bare,
        "reader_frames_per_second": f.frames / f.reader,
        "store_frames_per_second": f.frames / f.store,
        "store_to_bare": f.bare / f.store,
        "written_bytes_per_second": f.writing,
        "disk_write_bytes_per_second": f.disk,
        "seconds_per_hour_of_video": 3600 * f.store / f.length,
    }
    return Report("Frame store", setting, lines, "of the limit", verdict(f), notes, figures)


def _against(what: str, seconds: float, f: StoreFigures) -> str:
    return f"{what} {number(f.frames / seconds)}"


def verdict(f: StoreFigures) -> str:
    """What limits the speed, and what to do about it."""
    disk = f.writing / f.disk
    hour = f"an hour of video takes a core {number(3600 * f.store / f.length)} s"
    if disk > 0.5:
        return (
            f"The disk binds: building writes {unit(f.writing, 'B/s')}, it takes {unit(f.disk, 'B/s')}. "
            "Put data.store on a faster disk."
        )
    share = f.reader / f.store
    if share >= 0.5:
        return (
            f"The CPU binds, in the video decoder: {min(share, 1):.0%} of building is reading, {hour}. More cores "
            f"(data.workers) help; the disk takes {number(1 / disk)} times what one of them writes."
        )
    return (
        f"The CPU binds, in shrinking and encoding: reading is only {share:.0%} of building, {hour}. More cores "
        "(data.workers) help; so does a smaller data.short_side."
    )
