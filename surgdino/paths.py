"""Where files are: the data that ships with the package, names that are safe to write, atomic writes."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from surgdino.errors import SurgdinoError, from_os_error

_PACKAGE = Path(__file__).resolve().parent
# A wheel carries configs/, datasets/ and recipes/ in surgdino/share/; a checkout has them beside the package.
_SHARE = _PACKAGE / "share" if (_PACKAGE / "share").is_dir() else _PACKAGE.parent

_UMASK = os.umask(0)  # can only be read by setting it
os.umask(_UMASK)


def share(folder: str) -> Path:
    """The folder `configs`, `datasets` or `recipes` that belongs to this installation."""
    return _SHARE / folder


def regular(path: str | Path) -> Path:
    """The path of a file that can be opened without waiting for another program.

    Raises:
        SurgdinoError: it does not exist or may not be seen, or is a folder, a named pipe, a socket or a device.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        error = error if isinstance(error, OSError) else OSError(None, str(error))
        raise from_os_error(error, path) from error
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
        found = kinds.get(stat.S_IFMT(mode), "a device")
        raise SurgdinoError("not a file", file=path, expected="a regular file", found=found, fix="move it elsewhere")
    return path


def read_bytes(path: str | Path, limit: int) -> bytes:
    """What a regular file holds.

    Args:
        limit: largest size in bytes that is taken.

    Raises:
        SurgdinoError: as `regular`; it may not be read, or is larger.
    """
    path = regular(path)
    try:
        with path.open("rb") as stream:
            content = stream.read(limit + 1)
    except OSError as error:
        raise from_os_error(error, path) from error
    if len(content) > limit:
        found = f"{path.stat().st_size:,} bytes"
        raise SurgdinoError("too large", file=path, expected=f"at most {limit:,} bytes", found=found)
    return content


def safe_name(text: str) -> str:
    """A file name made of any text: readable, harmless, and different for different texts.

    Letters, digits, spaces within, and `._-()[]{}+,;=@&'#~!` stay; a text with anything else, one that starts with a
    dot or a dash, ends with a dot or a space, is empty or longer than 100 bytes gets a mark of its own at the end.
    """
    plain = re.sub(r"[^\w .()\[\]{}+,;=@&'#~!-]", "_", text).strip(" .").lstrip("-")
    plain = plain.encode("utf-8", "replace")[:100].decode("utf-8", "ignore").rstrip(" .") or "unnamed"
    if plain == text:
        return text
    return f"{plain}-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def inside(folder: str | Path, *names: str) -> Path:
    """The path of `names` below `folder`.

    Raises:
        SurgdinoError: it would lie outside, for instance by `..`, an absolute name or a link.
    """
    folder = Path(folder)
    path = folder.joinpath(*names)
    if path == folder or not path.resolve().is_relative_to(folder.resolve()):
        fix = "rename it: a name may not lead out of its folder"
        raise SurgdinoError("would be written outside its folder", file=folder, found="/".join(names), fix=fix)
    return path


def file_of(folder: str | Path, name: str, ending: str = "") -> Path:
    """The file of something named elsewhere, such as a video's predictions: slashes make folders, nothing leads out."""
    *folders, last = (safe_name(part) for part in name.split("/"))
    return inside(folder, *folders, last + ending)


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


def write_text(target: Path, text: str) -> Path:
    """Write a file in UTF-8, whole or not at all; raises as `atomic_write`."""
    with atomic_write(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return target


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
