"""Whether an export says what the model says: the largest difference of anything that comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from surgdino.backbone.checkpoint import LoadedBackbone
from surgdino.errors import SurgdinoError
from surgdino.exports.format import Program
from surgdino.exports.graph import Graph

Expected = Mapping[str, np.ndarray]


def random_pictures(count: int, side: int) -> Tensor:
    """float32 [count, 3, side, side], the same at every call."""
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def features_differ(model: LoadedBackbone, program: Program, side: int) -> float:
    """Of any feature, over batches of one and three random pictures of that size; see `difference`."""
    worst = 0.0
    for count in (1, 3):
        images = random_pictures(count, side)
        with torch.no_grad():
            here, there = model(images), program(images)
        pairs = zip(here, there, strict=True)
        worst = max(worst, *(difference(ours.numpy(), theirs.numpy()) for ours, theirs in pairs))
    return worst


def outputs_differ(
    graphs: Sequence[Graph], programs: Mapping[str, Program], images: Tensor, expected: Expected
) -> float:
    """Of any output, between a task's predictions of some frames and the programs run one after another.

    Args:
        images: float32 [n, 3, S, S], the frames as the first program takes them.
        expected: output -> what the task predicts of them; an output that is in here is compared.
    """
    worst = 0.0
    with torch.no_grad():
        for rows in {1, len(images)} if len(graphs) == 1 else {len(images)}:
            given, found = images[:rows], dict[str, Tensor]()
            for graph in graphs:
                outputs = dict(zip(graph.outputs, programs[graph.name](given), strict=True))
                found |= outputs
                given = next(iter(outputs.values()))
            worst = max(worst, *(difference(said[:rows], found[name].numpy()) for name, said in expected.items()))
    return worst


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest, as a share of the largest value; infinite where shapes differ or a value is none.

    A share, since features of trained weights can be in the tens, where fp32 alone differs in the fourth digit behind
    the point between one kernel and another.
    """
    if ours.shape != theirs.shape or not np.isfinite(theirs).all():
        return float("inf")
    return float(np.abs(ours - theirs).max() / max(np.abs(ours).max(), 1e-12))


def refuse_other(worst: float, tolerance: float, name: str) -> None:
    """Refuse an export that says something else."""
    if not worst <= tolerance:
        raise SurgdinoError(
            f"format={name} does not give what the checkpoint gives, so nothing was written",
            expected=f"a difference of at most {tolerance:g} of the largest value",
            found=f"{worst:.3g}",
            fix="use another format, and tell us",
        )
