"""Files and folders without decoding: what lies in a folder, the text of a file, which frame an image is, its size."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import threading
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from PIL import ExifTags, Image, UnidentifiedImageError

from surgdino.csv_files import csv_rows
from surgdino.datasets.spreadsheets import READ, is_sheet, sheet_text, sheets_are_read
from surgdino.errors import SurgdinoError, from_os_error, shown
from surgdino.paths import read_bytes, regular

# fmt: off
VIDEO_SUFFIXES = frozenset((
    ".mp4", ".m4v", ".mov", ".mkv", ".avi", ".mpg", ".mpeg", ".mp2", ".m2v", ".ts", ".mts", ".m2ts", ".wmv",
    ".asf", ".webm", ".flv", ".vob", ".mxf", ".h264", ".264", ".hevc", ".265", ".ivf", ".3gp", ".3g2", ".qt", ".mod",
    ".tod", ".m2p", ".m2t", ".trp", ".mjpg", ".mjpeg", ".ogv", ".dv", ".f4v",
))
_DOCUMENT_SUFFIXES = frozenset((
    ".txt", ".md", ".pdf", ".yaml", ".yml", ".html", ".docx", ".srt", ".vtt", ".sha256", ".md5", ".log",
))
# fmt: on
EXPORT_DICOM = "export the video from the archive as MP4, or take it out of the DICOM file"
IMAGE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"))
_DEBRIS = frozenset(("thumbs.db", "desktop.ini", "__macosx", "lost+found"))
_END_MARKS = {"PNG": b"IEND", "JPEG": b"\xff\xd9"}
GENERATED = ".generated-by-surgdino"  # in a folder in a public layout that shows no real operation
DRAWN = "demo"  # what the operations of such a folder are called: demo/1, ...
MOST_DIGITS = 15  # of a frame number: more is a time stamp or damage
_MOST_TEXT = 256 << 20  # bytes of a label file
MOST_PIXELS = 100_000_000
_END = 1 << 16  # bytes at the end in which the end mark is looked for


def is_debris(name: str) -> bool:
    """Hidden files and what desktops leave behind (`.DS_Store`, `._video01.mp4`, `Thumbs.db`)."""
    return name.startswith(".") or name.lower() in _DEBRIS


def is_video(path: Path) -> bool:
    """Whether a file's name says that it is a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def is_image(path: Path) -> bool:
    """Whether a file's name says that it is an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def is_dicom(path: Path) -> bool:
    """Whether a file is from a picture archive, by its name or its first bytes."""
    if path.suffix.lower() in (".dcm", ".dicom"):
        return True
    with suppress(OSError, SurgdinoError), regular(path).open("rb") as file:
        return is_dicom_head(file.read(132))
    return False


def is_dicom_head(head: bytes) -> bool:
    """The same of a file's first 132 bytes or more."""
    return head[128:132] == b"DICM"


def is_document(path: Path) -> bool:
    """Whether a file's name says that it is text for people, which is expected beside recordings."""
    return path.suffix.lower() in _DOCUMENT_SUFFIXES or path.stem.lower().startswith(("readme", "licen", "sha256"))


def is_table(path: Path) -> bool:
    """Whether a file's name says that it is a table that can be read here."""
    suffix = path.suffix.lower()
    return suffix in (".csv", ".tsv") or (suffix in READ and sheets_are_read())


def is_mask(path: Path) -> bool:
    """Whether a file's name says that it is the mask of an image beside it, as in DSAD (`mask07.png`)."""
    return path.stem.lower().startswith("mask")


def is_map(path: Path) -> bool:
    """Whether a file's name says that it tells of a picture (`Depth_0001.png`, `0001_flow.tiff`, `0001_mask.png`)."""
    return re.search(r"(^|[_-])(depth|normals|flow|occlusion)([_-]|$)|[_-]mask$", path.stem.lower()) is not None


@lru_cache(maxsize=1 << 14)
def plain_name(text: str) -> str:
    """One spelling for letters with accents: some file systems keep `ü` as one character, others as two.

    A byte that is no UTF-8 (`M\\xfcller.mp4` from an old disk) becomes the text `\\xfc`, which every file can hold.
    """
    readable = re.sub("[\ud800-\udfff]", lambda found: shown(found[0]), text)
    return unicodedata.normalize("NFC", readable)


@lru_cache(maxsize=1 << 14)
def letters(text: str) -> str:
    """What two spellings of one name have in common: letters and digits without case and accents."""
    return "".join(letter for letter in unicodedata.normalize("NFKD", text).casefold() if letter.isalnum())


def walk(root: Path, refused: Callable[[OSError], object] | None = None) -> Iterator[tuple[Path, list[Path]]]:
    """Every folder below `root` (itself first, by name) with its files; links are followed, but none twice.

    Args:
        refused: is told of each folder that may not be read; its content is left out.
    """
    seen: set[tuple[int, int]] = set()
    for folder, names, files in os.walk(root, onerror=refused, followlinks=True):
        try:
            here = os.stat(folder)
        except OSError as error:
            if refused:
                refused(error)
            names.clear()
            continue
        if (here.st_dev, here.st_ino) in seen:
            names.clear()
            continue
        seen.add((here.st_dev, here.st_ino))
        names[:] = sorted(name for name in names if not is_debris(name))
        yield Path(folder), [Path(folder) / name for name in sorted(files) if not is_debris(name)]


def name_of(path: Path, root: Path) -> str:
    """The path inside `root`, of a file without its suffix."""
    inside = path.relative_to(root)
    return plain_name((inside.with_suffix("") if path.is_file() else inside).as_posix())


def is_pictures(path: Path) -> bool:
    """Whether a recording is a folder of pictures, or those in a folder whose names begin alike (`train/8_*`)."""
    return path.is_dir() or (path.name.endswith("*") and path.parent.is_dir())


def entries(folder: Path) -> list[Path]:
    """The content of one folder, or of `train/8_*`, sorted by name, without debris; empty if it does not exist."""
    if folder.is_dir():
        return sorted(p for p in folder.iterdir() if not is_debris(p.name))
    if is_pictures(folder):
        names, prefix = os.listdir(folder.parent), folder.name[:-1]
        return [folder.parent / name for name in sorted(names) if name.startswith(prefix) and not is_debris(name)]
    return []


def read_text(path: Path, *, spreadsheet: bool = False) -> str:
    """The text of a file in UTF-8 (with or without a byte order mark), every line end as one newline.

    Args:
        path: the file.
        spreadsheet: also accept what spreadsheets write: UTF-16 with its mark, Windows-1252, and a workbook itself.

    Raises:
        SurgdinoError: the file cannot be read, or is not text.
    """
    data = read_bytes(path, _MOST_TEXT)
    if spreadsheet and is_sheet(data):
        return sheet_text(data, path)
    encodings = ["utf-8-sig"]
    if spreadsheet and data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings = ["utf-16"]
    elif spreadsheet and not any(byte in data for byte in b"\x00\x01\x02\x03"):
        encodings.append("cp1252")
    for encoding in encodings:
        with suppress(UnicodeDecodeError):
            text = data.decode(encoding)
            if "\0" not in text:  # UTF-16 without its mark, or no text at all
                return text.replace("\r\n", "\n").replace("\r", "\n")
    fix = "save the table as CSV" if is_sheet(data) else "save it as UTF-8"
    raise SurgdinoError("not a text file", file=path, expected="text in UTF-8", fix=fix)


def read_cells(path: Path) -> list[list[str]]:
    """The rows of a CSV that are not empty, cells without spaces around; separated as its first line is.

    Raises:
        SurgdinoError: as `read_text`, or it is not a CSV.
    """
    text = read_text(path, spreadsheet=True)
    separator = max(";\t,", key=text.partition("\n")[0].count)
    return [[cell.strip() for cell in row] for row in csv_rows(text, path, separator) if any(row)]


def content_hash(path: Path, end: int) -> str:
    """Of a recording, 16 digits: the sizes of its files and the ends of the first one, which a copy has too.

    Args:
        end: bytes of each end.

    Raises:
        SurgdinoError, OSError: a file cannot be read.
    """
    files = sorted(each for each in path.iterdir() if each.is_file()) if path.is_dir() else [path]
    digest = hashlib.sha256(repr([file.stat().st_size for file in files]).encode())
    for file in map(regular, files[:1]):
        with file.open("rb") as stream:
            digest.update(stream.read(end))
            stream.seek(max(file.stat().st_size - end, 0))
            digest.update(stream.read(end))
    return digest.hexdigest()[:16]


@contextmanager
def time_limit(seconds: float, what: str) -> Iterator[None]:
    """Raise a SurgdinoError with the text `what` after this time; regular expressions may take for ever.

    Outside of the main thread, where no alarm can be set, there is no limit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def refuse(signum: int, frame: object) -> None:
        raise SurgdinoError(what, expected=f"at most {seconds:g} seconds", fix="write a simpler regular expression")

    before = signal.signal(signal.SIGALRM, refuse)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def numbered_images(folder: Path) -> dict[int, Path]:
    """The images of a folder by frame number (the last digits of the name), ascending, without masks and maps.

    Raises:
        SurgdinoError: a name without such a number, or two names with the same.
    """
    files: dict[int, Path] = {}
    images = [path for path in entries(folder) if is_image(path) and not is_mask(path)]
    for path in [path for path in images if not is_map(path)] or images:
        digits = re.findall(r"\d+", path.stem)
        if not digits:
            raise SurgdinoError("the name has no frame number", file=path, expected="a name such as 000025.png")
        if len(digits[-1]) > MOST_DIGITS:
            expected, found = f"at most {MOST_DIGITS} digits", digits[-1][:40]
            raise SurgdinoError("the name's number is too large", file=path, expected=expected, found=found)
        first = files.setdefault(int(digits[-1]), path)
        if first != path:
            raise SurgdinoError(
                "two images have the same frame number",
                file=path,
                expected="the frame number in the last digits of every name",
                found=f"{digits[-1]} here and in {first.name}",
                fix="rename the images, if the last digits are a date or a part",
            )
    return dict(sorted(files.items()))


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) in pixels, from the file's head; PNG and JPEG must also have their end mark.

    As everywhere, the size is that of the picture as shown: turned by its EXIF orientation.

    Raises:
        SurgdinoError: empty, cut short, or no image.
    """
    try:
        with regular(path).open("rb") as file:
            return size_of(file, path)
    except OSError as error:
        raise from_os_error(error, path) from error


def size_of(file: BinaryIO, path: Path) -> tuple[int, int]:
    """As `image_size`, of an open file."""
    empty = not file.read(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit is below
            with Image.open(file) as image:
                size, end_mark = image.size, _END_MARKS.get(image.format or "", b"")
                # A PNG with its orientation after the pixels would be decoded for it.
                exif = image.getexif() if image.format != "PNG" or "exif" in image.info else {}
                turned = exif.get(ExifTags.Base.Orientation, 1) >= 5
    except Image.DecompressionBombError as error:
        raise _too_large(path, str(error)) from error
    except (UnidentifiedImageError, SyntaxError, ValueError) as error:
        what = "the file is empty" if empty else "is not a readable image"
        raise SurgdinoError(what, file=path, expected="an image", fix="copy it again") from error
    if size[0] * size[1] > MOST_PIXELS:
        raise _too_large(path, f"{size[0]}x{size[1]}")
    file.seek(0, os.SEEK_END)
    file.seek(max(file.tell() - _END, 0))
    if end_mark not in file.read():
        raise SurgdinoError("the image is cut short", file=path, fix="copy it again")
    return (size[1], size[0]) if turned else size


def _too_large(path: Path, found: str) -> SurgdinoError:
    return SurgdinoError("the image is too large", file=path, expected=f"at most {MOST_PIXELS:,} pixels", found=found)
