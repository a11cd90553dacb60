"""Pickles of plain containers, read without running anything: MultiBypass140 publishes its folds as such.

A pickle is a program. This one may build dictionaries, lists, tuples, text and numbers; a file with any other
instruction is refused before the first one is carried out.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from surgdino.datasets.card import PARTS
from surgdino.datasets.workflow import PickledFolds, pattern_of
from surgdino.errors import SurgdinoError
from surgdino.paths import read_bytes

_LIMIT = 256 << 20  # bytes; the largest that is published has 12 MB
_FIX = "copy it again from the release; a pickle from elsewhere may hold a program"


def _sized(code: bytes, after: bytes = b"") -> bytes:
    """An instruction that is followed by a size below 256 and as many bytes."""
    sizes = (re.escape(bytes([size])) + after + (b".{%d}" % size if size else b"") for size in range(256))
    return re.escape(code) + b"(?:" + b"|".join(sizes) + b")"


# Of the protocols 2 to 5, by name in Python's pickletools: PROTO, FRAME; MEMOIZE, BINPUT, BINGET and their long forms
# (below 2^23, as each takes memory); EMPTY_DICT, _LIST, _TUPLE, MARK, APPEND(S), SETITEM(S), TUPLE, TUPLE1 to 3; NONE,
# NEWTRUE, NEWFALSE, BININT, BININT1, BININT2, BINFLOAT, LONG1; SHORT_BINSTRING, SHORT_BINUNICODE, BINUNICODE.
_PLAIN = re.compile(
    rb"\x80[\x02-\x05](?:\x95.{8}|[\x94}\]()easutN\x85-\x89]|[hqK].|r..[\x00-\x7f]\x00|j..[\x00-\x7f]\x00|J.{4}|M..|G.{8}|"
    + _sized(b"\x8a")
    + b"|"
    + _sized(b"U")  # text of Python 2
    + b"|"
    + _sized(b"\x8c")
    + b"|"
    + _sized(b"X", rb"\x00\x00\x00")
    + rb")*+\.",
    re.DOTALL,
)


def read_pickle(path: Path) -> Any:
    """What a pickle of plain containers holds.

    Raises:
        SurgdinoError: it holds anything else, or is damaged.
    """
    content = read_bytes(path, _LIMIT)
    if not _PLAIN.fullmatch(content):
        what, expected = "not a pickle of plain containers", "dictionaries, lists, text and numbers alone"
        raise SurgdinoError(what, file=path, expected=expected, fix=_FIX)
    try:
        return pickle.loads(content)
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError, AttributeError, MemoryError) as error:
        raise SurgdinoError("the pickle is damaged", file=path, found=str(error)[:80], fix=_FIX) from error


class Folds(Mapping[str, dict[str, tuple[str, ...]]]):
    """Fold -> part -> the videos of its pickles; `fold1` is the first. A fold's files are read when it is asked for.

    Attributes:
        files: fold -> part -> the files, one a hospital.
    """

    def __init__(self, folds: PickledFolds, paths: Sequence[Path]) -> None:
        self.folds, self.files = folds, dict[str, dict[str, list[Path]]]()
        ends = {part: getattr(folds, part) for part in PARTS}
        found = [
            (int(match[1]), part, path)
            for part, end in ends.items()
            for path in paths
            if (match := pattern_of(end, r"\d{1,4}").fullmatch("/".join(path.parts[-len(Path(end).parts) :])))
        ]
        for number, part, path in sorted(found):
            self.files.setdefault(f"fold{number + 1}", {}).setdefault(part, []).append(path)

    def __getitem__(self, fold: str) -> dict[str, tuple[str, ...]]:
        """Raises: SurgdinoError, as `read_pickle`; or a file holds something else than videos."""
        return {
            part: tuple(video for path in paths for video in sorted(_videos(path)))
            for part, paths in self.files[fold].items()
        }

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)

    def rows(self) -> Iterator[tuple[str, Path, np.ndarray, dict[str, np.ndarray]]]:
        """(video, file, seconds, class ids of phases and steps) of every video in the first fold.

        Raises:
            SurgdinoError: as `__getitem__`, or a row without its second or ids.
        """
        for paths in next(iter(self.files.values()), {}).values():
            for path in paths:
                for video, rows in _videos(path).items():
                    yield video, path, *self._columns(path, video, rows)

    def _columns(self, path: Path, video: str, rows: Any) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        keys = (self.folds.when, self.folds.phase, self.folds.step)
        try:
            table = np.array([[row[key] for key in keys] for row in rows])
        except (TypeError, LookupError, ValueError):
            table = np.empty(0)
        if table.ndim != 2 or table.dtype.kind not in "iu" or not len(table) or (np.diff(table[:, 0]) <= 0).any():
            expected = f"rows with whole {', '.join(keys)}, in the order of time"
            raise SurgdinoError("not the rows of a video", file=path, place=video, expected=expected, fix=_FIX)
        return table[:, 0], {"phase": table[:, 1], "step": table[:, 2]}


def _videos(path: Path) -> dict[str, Any]:
    content = read_pickle(path)
    if not isinstance(content, dict) or not all(isinstance(video, str) for video in content):
        found = type(content).__name__
        raise SurgdinoError("not a fold", file=path, expected="videos with their rows", found=found, fix=_FIX)
    return content
