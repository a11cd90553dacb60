"""What the DINO family computes over K prototypes: targets, Sinkhorn-Knopp, cross-entropies.

Symbols: D the backbone's width, K prototypes, V views, B images. Softmax, logarithms and sums run in fp32 or wider,
outside autocast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from surgdino.engine.method import Targets
from surgdino.engine.methods.parts.fused import Fuse, plain

LEAST_INFORMATION = 0.01


@dataclass
class PrototypeTargets(Targets):
    """Attributes:
    cls: [2, b, K], distributions.
    entropy, information: of the class targets of the whole batch, see `certainty`.
    frozen: the prototypes do not learn yet.
    """

    cls: Tensor
    entropy: Tensor
    information: Tensor
    frozen: bool


def cross_entropy(student: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """-sum_k t_k log softmax(student / temperature)_k of each token; [M, K] and [M, K] -> [M].

    Targets are distributions, so this is the log of the softmax's denominator minus one product: no second [M, K] of
    log-probabilities is kept for the backward pass.
    """
    with torch.autocast(student.device.type, enabled=False):
        scaled = _wide(student) / temperature
        return scaled.logsumexp(-1) - (targets * scaled).sum(-1)


def cross_entropy_of_views(student: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy over images and over pairs of target view j and student view i, i != j.

    Caron et al. 2021, eq. 3, as a mean over its 2 (2 + L) - 2 pairs.

    Args:
        student: cosines [V, B, K], global views first.
        targets: distributions [2, B, K].
        temperature: the student's.
    """
    with torch.autocast(student.device.type, enabled=False):
        scaled = _wide(student) / temperature
        products = targets.flatten(1) @ scaled.flatten(1).mT / scaled.shape[1]  # [2, V]
        pairs = scaled.logsumexp(-1).mean(-1) - products
        others = ~torch.eye(*pairs.shape, dtype=torch.bool, device=pairs.device)
        return (pairs * others).sum() / (pairs.numel() - len(pairs))


@torch.no_grad()
def sinkhorn(
    logits: Sequence[Tensor],
    temperature: float,
    iterations: int,
    sum_over_processes: Callable[[Tensor], Tensor],
    fuse: Fuse = plain,
) -> list[Tensor]:
    """Soft assignments of a global batch to K prototypes (Caron et al. 2020, arXiv 2006.09882, section 3).

    exp(logits / temperature), in turn divided by each prototype's sum over the global batch and by each token's sum
    over the prototypes. The published constants (1/K a prototype, 1/n a token) cancel, because the last division leaves
    a distribution for every token; so n need not be known. With cosines and temperatures of 0.02 at least
    every exponential and every sum stays within fp32.

    Args:
        logits: cosines [n_k, K], one a micro-batch; n_k may be 0.
        temperature: the teacher's.
        iterations: pairs of divisions.
        sum_over_processes: adds a [K] over all processes.
        fuse: of the method.

    Returns:
        [n_k, K] each, rows adding up to 1.
    """
    # As tensors, the temperature of another step needs no other graph.
    shares = [fuse(_exponentials)(part, torch.tensor(temperature, dtype=torch.float64)) for part in logits]
    for _ in range(iterations):
        of_prototypes = sum_over_processes(torch.stack([part.sum(0) for part in shares]).sum(0))
        shares = [fuse(_divided)(part, of_prototypes) for part in shares]
    return shares


def _exponentials(logits: Tensor, temperature: Tensor) -> Tensor:
    with torch.autocast(logits.device.type, enabled=False):
        return (_wide(logits) / temperature).exp_()


def _divided(shares: Tensor, of_prototypes: Tensor) -> Tensor:
    if torch.compiler.is_compiling():  # what is written in place would be copied back
        shares = shares / of_prototypes
        return shares / shares.sum(1, keepdim=True)
    shares /= of_prototypes
    shares /= shares.sum(1, keepdim=True)
    return shares


@torch.no_grad()
def certainty(targets: Sequence[Tensor], sum_over_processes: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """What the targets of a global batch are worth, in nats.

    Args:
        targets: distributions [..., K], one tensor a micro-batch.
        sum_over_processes: adds a [K + 2] over all processes.

    Returns:
        `entropy`, mean over tokens: ln K where a target is uniform, 0 where it is certain; and `information`, the
        entropy of the mean target minus that: 0 where every token has the same target, whichever that is.
    """
    rows = [part.flatten(0, -2) for part in targets]
    sums = torch.stack([part.sum(0) for part in rows]).sum(0)
    entropies = torch.stack([torch.special.entr(part).sum() for part in rows]).sum()
    count = sums.new_full((1,), sum(len(part) for part in rows))
    total = sum_over_processes(torch.cat([sums, entropies[None], count]))
    mean, entropy = total[:-2] / total[-1], total[-2] / total[-1]
    return entropy, torch.special.entr(mean).sum() - entropy


def no_information(terms: Mapping[str, float]) -> str | None:
    """A sentence where every image has the same targets, else None."""
    if terms["information"] > LEAST_INFORMATION:
        return None
    return (
        f"the targets collapse: they are the same for every image (information {terms['information']:.4f} nats, "
        f"entropy {terms['entropy']:.2f}); lower train.lr or method.teacher_temp, or raise train.batch_size"
    )


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()
