"""The data that a stage learns from: features in memory or on disk, whole videos of them, or images from the store.

The batch of a step is a pure function of the seed and the step, whatever the number of workers: a resumed run sees
what an uninterrupted one would have seen. With several processes each takes its contiguous share of the same batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from surgdino.backbone.preprocess import Preprocess
from surgdino.crops.augment.deferred import Deferred, Deferring
from surgdino.crops.loader import seed_of
from surgdino.crops.sampler import FrameSampler, StepPlan
from surgdino.crops.workers import load
from surgdino.errors import SurgdinoError
from surgdino.tasks.features.cache import ReadFrames
from surgdino.tasks.labelled_frames import LabelledFrames
from surgdino.tasks.training.cut import Cut, Cutter

Batch = dict[str, Tensor]


class Rows(Protocol):
    """[n, ...], read as `rows[positions]`: an array, `FeatureRows` on disk, or what else gives arrays."""

    def __len__(self) -> int: ...

    def __getitem__(self, positions: Any, /) -> Any: ...


Targets = Rows | Mapping[str, Rows] | None
ReadTargets = Callable[[int, Cut], Mapping[str, np.ndarray]]


@dataclass
class HostBatch:
    """A step's batch before the device has it.

    Attributes:
        tensors: by name.
        effects: what the device is still to paint on `images`; None: nothing.
    """

    tensors: Batch
    effects: Deferred | None = None

    def pin_memory(self) -> HostBatch:
        """So that the host does not wait for its copy to a GPU; a DataLoader's pinning thread calls it too."""
        pinned = {name: tensor.pin_memory() for name, tensor in self.tensors.items()}
        return HostBatch(pinned, None if self.effects is None else self.effects.pin_memory())

    def on(self, device: torch.device) -> Batch:
        """The tensors on the device, the images painted."""
        batch = {name: tensor.to(device, non_blocking=True) for name, tensor in self.tensors.items()}
        if self.effects is not None:
            images = self.tensors["images"].to(device, non_blocking=True, copy=True)
            self.effects.paint(images, images[:0])
            batch["images"] = images
        return batch


_AUGMENT = 11  # keeps the random numbers of augmentation apart from those that draw samples


class TrainingData(Protocol):
    """What a stage learns from."""

    weights: np.ndarray | None
    """[n], how often a sample is drawn in relation to others; None draws each once an epoch."""

    def __len__(self) -> int:
        """Samples in an epoch."""

    def batches(self, sampler: FrameSampler, pinned: bool = False) -> Iterator[HostBatch]:
        """One batch a step of the sampler, on the host; in pinned memory where a GPU is to have it."""


@dataclass
class FrameFeatures:
    """Features of single frames, computed before.

    Batches hold `features` [B, ...] float32, the targets, `index` [B] and, with `images`, `images` uint8 [B, 3, S, S].

    Attributes:
        features: [n, ...].
        targets: [n, ...], called `targets` in a batch, or several by name.
        weights: see `TrainingData`.
        images: (frames, size of the input) for models that read the whole frames beside their features.
        workers: processes that read the images.
    """

    features: Rows
    targets: Targets = None
    weights: np.ndarray | None = None
    images: tuple[LabelledFrames, Preprocess] | None = None
    workers: int = 0

    def __len__(self) -> int:
        return len(self.features)

    def batches(self, sampler: FrameSampler, pinned: bool = False) -> Iterator[HostBatch]:
        """See `TrainingData`."""
        images = None
        if self.images is not None:
            frames, preprocess = self.images
            places = (frames.index[list(plan.indices)] for plan in sampler)
            read = ReadFrames(frames.store, preprocess)
            images = load(read, places, self.workers, pinned, result_bytes=read.bytes_of(sampler.share))
        for plan in sampler:
            rows = np.array(plan.indices)
            features = torch.from_numpy(np.ascontiguousarray(self.features[rows])).float()
            batch = {"features": features, **targets_at(self.targets, rows), "index": torch.from_numpy(rows)}
            yield _on_host(batch if images is None else {**batch, "images": next(images)}, pinned)


@dataclass
class WholeVideos:
    """The features of one whole video a process and step.

    Batches hold `features` [1, T, ...] float32, the targets [1, T, ...] and `index` [1, T].

    Attributes:
        features: [n, ...] of the n frames.
        frames: says which rows are a video.
        targets: as in `FrameFeatures`.
    """

    features: Rows
    frames: LabelledFrames
    targets: Targets = None
    weights: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.frames.videos)

    def batches(self, sampler: FrameSampler, pinned: bool = False) -> Iterator[HostBatch]:
        """See `TrainingData`; the batch size must be the number of processes."""
        if sampler.batch_size != sampler.world:
            raise SurgdinoError(
                "whole videos are learned one at a time",
                place="train.batch_size",
                expected=f"{sampler.world}, one a process",
                found=sampler.batch_size,
            )
        for plan in sampler:
            rows = self.frames.span(*plan.indices)
            features = torch.from_numpy(np.ascontiguousarray(self.features[rows])).float()
            index = torch.arange(rows.start, rows.stop)
            batch = {"features": features, **targets_at(self.targets, rows), "index": index}
            yield _on_host({name: tensor[None] for name, tensor in batch.items()}, pinned)


@dataclass
class FrameImages:
    """Images from the store, cut and augmented in worker processes.

    Batches hold `images` uint8 [B, 3, S, S], the targets and `index` [B].

    Attributes:
        frames: which.
        cutter: cuts and augments.
        targets: as in `FrameFeatures`.
        read_targets: (place among the frames, where the image was cut) -> targets of one image, for those that are too
            large to hold or have to be cut like the image. It goes to the workers, so it must pickle.
        workers: processes; 0 works in this one.
        weights: see `TrainingData`.
    """

    frames: LabelledFrames
    cutter: Cutter
    targets: Targets = None
    read_targets: ReadTargets | None = None
    workers: int = 0
    weights: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.frames)

    def batches(self, sampler: FrameSampler, pinned: bool = False) -> Iterator[HostBatch]:
        """See `TrainingData`."""
        size = sampler.share * 3 * self.cutter.size**2
        yield from load(_CutImages(self, sampler.seed), sampler, self.workers, pinned, result_bytes=size)


@dataclass
class _CutImages:
    """Step plans in, batches out; runs in the workers."""

    data: FrameImages
    seed: int

    def __call__(self, plan: StepPlan) -> HostBatch:
        data, size, store = self.data, self.data.cutter.size, self.data.frames.store
        images = np.empty((len(plan.indices), 3, size, size), np.uint8)
        read: list[Mapping[str, np.ndarray]] = []
        left = Deferring(data.cutter.chain, len(images), globals=1)
        for i, (position, row) in enumerate(zip(plan.positions, plan.indices, strict=True)):
            index, seed = int(data.frames.index[row]), seed_of(self.seed, _AUGMENT, position)
            cut, to_paint = data.cutter.fill(store.read(index), store.content(index), seed, images[i])
            left.add(i, [to_paint])
            if data.read_targets is not None:
                read.append(data.read_targets(row, cut))
        rows = np.array(plan.indices)
        batch = targets_at(data.targets, rows)
        batch |= {name: tensor_of(np.stack([each[name] for each in read])) for name in (read[0] if read else ())}
        tensors = {"images": torch.from_numpy(images), **batch, "index": torch.from_numpy(rows)}
        return HostBatch(tensors, left.deferred())


def _on_host(tensors: Batch, pinned: bool) -> HostBatch:
    batch = HostBatch(tensors)
    return batch.pin_memory() if pinned else batch


def targets_at(targets: Targets, rows: np.ndarray | slice) -> Batch:
    """The targets of some rows, by name; a single array is called `targets`."""
    if targets is None:
        return {}
    named: Mapping[str, Rows] = targets if isinstance(targets, Mapping) else {"targets": targets}
    return {name: tensor_of(values[rows]) for name, values in named.items()}


def tensor_of(values: np.ndarray) -> Tensor:
    """An array as a tensor of its own: class ids as int64, everything else as it is."""
    array = np.ascontiguousarray(values)
    whole = np.issubdtype(array.dtype, np.integer) and array.dtype != np.uint8
    return torch.from_numpy(array.astype(np.int64) if whole else array.copy())
