"""Which frames make up each step of training: a pure function of the seed and the step."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from surgdino.errors import SurgdinoError
from surgdino.frames.store import FrameStore

_WEIGHTED = 10  # keeps these random numbers apart from those of crops, masks and augmentation


@lru_cache(maxsize=2)
def _permutation(length: int, seed: int, epoch: int) -> np.ndarray:
    permuted = np.random.default_rng([seed, epoch]).permutation(length)
    permuted.flags.writeable = False
    return permuted


def order(length: int, position: int, batch_size: int, seed: int) -> list[int]:
    """Frame indices at the global sample positions `position` ... `position + batch_size - 1`.

    Each run of `length` positions is one epoch, a permutation of all frames; a batch may span two epochs, so no frame
    is ever left out.
    """
    places = (divmod(place, length) for place in range(position, position + batch_size))
    return [int(_permutation(length, seed, epoch)[offset]) for epoch, offset in places]


@dataclass(frozen=True)
class StepPlan:
    """What one process computes in one step.

    Attributes:
        step: 0-based.
        positions: global sample positions of this process's share; they seed the crops.
        indices: frame indices in the store, one a position.
        everyone: those of all processes.
        first: the place of this process's first image among them.
    """

    step: int
    positions: tuple[int, ...]
    indices: tuple[int, ...]
    everyone: tuple[int, ...]
    first: int

    @property
    def global_batch(self) -> int:
        """Images of the step over all processes."""
        return len(self.everyone)


@dataclass(frozen=True)
class FrameSampler:
    """The plans of steps `start_step` ... `steps - 1` of one process.

    Of `batch_size` samples a step over all processes, rank r takes its contiguous share. So one process with a batch of
    512 and eight with 64 each see the same images in the same step. `length` counts the frames of the store, or what
    else is drawn from. With `weights` [length] samples are drawn independently, in proportion to them; without, each
    comes once an epoch. Steps before the first may have had batches of another size: then the position of step k is
    `offset` + k * `batch_size`.
    """

    length: int
    batch_size: int
    seed: int
    start_step: int
    steps: int
    rank: int = 0
    world: int = 1
    weights: np.ndarray | None = field(default=None, compare=False, repr=False)
    offset: int = 0

    def __post_init__(self) -> None:
        if self.length < 1:
            raise SurgdinoError("the store holds no usable frame", fix="run surgdino verify on the dataset")
        if self.batch_size < 1 or self.batch_size % self.world:
            raise SurgdinoError(
                "the batch does not divide evenly among the processes",
                place="train.batch_size",
                expected=f"a multiple of the {self.world} processes",
                found=self.batch_size,
            )

    def __len__(self) -> int:
        return max(0, self.steps - self.start_step)

    @property
    def share(self) -> int:
        """Samples a step of this process."""
        return self.batch_size // self.world

    def __iter__(self) -> Iterator[StepPlan]:
        share = self.share
        sums = None if self.weights is None else np.cumsum(self.weights / np.sum(self.weights, dtype=np.float64))
        if sums is not None:  # numpy's own way of drawing by weight, with the sums made once
            sums /= sums[-1]
        for step in range(self.start_step, self.steps):
            begin, own = self.offset + step * self.batch_size, self.rank * share
            if sums is None:
                everyone = order(self.length, begin, self.batch_size, self.seed)
            else:
                uniform = np.random.default_rng([self.seed, _WEIGHTED, step]).random(self.batch_size)
                everyone = sums.searchsorted(uniform, side="right").tolist()
            positions = tuple(range(begin + own, begin + own + share))
            yield StepPlan(step, positions, tuple(everyone[own : own + share]), tuple(everyone), own)


def partner(store: FrameStore, index: int, seconds: float | None, seed: int) -> int:
    """The frame for an image's second global view and the second half of its local ones.

    Drawn evenly from the other stored frames of the same video at most `seconds` before or after; frame `index` itself
    where there is none, or where `seconds` is None.
    """
    near = range(0) if seconds is None else store.near(index, seconds)
    if len(near) < 2:
        return index
    drawn = near[random.Random(seed).randrange(len(near) - 1)]
    return drawn + (drawn >= index)  # skips the frame itself


def neighbour(known: np.ndarray, index: int, seed: int) -> int:
    """One of the known neighbours of frame `index` (negative ones are none); itself where it has none."""
    there = known[known >= 0]
    return int(there[random.Random(seed).randrange(len(there))]) if len(there) else index
