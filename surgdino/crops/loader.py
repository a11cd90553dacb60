"""Batches of crops, cut in worker processes; the same whatever the number of workers or of training processes."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from surgdino.crops.masks import block_mask, mask_ratios
from surgdino.crops.multicrop import GLOBAL_VIEWS, CropSettings, MultiCrop
from surgdino.crops.pairs import partner
from surgdino.crops.sampler import FrameSampler, StepPlan
from surgdino.errors import SurgdinoError

if TYPE_CHECKING:
    from surgdino.frames.store import FrameStore

# Apart from each other, so that crops at position p and masks of step p do not share their random numbers.
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
        return Batch(
            global_crops=self.global_crops.pin_memory(),
            local_crops=self.local_crops.pin_memory(),
            masks=self.masks.pin_memory(),
            index=self.index.pin_memory(),
            second=self.second.pin_memory(),
            step=self.step,
        )


@dataclass
class CropDataset(Dataset):
    """Step plans in, batches out; runs in the workers.

    A fault of the input comes back as a value: an exception would reach the main process wrapped in a traceback's text.
    """

    store: FrameStore
    multicrop: MultiCrop
    seed: int
    grid: tuple[int, int]
    mask_probability: float
    mask_ratio: tuple[float, float]

    def __getitem__(self, plan: StepPlan) -> Batch | SurgdinoError:
        try:
            return self.batch(plan)
        except SurgdinoError as fault:
            return fault

    def batch(self, plan: StepPlan) -> Batch:
        """Read, cut and mask the frames of one plan."""
        s, images = self.multicrop.settings, len(plan.indices)
        global_crops = torch.empty((GLOBAL_VIEWS, images, 3, s.global_size, s.global_size), dtype=torch.uint8)
        local_crops = torch.empty((s.local_count, images, 3, s.local_size, s.local_size), dtype=torch.uint8)
        into_global, into_local = global_crops.numpy(), local_crops.numpy()
        partners = self.partners(plan)
        for i, (position, index) in enumerate(zip(plan.positions, plan.indices, strict=True)):
            seed = seed_of(self.seed, _CROPS, position)
            image, content = self.store.read(index), self.store.content(index)
            second = None if partners[i] == index else (self.store.read(partners[i]), self.store.content(partners[i]))
            self.multicrop.fill(image, content, seed, into_global[:, i], into_local[:, i], second)
        return Batch(
            global_crops=global_crops.flatten(0, 1),
            local_crops=local_crops.flatten(0, 1),
            masks=torch.from_numpy(self.masks(plan)),
            index=torch.tensor(plan.indices, dtype=torch.int64),
            second=torch.tensor(partners, dtype=torch.int64),
            step=plan.step,
        )

    def partners(self, plan: StepPlan) -> list[int]:
        """For each image the frame that the second half of its views comes from."""
        seconds = self.multicrop.settings.pair_seconds
        return [
            partner(self.store, index, seconds, seed_of(self.seed, _PAIRS, position))
            for position, index in zip(plan.positions, plan.indices, strict=True)
        ]

    def masks(self, plan: StepPlan) -> np.ndarray:
        """bool [2B, N]: shares are drawn for the whole step, blocks for this process's views alone."""
        drawn = random.Random(seed_of(self.seed, _MASK_SHARES, plan.step))
        views = GLOBAL_VIEWS * plan.global_batch
        shares = mask_ratios(views, drawn, probability=self.mask_probability, ratio=self.mask_ratio)
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
    rank: int = 0,
    world: int = 1,
    mask_probability: float = 0.5,
    mask_ratio: tuple[float, float] = (0.1, 0.5),
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """Batches of steps `start_step` ... `steps - 1`, in order.

    Args:
        store: frames to draw from.
        batch_size: images a step over all processes; this one gets batch_size / world of them.
        workers: processes that cut crops; 0 cuts them in this one.
        steps: the step to stop before.
        patch_size: of the backbone, for the masks' grid.

    Raises:
        SurgdinoError: crops that are no multiple of the patch, an unusable batch size, a fault in the augmentation's
            configuration, or a frame that the store cannot read.
    """
    for key in ("global_size", "local_size"):
        if getattr(settings, key) % patch_size and (key == "global_size" or settings.local_count):
            raise SurgdinoError(
                "crops do not divide into patches",
                place=f"crops.{key}",
                expected=f"a multiple of the patch size {patch_size}",
                found=getattr(settings, key),
            )
    side = settings.global_size // patch_size
    multicrop = MultiCrop(settings, augment_cfg)
    dataset = CropDataset(store, multicrop, seed, (side, side), mask_probability, mask_ratio)
    sampler = FrameSampler(len(store), batch_size, seed, start_step, steps, rank, world)
    return _batches(dataset, sampler, workers, pin_memory)


def _batches(dataset: CropDataset, sampler: FrameSampler, workers: int, pin_memory: bool) -> Iterator[Batch]:
    _one_thread(0)
    loader = DataLoader(
        dataset,
        batch_size=None,  # a plan is a batch already: workers write crops where they belong, nothing is collated
        sampler=sampler,
        num_workers=workers,
        pin_memory=pin_memory,
        worker_init_fn=_one_thread,
        prefetch_factor=2 if workers else None,
    )
    for batch in loader:
        if isinstance(batch, SurgdinoError):
            raise batch
        yield batch


def _one_thread(_worker: int) -> None:
    # Parallelism is over images; OpenCV's own threads would fight with it for the same cores.
    cv2.setNumThreads(0)
