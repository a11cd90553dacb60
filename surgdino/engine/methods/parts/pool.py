"""Features of the whole batch for the loss terms that couple images, however the batch is laid out.

Symbols: B images in the global batch, W processes, K micro-batches a process, b = B / (W K) images a micro-batch.
Global image i belongs to process i // (B / W) and there to micro-batch (i % (B / W)) // b.

A group term of the complete batch is computed in every one of the W K places, each time with the gradient of the b
images there alone. The loop takes the mean over places, so the term enters the loss times `share` = W K: the sum over
places of those partial gradients is the whole one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from surgdino.engine.parallel.across import Across


@dataclass(frozen=True)
class Pool:
    """What one micro-batch may know of the others.

    Attributes:
        share: W K where groups reach beyond a micro-batch, else 1: then nothing is put together.
        place: this micro-batch's number among the W K.
        seen: [2, B, ...] by name, from a pass without gradient over all micro-batches; None where K is 1, and the other
            processes' features are asked for on the way.
    """

    share: int = 1
    place: int = 0
    seen: Mapping[str, Tensor] | None = None
    across: Across = field(default_factory=Across)

    def complete(self, name: str, own: Tensor) -> Tensor:
        """`own` [2, b, ...] among the features of all images, [2, B, ...]; only `own` carries a gradient."""
        if self.share == 1:
            return own
        whole = self.across.gather_views(own) if self.seen is None else self.seen[name]
        images = own.shape[1]
        first = self.place * images
        return torch.cat([whole[:, :first], own, whole[:, first + images :]], dim=1)


def reaches_beyond(group_size: int | None, micro_batch: int, batch: int) -> bool:
    """Whether groups of `group_size` consecutive images (None: the whole batch) lie across micro-batches."""
    group = group_size or batch
    return group > micro_batch or micro_batch % group != 0
