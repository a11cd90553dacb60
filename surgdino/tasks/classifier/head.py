"""A classifier of single frames over the class token and what is made of the patch tokens: their mean, or attention.

Shapes: B images, N patches, D the width, Q queries, H heads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surgdino.backbone.vit import Backbone
from surgdino.errors import SurgdinoError
from surgdino.exports.graph import Unpacked
from surgdino.tasks.settings import Tokens


class AttentionPool(nn.Module):
    """Multi-head attention of Q learned queries, each of which chooses the patches that it pools into one vector.

    The attention of a learned query q to a token x is (W_q q) . (W_k x) = (W_k' W_q q) . x: the product of the two
    projections with the query is itself just a vector, and is learned as one. A value projection after the weighted sum
    in place of before it is the same sum. Both together make pooling some D / (Q H) times cheaper than attention in the
    textbook's order, and can express the same functions.

    Args:
        width: D.
        queries: Q.
        heads: H, which must divide D.
    """

    def __init__(self, width: int, queries: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise SurgdinoError(
                "the pooling heads do not divide the backbone's width",
                place="task.pool_heads",
                expected=f"a divisor of {width}, or 0",
                found=heads,
            )
        self.queries = nn.Parameter(torch.empty(queries, heads, width))
        self.values = nn.Parameter(torch.empty(heads, width, width // heads))
        nn.init.normal_(self.queries, std=0.02)
        nn.init.normal_(self.values, std=width**-0.5)

    def forward(self, patches: Tensor) -> Tensor:
        """[B, N, D] -> [B, Q, D]."""
        queries, heads, width = self.queries.shape
        weights = (F.linear(patches, self.queries.flatten(0, 1)) * width**-0.5).softmax(1)  # [B, N, Q H]
        seen = (weights.transpose(1, 2) @ patches).unflatten(1, (queries, heads))
        return torch.einsum("bqhd,hde->bqhe", seen, self.values).flatten(2)


class FrameClassifier(nn.Module):
    """A linear layer, or one with a hidden layer before it, over (class token | mean or attention of patch tokens).

    Args:
        width: D of the backbone.
        classes: C.
        tokens: what is classified.
        pool_heads: H, of the attention.
        hidden: units of the hidden layer; 0 is linear.
        dropout: on the features, while training.
    """

    def __init__(
        self, width: int, classes: int, *, tokens: Tokens, pool_heads: int = 4, hidden: int = 0, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.width = width
        self.features = width * (1 if tokens == "cls" else 2)
        # A frozen backbone's tokens have the scale of its weights; normalised, one learning rate suits every backbone.
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.pool = AttentionPool(width, 1, pool_heads) if tokens == "attentive" else None
        self.dropout = nn.Dropout(dropout)
        layers = [nn.Linear(self.features, hidden), nn.GELU()] if hidden else []
        self.classify = nn.Sequential(*layers, nn.Linear(hidden or self.features, classes))
        nn.init.normal_(self.last.weight, std=0.01)
        nn.init.zeros_(self.last.bias)

    @property
    def last(self) -> nn.Linear:
        """The layer that gives the logits."""
        layer = self.classify[-1]
        assert isinstance(layer, nn.Linear)
        return layer

    def pooled(self, cls: Tensor, patches: Tensor) -> Tensor:
        """[B, 2D]: class tokens [B, D], and beside them what is made of the patch tokens [B, N, D]."""
        return torch.cat([cls, patches.mean(1) if self.pool is None else self.pool(self.norm(patches))[:, 0]], 1)

    def normed(self, pooled: Tensor) -> Tensor:
        """What is classified, and what a temporal model reads: [..., features] of what `pooled` gives, [..., 2D]."""
        tokens = pooled[..., : self.features].unflatten(-1, (-1, self.width))
        return self.norm(tokens).flatten(-2)

    def forward(self, pooled: Tensor, patches: Tensor | None = None) -> Tensor:
        """Logits [B, C] of what `pooled` gives, [B, 2D]; or of class tokens [B, D] and patch tokens [B, N, D]."""
        if patches is not None:
            pooled = self.pooled(pooled, patches)
        return self.classify(self.dropout(self.normed(pooled)))


class TunedHead(nn.Module):
    """A backbone that learns together with the head over its class and patch tokens."""

    def __init__(self, backbone: Backbone, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.register_load_state_dict_pre_hook(_as_called_now)

    def forward(self, images: Tensor, *more: Tensor) -> Tensor | dict[str, Tensor]:
        """What the head gives of normalised images [B, 3, S, S], and of what else it is given."""
        features = self.backbone(images)
        return self.head(features.cls, features.patches, *more)


class FrameProgram(nn.Module):
    """Pictures [B, 3, S, S] to what a head says of class and patch tokens, as one program for any B.

    Args:
        say: (class tokens [B, D], patch tokens [B, N, D]) -> the outputs; `head` holds its weights.
    """

    def __init__(
        self, backbone: Backbone, head: nn.Module, say: Callable[[Tensor, Tensor], tuple[Tensor, ...]]
    ) -> None:
        super().__init__()
        self.backbone, self.head, self._say = Unpacked(backbone), head, say

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        return self._say(*self.backbone(images))


def _as_called_now(_: nn.Module, state: dict[str, Any], *__: Any) -> None:
    """States of before December 2026 call the head `classifier`."""
    for name in [name for name in state if name.startswith("classifier.")]:
        state[f"head.{name.removeprefix('classifier.')}"] = state.pop(name)
