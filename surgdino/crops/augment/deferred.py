"""augment.on=gpu: what the workers drew for the crops of a batch, and leave to the device to paint."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from surgdino.crops.augment.build import transforms
from surgdino.crops.augment.transform import Drawn

Crops = Literal["global", "local"]
_PIXELS = 2**23  # painted at once; in float32 and three channels 100 MB


@dataclass
class Deferred:
    """Effects of the crops of a batch, in the order of the chain.

    How many crops an effect is for is known here, on the host, so that nobody waits for the device to count.

    Attributes:
        counts: (which crops, effect, how many of them).
        crops: int64 [R], the places of those crops, one effect after the other.
        numbers: float32 [R, P], what was drawn for each, filled up with zeros.
    """

    counts: tuple[tuple[Crops, str, int], ...]
    crops: Tensor
    numbers: Tensor

    def pin_memory(self) -> Deferred:
        """As the batch."""
        return Deferred(self.counts, self.crops.pin_memory(), self.numbers.pin_memory())

    @torch.no_grad()
    def paint(self, global_crops: Tensor, local_crops: Tensor) -> None:
        """Change the crops, uint8 [n, 3, S, S] on the device, in place."""
        crops, numbers = (tensor.to(global_crops.device, non_blocking=True) for tensor in (self.crops, self.numbers))
        kinds: dict[Crops, Tensor] = {"global": global_crops, "local": local_crops}
        counts = [count for _, _, count in self.counts]
        for (kind, name, _), places, rows in zip(self.counts, crops.split(counts), numbers.split(counts), strict=True):
            target, paint = kinds[kind], transforms()[name].paint_batch
            together = max(1, _PIXELS // target[0, 0].numel())
            for some, drawn in zip(places.split(together), rows.split(together), strict=True):
                painted = paint(target.index_select(0, some).float(), drawn)
                target.index_copy_(0, some, painted.round_().clamp_(0, 255).to(torch.uint8))


@dataclass
class Deferring:
    """Collects what is left to paint, image by image.

    Attributes:
        chain: names of the effects, in order.
        images: of the batch.
        globals: views of an image that are global; the others are local.
    """

    chain: Sequence[str]
    images: int
    globals: int
    _found: dict[tuple[Crops, str], list[tuple[int, Sequence[float]]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def add(self, image: int, views: Sequence[Sequence[Drawn]]) -> None:
        """What is left of each view of an image, global ones first; crops are view-major."""
        for view, drawn in enumerate(views):
            kind: Crops = "global" if view < self.globals else "local"
            place = (view - self.globals * (kind == "local")) * self.images + image
            for each in drawn:
                self._found[kind, each.transform.name].append((place, each.numbers))

    def deferred(self) -> Deferred | None:
        """All of it; None where nothing is left."""
        keys: list[tuple[Crops, str]] = [(kind, name) for name in self.chain for kind in ("global", "local")]
        rows = [row for key in keys for row in self._found[key]]
        if not rows:
            return None
        numbers = np.zeros((len(rows), max(len(drawn) for _, drawn in rows)), np.float32)
        for row, (_, drawn) in zip(numbers, rows, strict=True):
            row[: len(drawn)] = drawn
        return Deferred(
            counts=tuple((*key, len(self._found[key])) for key in keys if self._found[key]),
            crops=torch.tensor([place for place, _ in rows], dtype=torch.int64),
            numbers=torch.from_numpy(numbers),
        )
