"""Batches of crops, cut in worker processes; the same whatever the number of workers or of training processes."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from surgdino.crops.augment.deferred import Deferred, Deferring
from surgdino.crops.masks import block_mask, mask_ratios
from surgdino.crops.multicrop import MultiCrop
from surgdino.crops.sampler import FrameSampler, StepPlan, neighbour, partner
from surgdino.crops.settings import GLOBAL_VIEWS, CropSettings
from surgdino.crops.workers import load
from surgdino.errors import SurgdinoError
from surgdino.frames.store import FrameStore

# Apart from each other, so that crops at position p and masks of step p do not share their random numbers.
_CROPS, _MASK_SHARES, _MASK_BLOCKS, _PAIRS, _SIZES = range(5)


@dataclass
class Batch:
    """One process's share of a step: B images, L local crops each, N patches a global crop.

    View-major means: all images' first view, then all images' second, and so on.

    Attributes:
        global_crops: uint8 [2B, 3, S, S] view-major.
        local_crops: uint8 [LB, 3, s, s] view-major.
        masks: bool [2B, N] view-major, True where the student does not see the patch.
        masked: int64 [M], the places of these patches in the flattened [2B * N].
        mask_weight: float [M], one over the number of masked patches of the same view.
        mask_counts: of each of the 2B views.
        index: int64 [B], the frames in the store.
        second: int64 [B], the frames that the second global view and the last half of the local ones were cut from:
            neighbours with `crops.pair_seconds` or `crops.pair=neighbours`, else `index` again.
        step: 0-based.
        effects: what is still to be painted on the crops, by the device; None: nothing.
        first: the place of the first image among those of all processes.
        facts: name -> [2, images of all processes], what is known of the frames in `index` and in `second`.
        clean: uint8 [2B, 3, T, T] view-major, the global crops with nothing painted on them; empty: nobody asks.
    """

    global_crops: torch.Tensor
    local_crops: torch.Tensor
    masks: torch.Tensor
    masked: torch.Tensor
    mask_weight: torch.Tensor
    mask_counts: list[int]
    index: torch.Tensor
    second: torch.Tensor
    step: int
    effects: Deferred | None = None
    first: int = 0
    facts: dict[str, torch.Tensor] = field(default_factory=dict)
    clean: torch.Tensor = field(default_factory=lambda: torch.empty(0, 3, 1, 1, dtype=torch.uint8))

    def pin_memory(self) -> Batch:
        """Called by the DataLoader's pinning thread."""
        pinned: dict[str, Any] = {
            name: part.pin_memory() for name, part in vars(self).items() if isinstance(part, torch.Tensor | Deferred)
        }
        return replace(self, **pinned, facts={name: part.pin_memory() for name, part in self.facts.items()})

    def painted(self, device: torch.device) -> Batch:
        """With its crops on the device, and painted there, where anything is left to paint."""
        if self.effects is None:
            return self
        global_crops = self.global_crops.to(device, non_blocking=True, copy=True)
        local_crops = self.local_crops.to(device, non_blocking=True, copy=True)
        self.effects.paint(global_crops, local_crops)
        return replace(self, global_crops=global_crops, local_crops=local_crops, effects=None)


@dataclass
class CropBatches:
    """Reads, cuts and masks the frames of a step's plan; runs in the workers.

    Attributes:
        multicrops: one for each pair of sizes, of which a step draws one by its share.
    """

    store: FrameStore
    multicrops: Sequence[MultiCrop]
    shares: Sequence[float]
    seed: int
    patch_size: int
    mask_probability: float
    mask_ratio: tuple[float, float]
    facts: Mapping[str, np.ndarray]
    neighbours: np.ndarray | None = None
    clean: int = 0

    def __call__(self, plan: StepPlan) -> Batch:
        [multicrop] = random.Random(seed_of(self.seed, _SIZES, plan.step)).choices(self.multicrops, self.shares)
        s, images = multicrop.settings, len(plan.indices)
        global_crops = torch.empty((GLOBAL_VIEWS, images, 3, s.global_size, s.global_size), dtype=torch.uint8)
        local_crops = torch.empty((s.local_count, images, 3, s.local_size, s.local_size), dtype=torch.uint8)
        clean = torch.empty(
            (GLOBAL_VIEWS, images * bool(self.clean), 3, *[self.clean * s.global_size] * 2), dtype=torch.uint8
        )
        into_global, into_local, into_clean = global_crops.numpy(), local_crops.numpy(), clean.numpy()
        left = Deferring(multicrop.chain, images, GLOBAL_VIEWS)
        partners = self._partners(plan.positions, plan.indices)
        for i, (position, index, other) in enumerate(zip(plan.positions, plan.indices, partners, strict=True)):
            second = None if other == index else (self.store.read(other), self.store.content(other))
            image, content = self.store.read(index), self.store.content(index)
            seed = seed_of(self.seed, _CROPS, position)
            into = (into_global[:, i], into_local[:, i], second, into_clean[:, i] if self.clean else None)
            left.add(i, multicrop.fill(image, content, seed, *into))
        masks = self._masks(plan, (s.global_size // self.patch_size,) * 2)
        counts = masks.sum(1)
        return Batch(
            global_crops=global_crops.flatten(0, 1),
            local_crops=local_crops.flatten(0, 1),
            masks=torch.from_numpy(masks),
            masked=torch.from_numpy(np.flatnonzero(masks)),
            mask_weight=torch.from_numpy((1 / counts.clip(min=1).astype(np.float32)).repeat(counts)),
            mask_counts=counts.tolist(),
            index=torch.tensor(plan.indices, dtype=torch.int64),
            second=torch.tensor(partners, dtype=torch.int64),
            step=plan.step,
            effects=left.deferred(),
            first=plan.first,
            facts=self._facts(plan),
            clean=clean.flatten(0, 1),
        )

    def _partners(self, positions: Sequence[int], indices: Sequence[int]) -> list[int]:
        """The second frame of each image."""
        near, known = self.multicrops[0].settings.pair_seconds, self.neighbours
        seeds = [seed_of(self.seed, _PAIRS, position) for position in positions]
        if known is None:
            return [partner(self.store, index, near, seed) for index, seed in zip(indices, seeds, strict=True)]
        return [neighbour(known[index], index, seed) for index, seed in zip(indices, seeds, strict=True)]

    def _facts(self, plan: StepPlan) -> dict[str, torch.Tensor]:
        """Of the images of all processes: a term over those of which something is known needs their number."""
        if not self.facts:
            return {}
        begin = plan.positions[0] - plan.first
        seconds = self._partners(range(begin, begin + plan.global_batch), plan.everyone)
        frames = np.array([plan.everyone, seconds])
        return {name: torch.from_numpy(values[frames]) for name, values in self.facts.items()}

    def _masks(self, plan: StepPlan, grid: tuple[int, int]) -> np.ndarray:
        """bool [2B, N]: shares are drawn for the whole step, blocks for this process's views alone."""
        drawn = random.Random(seed_of(self.seed, _MASK_SHARES, plan.step))
        shares = mask_ratios(GLOBAL_VIEWS * plan.global_batch, drawn, self.mask_probability, self.mask_ratio)
        first = plan.first
        rows = []
        for view in range(GLOBAL_VIEWS):
            for i, position in enumerate(plan.positions):
                blocks = random.Random(seed_of(self.seed, _MASK_BLOCKS, GLOBAL_VIEWS * position + view))
                rows.append(block_mask(grid, shares[view * plan.global_batch + first + i], blocks).ravel())
        return np.stack(rows)


def check_sizes(settings: CropSettings, patch_size: int | None) -> None:
    """Raise where crops do not divide into patches of so many pixels; None: not known yet."""
    for k, crops in enumerate(settings.each):
        for key, side in {"global_size": crops.global_size, "local_size": crops.local_size}.items():
            if patch_size and side % patch_size and (key == "global_size" or crops.local_count):
                raise SurgdinoError(
                    "crops do not divide into patches",
                    place=f"crops.sizes[{k}].{key}" if settings.sizes else f"crops.{key}",
                    expected=f"a multiple of the patch size {patch_size}",
                    found=side,
                )


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
    weights: np.ndarray | None = None,
    patch_size: int,
    mask_probability: float,
    mask_ratio: tuple[float, float],
    rank: int = 0,
    world: int = 1,
    pin_memory: bool = False,
    facts: Mapping[str, np.ndarray] | None = None,
    neighbours: np.ndarray | None = None,
    clean: int = 0,
    offset: int = 0,
) -> Iterator[Batch]:
    """Batches of steps `start_step` ... `steps - 1`, in order.

    Args:
        store: frames to draw from.
        batch_size: images a step over all processes; this one gets batch_size / world of them.
        workers: processes that cut crops; 0 cuts them in this one.
        steps: the step to stop before.
        weights: float [len(store)], how often each frame is drawn; None: each once an epoch.
        patch_size: of the backbone, for the masks' grid.
        facts: name -> [len(store)], what batches carry of each frame.
        neighbours: int [len(store), k], frames that each may be paired with, -1 for none; None: neighbours in time.
        clean: side of the clean global crops, in sides of a global crop; 0: none.
        offset: as in `FrameSampler`.
    """
    check_sizes(settings, patch_size)
    multicrops = [MultiCrop(each, augment_cfg) for each in settings.each]
    shares = [size.share for size in settings.sizes or ()] or [1.0]
    masks = (mask_probability, mask_ratio)
    batches = CropBatches(store, multicrops, shares, seed, patch_size, *masks, facts or {}, neighbours, clean)
    sampler = FrameSampler(len(store), batch_size, seed, start_step, steps, rank, world, weights, offset)
    image_bytes = settings.image_bytes + 3 * GLOBAL_VIEWS * (clean * settings.side) ** 2
    return load(batches, sampler, workers, pin_memory, result_bytes=sampler.share * image_bytes)
