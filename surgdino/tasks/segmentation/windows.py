"""Pictures larger than the backbone's input: learned from random windows, answered window by window.

A window has the size that the backbone is given, so nothing is shrunk and fine structures keep their pixels.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from surgdino.frames.content import Content
from surgdino.tasks.training.cut import Cut, Cutter

# A window's side varies by this factor in training, since an organ's size on the screen does.
_ZOOM = 1.25


@dataclass
class WindowCutter(Cutter):
    """Cuts square windows of about `size` pixels anywhere in the stored frame; a smaller frame's shorter side at most.

    Attributes: see `Cutter`; `scale` and `ratio` aren't looked at.
    """

    def draw(self, height: int, width: int, content: Content, rng: random.Random) -> Cut:
        """Where the next window lies, uniformly over the frame."""
        side = min(round(self.size * math.exp(rng.uniform(-1, 1) * math.log(_ZOOM))), height, width)
        left, top = rng.randint(0, width - side), rng.randint(0, height - side)
        horizontal, vertical = (rng.random() < chance for chance in self._flips)
        return Cut((left, top, left + side, top + side), self.size, horizontal, vertical)


def window_logits(
    network: Callable[[Tensor], Tensor], image: Tensor, window: int, overlap: float, batch: int
) -> Tensor:
    """Logits of a whole picture from overlapping windows, those in the middle of a window counting more (MONAI).

    Args:
        network: normalised images [B, 3, window, window] -> logits [B, C, h, w].
        image: normalised [1, 3, H, W]; a smaller one is padded.
        window: side in pixels.
        overlap: share of a window that the next one covers again.
        batch: windows at a time.

    Returns:
        float32 [C, H, W].
    """
    from monai.inferers import sliding_window_inference  # takes seconds: only who has windows waits

    def answer(windows: Tensor) -> Tensor:
        return F.interpolate(network(windows).float(), size=(window, window), mode="bilinear", align_corners=False)

    with torch.no_grad():
        found = sliding_window_inference(image, (window, window), batch, answer, overlap=overlap, mode="gaussian")
    assert isinstance(found, Tensor)  # one output in, one out
    return found[0]
