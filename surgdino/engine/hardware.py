"""What a run computes on: chosen from the settings once, and said in one line."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import torch

from surgdino import console, distributed, machine
from surgdino.backbone.attention import kernel_name
from surgdino.backbone.vit import Backbone
from surgdino.crops.settings import GLOBAL_VIEWS
from surgdino.engine import precision
from surgdino.engine.devices import choose_device, why_no_gpu
from surgdino.engine.plan import TrainPlan
from surgdino.engine.settings import HardwareSettings
from surgdino.errors import shown
from surgdino.wording import capital, counted

# On an H100 (docs/benchmarks.md): 16 s, for 10 ms a step of 34 million activations between blocks (ViT-B/16, 64 images
# of 2 x 224 + 8 x 96 px). At half of that (ViT-S/16) the GPU waits for the host, whose calls of graphs take longer.
STEPS_THAT_REPAY_COMPILING, ACTIVATIONS_THAT_REPAY_COMPILING = 2000, 25e6

# Parameters of glibc's mallopt (malloc.h), and the largest values it takes. Setting the first stops glibc from
# raising the second by itself, which would then stay at 128 KiB.
_TRIM_THRESHOLD, _TRIM_BYTES = -1, 2**31 - 1
_MMAP_THRESHOLD, _MMAP_BYTES = -3, 32 * 2**20


@dataclass(frozen=True)
class Hardware:
    """Attributes:
    device, dtype: where the networks compute, and the type of their matrix products.
    tf32: whether their fp32 products round to TF32.
    """

    device: torch.device
    dtype: torch.dtype
    tf32: bool = False

    @classmethod
    def of(cls, settings: HardwareSettings) -> Hardware:
        """What the settings choose here; the process is prepared for it.

        Raises:
            SurgdinoError: there is no such device for this process.
        """
        threads = min(torch.get_num_threads(), own_cores())  # torch's own choice knows no container's quota
        torch.set_num_threads(threads if settings.threads == "auto" else int(settings.threads))
        device = choose_device(settings)
        if device.type == "cpu":
            keep_freed_memory()
        dtype = precision.choose_dtype(settings, device)
        return cls(device, dtype, precision.set_tf32(dtype, device))

    def autocast(self) -> torch.autocast:
        """The context the networks run in."""
        return precision.autocast(self.device, self.dtype)

    def describe(self, backbone: Backbone | None = None) -> str:
        """Device, precision, the backbone's attention, and how many of the visible GPUs this machine uses."""
        name = precision.name_of(self.dtype) + (" as TF32" if self.tf32 else "")
        attention = [] if backbone is None else [self._attention(backbone)]
        if self.device.type == "cpu":
            count = torch.get_num_threads()
            return ", ".join([f"CPU, {counted(count, 'thread')}", name, *attention])
        memory = torch.cuda.get_device_properties(self.device).total_memory / 2**30
        card = f"{torch.cuda.get_device_name(self.device)} with {memory:.0f} GiB"
        card += " (ROCm)" if torch.version.hip else ""
        return ", ".join([card, name, *attention]) + f"; {self._gpus()}"

    def announce(self, settings: HardwareSettings, backbone: Backbone | None = None, *, verb: str = "") -> str:
        """Print the line, and what the user should change; returns the line.

        Args:
            verb: of several processes, that could use further GPUs.
        """
        line = self.describe(backbone)
        console.field("hardware", line)
        missing = why_no_gpu() if self.device.type == "cpu" and settings.device == "auto" else None
        if missing:
            why, fix = missing
            console.warn(f"the CPU is used, which is many times slower: {why}. {capital(fix)}, or say hardware=cpu")
        tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))
        if verb and tasks > 1 and "RANK" not in os.environ:
            alone = f"task {os.environ.get('SLURM_PROCID')} of the {tasks} of a Slurm step trains alone: it has no RANK"
            console.warn(f"{alone}. docs/cluster.md has the srun line with which they train together")
        visible = torch.cuda.device_count() if self.device.type == "cuda" else 0
        if verb and distributed.world_size() == 1 and visible > 1:
            command = f"torchrun --nproc-per-node {visible} --no-python surgdino {verb} ..."
            console.warn(f"{visible - 1} of {visible} visible GPUs stay idle; all are used by: {command}")
        return line

    def _attention(self, backbone: Backbone) -> str:
        width = backbone.embed_dim // backbone.vit.blocks[0].attn.num_heads
        return kernel_name(backbone.packs, self.device, self.dtype, width)

    def _gpus(self) -> str:
        visible, world = torch.cuda.device_count(), distributed.world_size()
        used = min(distributed.local_world_size(), visible)
        processes = f", {world} processes in all" if world > 1 else ""
        return f"{used} of {visible} visible {'GPU' if visible == 1 else 'GPUs'} used{processes}"


def days_on_cpu(plan: TrainPlan, steps: int) -> float:
    """Of a whole run, within a factor of three; 0.08 TFLOP/s a thread are from a ViT-S/16 in fp32 on an AMD EPYC."""
    whole, parts = _patches(plan)
    weights = sum(parameter.numel() for parameter in plan.backbone.parameters())
    an_image = 2 * weights * (3 * (whole + parts) + whole)  # student forward and backward, teacher forward
    return steps * plan.train.batch_size * an_image / (0.08e12 * torch.get_num_threads()) / 86_400


def loader_workers(settings: HardwareSettings) -> int:
    """Processes that cut crops for this one: as asked, else all cores of its share but one, 16 at most."""
    if settings.loader_workers != "auto":
        return int(settings.loader_workers)
    return min(own_cores() - 1, 16)


def own_cores() -> int:
    """Processors for this process and its workers: its part of those that it shares with other processes of the run."""
    return max(int(machine.cores() / distributed.sharing()), 1)


def compiles(plan: TrainPlan, device: torch.device, steps: int, warn: Callable[[str], None]) -> bool:
    """Whether the blocks of a run of so many further steps are compiled.

    Args:
        warn: prints a sentence: compilation was asked for, or would pay, and does not work here.
    """
    wanted = plan.hardware.compile
    if wanted == "auto":  # a CPU gains 0 to 4 %
        pays = steps >= STEPS_THAT_REPAY_COMPILING and activations(plan) >= ACTIVATIONS_THAT_REPAY_COMPILING
        wanted = device.type == "cuda" and find_spec("triton") is not None and pays
    why = compilation_fails(device) if wanted else None
    if why:
        warn(f"the blocks run uncompiled, which is slower on a GPU: {why}; hardware.compile=false says no more of it")
    return bool(wanted) and why is None


def activations(plan: TrainPlan) -> float:
    """Elements of the student's tokens between two blocks: tokens of a micro-batch x width."""
    images = plan.train.batch_size / distributed.world_size() / plan.train.accumulate
    return images * sum(_patches(plan)) * plan.backbone.embed_dim


def _patches(plan: TrainPlan) -> tuple[float, float]:
    """Of an image's global and of its local crops."""
    crops, patch = plan.crops.largest, plan.backbone.patch_size
    return GLOBAL_VIEWS * (crops.global_size / patch) ** 2, crops.local_count * (crops.local_size / patch) ** 2


def compilation_fails(device: torch.device) -> str | None:
    """Tried with a function of one line: the reason, such as a missing C compiler; None where it works."""
    try:
        tried = torch.ones(8, device=device, requires_grad=True)
        torch.compile(lambda x: (2 * x).exp())(tried).sum().backward()
    except Exception as error:  # whatever a compiler raises that does not find its tools
        return shown((str(error).strip() or type(error).__name__).splitlines()[0], 160)
    return None


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
