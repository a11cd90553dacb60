"""The head: one class a frame from the backbone's tokens, then a temporal model over the frames of a video."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from surgdino.tasks.phase.temporal import TemporalModel, run_through


class FrameClassifier(nn.Module):
    """A linear layer, or one with a hidden layer before it, over (class token | mean of the patch tokens).

    Args:
        width: D of the backbone.
        classes: C.
        with_patches: whether the mean of the patch tokens is read beside the class token.
        hidden: units of the hidden layer; 0 is linear.
        dropout: on the features, while training.
    """

    def __init__(self, width: int, classes: int, *, with_patches: bool, hidden: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        self.width = width
        self.features = width * (2 if with_patches else 1)
        # A frozen backbone's tokens have the scale of its weights; normalised, one learning rate suits every backbone.
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.dropout = nn.Dropout(dropout)
        layers = [nn.Linear(self.features, hidden), nn.GELU()] if hidden else []
        self.classify = nn.Sequential(*layers, nn.Linear(hidden or self.features, classes))
        nn.init.normal_(self.classify[-1].weight, std=0.01)  # type: ignore[arg-type]
        nn.init.zeros_(self.classify[-1].bias)  # type: ignore[arg-type]

    def normed(self, pooled: Tensor) -> Tensor:
        """What is classified, and what a temporal model reads: [..., features] of class tokens and means [..., 2D]."""
        tokens = pooled[..., : self.features].unflatten(-1, (-1, self.width))
        return self.norm(tokens).flatten(-2)

    def forward(self, pooled: Tensor) -> Tensor:
        """Logits [B, C] of class tokens and mean patch tokens beside each other, [B, 2D]."""
        return self.classify(self.dropout(self.normed(pooled)))


class TunedClassifier(nn.Module):
    """A backbone that learns with its classifier: pictures in, logits out."""

    def __init__(self, backbone: nn.Module, classifier: FrameClassifier) -> None:
        super().__init__()
        self.backbone, self.classifier = backbone, classifier

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, C] of normalised images [B, 3, H, W]."""
        features = self.backbone(images)
        return self.classifier(torch.cat([features.cls, features.patches.mean(1)], 1))


class PhaseHead(nn.Module):
    """Everything of the task's own: the classifier of single frames, and the temporal model where there is one."""

    def __init__(self, frame: FrameClassifier, temporal: TemporalModel | None) -> None:
        super().__init__()
        self.frame, self.temporal = frame, temporal

    def probabilities(self, blocks: Iterator[Tensor]) -> Iterator[Tensor]:
        """Class probabilities [n, C] of one video, block by block, from pooled features [n, 2D]; in evaluation mode."""
        if self.temporal is None:
            return (self.frame(block).float().softmax(1) for block in blocks)
        return run_through(self.temporal, (self.frame.normed(block) for block in blocks))


class OverVideo(nn.Module):
    """The temporal model on the features of one video as they come from the backbone; the norm before it is fixed."""

    def __init__(self, head: PhaseHead) -> None:
        super().__init__()
        assert head.temporal is not None
        self.norm, self.temporal = head.frame.normed, head.temporal

    def forward(self, pooled: Tensor) -> list[Tensor]:
        return self.temporal(self.norm(pooled))
