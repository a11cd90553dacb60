"""Several multi-label classifiers side by side: each reads the class token, and patches pooled by a query of its own.

Shapes: B images, N patches, D the width, Q queries, H heads.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surgdino.errors import SurgdinoError


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


class PooledLinear(nn.Module):
    """One linear layer a component over (class token | what the component's query pooled from the patches).

    Args:
        width: D of the backbone.
        classes: component -> how many classes it has; one query each.
        pool_heads: heads of the attention pooling; 0 leaves the patches out and classifies the class token alone.
        dropout: on the features, while training.
    """

    def __init__(self, width: int, classes: Mapping[str, int], pool_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        # Without a scale of its own, so that the learning rate does not depend on the scale of a backbone's tokens.
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.pool = AttentionPool(width, len(classes), pool_heads) if pool_heads else None
        features = width * (2 if pool_heads else 1)
        self.dropout = nn.Dropout(dropout)
        layers = {name: nn.Linear(features, count) for name, count in classes.items()}
        for layer in layers.values():
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)
        self.classify = nn.ModuleDict(layers)

    @property
    def reads_patches(self) -> bool:
        """Whether `forward` needs the patch tokens."""
        return self.pool is not None

    def forward(self, cls: Tensor, patches: Tensor | None = None) -> dict[str, Tensor]:
        """Component -> logits [B, classes].

        Args:
            cls: [B, D].
            patches: [B, N, D]; not read where nothing is pooled.
        """
        token = self.norm(cls)
        if self.pool is None:
            features = [token] * len(self.classify)
        else:
            assert patches is not None, "attention pooling needs patch tokens"
            pooled = self.norm(self.pool(self.norm(patches)))
            features = [torch.cat([token, each], 1) for each in pooled.unbind(1)]
        rows = zip(self.classify, features, strict=True)
        return {name: self.classify[name](self.dropout(each)) for name, each in rows}

    def start_at(self, logits: Mapping[str, Tensor]) -> None:
        """Let every class start from these logits, [classes] a component, such as those of its share of the frames.

        From 0, an even chance, the first steps would only push down a hundred classes that are rarely seen (Lin et al.
        2017, section 3.3).
        """
        with torch.no_grad():
            for name, values in logits.items():
                self.get_parameter(f"classify.{name}.bias").copy_(values)
