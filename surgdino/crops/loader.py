"""Batches of crops, cut in worker processes; the same whatever the number of workers or of training processes."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from surgdino.crops.masks import block_mask, mask_ratios
from surgdino.crops.multicrop import GLOBAL_VIEWS, CropSettings, MultiCrop
from surgdino.crops.sampler import FrameSampler, StepPlan, partner
from surgdino.errors import SurgdinoError
from surgdino.frames.store import FrameStore

Job = TypeVar("Job")
Result = TypeVar("Result")
# Apart from each other, so that crops at position p and masks of step p do not share their random numbers.
_END = object()
_CROPS, _MASK_SHARES, _MASK_BLOCKS, _PAIRS = range(4)


@dataclass
class Batch:
    """One process's share of a step: B images, L local crops each, N patches a global crop.

    View-major means: all images' first view, then all images' second, and so on.

    Attributes:
        global_crops: uint8 [2B, 3, S, S] view-major.
        local_crops: uint8 [LB, 3, s, s] view-major.
        masks: bool [2B, N] view-major, True where the student does not see the patch.
        index: int64 [B], the frames in the store.
        second: int64 [B], the frames that the second global view and the last half of the local ones were cut from:
            neighbours in time with `crops.pair_seconds`, else `index` again.
        step: 0-based.
    """

    global_crops: torch.Tensor
    local_crops: torch.Tensor
    masks: torch.Tensor
    index: torch.Tensor
    second: torch.Tensor
    step: int

    def pin_memory(self) -> Batch:
        """Called by the DataLoader's pinning thread."""
        tensors = {name: value.pin_memory() for name, value in vars(self).items() if isinstance(value, torch.Tensor)}
        return Batch(**tensors, step=self.step)


@dataclass
class CropBatches:
    """Reads, cuts and masks the frames of a step's plan; runs in the workers."""

    store: FrameStore
    multicrop: MultiCrop
    seed: int
    grid: tuple[int, int]
    mask_probability: float
    mask_ratio: tuple[float, float]

    def __call__(self, plan: StepPlan) -> Batch:
        s, images = self.multicrop.settings, len(plan.indices)
        global_crops = torch.empty((GLOBAL_VIEWS, images, 3, s.global_size, s.global_size), dtype=torch.uint8)
        local_crops = torch.empty((s.local_count, images, 3, s.local_size, s.local_size), dtype=torch.uint8)
        into_global, into_local = global_crops.numpy(), local_crops.numpy()
        partners = []
        for i, (position, index) in enumerate(zip(plan.positions, plan.indices, strict=True)):
            other = partner(self.store, index, s.pair_seconds, seed_of(self.seed, _PAIRS, position))
            second = None if other == index else (self.store.read(other), self.store.content(other))
            image, content = self.store.read(index), self.store.content(index)
            seed = seed_of(self.seed, _CROPS, position)
            self.multicrop.fill(image, content, seed, into_global[:, i], into_local[:, i], second)
            partners.append(other)
        return Batch(
            global_crops=global_crops.flatten(0, 1),
            local_crops=local_crops.flatten(0, 1),
            masks=torch.from_numpy(self._masks(plan)),
            index=torch.tensor(plan.indices, dtype=torch.int64),
            second=torch.tensor(partners, dtype=torch.int64),
            step=plan.step,
        )

    def _masks(self, plan: StepPlan) -> np.ndarray:
        """bool [2B, N]: shares are drawn for the whole step, blocks for this process's views alone."""
        drawn = random.Random(seed_of(self.seed, _MASK_SHARES, plan.step))
        shares = mask_ratios(GLOBAL_VIEWS * plan.global_batch, drawn, self.mask_probability, self.mask_ratio)
        first = plan.positions[0] % plan.global_batch
        rows = []
        for view in range(GLOBAL_VIEWS):
            for i, position in enumerate(plan.positions):
                blocks = random.Random(seed_of(self.seed, _MASK_BLOCKS, GLOBAL_VIEWS * position + view))
                rows.append(block_mask(self.grid, shares[view * plan.global_batch + first + i], blocks).ravel())
        return np.stack(rows)


def seed_of(seed: int, purpose: int, number: int) -> int:
    """An integer that no other (seed, purpose, number) shares; Python's generator mixes all of its bits."""
    return (seed & (2**64 - 1)) << 128 | purpose << 64 | number


def make_loader(
    store: FrameStore,
    settings: CropSettings,
    augment_cfg: Mapping[str, Any],
    *,
    batch_size: int,
    seed: int,
    workers: int,
    start_step: int,
    steps: int,
    patch_size: int,
    mask_probability: float,
    mask_ratio: tuple[float, float],
    rank: int = 0,
    world: int = 1,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """Batches of steps `start_step` ... `steps - 1`, in order.

    Args:
        store: frames to draw from.
        batch_size: images a step over all processes; this one gets batch_size / world of them.
        workers: processes that cut crops; 0 cuts them in this one.
        steps: the step to stop before.
        patch_size: of the backbone, for the masks' grid.
    """
    for key in ("global_size", "local_size"):
        if getattr(settings, key) % patch_size and (key == "global_size" or settings.local_count):
            raise SurgdinoError(
                "crops do not divide into patches",
                place=f"crops.{key}",
                expected=f"a multiple of the patch size {patch_size}",
                found=getattr(settings, key),
            )
    grid = (settings.global_size // patch_size,) * 2
    batches = CropBatches(store, MultiCrop(settings, augment_cfg), seed, grid, mask_probability, mask_ratio)
    return load(
        batches, FrameSampler(len(store), batch_size, seed, start_step, steps, rank, world), workers, pin_memory
    )


def load(
    work: Callable[[Job], Result], jobs: Iterable[Job], workers: int, pin_memory: bool = False, ahead: int = 2
) -> Iterator[Result]:
    """`work(job)` of every job, in order, computed ahead by worker processes (each up to `ahead` jobs), or here for 0.

    Raises:
        SurgdinoError: `work` raised it, or a worker process was killed.
    """
    _one_thread(0)
    loader = DataLoader(
        _Work(work),
        batch_size=None,  # a job makes a whole batch already: nothing is collated
        sampler=jobs,
        num_workers=workers,
        pin_memory=pin_memory,
        worker_init_fn=_one_thread,
        prefetch_factor=ahead if workers else None,
    )
    results = _iterate(loader)
    while (result := _next(results)) is not _END:
        if isinstance(result, SurgdinoError):
            raise result
        yield result


def _iterate(loader: DataLoader) -> Iterator[Any]:
    """The loader at work. torch would raise a worker's death in the middle of whatever this process does; without its
    handler it is noticed where the next result is waited for, between two steps."""
    before = signal.getsignal(signal.SIGCHLD)
    results = iter(loader)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)
    return results


def _next(results: Iterator[Any]) -> Any:
    try:
        return next(results, _END)
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker (pid"):
            raise
        fix = "lower hardware.loader_workers or train.batch_size; the same command continues"
        found = f"{str(error).partition(chr(10))[0]}: the system may have killed it for want of memory"
        raise SurgdinoError("a worker process that loads frames was killed", found=found, fix=fix) from None


@dataclass
class _Work(Dataset):
    """Jobs in, results out. A fault of the input is returned: an exception would reach the main process as text."""

    work: Callable[[Any], Any]

    def __getitem__(self, job: Any) -> Any:
        try:
            return self.work(job)
        except SurgdinoError as fault:
            return fault
        except MemoryError:
            fix = "lower hardware.loader_workers or train.batch_size"
            return SurgdinoError("not enough memory in a worker process that loads frames", fix=fix)


def _one_thread(_worker: int) -> None:
    # Parallelism is over images; OpenCV's own threads would compete with it for the same cores.
    cv2.setNumThreads(0)
