"""Heads that find objects, one file each, discovered by file name: `task.head=NAME`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from surgdino import discovery
from surgdino.backbone.vit import Backbone
from surgdino.exports.graph import Unpacked
from surgdino.tasks.training.batches import Batch

Output = dict[str, Tensor]


class Found(NamedTuple):
    """What a head finds in B pictures, the surest of each first: the fields of `Answer`, [B, k, ...]."""

    boxes: Tensor
    kinds: Tensor
    scores: Tensor
    masks: Tensor | None


@dataclass(frozen=True)
class Answer:
    """What a head finds in one picture, the surest first.

    Attributes:
        boxes: float32 [k, 4]: centre x, centre y, width, height in shares of the input.
        kinds: int64 [k] class ids.
        scores: float32 [k].
        masks: logits [k, h, w] over the whole input; None where no mask was learnt.
    """

    boxes: Tensor
    kinds: Tensor
    scores: Tensor
    masks: Tensor | None

    def mirrored(self) -> Answer:
        """The same with left and right exchanged."""
        boxes = torch.cat([1 - self.boxes[:, :1], self.boxes[:, 1:]], 1)
        return replace(self, boxes=boxes, masks=None if self.masks is None else self.masks.flip(2))


class InstanceHead(nn.Module):
    """B images, N = h * w patches in row-major order, D the backbone's width, C classes.

    Attributes:
        reads_tokens: whether it reads the tokens of the last block alone, so that a frozen backbone's can be kept.
        defaults: of the `train` section, over a frozen backbone.
        crops: whether a mask counts inside its box alone; otherwise the box is that of the mask, where there is one.
        masked: bool, whether any object that it learned from had a mask.
        prior: float32 [C, 5], the mean box of each class in training and the share of frames with it.
    """

    reads_tokens: ClassVar[bool] = True
    crops: ClassVar[bool] = False
    defaults: ClassVar[Mapping[str, Any]] = {}
    masked: Tensor
    prior: Tensor

    def __init__(self, backbone: Backbone, classes: int) -> None:
        super().__init__()
        self.register_buffer("masked", torch.tensor(False))
        self.register_buffer("prior", torch.zeros(classes, 5))
        self._read = dict[str, tuple[Tensor, int, int]]()

    def known(self, name: str) -> int:
        """A buffer of one number on the host: a GPU is asked once, and again where the buffer has changed."""
        buffer = self.get_buffer(name)
        tensor, version, value = self._read.get(name, (None, 0, 0))
        if tensor is not buffer or version != buffer._version:
            value = int(buffer)
            self._read[name] = buffer, buffer._version, value
        return value

    def of_images(self, backbone: Backbone | Unpacked, images: Tensor) -> Output:
        """What it says of normalised images [B, 3, H, W]."""
        patch = backbone.patch_size
        return self(backbone(images).patches, (images.shape[2] // patch, images.shape[3] // patch))

    @staticmethod
    def places(targets: Batch) -> Batch:
        """Where the objects of a batch are, from what `CutObjects` gives, on the host: int64 rows of (picture, place)
        of all `objects` and of `crowds`; and int64 `drawn`, which of the objects have masks."""
        there, crowd = targets["kinds"] >= 0, targets["crowd"]
        objects = (there & ~crowd).nonzero()
        drawn = targets["masked"][tuple(objects.unbind(1))].nonzero()[:, 0]
        return {"objects": objects, "crowds": (there & crowd).nonzero(), "drawn": drawn}

    def losses(self, output: Output, targets: Batch) -> dict[str, Tensor]:
        """Scalars, `loss` among them, against what `CutObjects` and `places` give."""
        raise NotImplementedError

    def found(self, output: Output, most: int, masks: bool) -> Found:
        """What is found in B pictures, k <= `most` in each."""
        raise NotImplementedError

    def answers(self, output: Output, most: int) -> list[Answer]:
        """At most so many of each picture."""
        found = self.found(output, most, bool(self.known("masked")))
        masks = [None] * len(found.scores) if found.masks is None else found.masks.unbind()
        return [Answer(*each) for each in zip(found.boxes, found.kinds, found.scores, masks, strict=True)]


def open_head(name: str) -> type[InstanceHead]:
    """The class of that name."""
    return discovery.defined(discovery.load(__name__, name, "task.head"), InstanceHead)
