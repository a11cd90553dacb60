"""How many processor cores it takes to feed a GPU with crops, from what one core cuts."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import cv2

from surgdino.bench.report import Line, number
from surgdino.crops.multicrop import MultiCrop
from surgdino.crops.sampler import partner
from surgdino.engine.plan import TrainPlan
from surgdino.frames.store import FrameStore

_IMAGES = 256
CORE_NOTE = "a core's figures are of this machine's, one process alone; of two hyperthreads on a core count one"


@dataclass(frozen=True)
class CoreRates:
    """Images per second of one core's time: decoded alone; decoded, cut and painted; the device painting.

    Attributes:
        decode: JPEG to pixels.
        cpu, gpu: with augment.on=cpu, and with augment.on=gpu.
        on: which of them is set.
    """

    decode: float
    cpu: float
    gpu: float
    on: str

    @property
    def cut(self) -> float:
        """With augment.on as it is set."""
        return self.gpu if self.on == "gpu" else self.cpu

    def cores(self, images: float, on: str) -> int:
        """Cores for so many images/s: those that cut, and the training process's own."""
        return ceil(images / (self.gpu if on == "gpu" else self.cpu)) + 1

    def lines(self) -> list[Line]:
        """Rows of a report."""
        alone = f"decoding alone {number(self.decode)}"
        return [
            Line("JPEG to crops, a core", f"{number(self.cpu)} images/s", f"augment.on=cpu; {alone}"),
            Line("", f"{number(self.gpu)} images/s", "augment.on=gpu"),
        ]

    def needs(self, images: float, cores: int) -> str:
        """What feeding so many images/s to one GPU takes, beside the cores that there are."""
        on_cpu, on_gpu = (self.cores(images, on) for on in ("cpu", "gpu"))
        takes = (
            f"A GPU that takes {number(images)} images/s needs {on_cpu} cores with augment.on=cpu, {on_gpu} with gpu"
        )
        if cores >= on_cpu:
            return f"{takes}; there are {cores}."
        best = (max(cores - 1, 1)) * self.gpu
        most = "" if cores >= on_gpu else f", which cut {number(best)} images/s with gpu at most"
        return f"{takes}; there are {cores}{most}."

    @property
    def figures(self) -> dict[str, float]:
        """For machines."""
        return {
            "decode_images_per_second_core": self.decode,
            "crops_images_per_second_core": self.cpu,
            "crops_on_gpu_images_per_second_core": self.gpu,
        }


def core_rates(plan: TrainPlan, seconds: float) -> CoreRates:
    """Measured on one core, about `seconds` each."""
    cv2.setNumThreads(0)
    store, draw = plan.store, random.Random(0)
    indices = [draw.randrange(len(store)) for _ in range(_IMAGES)]
    decode = images_a_second(store.read, indices, seconds)
    cpu, gpu = (
        images_a_second(_cutting(store, MultiCrop(plan.crops, {**plan.augment, "on": on})), indices, seconds)
        for on in ("cpu", "gpu")
    )
    return CoreRates(decode, cpu, gpu, plan.augment.get("on", "cpu"))


def _cutting(store: FrameStore, multicrop: MultiCrop) -> Callable[[int], object]:
    def cut(index: int) -> None:
        second = partner(store, index, multicrop.settings.pair_seconds, index)
        pair = None if second == index else (store.read(second), store.content(second))
        multicrop(store.read(index), store.content(index), index, pair)

    return cut


def images_a_second(work: Callable[[int], object], indices: list[int], seconds: float) -> float:
    """Images per second of processor time, which a busy machine disturbs least."""
    for index in indices[:8]:
        work(index)  # noise fields, open files
    cpu, wall, count = time.process_time(), time.perf_counter(), 0
    while time.perf_counter() - wall < seconds:
        work(indices[count % len(indices)])
        count += 1
    return count / (time.process_time() - cpu)


def more_cutting(workers: int, cores: int, on: str) -> str:
    """Advice where cutting crops binds."""
    if workers < cores - 1:
        return f"Raise hardware.loader_workers (now {workers}; the machine has {cores} cores)."
    painted = "" if on == "gpu" else "augment.on=gpu, "
    return (
        f"All {cores} cores are in use: {painted}fewer crops.local_count, augment=natural or a smaller "
        "data.short_side cost less; more cores help."
    )
