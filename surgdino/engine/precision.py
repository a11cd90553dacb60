"""Where the run computes and how wide: bf16 only where the machine multiplies in it natively."""

from __future__ import annotations

import torch

from surgdino import distributed
from surgdino.engine.settings import HardwareSettings
from surgdino.errors import SurgdinoError


def choose_device(hardware: HardwareSettings) -> torch.device:
    """The device that the settings name; with several processes on a machine, this one's GPU.

    Raises:
        SurgdinoError: CUDA was asked for and there is none.
    """
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
    """Give torch the threads that the settings name."""
    if hardware.threads != "auto":
        torch.set_num_threads(int(hardware.threads))


def loader_workers(hardware: HardwareSettings, cores: int) -> int:
    """Processes that cut crops: as asked, else all cores but one, 16 at most."""
    if hardware.loader_workers != "auto":
        return int(hardware.loader_workers)
    return min(max(cores - 1, 0), 16)
