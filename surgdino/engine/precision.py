"""The types that a run computes in: bf16, fp16 or fp32, and TF32 for fp32 where the card has it."""

from __future__ import annotations

import torch

from surgdino.engine.settings import HardwareSettings

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_AMPERE, _VOLTA = (8, 0), (7, 0)


def choose_dtype(hardware: HardwareSettings, device: torch.device) -> torch.dtype:
    """The type of the networks' matrix products: as asked; for `auto` the fastest that the device computes natively.

    That is bf16, else fp16 on CUDA cards whose tensor cores have it (V100, T4, RTX 20), else fp32.
    """
    if hardware.precision != "auto":
        return DTYPES[hardware.precision]
    if has_native_bf16(device):
        return torch.bfloat16
    return torch.float16 if device.type == "cuda" and _capability(device) >= _VOLTA else torch.float32


def has_native_bf16(device: torch.device) -> bool:
    """True where bf16 is computed, not emulated: there it halves the time, elsewhere it only loses digits."""
    if device.type == "cuda":
        return torch.version.hip is not None or _capability(device) >= _AMPERE
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in probes)


def set_tf32(dtype: torch.dtype, device: torch.device) -> bool:
    """Let fp32 products of the networks round their factors to TF32, on NVIDIA cards that have it; whether they do.

    Not where the networks compute in half precision: what is left in fp32 then is the objective, which means it.
    """
    has = device.type == "cuda" and torch.version.hip is None and _capability(device) >= _AMPERE
    torch.backends.cuda.matmul.allow_tf32 = used = has and dtype == torch.float32
    return used


def name_of(dtype: torch.dtype) -> str:
    """As `hardware.precision` spells it."""
    return next(name for name, each in DTYPES.items() if each == dtype)


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """The context the networks run in; the objective leaves it again where it needs fp32."""
    half = dtype != torch.float32
    return torch.autocast(device.type, dtype=dtype if half else torch.bfloat16, enabled=half)


def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)
