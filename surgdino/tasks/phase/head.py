"""The head: one class a frame from the backbone's tokens, then a temporal model over the frames of a video."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from surgdino.tasks.classifier.head import FrameClassifier
from surgdino.tasks.phase.temporal import TemporalModel, run_through


class PhaseHead(nn.Module):
    """Everything of the task's own: the classifier of single frames, and the temporal model where there is one.

    Args:
        follows: [C, C], how classes follow each other, where the post-processing needs it.
    """

    follows: Tensor | None

    def __init__(self, frame: FrameClassifier, temporal: TemporalModel | None, follows: Tensor | None = None) -> None:
        super().__init__()
        self.frame, self.temporal = frame, temporal
        self.register_buffer("follows", follows)

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


class VideoProgram(nn.Module):
    """The features of a video [T, 2D], as `FrameClassifier.pooled` gives them, to class probabilities [T, C].

    Args:
        aligns: whether each feature is brought to mean 0 and deviation 1 over the video first, as `task.align` does.
    """

    def __init__(self, head: PhaseHead, aligns: bool) -> None:
        super().__init__()
        self.head, self.aligns = head, aligns

    def forward(self, pooled: Tensor) -> tuple[Tensor]:
        """See the class."""
        if self.aligns:
            wide = pooled.double()
            deviation = wide.std(0, correction=0)
            pooled = ((wide - wide.mean(0)) / torch.where(deviation > 0, deviation, 1.0)).float()
        frame, temporal = self.head.frame, self.head.temporal
        logits = frame(pooled) if temporal is None else temporal(frame.normed(pooled))[-1]
        return (logits.float().softmax(1),)
