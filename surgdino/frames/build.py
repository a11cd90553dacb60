"""One video into one shard: probe, sample, find the content, decode once, crop, shrink, encode."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from surgdino.datasets.manifest import Manifest, Video
from surgdino.errors import SurgdinoError, from_os_error
from surgdino.frames.content import Content, detect_content, fit_near, frame_flags
from surgdino.frames.decode import Frame, VideoInfo, probe, read_frames
from surgdino.frames.sampling import sample_numbers
from surgdino.frames.shard import FORMAT, write_shard

_MIB = 1 << 20
# The content is found from this many frames; of a shorter video, from all of its samples, which are then decoded only once.
_CONTENT_FRAMES = 24
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
            for file, stat in stats:
                digest.update(f"{file}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode(errors="surrogateescape"))
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
    """Build one shard, reporting the number of frames when it is known and each frame as it is stored.

    Raises:
        SurgdinoError: the video is bad (its own path), or the shard cannot be written (the shard's path).
    """
    video, settings = task.video, task.settings
    header = expected_header(video, task.root, settings)
    info = probe(video.path, settings.decoder, fps=video.fps)
    whole = info.codec == "images" and info.fps <= settings.fps
    numbers = info.numbers if whole else info.numbers[sample_numbers(info.times, settings.fps)]
    planned(len(numbers))
    frames, content = _with_content(task, info, numbers)
    box = content.box if settings.content_crop else (0, 0, info.width, info.height)
    height, width = _stored_size(box, settings.short_side)
    missing: Counter[str] = Counter()
    stored = 0
    with write_shard(task.shard) as shard:
        for frame in frames:
            done()
            if frame.image.shape[:2] != (info.height, info.width):
                missing["other_size"] += 1
                continue
            here = fit_near(frame.image, content)
            kept = here.crop_and_scale(box, height, width)
            disc = (kept.cx, kept.cy, kept.radius) if kept.kind == "disc" else None
            flags = frame_flags(frame.image, here)
            shard.add(frame.number, frame.time, _encode(frame.image, box, height, width, settings.quality), flags, disc)
            stored += 1
        missing["damaged"] = len(numbers) - stored - missing["other_size"]
        if missing["damaged"] > _MAX_DAMAGED_SHARE * len(numbers) or not stored:
            raise _too_damaged(video, len(numbers), stored)
        described = asdict(content.crop_and_scale(box, height, width)) | {"source_box": box}
        described["source_size"] = (info.width, info.height)
        shard.finish({**header, "height": height, "width": width, "content": described, "missing": dict(+missing)})


def _with_content(task: ShardTask, info: VideoInfo, numbers: np.ndarray) -> tuple[Iterator[Frame], Content]:
    """The frames to store and the content they share.

    The content must be known before the first frame is cropped: a short video waits in memory, a long one is looked at
    in places first, at key frames, which decode by themselves.
    """

    def read(some: np.ndarray) -> Iterator[Frame]:
        return read_frames(
            info.path, some, task.settings.decoder, info=info, threads=task.threads, damaged="skip"
        )  # fmt: skip

    frames = read(numbers)
    if len(numbers) <= 2 * _CONTENT_FRAMES:
        held = list(frames)
        images = [frame.image for frame in held]
        frames = iter(held)
    else:
        candidates = info.key_numbers if len(info.key_numbers) >= _CONTENT_FRAMES // 2 else numbers
        places = np.unique(np.linspace(0, len(candidates) - 1, _CONTENT_FRAMES).astype(int))
        images = [frame.image for frame in read(candidates[places])]
    images = [image for image in images if image.shape[:2] == (info.height, info.width)]
    if not images:
        raise _too_damaged(task.video, len(numbers), 0)
    return frames, detect_content(images)


def _stored_size(box: tuple[int, int, int, int], short_side: int) -> tuple[int, int]:
    width, height = box[2] - box[0], box[3] - box[1]
    scale = min(1.0, short_side / min(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _encode(image: np.ndarray, box: tuple[int, int, int, int], height: int, width: int, quality: int) -> bytes:
    x0, y0, x1, y1 = box
    picture = image[y0:y1, x0:x1]
    if picture.shape[:2] != (height, width):
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return jpeg.tobytes()


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
