"""Where files are: the data that ships with the package, and atomic writes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from surgdino.errors import from_os_error

_PACKAGE = Path(__file__).resolve().parent
# A wheel carries configs/, datasets/ and recipes/ in surgdino/share/; a checkout has them beside the package.
_SHARE = _PACKAGE / "share" if (_PACKAGE / "share").is_dir() else _PACKAGE.parent

_UMASK = os.umask(0)  # can only be read by setting it
os.umask(_UMASK)


def share(folder: str) -> Path:
    """The folder `configs`, `datasets` or `recipes` that belongs to this installation."""
    return _SHARE / folder


def names_in(folder: Path, suffix: str = ".yaml") -> list[str]:
    """Sorted stems of the files with `suffix` in `folder`: how everything that is chosen by name is discovered."""
    return sorted(p.stem for p in folder.glob(f"*{suffix}") if not p.name.startswith(("_", ".")))


@contextmanager
def atomic_write(target: str | Path) -> Iterator[Path]:
    """Yield a temporary path; on success fsync it and rename it to `target`, on failure leave `target` untouched.

    A reader therefore sees the old file or the whole new one, whatever moment a kill or a full disk strikes.

    Raises:
        SurgdinoError: the file system refused (full disk, no permission), named by `target`.
    """
    target = Path(target)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.chmod(0o666 & ~_UMASK)  # safetensors makes its files private, which a group's shared folder is not
        _sync(temporary)
        os.replace(temporary, target)
        _sync(target.parent)
    except OSError as error:
        raise from_os_error(error, target) from error
    finally:
        with suppress(OSError):  # what is wrong was said above
            temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
