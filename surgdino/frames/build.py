"""One video into one shard: probe, sample, find the content, decode once, crop, shrink, encode."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np

from surgdino.config import shipped_settings
from surgdino.datasets.files import entries, is_pictures
from surgdino.datasets.manifest import Manifest, Video
from surgdino.errors import SurgdinoError, from_os_error, shown
from surgdino.frames.content import Content, detect_content, fit_near, frame_flags
from surgdino.frames.prints import Printer, pack
from surgdino.frames.shard import write_shard
from surgdino.frames.shard_index import FORMAT
from surgdino.frames.video.decode import (
    Frame,
    VideoInfo,
    decoder_of,
    probe,
    read_frames,
    resize,
    sample_numbers,
    scaled_size,
)
from surgdino.paths import regular, safe_name

_MIB = 1 << 20
# The content is found from this many frames; in a short video from all of its samples, which are then decoded once.
# Key frames serve where there are at least so many of them, since they are far apart.
_CONTENT_FRAMES, _FEW_KEY_FRAMES = 24, 4
# A video that loses more frames to damage than this is set aside as a whole.
_MAX_DAMAGED_SHARE = 0.1
# A disc moves slowly: it is fitted again after this many seconds.
_DISC_SECONDS = 0.999


@dataclass(frozen=True)
class StoreSettings:
    """What a stored frame looks like; a shard is built again when any of it changes; defaults: configs/data.yaml.

    Attributes:
        fps: frames taken per second; image folders with fewer are taken whole.
        short_side: pixels of the shorter side after cropping to the content; smaller pictures stay as they are.
        quality: of the JPEG, 1 to 100.
        decoder: the backend that reads video files (a file in `video/decoders/`).
        content_crop: whether frames are cropped to the box around their content.
    """

    fps: float
    short_side: int
    quality: int
    decoder: str
    content_crop: bool

    @classmethod
    def of(cls, **changes: Any) -> Self:
        """Those of configs/data.yaml, with some changed."""
        values = shipped_settings("", "data") | changes
        return cls(**{field.name: values[field.name] for field in fields(cls)})

    @property
    def folder(self) -> str:
        """A folder name for each choice of settings, so that two of them do not overwrite each other's shards."""
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
        "video": shown(video.id),
        "source": source_identity(video.path, root, video.pictures) | _box_of(video),
        "source_fps": video.fps,
        "settings": asdict(settings),
    }


def _box_of(video: Video) -> dict[str, str]:
    return {"box": " ".join(map(str, video.box))} if video.box else {}


def source_identity(path: Path, root: Path, pictures: Sequence[str] = ()) -> dict[str, Any]:
    """How a changed source is recognised: name, size, modification time, and a hash of its first and last MiB.

    For a folder of images, or some `pictures` of it, the hash is over names, sizes and modification times.
    """
    name = str(path.relative_to(root)) if path.is_relative_to(root) else path.name
    digest = hashlib.sha256()
    try:
        if is_pictures(path):
            names = pictures or sorted(os.listdir(path) if path.is_dir() else [each.name for each in entries(path)])
            stats = [(each, _status((path if path.is_dir() else path.parent) / each)) for each in names]
            for image, stat in stats:
                digest.update(f"{image}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode(errors="surrogateescape"))
            size, modified = sum(s.st_size for _, s in stats), max((s.st_mtime_ns for _, s in stats), default=0)
        else:
            size, modified = regular(path).stat().st_size, path.stat().st_mtime_ns
            with path.open("rb") as file:
                digest.update(file.read(_MIB))
                file.seek(max(0, size - _MIB))
                digest.update(file.read(_MIB))
    except OSError as error:
        raise from_os_error(error, path) from error
    return {"path": shown(name), "size": size, "mtime_ns": modified, "sha256": digest.hexdigest()}


def _status(entry: Path) -> os.stat_result:
    """Of what a link leads to, or of the link where that is gone: one image is then missing, and no video."""
    try:
        return entry.stat()
    except FileNotFoundError:
        return entry.stat(follow_symlinks=False)


def build_shard(task: ShardTask, planned: Callable[[int], None], done: Callable[[], None]) -> None:
    """Build one shard; calls `planned` once with the number of frames, and `done` for each frame.

    Raises:
        SurgdinoError: the video is bad (its own path), or the shard cannot be written (the shard's path).
    """
    video, settings = task.video, task.settings
    header = expected_header(video, task.root, settings)
    info = probe(video.path, settings.decoder, fps=video.fps, pictures=video.pictures)
    whole = info.codec in ("images", "pictures") and info.fps <= settings.fps
    numbers = info.numbers if whole else info.numbers[sample_numbers(info.times, settings.fps)]
    planned(len(numbers))
    held, content = _find_content(task, info, numbers)
    if video.box:
        content = Content("rectangle", _within(video.box, info))
    prepare = FramePreparer(info, content, replace(settings, content_crop=True) if video.box else settings)
    described = prepare.describe()
    printer, found = Printer(described["box"]), list[int]()
    with write_shard(task.shard) as shard:
        for frame in held or _read(task, info, numbers, prepare.short_side):
            done()
            picture, flags, seen = prepare(frame)
            shard.add(frame.number, frame.time, _jpeg(picture, settings.quality), flags, seen)
            if not flags:
                printer.add(len(found), frame.time, picture)
            found.append(frame.number)
        stored = len(found)
        least = 0 if video.pictures else (1 - _MAX_DAMAGED_SHARE) * len(numbers)
        if stored < least or not stored:
            raise _too_damaged(task, info, numbers, found)
        damaged = {"damaged": len(numbers) - stored} if stored < len(numbers) else {}
        size = {"width": prepare.size[0], "height": prepare.size[1]}
        shard.finish({**header, **size, "content": described, "missing": damaged}, pack(printer.rows()))


def _within(box: tuple[int, int, int, int], info: VideoInfo) -> tuple[int, int, int, int]:
    """The part of a box that is in the picture."""
    x0, y0, x1, y1 = box
    found = (x0, y0, min(x1, info.width), min(y1, info.height))
    if x0 >= found[2] or y0 >= found[3]:
        expected = f"within {info.width}x{info.height}"
        raise SurgdinoError("the box is outside the picture", file=info.path, expected=expected, found=list(box))
    return found


def _find_content(task: ShardTask, info: VideoInfo, numbers: np.ndarray) -> tuple[list[Frame], Content]:
    """The content that the frames share; for a short video also its frames, for a long one no frames.

    The content must be known before the first frame is cropped. So a short video waits in memory, at up to twice the
    stored size; a long one is sampled first, at key frames if it has enough: they decode by themselves.
    """
    if task.video.pictures:  # each its own
        return [], Content.full(info.height, info.width)
    short = len(numbers) <= 2 * _CONTENT_FRAMES
    candidates = numbers if short or len(info.key_numbers) < _FEW_KEY_FRAMES else info.key_numbers
    places = np.linspace(0, len(candidates) - 1, _CONTENT_FRAMES).astype(int)
    frames = list(_read(task, info, numbers if short else candidates[places], 2 * task.settings.short_side))
    if not frames:
        raise _too_damaged(task, info, numbers, [])
    height, width = frames[0].image.shape[:2]
    content = detect_content([frame.image for frame in frames])
    return frames if short else [], content.crop_and_scale((0, 0, width, height), info.height, info.width)


def _read(task: ShardTask, info: VideoInfo, numbers: np.ndarray, short_side: int) -> Iterator[Frame]:
    return read_frames(
        info.path, numbers, task.settings.decoder, short_side, info=info, threads=task.threads, damaged="skip"
    )


def _too_damaged(task: ShardTask, info: VideoInfo, numbers: np.ndarray, found: list[int]) -> SurgdinoError:
    first = decoder_of(info, task.settings.decoder).fault(info, int(np.setdiff1d(numbers, found)[0]))
    return SurgdinoError(
        "too many frames cannot be used",
        file=task.video.path,
        expected=f"{len(numbers)} frames",
        found=f"{len(found)}; the first of the others: {first.line().rstrip('.')}",
        fix="copy or re-encode the video",
    )


class FramePreparer:
    """From a decoded frame to what is stored: cropped to the content, shrunk, flagged.

    Takes the frames of one video in order, at any scale of their source. `content` is what they share, in source
    pixels.
    """

    def __init__(self, info: VideoInfo, content: Content, settings: StoreSettings) -> None:
        self._info, self._content = info, content
        self._box = content.box if settings.content_crop else (0, 0, info.width, info.height)
        box_width, box_height = self._box[2] - self._box[0], self._box[3] - self._box[1]
        self.size = scaled_size(box_width, box_height, settings.short_side)
        # At this shorter side a whole frame has the scale in which it is stored, and needs no further resizing.
        self.short_side = max(1, round(min(info.width, info.height) * self.size[0] / box_width))
        self._disc, self._disc_time = content, -np.inf

    def __call__(self, frame: Frame) -> tuple[np.ndarray, set[str], Content]:
        """The picture, uint8 [H, W, 3], the flags, and this very frame's content in stored pixels."""
        info, (height, width) = self._info, frame.image.shape[:2]
        if frame.time - self._disc_time > _DISC_SECONDS:
            common = self._content.crop_and_scale((0, 0, info.width, info.height), height, width)
            found = fit_near(frame.image, common)
            self._disc = found.crop_and_scale((0, 0, width, height), info.height, info.width)
            self._disc_time = frame.time
        left, top, right, bottom = (round(side * width / info.width) for side in self._box)
        picture = resize(frame.image[top:bottom, left:right], self.size)
        content = self._disc.crop_and_scale(self._box, self.size[1], self.size[0])
        return picture, set() if info.codec == "pictures" else frame_flags(picture, content), content

    def describe(self) -> dict[str, Any]:
        """The content the video shares, in stored pixels, and how the stored frame lies in the source."""
        content = self._content.crop_and_scale(self._box, self.size[1], self.size[0])
        return {**asdict(content), "source_box": self._box, "source_size": (self._info.width, self._info.height)}


def _jpeg(picture: np.ndarray, quality: int) -> bytes:
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return jpeg.tobytes()


def _safe(name: str) -> str:
    """A file name for any id: spaces and separators become underscores, and a hash keeps two such ids apart."""
    safe = re.sub(r"[^\w.-]+", "_", name).strip(".")[:80]
    mark = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return safe_name(safe if safe == name else f"{safe}-{mark}")
