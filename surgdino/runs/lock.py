"""One command at a time writes into a run folder: a lock that the system lets go of when its process ends, however."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import stat
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from surgdino import console, distributed
from surgdino.errors import SurgdinoError, from_os_error, shown

NAME = ".lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


class FolderLock:
    """Holds the folders that a command writes into, those given and those it takes later, until the `with` block ends.

    Of several processes that train together the first one holds them for all. It is a POSIX record lock: the workers
    that a process forks do not hold it, and a killed process holds none.
    """

    def __init__(self, *folders: Path) -> None:
        self._folders = folders
        self._held: dict[Path, int] = {}
        self._made: list[Path] = []

    def __enter__(self) -> Self:
        for folder in self._folders:
            self.take(folder)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file, descriptor in self._held.items():
            with suppress(OSError):  # the folder may be gone, or no longer ours to write to
                file.unlink()  # while it is held: whoever waits at the old file looks again
            os.close(descriptor)
        for folder in self._made:
            with suppress(OSError):  # it holds something now
                folder.rmdir()
        self._held.clear()

    def take(self, folder: Path) -> None:
        """Hold `folder`, which is made where it is missing. A file system without locks draws a warning.

        Raises:
            SurgdinoError: another command holds it, or nothing may be written there.
        """
        file = folder / NAME
        if not distributed.is_main() or file in self._held:
            return
        try:
            if not folder.exists():
                folder.mkdir(parents=True, exist_ok=True)
                self._made.append(folder)
            while (descriptor := _locked(file)) is None:
                pass
        except OSError as error:
            if error.errno in _NO_LOCKS:
                console.warn(f"{folder}: its file system has no locks; do not start the same command twice")
                return
            raise from_os_error(error, file) from error
        self._held[file] = descriptor


def _locked(file: Path) -> int | None:
    """A descriptor that holds the lock; None where the file was replaced meanwhile."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise SurgdinoError("not a file", file=file, expected="a regular file", fix="remove it")
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            holder = shown(os.read(descriptor, 200).decode("utf-8", "replace")) or "another command"
            fix = "wait until it has ended, stop it, or choose another folder"
            raise SurgdinoError("this folder is in use", file=file.parent, found=holder, fix=fix) from None
        if not file.exists() or file.stat().st_ino != os.fstat(descriptor).st_ino:
            os.close(descriptor)
            return None
        os.ftruncate(descriptor, 0)
        holder = f"process {os.getpid()} on {platform.node()} since {time.strftime('%Y-%m-%d %H:%M:%S')}"
        os.pwrite(descriptor, holder.encode(), 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
