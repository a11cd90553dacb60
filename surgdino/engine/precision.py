"""Where a run computes: device, precision, threads, and the memory that the C library keeps."""

from __future__ import annotations

import ctypes

import torch

from surgdino import distributed, machine
from surgdino.engine.settings import HardwareSettings
from surgdino.errors import SurgdinoError

# Parameters of glibc's mallopt (malloc.h), and the largest values it takes. Setting the first stops glibc from
# raising the second by itself, which would then stay at 128 KiB.
_TRIM_THRESHOLD, _TRIM_BYTES = -1, 2**31 - 1
_MMAP_THRESHOLD, _MMAP_BYTES = -3, 32 * 2**20


def choose_device(hardware: HardwareSettings) -> torch.device:
    """The device that the settings name; with several processes on a machine, this one's GPU."""
    available = torch.cuda.is_available()
    if hardware.device == "cuda" and not available:
        raise SurgdinoError(
            "no CUDA device",
            place="hardware.device",
            expected="a GPU that this torch can use",
            found=f"torch {torch.__version__} without one",
            fix="use hardware=cpu or hardware=auto, or install the CUDA build of torch",
        )
    if not available or hardware.device == "cpu":
        return torch.device("cpu")
    return torch.device("cuda", distributed.local_rank()) if distributed.world_size() > 1 else torch.device("cuda")


def choose_dtype(hardware: HardwareSettings, device: torch.device) -> torch.dtype:
    """The type of the networks' matrix products: bf16 where asked for, or where `auto` finds it native; else fp32."""
    if hardware.precision == "auto":
        return torch.bfloat16 if has_native_bf16(device) else torch.float32
    return torch.bfloat16 if hardware.precision == "bf16" else torch.float32


def has_native_bf16(device: torch.device) -> bool:
    """True where bf16 is computed, not emulated: there it halves the time, elsewhere it only loses digits."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in probes)


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """The context the networks run in; the objective leaves it again where it needs fp32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)


def set_threads(hardware: HardwareSettings) -> None:
    """Give torch the threads that the settings name; its own choice knows no container's quota."""
    asked = hardware.threads
    torch.set_num_threads(min(torch.get_num_threads(), machine.cores()) if asked == "auto" else int(asked))


def loader_workers(hardware: HardwareSettings, cores: int) -> int:
    """Processes that cut crops: as asked, else all cores but one, 16 at most."""
    if hardware.loader_workers != "auto":
        return int(hardware.loader_workers)
    return min(max(cores - 1, 0), 16)


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
