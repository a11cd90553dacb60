"""Which of several frames of a recording came first, as in PL-Stitch (visurg-ai, CVPR 2026)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from surgdino.engine.guide import Facts, Guide, Known, nothing_known
from surgdino.engine.guides.order_settings import Settings
from surgdino.engine.methods.parts.heads import mlp


class Order(Guide):
    """The Plackett-Luce likelihood of a recording's frames in the batch, the earliest being chosen first."""

    settings: Settings
    head: nn.Module
    couples = True

    def __init__(self, key: str, settings: Settings, embed_dim: int, facts: Facts) -> None:
        super().__init__(key, settings)
        _, counts = np.unique(facts["video"], return_counts=True)
        if counts.max(initial=0) < 2:
            raise nothing_known(key, "recordings with several frames", "leave it out, or raise data.fps")
        self.head = mlp(embed_dim, settings.head_hidden, 1, bias=False)  # only differences of scores count

    @classmethod
    def reads(cls, settings: Settings) -> tuple[str, ...]:
        """`video`: int64; `seconds` in it: float32."""
        return "video", "seconds"

    def loss(self, cls: Tensor, known: Known) -> tuple[Tensor, dict[str, Tensor]]:
        """-log likelihood, mean over frames that a later one of is in the batch; `accuracy` over pairs, in percent."""
        scores = known.complete(self.key, self.head(cls))[..., 0]  # [2, B]
        video, seconds = known.facts["video"], known.facts["seconds"]
        same = video[:, :, None] == video[:, None, :]
        after = same & (seconds[:, None, :] > seconds[:, :, None])  # [2, i, j]: j came later than i
        there = after.any(2)
        itself = torch.eye(scores.shape[1], dtype=torch.bool, device=scores.device)
        rest = torch.where(after | itself, scores[:, None, :], -torch.inf).logsumexp(2)
        loss = torch.where(there, rest - scores, 0.0).sum() / there.sum().clamp(min=1)
        right = (after & (scores[:, :, None] > scores[:, None, :])).sum() / after.sum().clamp(min=1)
        return known.places * loss, {"": loss.detach(), "accuracy": 100 * right.detach()}
