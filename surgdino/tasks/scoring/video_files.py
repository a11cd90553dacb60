"""One file a video: which video a file is of, by its name, and its text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from surgdino.datasets.files import plain_name, read_text, walk
from surgdino.errors import SurgdinoError


def video_files(folder: Path, suffix: str, *, endings: Sequence[str] = ("",), ignored: Sequence[str] = ()) -> dict:
    """Video id -> its file, by name.

    Args:
        folder: looked through with all folders in it; a file in a subfolder is of the video `subfolder/name`.
        suffix: `.txt`, `.csv` or `.json`.
        endings: what may stand between the video's id and the suffix; the first that fits is cut off.
        ignored: endings of names that are other files (`-tool`, `_timestamp`).

    Raises:
        SurgdinoError: no such folder, no such file in it, or two files for one video.
    """
    if not folder.is_dir():
        what = "not a folder" if folder.exists() else "the folder does not exist"
        raise SurgdinoError(
            what, file=folder, expected=f"a folder with one {suffix} file a video", fix="check the path"
        )
    found: dict[str, Path] = {}
    for _, paths in walk(folder):
        for path in paths:
            stem = plain_name(path.relative_to(folder).as_posix()[: -len(path.suffix)])
            if path.suffix.lower() != suffix or stem.endswith(tuple(ignored)):
                continue
            video = next(
                stem.removesuffix(ending) for ending in sorted(endings, key=len)[::-1] if stem.endswith(ending)
            )
            if video in found:
                raise SurgdinoError(
                    "two files for one video",
                    file=path,
                    expected="one",
                    found=f"{found[video].name} too",
                    fix="keep one",
                )
            found[video] = path
    if not found:
        raise SurgdinoError(
            "no predictions or labels in this folder", file=folder, expected=f"one {suffix} file a video"
        )
    return found


def text_of(path: Path) -> list[str]:
    """The lines of a text file, with any line ends, a byte order mark and empty lines at the end borne.

    Raises:
        SurgdinoError: it cannot be read, is no UTF-8, or is empty.
    """
    lines = read_text(path).rstrip().split("\n")
    if lines == [""]:
        raise SurgdinoError("the file is empty", file=path, expected="a header and a row a frame")
    return lines


def frame_number(cell: str, previous: int | None, path: Path, row: int) -> int:
    """The frame of a row, checked to be a whole number above the row's before.

    Raises:
        SurgdinoError: it is none, or comes twice, or the frames do not ascend.
    """
    text = cell.strip()
    place = f"row {row}"
    if not (text.isascii() and text.isdecimal() and len(text) < 16):
        raise SurgdinoError(
            "not a frame number", file=path, place=place, expected="a whole number from 0", found=repr(cell)
        )
    number = int(text)
    if previous is not None and number == previous:
        raise SurgdinoError("a frame comes twice", file=path, place=place, expected="every frame once", found=number)
    if previous is not None and number < previous:
        raise SurgdinoError(
            "the frames do not ascend", file=path, place=place, expected=f"more than {previous}", found=number
        )
    return number
