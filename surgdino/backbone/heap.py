"""Memory that a step gives back and the next one takes again."""

from __future__ import annotations

import ctypes

# Parameters of glibc's mallopt (malloc.h), and the largest values it takes. Setting the first stops glibc from
# raising the second by itself, which would then stay at 128 KiB.
_TRIM_THRESHOLD, _TRIM_BYTES = -1, 2**31 - 1
_MMAP_THRESHOLD, _MMAP_BYTES = -3, 32 * 2**20


def keep_freed_memory() -> bool:
    """Let the process keep what torch frees on the CPU, up to 2 GiB, for its next allocation.

    The C library otherwise hands the activations of a step back to the operating system, and the next step has them
    mapped and zeroed again, page by page: 2 % of the CPU seconds of a ViT-S step. The peak stays what it was.

    Returns:
        False, and nothing is changed, where the C library is not glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_TRIM_THRESHOLD, _TRIM_BYTES)) and bool(mallopt(_MMAP_THRESHOLD, _MMAP_BYTES))
