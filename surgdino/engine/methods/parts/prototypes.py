"""Prototypes: K learned directions, and what is computed over them in the DINO family.

Symbols: D the backbone's width, K prototypes, V views, B images. Softmax, logarithms and sums run in fp32 or wider,
outside autocast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surgdino.engine.methods.parts.head import ProjectionHead
from surgdino.errors import SurgdinoError

LEAST_INFORMATION = 0.01
LEAST_TEMPERATURE = 0.02


class PrototypeHead(nn.Module):
    """A projection to unit length, then its cosine with each of K prototypes; [..., D] -> [..., K] in [-1, 1].

    The prototypes are the weight-normalised last layer of Caron et al. 2021 (arXiv 2104.14294) with its gain held at 1:
    only their directions count.
    """

    def __init__(self, embed_dim: int, hidden: int, width: int, prototypes: int) -> None:
        super().__init__()
        self.projection = ProjectionHead(embed_dim, hidden, width)
        self.prototypes = nn.Parameter(torch.empty(prototypes, width))
        nn.init.normal_(self.prototypes, std=width**-0.5)

    def forward(self, tokens: Tensor, frozen: bool = False) -> Tensor:
        """Cosines with the prototypes, which take no gradient where `frozen`.

        None rather than zero: the optimiser then leaves their moments alone, which otherwise would fill with zeros and
        make the first steps after too large.
        """
        with torch.autocast(tokens.device.type, enabled=False):
            directions = F.normalize(self.prototypes.float(), dim=-1)
        return F.linear(self.projection(tokens), directions.detach() if frozen else directions)


def teacher_temperature(progress: float, start: float, end: float, warmup: float) -> float:
    """Linear from `start` to `end` over the share `warmup` of the run, then `end`; `progress` in [0, 1]."""
    return end if progress >= warmup else start + (end - start) * progress / warmup


def check_temperatures(*temperatures: float) -> None:
    """Raise where cosines divided by a temperature would leave the range of fp32's exponential."""
    for temperature in temperatures:
        if not temperature >= LEAST_TEMPERATURE:
            raise SurgdinoError(
                "unusable temperature",
                place="method.student_temp, method.teacher_temp or method.teacher_temp_start",
                expected=f"at least {LEAST_TEMPERATURE}",
                found=temperature,
                fix="raise it; 0.1 and 0.04 to 0.07 are published",
            )


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
def certainty(targets: Sequence[Tensor], sum_over_processes: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """What the targets of a global batch are worth, in nats.

    Args:
        targets: distributions [..., K], one tensor a micro-batch.
        sum_over_processes: adds a [K + 2] over all processes.

    Returns:
        `entropy`, mean over tokens: ln K where a target says nothing, 0 where it is certain; and `information`, the
        entropy of the mean target minus that: 0 where every token has the same target, whichever that is.
    """
    rows = [part.flatten(0, -2) for part in targets]
    sums = torch.stack([part.sum(0) for part in rows]).sum(0)
    entropies = torch.stack([torch.special.entr(part).sum() for part in rows]).sum()
    count = sums.new_tensor(sum(len(part) for part in rows))
    total = sum_over_processes(torch.cat([sums, entropies[None], count[None]]))
    mean, entropy = total[:-2] / total[-1], total[-2] / total[-1]
    return entropy, torch.special.entr(mean).sum() - entropy


def words_of_collapse(terms: Mapping[str, float]) -> str | None:
    """A sentence where every image has the same targets, else None."""
    if terms["information"] > LEAST_INFORMATION:
        return None
    return (
        f"the targets collapse: the teacher says the same of every image (information {terms['information']:.4f} nats, "
        f"entropy {terms['entropy']:.2f}); lower train.lr or method.teacher_temp, or raise train.batch_size"
    )


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()
