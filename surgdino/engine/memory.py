"""The device's memory: how much there is and was used, and one line where it was too small."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from surgdino import machine
from surgdino.engine.log import memory_mb
from surgdino.errors import SurgdinoError, is_out_of_memory

_GIB = 2**30
_ASKED = re.compile(r"tried to allocate ([\d.]+ \w+)", re.IGNORECASE)


class OutOfMemoryError(SurgdinoError):
    """What was computed did not fit into the device's memory. Nothing of it was written anywhere."""


@contextmanager
def within_memory(
    device: torch.device, kind: type[SurgdinoError] = OutOfMemoryError, *, place: str, asked: str, fix: str
) -> Iterator[None]:
    """Turn torch's error into one line.

    Args:
        kind: what is raised; not `OutOfMemoryError` where something is half done.
        asked: what there should have been room for.
        fix: the settings that need less.

    Raises:
        SurgdinoError: the device's memory was too small.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        more = _ASKED.search(str(error))
        peak, size = peak_and_size(device)
        found = f"{peak / _GIB:.1f} of {size / _GIB:.1f} GiB used" + (f" when it needed {more[1]} more" if more else "")
        others = used_by_others(device)
        if others > _GIB:
            found += f", {others / _GIB:.1f} GiB by other programs"
        chip = "GPU" if device.type == "cuda" else "machine"
        what = f"the {chip}'s memory is too small"
        raise kind(what, place=place, expected=f"room for {asked}", found=found, fix=fix) from error


def peak_and_size(device: torch.device) -> tuple[float, float]:
    """Bytes: the most that this process has used, and all there are, of the GPU; else of the memory it may use."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device), torch.cuda.get_device_properties(device).total_memory
    return memory_mb() * 2**20, machine.memory()


def used_by_others(device: torch.device) -> float:
    """Bytes of a GPU's memory that this process did not take."""
    if device.type != "cuda":
        return 0.0
    free, size = torch.cuda.mem_get_info(device)
    return max(size - free - torch.cuda.memory_reserved(device), 0)
