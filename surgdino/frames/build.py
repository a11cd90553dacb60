"""One video into one shard: probe, sample, find the content, decode once, crop, shrink, encode."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from surgdino.datasets.manifest import Manifest, Video
from surgdino.errors import SurgdinoError, from_os_error
from surgdino.frames.content import Content, detect_content
from surgdino.frames.prepare import FramePreparer
from surgdino.frames.shard import FORMAT, write_shard
from surgdino.frames.video.decode import Frame, VideoInfo, probe, read_frames
from surgdino.frames.video.sampling import sample_numbers

_MIB = 1 << 20
# The content is found from this many frames; of a short video, from all of its samples, which are then decoded once.
# So few key frames, far apart as they are, still tell it; with fewer, other frames are decoded for it.
_CONTENT_FRAMES, _FEW_KEY_FRAMES = 24, 4
# With more frames lost to damage than this, a video is set aside as a whole.
_MAX_DAMAGED_SHARE = 0.1


@dataclass(frozen=True)
class StoreSettings:
    """What a stored frame looks like; a shard is made anew when any of it changes.

    Attributes:
        fps: frames taken per second; image folders with fewer are taken whole.
        short_side: pixels of the shorter side after cropping to the content; smaller pictures stay as they are.
        quality: of the JPEG, 1 to 100.
        decoder: the backend that reads video files (`decode.backends()`).
        content_crop: whether frames are cropped to the box around their content.
    """

    fps: float = 1.0
    short_side: int = 256
    quality: int = 90
    decoder: str = "pyav"
    content_crop: bool = True

    @property
    def folder(self) -> str:
        """A folder name of its own for every choice of settings, so that two of them do not undo each other's work."""
        name = f"{self.fps:g}fps-{self.short_side}px-q{self.quality}"
        name += "" if self.decoder == "pyav" else f"-{self.decoder}"
        return name if self.content_crop else f"{name}-uncropped"


@dataclass(frozen=True)
class ShardTask:
    """What a worker needs to build one shard; `threads` are the decoder's."""

    video: Video
    root: Path
    shard: Path
    settings: StoreSettings
    threads: int = 1


def shard_path(folder: Path, manifest: Manifest, video: Video, settings: StoreSettings) -> Path:
    """Where a video's shard lies: `<folder>/<dataset>/<settings>/<video id>.zip`."""
    return Path(folder) / _safe(manifest.dataset) / settings.folder / f"{_safe(video.id)}.zip"


def expected_header(video: Video, root: Path, settings: StoreSettings) -> dict[str, Any]:
    """The part of a shard's header that must be the same for it to be used again.

    Raises:
        SurgdinoError: the source cannot be read.
    """
    return {
        "format": FORMAT,
        "video": video.id,
        "source": source_identity(video.path, root),
        "source_fps": video.fps,
        "settings": asdict(settings),
    }


def source_identity(path: Path, root: Path) -> dict[str, Any]:
    """What tells a source from a changed one: name, size, modification time, and a hash of its two ends.

    For a folder of images the hash is over names, sizes and modification times.
    """
    name = str(path.relative_to(root)) if path.is_relative_to(root) else path.name
    digest = hashlib.sha256()
    try:
        if path.is_dir():
            stats = [(entry.name, entry.stat()) for entry in sorted(os.scandir(path), key=lambda entry: entry.name)]
            for image, stat in stats:
                digest.update(f"{image}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode(errors="surrogateescape"))
            size, modified = sum(s.st_size for _, s in stats), max((s.st_mtime_ns for _, s in stats), default=0)
        else:
            size, modified = path.stat().st_size, path.stat().st_mtime_ns
            with path.open("rb") as file:
                digest.update(file.read(_MIB))
                file.seek(max(0, size - _MIB))
                digest.update(file.read(_MIB))
    except OSError as error:
        raise from_os_error(error, path) from error
    return {"path": name, "size": size, "mtime_ns": modified, "sha256": digest.hexdigest()}


def build_shard(task: ShardTask, planned: Callable[[int], None], done: Callable[[], None]) -> None:
    """Build one shard, telling how many frames it will have as soon as it is known, and every frame that is done.

    Raises:
        SurgdinoError: the video is bad (its own path), or the shard cannot be written (the shard's path).
    """
    video, settings = task.video, task.settings
    header = expected_header(video, task.root, settings)
    info = probe(video.path, settings.decoder, fps=video.fps)
    whole = info.codec == "images" and info.fps <= settings.fps
    numbers = info.numbers if whole else info.numbers[sample_numbers(info.times, settings.fps)]
    planned(len(numbers))
    held, content = _find_content(task, info, numbers)
    prepare = FramePreparer(info, content, settings.short_side, settings.quality, settings.content_crop)
    stored = 0
    with write_shard(task.shard) as shard:
        for frame in held or _read(task, info, numbers, prepare.short_side):
            done()
            shard.add(frame.number, frame.time, *prepare(frame))
            stored += 1
        if stored < (1 - _MAX_DAMAGED_SHARE) * len(numbers) or not stored:
            raise _too_damaged(video, len(numbers), stored)
        damaged = {"damaged": len(numbers) - stored} if stored < len(numbers) else {}
        size = {"width": prepare.size[0], "height": prepare.size[1]}
        shard.finish({**header, **size, "content": prepare.describe(), "missing": damaged})


def _find_content(task: ShardTask, info: VideoInfo, numbers: np.ndarray) -> tuple[list[Frame], Content]:
    """The content that the frames share; of a short video also the frames themselves, none of a long one.

    The content must be known before the first frame is cropped. A short video therefore waits in memory, at up to twice
    the stored size; a long one is looked at in places first, at key frames if it has enough: they decode by themselves.
    """
    short = len(numbers) <= 2 * _CONTENT_FRAMES
    candidates = numbers if short or len(info.key_numbers) < _FEW_KEY_FRAMES else info.key_numbers
    places = np.linspace(0, len(candidates) - 1, _CONTENT_FRAMES).astype(int)
    frames = list(_read(task, info, numbers if short else candidates[places], 2 * task.settings.short_side))
    if not frames:
        raise _too_damaged(task.video, len(numbers), 0)
    height, width = frames[0].image.shape[:2]
    content = detect_content([frame.image for frame in frames])
    return frames if short else [], content.crop_and_scale((0, 0, width, height), info.height, info.width)


def _read(task: ShardTask, info: VideoInfo, numbers: np.ndarray, short_side: int) -> Iterator[Frame]:
    return read_frames(
        info.path, numbers, task.settings.decoder, short_side, info=info, threads=task.threads, damaged="skip"
    )


def _too_damaged(video: Video, expected: int, found: int) -> SurgdinoError:
    return SurgdinoError(
        "too many frames do not decode",
        file=video.path,
        expected=f"{expected} frames",
        found=found,
        fix="copy or re-encode the video",
    )


def _safe(name: str) -> str:
    """A file name for any id: spaces and separators become underscores, and a hash keeps two such ids apart."""
    safe = re.sub(r"[^\w.-]+", "_", name).strip(".")[:80]
    return safe if safe == name else f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
