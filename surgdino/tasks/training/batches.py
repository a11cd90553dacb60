"""Where a stage's batches come from: features in memory, pictures from the store, or whole videos.

The batch of a step is a pure function of the seed and the step, so a resumed run sees what an uninterrupted one would
have seen, whatever the number of workers. With several processes each takes its contiguous share of the same batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from surgdino.crops.loader import seed_of
from surgdino.crops.sampler import order
from surgdino.errors import SurgdinoError
from surgdino.tasks.labelled_frames import LabelledFrames
from surgdino.tasks.training.cut import Cut, Cutter

Batch = dict[str, Tensor]
Targets = np.ndarray | Mapping[str, np.ndarray] | None
ReadTargets = Callable[[int, Cut], Mapping[str, np.ndarray]]

# Apart from each other, so that what is drawn and how it is augmented do not share their random numbers.
_DRAW, _AUGMENT, _WINDOW = range(10, 13)


@dataclass(frozen=True)
class Draw:
    """What one process takes in one step.

    Attributes:
        step: 0-based.
        positions: global sample positions, which seed the augmentation.
        rows: one sample each.
    """

    step: int
    positions: tuple[int, ...]
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Sampling:
    """How a stage draws.

    Attributes:
        batch_size: samples a step, over all processes.
        seed: of the run.
        rank, world: this process among all.
    """

    batch_size: int
    seed: int
    rank: int = 0
    world: int = 1

    def draw(self, samples: int, step: int, weights: np.ndarray | None = None) -> Draw:
        """This process's share of step `step`.

        Every sample comes once an epoch, in an order of the seed's; with `weights` samples are drawn independently, in
        proportion to them.
        """
        share = self.batch_size // self.world
        first = step * self.batch_size + self.rank * share
        positions = tuple(range(first, first + share))
        if weights is None:
            return Draw(step, positions, tuple(order(samples, first, share, self.seed)))
        drawn = np.random.default_rng([self.seed, _DRAW, step]).choice(samples, self.batch_size, p=weights)
        return Draw(step, positions, tuple(drawn[self.rank * share : (self.rank + 1) * share].tolist()))


class Source(Protocol):
    """What a stage needs of its data."""

    def __len__(self) -> int:
        """Samples in an epoch."""

    def batches(self, sampling: Sampling, start: int, steps: int) -> Iterator[Batch]:
        """The batches of steps `start` to `steps - 1`, on the CPU."""


class FeatureSource:
    """Rows of features that were computed before.

    Batches hold `features` [B, ...] float32, the targets (as `targets`, or each under its own name) and `index` [B].
    """

    def __init__(self, features: Any, targets: Targets = None, weights: np.ndarray | None = None) -> None:
        """Args:
        features: [n, ...], an array or `FeatureRows`, read by `features[rows]`.
        targets: [n, ...], or several by name.
        weights: [n], how often a row is drawn in relation to others; None draws each once an epoch.
        """
        self.features, self.targets, self.weights = features, named(targets), shares(weights)

    def __len__(self) -> int:
        return len(self.features)

    def batches(self, sampling: Sampling, start: int, steps: int) -> Iterator[Batch]:
        """See `Source`."""
        for step in range(start, steps):
            rows = np.array(sampling.draw(len(self), step, self.weights).rows)
            batch = {name: tensor_of(values[rows]) for name, values in self.targets.items()}
            features = torch.from_numpy(np.ascontiguousarray(self.features[rows])).float()
            yield {"features": features, **batch, "index": torch.from_numpy(rows)}


class VideoSource:
    """One whole video a process and step, or a window of one.

    Batches hold `features` [1, T, ...] float32, the targets [1, T, ...], `index` [1, T] and `video` [1].
    """

    def __init__(self, features: Any, frames: LabelledFrames, targets: Targets, crop: int | None = None) -> None:
        """Args:
        features: [n, ...] of the n frames.
        frames: says which rows are a video.
        targets: [n, ...], or several by name.
        crop: frames of a window at a random place; None, and videos that are shorter, are taken whole.
        """
        self.features, self.frames, self.targets, self.crop = features, frames, named(targets), crop

    def __len__(self) -> int:
        return len(self.frames.videos)

    def batches(self, sampling: Sampling, start: int, steps: int) -> Iterator[Batch]:
        """See `Source`; the batch size must be the number of processes."""
        if sampling.batch_size != sampling.world:
            raise SurgdinoError(
                "whole videos are learned one at a time",
                place="train.batch_size",
                expected=f"{sampling.world}, one a process",
                found=sampling.batch_size,
            )
        for step in range(start, steps):
            drawn = sampling.draw(len(self), step)
            rows = self._window(drawn.rows[0], drawn.positions[0], sampling.seed)
            features = np.ascontiguousarray(self.features[rows])
            batch = {name: tensor_of(values[rows])[None] for name, values in self.targets.items()}
            index = torch.arange(rows.start, rows.stop)[None]
            video = torch.tensor([drawn.rows[0]])
            yield {"features": torch.from_numpy(features).float()[None], **batch, "index": index, "video": video}

    def _window(self, place: int, position: int, seed: int) -> slice:
        span = self.frames.span(place)
        if self.crop is None or span.stop - span.start <= self.crop:
            return span
        first = np.random.default_rng([seed, _WINDOW, position]).integers(span.start, span.stop - self.crop + 1)
        return slice(int(first), int(first) + self.crop)


@dataclass
class ImageSource:
    """Pictures from the store, placed and augmented in worker processes.

    Batches hold `images` uint8 [B, 3, S, S], the targets and `index` [B].

    Attributes:
        frames: which.
        cutter: cuts and augments.
        targets: [n, ...], or several by name.
        read_targets: (place among the frames, where the picture was cut) -> targets of one picture, for those that are
            too large to hold or have to be cut like the picture. It goes to the workers, so it must pickle.
        workers: processes; 0 works in this one.
        weights: as for `FeatureSource`.
    """

    frames: LabelledFrames
    cutter: Cutter
    targets: Targets = None
    read_targets: ReadTargets | None = None
    workers: int = 0
    weights: np.ndarray | None = None

    def __post_init__(self) -> None:
        self.targets, self.weights = named(self.targets), shares(self.weights)

    def __len__(self) -> int:
        return len(self.frames)

    def batches(self, sampling: Sampling, start: int, steps: int) -> Iterator[Batch]:
        """See `Source`."""
        plans = [sampling.draw(len(self), step, self.weights) for step in range(start, steps)]
        yield from load(_Pictures(self, sampling.seed), plans, self.workers)


@dataclass
class _Pictures:
    """Draws in, batches out; runs in the workers."""

    source: ImageSource
    seed: int

    def __call__(self, draw: Draw) -> Batch:
        source, size = self.source, self.source.cutter.size
        images = np.empty((len(draw.rows), 3, size, size), np.uint8)
        read: list[Mapping[str, np.ndarray]] = []
        for i, (position, row) in enumerate(zip(draw.positions, draw.rows, strict=True)):
            index, store = int(source.frames.index[row]), source.frames.store
            seed = seed_of(self.seed, _AUGMENT, position)
            cut = source.cutter.fill(store.read(index), store.content(index), seed, images[i])
            if source.read_targets is not None:
                read.append(source.read_targets(row, cut))
        rows = np.array(draw.rows)
        batch = {name: tensor_of(values[rows]) for name, values in named(source.targets).items()}
        batch |= {name: tensor_of(np.stack([each[name] for each in read])) for name in (read[0] if read else ())}
        return {"images": torch.from_numpy(images), **batch, "index": torch.from_numpy(rows)}


class _Jobs(torch.utils.data.Dataset):
    """Jobs by number; a fault of the input comes back as a value, since a worker's exception would arrive as text."""

    def __init__(self, work: Callable[[Any], Any], jobs: Sequence[Any]) -> None:
        self.work, self.jobs = work, jobs

    def __len__(self) -> int:
        return len(self.jobs)

    def __getitem__(self, number: int) -> Any:
        try:
            return self.work(self.jobs[number])
        except SurgdinoError as fault:
            return fault


def load(work: Callable[[Any], Any], jobs: Sequence[Any], workers: int, ahead: int = 2) -> Iterator[Any]:
    """`work(job)` of every job in order, done by worker processes ahead of who asks.

    Raises:
        SurgdinoError: what `work` raised.
    """
    _one_thread(0)
    loader = DataLoader(
        _Jobs(work, jobs),
        batch_size=None,  # a job is a batch already
        num_workers=min(workers, len(jobs)),
        worker_init_fn=_one_thread,
        prefetch_factor=ahead if min(workers, len(jobs)) else None,
    )
    for result in loader:
        if isinstance(result, SurgdinoError):
            raise result
        yield result


def _one_thread(_worker: int) -> None:
    # Parallelism is over pictures; OpenCV's own threads would fight with it for the same cores.
    cv2.setNumThreads(0)


def named(targets: Targets) -> dict[str, np.ndarray]:
    """Targets by name; a single array is called `targets`."""
    if targets is None:
        return {}
    return dict(targets) if isinstance(targets, Mapping) else {"targets": targets}


def shares(weights: np.ndarray | None) -> np.ndarray | None:
    """Weights as probabilities that add up to 1."""
    return None if weights is None else np.asarray(weights, np.float64) / np.sum(weights, dtype=np.float64)


def tensor_of(values: np.ndarray) -> Tensor:
    """An array as a tensor of its own: class ids as int64, everything else as it is."""
    array = np.ascontiguousarray(values)
    whole = np.issubdtype(array.dtype, np.integer) and array.dtype != np.uint8
    return torch.from_numpy(array.astype(np.int64) if whole else array.copy())
