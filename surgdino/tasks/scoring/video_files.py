"""One file a video: which video a file is of, by its name, and its text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from surgdino.datasets.files import plain_name, read_text, walk
from surgdino.errors import SurgdinoError

FIRST_ROW = 2  # as an editor counts lines; 1 is the header


def video_files(folder: Path, suffix: str, *, endings: Sequence[str] = ("",), ignored: Sequence[str] = ()) -> dict:
    """Video id -> its file, by name.

    Args:
        folder: looked through with all folders in it; a file in a subfolder is of the video `subfolder/name`, but in
            one of its own name, as `predict` writes several videos, of `name`.
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
            video = _own_folder(video)
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


def _own_folder(name: str) -> str:
    """`video04/video04` is `video04`, and `site/video04/site/video04` is `site/video04`."""
    parts = name.split("/")
    half = len(parts) // 2
    return "/".join(parts[half:]) if parts == 2 * parts[half:] else name


def text_of(path: Path) -> list[str]:
    """The lines of a text file, with any line ends, a byte order mark and empty lines at the end borne.

    Raises:
        SurgdinoError: it cannot be read, is no UTF-8, or is empty.
    """
    lines = read_text(path).rstrip().split("\n")
    if lines == [""]:
        raise SurgdinoError("the file is empty", file=path, expected="a header and a row a frame")
    return lines


def table_rows(path: Path, lines: Sequence[str], separator: str) -> Iterator[tuple[str, int, list[str]]]:
    """(place such as `row 2`, frame, the other cells) of every row below the header.

    Raises:
        SurgdinoError: no rows, a row of another width than the header, frames that are none, come twice or do not
            ascend.
    """
    width, previous = len(lines[0].split(separator)), -1
    if len(lines) == 1:
        raise SurgdinoError("no rows under the header", file=path, expected="one row a frame")
    for row, line in enumerate(lines[1:], start=FIRST_ROW):
        cells, place = line.split(separator), f"row {row}"

        def refuse(what: str, expected: str, found: object, place: str = place) -> SurgdinoError:
            return SurgdinoError(what, file=path, place=place, expected=expected, found=found)

        if len(cells) != width:
            separators = {"\t": "tabs", ",": "commas"}[separator]
            raise refuse("wrong number of columns", f"{width}, separated by {separators}", len(cells))
        text = cells[0].strip()
        if not (text.isascii() and text.isdecimal() and len(text) < 16):
            raise refuse("not a frame number", "a whole number from 0", repr(cells[0]))
        if int(text) == previous:
            raise refuse("a frame comes twice", "every frame once", previous)
        if int(text) < previous:
            raise refuse("the frames do not ascend", f"more than {previous}", int(text))
        previous = int(text)
        yield place, previous, cells[1:]
