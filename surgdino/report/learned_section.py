"""The section that shows frames: features as colours, nearest frames elsewhere, where the class token looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from surgdino.checkpoint import LoadedBackbone
from surgdino.report.blocks import Block, Heading, Paragraph, Picture, Pictures, Section, picture
from surgdino.report.learned import (
    as_picture,
    class_attention,
    component_colours,
    detailed,
    encode,
    neighbours_elsewhere,
    over_frame,
    squared,
)

SHOWN = 6
_QUERIES, _NEIGHBOURS, _SIDE = 4, 4, 224
# More patches than in training (positions are interpolated): at 14 x 14 an instrument is three squares wide.
_CELLS = 24


@dataclass(frozen=True)
class Sample:
    """Frames to look at: RGB uint8 [H, W, 3] each, the operation of each, and a name such as `video05 12 s`."""

    frames: Sequence[np.ndarray]
    operations: Sequence[str]
    names: Sequence[str]

    def spread(self, count: int) -> list[int]:
        """Positions of `count` frames, one operation after another."""
        by_operation = [
            [i for i, name in enumerate(self.operations) if name == operation]
            for operation in dict.fromkeys(self.operations)
        ]
        chosen: list[int] = []
        for turn in range(count):
            own = by_operation[turn % len(by_operation)]
            rounds = -(-count // len(by_operation))
            chosen.append(own[(2 * (turn // len(by_operation)) + 1) * len(own) // (2 * rounds)])
        return list(dict.fromkeys(chosen))


def build_learned(sample: Sample, before: LoadedBackbone | None, after: LoadedBackbone) -> Section:
    """Pictures of the same frames through both backbones; through the adapted one alone where the other is gone."""
    shown = sample.spread(SHOWN)
    models = {"before": before, "after": after} if before is not None else {"after": after}
    encoded = {name: encode(model, sample.frames)[0] for name, model in models.items()}
    blocks: list[Block] = [
        Paragraph("These are frames of the training operations. Handle this file as patient data.", note=True)
    ]
    if before is None:
        blocks.append(Paragraph("The weights it began with are not where they were, so there is no picture of before."))
    frames = [sample.frames[i] for i in shown]
    closer = {name: encode(model, frames, detailed(model, _CELLS))[1] for name, model in models.items()}
    blocks += _components(sample, shown, closer)
    blocks += _neighbours(sample, encoded)
    blocks += _attention(sample, shown, models)
    return Section("learned", "What was learned, to look at", blocks)


def _components(sample: Sample, shown: Sequence[int], patches: dict[str, np.ndarray]) -> list[Block]:
    after = component_colours(patches["after"])
    rows = {"after": after}
    if "before" in patches:
        rows = {"before": component_colours(patches["before"], after), "after": after}
    pictures = [picture(squared(sample.frames[i], _SIDE), sample.names[i]) for i in shown]
    for name, colours in rows.items():
        pictures += [picture(as_picture(each, _SIDE), name) for each in colours]
    text = (
        "Principal components of the patch features, the first three as red, green and blue, computed over these "
        "frames together. Equal colours are equal to the backbone; tissue and instruments should part."
    )
    return [Heading("Patch features as colours"), Paragraph(text, note=True), Pictures(pictures, len(shown))]


def _neighbours(sample: Sample, cls: dict[str, np.ndarray]) -> list[Block]:
    if len(set(sample.operations)) < 2:
        return []
    queries = sample.spread(_QUERIES)
    pictures: list[Picture] = []
    found = {name: neighbours_elsewhere(each, sample.operations, queries, _NEIGHBOURS) for name, each in cls.items()}
    for place, query in enumerate(queries):
        for name, nearest in found.items():
            pictures.append(picture(squared(sample.frames[query], _SIDE), f"{sample.names[query]}, {name}:"))
            pictures += [picture(squared(sample.frames[i], _SIDE), sample.names[i]) for i in nearest[place]]
    text = "The frame on the left, and those of other operations whose class tokens are nearest to its own (cosine)."
    return [
        Heading("Nearest frames of other operations"),
        Paragraph(text, note=True),
        Pictures(pictures, 1 + _NEIGHBOURS),
    ]


def _attention(sample: Sample, shown: Sequence[int], models: dict[str, LoadedBackbone]) -> list[Block]:
    frames = [sample.frames[i] for i in shown]
    pictures: list[Picture] = []
    for name, model in models.items():
        looks = class_attention(model, frames, detailed(model, _CELLS))
        if looks is None:
            text = "This architecture's attention cannot be drawn."
            return [Heading("Attention of the class token"), Paragraph(text, note=True)]
        pictures += [
            picture(over_frame(frame, weights, _SIDE), name) for frame, weights in zip(frames, looks, strict=True)
        ]
    text = "Where the class token looks in the last block, mean over its heads; brighter is more."
    return [Heading("Attention of the class token"), Paragraph(text, note=True), Pictures(pictures, len(shown))]
