"""Several multi-label classifiers side by side: each reads the class token, and patches pooled by a query of its own.

Shapes: B images, N patches, D the width, Q queries, H heads.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from surgdino.tasks.classifier.head import AttentionPool


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
