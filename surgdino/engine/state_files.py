"""The trainer's states as files, one a step: each whole or not at all, and the newest whole one is found again."""

from __future__ import annotations

import errno
import shutil
import zipfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch

from surgdino.backbone.tensor_files import read_torch
from surgdino.errors import SurgdinoError
from surgdino.paths import atomic_write, regular

FORMAT = 1
_KEPT = 2  # states, the newest and the one before it


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


def load_state(folder: Path, warn: Callable[[str], None], keys: Collection[str] = ()) -> dict[str, Any] | None:
    """The newest state that is whole, or None where there is none at all.

    A damaged one is named by `warn` before the one before it is used.

    Args:
        keys: what it must hold.

    Raises:
        SurgdinoError: all are damaged, or one is no regular file.
    """
    for leftover in folder.glob(".*.tmp"):  # of processes that were killed while they wrote
        leftover.unlink(missing_ok=True)
    files = _files(folder)
    for file in files:
        fault = _fault(regular(file), keys)  # no crash leaves a pipe behind: that is refused
        if fault is None:
            return read_torch(file)
        warn(f"{file} is damaged ({fault}); the state before it is used")
    if files:
        raise unusable("every saved state is damaged", folder, fault)
    return None


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9]*.pt"), reverse=True)


def _fault(file: Path, keys: Collection[str]) -> str | None:
    """What is wrong with a state file. torch does not check all checksums, so this does."""
    try:
        state = read_torch(file, "meta")
        with zipfile.ZipFile(file) as archive:
            broken = archive.testzip()
    except SurgdinoError as error:
        return ", ".join(str(part) for part in (error.what, error.found) if part)
    except (zipfile.BadZipFile, OSError, RuntimeError) as error:
        return " ".join(str(error).split())[:120] or type(error).__name__
    if broken:
        return f"checksum of {broken}"
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        return f"not of format {FORMAT}"
    if missing := [key for key in ("step", *keys) if key not in state]:
        return f"no {', '.join(missing)}"
    return None if state["step"] == int(file.stem) else f"step {state['step']!r}"


def _reason(file: Path, error: RuntimeError) -> OSError:
    if "write" in str(error) or shutil.disk_usage(file.parent).free < 2**20:
        return OSError(errno.ENOSPC, "No space left on device")
    return OSError(errno.EIO, str(error).splitlines()[0])


def unusable(what: str, folder: Path, found: str | None) -> SurgdinoError:
    """A folder of states that no run can go on from."""
    fix = "start anew in another run.dir, or remove it"
    return SurgdinoError(what, file=folder, found=found, fix=fix)
