"""Sinkhorn-Knopp: targets that use every prototype equally often. In fp32, whatever surrounds it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


@torch.no_grad()
def sinkhorn(
    logits: Sequence[Tensor], temperature: float, iterations: int, sum_over_processes: Callable[[Tensor], Tensor]
) -> list[Tensor]:
    """Soft assignments of a global batch to K prototypes (Caron et al. 2020, arXiv 2006.09882, section 3).

    exp(logits / temperature), in turn divided by each prototype's sum over the global batch and by each token's sum
    over the prototypes. The published constants (1/K a prototype, 1/n a token) cancel, because the last division leaves
    a distribution for every token; so nobody needs to know n. With cosines and temperatures of 0.02 at least
    (`prototypes.check_temperatures`) every exponential and every sum stays within fp32.

    Args:
        logits: cosines [n_k, K], one a micro-batch; n_k may be 0.
        temperature: the teacher's.
        iterations: pairs of divisions.
        sum_over_processes: adds a [K] over all processes.

    Returns:
        [n_k, K] each, rows adding up to 1.
    """
    shares = []
    for part in logits:
        with torch.autocast(part.device.type, enabled=False):
            part = part if part.dtype == torch.float64 else part.float()
            shares.append((part / temperature).exp_())
    for _ in range(iterations):
        of_prototypes = sum_over_processes(torch.stack([part.sum(0) for part in shares]).sum(0))
        for part in shares:
            part /= of_prototypes
            part /= part.sum(1, keepdim=True)
    return shares
