"""The trainer's state: everything a run needs to go on as if it had not stopped, two generations of it."""

from __future__ import annotations

import errno
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeGuard

import torch

from surgdino.errors import SurgdinoError
from surgdino.paths import atomic_write

FORMAT = 1
_KEPT = 2


def save_state(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write `state` as `<folder>/<step>.pt`, whole or not at all, and keep the one before it.

    Raises:
        SurgdinoError: the file system refused; earlier states stay as they are.
    """
    target = folder / f"{step:08d}.pt"
    with atomic_write(target) as temporary:
        try:
            torch.save({"format": FORMAT, "step": step, **state}, temporary)
        except RuntimeError as error:  # torch's writer hides the system's reason
            raise _reason(temporary, error) from error
    for old in _files(folder)[_KEPT:]:
        old.unlink(missing_ok=True)
    return target


def load_state(folder: Path, warn: Callable[[str], None]) -> dict[str, Any] | None:
    """The newest state that is whole, or None where there is none at all.

    A damaged one is named by `warn` before the one before it is used.

    Raises:
        SurgdinoError: there are states and every one is damaged.
    """
    for leftover in folder.glob(".*.tmp"):  # of processes that were killed while they wrote
        leftover.unlink(missing_ok=True)
    files = _files(folder)
    for file in files:
        fault = _fault(file)
        if fault is None:
            return torch.load(file, map_location="cpu", weights_only=True)
        warn(f"{file} is damaged ({fault}); the state before it is used")
    if files:
        raise SurgdinoError(
            "every saved state is damaged",
            file=folder,
            found=fault,
            fix="start anew in another run.dir, or remove it",
        )
    return None


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9]*.pt"), reverse=True)


def _fault(file: Path) -> str | None:
    """What is wrong with a state file: torch does not check all checksums, so we do."""
    try:
        with zipfile.ZipFile(file) as archive:
            broken = archive.testzip()
        if broken:
            return f"checksum of {broken}"
        found = torch.load(file, map_location="meta", weights_only=True).get("format")
        return None if found == FORMAT else f"format {found}, not {FORMAT}"
    except (zipfile.BadZipFile, OSError, RuntimeError, pickle.UnpicklingError, EOFError, AttributeError) as error:
        return " ".join(str(error).split())[:120] or type(error).__name__


def _reason(file: Path, error: RuntimeError) -> OSError:
    if "write" in str(error) or shutil.disk_usage(file.parent).free < 2**20:
        return OSError(errno.ENOSPC, "No space left on device")
    return OSError(errno.EIO, str(error).splitlines()[0])


def differences(saved: dict[str, Any], now: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(key, saved value, present value) for every leaf in which two nested settings differ.

    Lists of the same number of mappings are compared entry by entry: `data.also[0].fps`.
    """
    for key in sorted(saved.keys() | now.keys()):
        before, after = saved.get(key), now.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from differences(before, after, f"{prefix}{key}.")
        elif _mappings(before) and _mappings(after) and len(before) == len(after):
            for place, (one, other) in enumerate(zip(before, after, strict=True)):
                yield from differences(one, other, f"{prefix}{key}[{place}].")
        elif before != after:
            yield f"{prefix}{key}", before, after


def _mappings(value: Any) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(value, list) and all(isinstance(entry, dict) for entry in value)
