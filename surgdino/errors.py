"""One error type, one line: file, place, expected, found, what to do."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from surgdino.wording import capital


class SurgdinoError(Exception):
    """A fault of the input or the machine, described so that the user can fix it.

    Args:
        what: the fault in a few words, without the file's name.
        file: the file or folder at fault.
        place: where in it (row, frame, key).
        expected: what should have been there.
        found: what was there instead.
        fix: what to do, as an imperative.
    """

    def __init__(
        self,
        what: str,
        *,
        file: str | Path | None = None,
        place: str | int | None = None,
        expected: object = None,
        found: object = None,
        fix: str | None = None,
    ) -> None:
        self.what, self.file, self.place = what, file, place
        self.expected, self.found, self.fix = expected, found, fix
        super().__init__(self.line())

    def line(self) -> str:
        """The whole fault on one line."""
        where = ", ".join(str(part) for part in (self.file, self.place) if part is not None)
        text = f"{where}: {self.what}" if where else self.what
        if self.expected is not None:
            text += f"; expected {self.expected}"
        if self.found is not None:
            text += f"{',' if self.expected is not None else ';'} found {self.found}"
        if self.fix:
            text += f". {capital(self.fix)}" + ("" if self.fix[-1] in ".?!" else ".")
        return shown(" ".join(text.split()))

    def but(self, **changes: Any) -> SurgdinoError:
        """The same fault with other facts, such as the file that it comes from."""
        return SurgdinoError(**{**vars(self), **changes})

    def __reduce__(self):
        # Keyword arguments do not survive the default pickling, and store workers send these between processes.
        return partial(type(self), **vars(self)), ()


# What torch says beside its OutOfMemoryError: CUDA where it makes its context or pins memory, its libraries, and the
# processor's allocator; and OpenCV's.
_NO_MEMORY = re.compile(
    r"\bout of memory\b|ALLOC_FAILED|DefaultCPUAllocator: (can't|not enough)"
    r"|Insufficient memory|Cannot allocate memory",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was too small, a device's or the machine's, whatever library says so."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or bool(_NO_MEMORY.search(str(error)[:4000]))


def shown(text: object, limit: int = 2000) -> str:
    """Text from outside as it may be printed: what would steer a terminal or break a line becomes visible, and what is
    longer than `limit` characters is cut in the middle."""
    plain = "".join(c if c.isprintable() else _visible(c) for c in str(text))
    return plain if len(plain) <= limit else f"{plain[: limit // 2]} ... {plain[-limit // 2 :]}"


def _visible(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte of a file name that is no UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def nearest(word: str, valid: Iterable[str]) -> str:
    """A "did you mean" clause for a mistyped word, or the list of valid ones where nothing is near."""
    valid = sorted(set(valid))
    close = difflib.get_close_matches(word, valid, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    shown = ", ".join(valid[:12]) + (", ..." if len(valid) > 12 else "")
    return f"valid are: {shown}" if valid else "there are none"


def first_of(names: Sequence[str], most: int, join: str = ", ") -> str:
    """The first of many names, and how many there are more: `a, b and 3 more`."""
    return join.join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def from_os_error(error: OSError, file: str | Path) -> SurgdinoError:
    """The one-line form of what the operating system refused while reading or writing `file`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        what, fix = "the disk is full; what was finished before is kept", "free some space and run it again"
        return SurgdinoError(what, file=file, fix=fix)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        fix = "change its rights, or choose another place"
        return SurgdinoError("no permission", file=file, found=error.strerror, fix=fix)
    if error.errno == errno.ENOENT:
        return SurgdinoError("does not exist", file=file, fix="check the path")
    return SurgdinoError("the file system refused", file=file, found=error.strerror or error, fix="check the path")
