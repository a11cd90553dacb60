"""The device of a process: a GPU of its own, or the CPU, and why there is no GPU where one should be."""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path

import torch

from surgdino import distributed
from surgdino.engine.settings import HardwareSettings
from surgdino.errors import SurgdinoError, shown

# The last one of NVIDIA: in Windows' subsystem for Linux.
_NVIDIA = (Path("/proc/driver/nvidia/gpus"), Path("/dev/nvidia0"), Path("/usr/lib/wsl/lib/libcuda.so.1"))
_AMD = (Path("/dev/kfd"),)


def choose_device(hardware: HardwareSettings) -> torch.device:
    """The device that the settings name; with several processes on a machine, this one's GPU.

    Raises:
        SurgdinoError: a GPU was asked for and there is none, or there are fewer than processes.
    """
    if hardware.device == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", _ordinal(torch.cuda.device_count()))
        if without_kernels(device) is None:
            return device
    if hardware.device == "cuda":
        what, fix = why_no_gpu() or ("this machine shows no GPU", "use hardware=cpu or hardware=auto")
        found = f"torch {torch.__version__}: {what}"
        raise SurgdinoError("no GPU", place="hardware.device", expected="one that torch can use", found=found, fix=fix)
    return torch.device("cpu")


def why_no_gpu() -> tuple[str, str] | None:
    """Where torch finds no GPU although there should be one: why, and what to do; None where none is to be expected."""
    hidden = {
        name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
    }
    present = [maker for maker, paths in {"NVIDIA": _NVIDIA, "AMD": _AMD}.items() if any(map(Path.exists, paths))]
    if torch.version.cuda is None and torch.version.hip is None:
        if torch.backends.mps.is_available():
            return (
                "surgdino does not use Apple's GPU (mps)",
                "expect CPU speed, or train on a machine with an NVIDIA GPU",
            )
        if not present:
            return None
        build = "CUDA" if present[0] == "NVIDIA" else "ROCm"
        return f"the machine has an {present[0]} GPU, but this is torch's CPU build", f"install its {build} build"
    if torch.cuda.is_available() and (unfit := without_kernels(torch.device("cuda", 0))):
        return unfit
    for name, value in hidden.items():
        if value is not None and value.strip() in ("", "-1", "NoDevFiles"):
            return f"{name}={value!r} hides all GPUs", f"unset {name}"
    with warnings.catch_warnings(record=True) as said:  # torch's own words on a driver that is too old
        warnings.simplefilter("always")
        torch.cuda.is_available()
    build = "ROCm" if torch.version.hip else "CUDA"
    reason = f"{build} build without a working driver"
    if said:
        reason += f" ({shown(' '.join(str(said[0].message).split()), 160)})"
    fix = f"check {'rocm-smi' if torch.version.hip else 'nvidia-smi'}; in a container, give it the GPUs"
    for name, value in hidden.items():
        if value is not None:  # a number that the machine has not hides them too
            return f"{reason}, or {name}={shown(value, 80)!r} names a GPU that is not there", f"unset {name}, or {fix}"
    return reason, fix


def without_kernels(device: torch.device) -> tuple[str, str] | None:
    """Why a card runs nothing of this torch, and what to do; None where it does, or where the build does not say.

    Builds leave old cards out: those for CUDA 13 begin with sm_75, so the first product of a V100 would fail. Code for
    sm_80 runs on sm_86, and what a build has as PTX (`compute_90`) on every later card.
    """
    built = torch.cuda.get_arch_list()
    if torch.version.hip is not None or not built:
        return None
    major, minor = torch.cuda.get_device_capability(device)
    for kind, number in re.findall(r"(sm|compute)_(\d+)", " ".join(built)):
        of_major, of_minor = divmod(int(number), 10)
        if (of_major == major and of_minor <= minor) or (kind == "compute" and (of_major, of_minor) <= (major, minor)):
            return None
    what = (
        f"this torch ({torch.__version__}) has no kernels for {torch.cuda.get_device_name(device)}, sm_{major}{minor}"
    )
    fix = "install a build of torch that has them: for cards older than sm_75 one for CUDA 12.6 (cu126)"
    return f"{what}, but {', '.join(built)}", fix


def _ordinal(visible: int) -> int:
    """Which of the visible GPUs is this process's.

    Processes that torchrun started see all GPUs of the machine, and the number of a process is that of its GPU. Slurm
    can show each task one GPU only (`--gpus-per-task=1`), which is number 0 for all of them. So is a MIG slice: CUDA
    shows a process one of them at most.
    """
    if visible == 1 and "TORCHELASTIC_RUN_ID" not in os.environ:
        return 0
    processes = max(int(os.environ.get("LOCAL_WORLD_SIZE", 1)), distributed.local_rank() + 1)
    if processes > visible:
        shown_gpus = os.environ.get("CUDA_VISIBLE_DEVICES")
        raise SurgdinoError(
            "more processes than GPUs",
            place="this machine",
            expected=f"at most {visible} processes, one for each GPU that they see",
            found=f"{processes}" + (f" with CUDA_VISIBLE_DEVICES={shown_gpus}" if shown_gpus else ""),
            fix=f"use --nproc-per-node {visible}, or show each process a GPU of its own (docs/cluster.md)",
        )
    return distributed.local_rank()
