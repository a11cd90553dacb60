"""The heads of triplets and their parts: linear ones over pooled patches, and a decoder with a query a class.

Shapes: B images, N patches, D the width, K frames whose class tokens are seen.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from surgdino.errors import SurgdinoError
from surgdino.tasks.classifier.head import AttentionPool


class TripletHead(nn.Module, ABC):
    """Logits of several components from the tokens of a frame.

    Attributes:
        reads_patches: whether `forward` needs the patch tokens.
    """

    reads_patches = True

    @abstractmethod
    def forward(self, cls: Tensor, patches: Tensor | None = None) -> dict[str, Tensor]:
        """Component -> logits [B, classes].

        Args:
            cls: [B, D]; or [B, K, D], of earlier frames too, the frame's own last.
            patches: [B, N, D] of the frame; not read where nothing is pooled.
        """

    @abstractmethod
    def bias(self, name: str) -> Tensor:
        """What the logits of a component start from, [classes], in place."""

    def start_at(self, logits: Mapping[str, Tensor]) -> None:
        """Let every class start from these logits, [classes] a component, such as those of its share of the frames.

        From 0, an even chance, the first steps would only push down a hundred classes that are rarely seen (Lin et al.
        2017, section 3.3).
        """
        with torch.no_grad():
            for name, values in logits.items():
                self.bias(name).copy_(values)


class PooledLinear(TripletHead):
    """One linear layer a component over (class token | what the component's query pooled from the patches).

    Where earlier frames are seen, the mean of their class tokens and the frame's own stands beside them.

    Args:
        width: D of the backbone.
        classes: component -> how many classes it has; one query each.
        pool_heads: heads of the attention pooling; 0 leaves the patches out and classifies the class token alone.
        dropout: on the features, while training.
        seen: K.
    """

    def __init__(
        self, width: int, classes: Mapping[str, int], pool_heads: int, dropout: float = 0.0, seen: int = 1
    ) -> None:
        super().__init__()
        # Without a scale of its own, so that the learning rate does not depend on the scale of a backbone's tokens.
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.pool = AttentionPool(width, len(classes), pool_heads) if pool_heads else None
        self.reads_patches = self.pool is not None
        features = width * (1 + (seen > 1) + (pool_heads > 0))
        self.dropout = nn.Dropout(dropout)
        layers = {name: nn.Linear(features, count) for name, count in classes.items()}
        for layer in layers.values():
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)
        self.classify = nn.ModuleDict(layers)

    def forward(self, cls: Tensor, patches: Tensor | None = None) -> dict[str, Tensor]:
        """See `TripletHead`."""
        token = self.norm(cls) if cls.dim() == 2 else torch.cat([self.norm(cls[:, -1]), self.norm(cls.mean(1))], 1)
        if self.pool is None:
            features = [token] * len(self.classify)
        else:
            assert patches is not None, "attention pooling needs patch tokens"
            pooled = self.norm(self.pool(self.norm(patches)))
            features = [torch.cat([token, each], 1) for each in pooled.unbind(1)]
        rows = zip(self.classify, features, strict=True)
        return {name: self.classify[name](self.dropout(each)) for name, each in rows}

    def bias(self, name: str) -> Tensor:
        """See `TripletHead`."""
        return self.get_parameter(f"classify.{name}.bias")


class QueryDecoder(TripletHead):
    """A transformer decoder in which every class asks the frame's tokens with a query of its own (Query2Label).

    The queries of triplets and parts see each other, as in Rendezvous, and a triplet's query is the sum of those of its
    parts and one of its own: one seen in three frames has parts that learn from hundreds.

    Args:
        width: D of the backbone.
        classes: component -> how many classes it has.
        parts: part -> the place of each triplet's own among the part's classes, int64 [triplets].
        layers, hidden, heads: of the decoder; `hidden` is the width that it works in.
        dropout: in the decoder.
        seen: K.
    """

    def __init__(
        self,
        width: int,
        classes: Mapping[str, int],
        parts: Mapping[str, np.ndarray],
        *,
        layers: int,
        hidden: int,
        heads: int,
        dropout: float = 0.0,
        seen: int = 1,
    ) -> None:
        super().__init__()
        if hidden % heads:
            what, expected = "the decoder's width cannot be used", f"a multiple of {heads}, task.pool_heads"
            raise SurgdinoError(what, place="task.decoder_width", expected=expected, found=hidden)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.enter, self.when = nn.Linear(width, hidden), nn.Parameter(torch.zeros(seen, hidden))
        block = nn.TransformerDecoderLayer(
            hidden, heads, 4 * hidden, dropout, "gelu", batch_first=True, norm_first=True
        )
        self.decoder = nn.TransformerDecoder(block, layers, nn.LayerNorm(hidden))
        self.queries, self.classify, self.biases = nn.ParameterDict(), nn.ParameterDict(), nn.ParameterDict()
        for name, count in classes.items():
            self.queries[name] = nn.Parameter(0.5 * torch.randn(count, hidden))
            self.classify[name] = nn.Parameter(0.01 * torch.randn(count, hidden))
            self.biases[name] = nn.Parameter(torch.zeros(count))
        self.parts = tuple(parts)
        for part, place in parts.items():
            self.register_buffer(f"places_{part}", torch.from_numpy(place), persistent=False)

    def forward(self, cls: Tensor, patches: Tensor | None = None) -> dict[str, Tensor]:
        """See `TripletHead`."""
        assert patches is not None, "the decoder needs patch tokens"
        frames = self.enter(self.norm(cls if cls.dim() == 3 else cls[:, None])) + self.when
        tokens = torch.cat([frames, self.enter(self.norm(patches))], 1)
        asked = [query + self._of_parts() if name == "IVT" else query for name, query in self.queries.items()]
        found = self.decoder(torch.cat(asked)[None].expand(tokens.shape[0], -1, -1), tokens)
        parts = zip(self.queries, found.split([len(query) for query in asked], 1), strict=True)
        return {name: (each * self.classify[name]).sum(2) + self.biases[name] for name, each in parts}

    def _of_parts(self) -> Tensor:
        return torch.stack([self.queries[part][self.get_buffer(f"places_{part}")] for part in self.parts]).sum(0)

    def bias(self, name: str) -> Tensor:
        """See `TripletHead`."""
        return self.biases[name]
