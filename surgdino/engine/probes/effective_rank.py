"""How many dimensions the features use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from surgdino.engine.probing.measures import Finding, Measure, Probe
from surgdino.engine.probing.view import View


class EffectiveRank(Probe):
    """How many dimensions the features use."""

    order = 60
    measures: ClassVar = {
        "effective_rank": Measure("effective rank of the features", percent=False, margin=0.2, relative=True)
    }

    def find(self, view: View) -> Iterator[Finding]:
        """RankMe of the tested frames' class tokens."""
        tested = view.cls_on_host[torch.from_numpy(view.frames.tested)]  # small, and a GPU's SVD waits for itself
        yield Finding("effective_rank", float(effective_rank(tested)), frames=len(tested))


def effective_rank(features: Tensor) -> Tensor:
    """RankMe (Garrido et al. 2023, eq. 1): exp of the entropy of the singular values' shares; [n, D] -> scalar.

    NaN where a feature is not finite.
    """
    if not torch.isfinite(features).all():
        return torch.tensor(torch.nan)
    values = torch.linalg.svdvals(features.float())
    shares = values / values.sum().clamp(min=1e-12) + 1e-7
    return torch.exp(-(shares * shares.log()).sum())
