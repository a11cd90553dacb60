"""What lies in a folder: video files, folders of images, and what is none of our business."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

# fmt: off
VIDEO_SUFFIXES = frozenset((
    ".mp4", ".m4v", ".mov", ".mkv", ".avi", ".mpg", ".mpeg", ".mp2", ".m2v", ".ts", ".mts", ".m2ts", ".wmv",
    ".asf", ".webm", ".flv", ".vob", ".mxf", ".h264", ".264", ".hevc", ".265", ".ivf",
))
# fmt: on
IMAGE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"))
_DEBRIS = frozenset(("thumbs.db", "desktop.ini", "__macosx", "lost+found"))


def is_debris(name: str) -> bool:
    """Hidden files and what desktops leave behind (`.DS_Store`, `._video01.mp4`, `Thumbs.db`)."""
    return name.startswith(".") or name.lower() in _DEBRIS


def is_video(path: Path) -> bool:
    """Whether a file's name says that it is a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def is_image(path: Path) -> bool:
    """Whether a file's name says that it is an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def plain_name(text: str) -> str:
    """One spelling for letters with accents: some file systems keep `ü` as one character, others as two."""
    return unicodedata.normalize("NFC", text)


def walk(root: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Every folder below `root` (itself first, by name) with its files; links are followed, but none twice."""
    seen: set[tuple[int, int]] = set()
    for folder, names, files in os.walk(root, followlinks=True):
        here = os.stat(folder)
        if (here.st_dev, here.st_ino) in seen:
            names.clear()
            continue
        seen.add((here.st_dev, here.st_ino))
        names[:] = sorted(name for name in names if not is_debris(name))
        yield Path(folder), [Path(folder) / name for name in sorted(files) if not is_debris(name)]


def entries(folder: Path) -> list[Path]:
    """What lies in one folder, by name, without debris; nothing where the folder is not there."""
    return sorted(p for p in folder.iterdir() if not is_debris(p.name)) if folder.is_dir() else []
