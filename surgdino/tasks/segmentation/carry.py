"""What patches of some frames say of another, by their likeness: masks carried through a video without training.

After DINO's script (Caron et al. 2021, section 4.2.2, from Jabri et al. 2020).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from surgdino.tasks.context import TaskContext
from surgdino.tasks.labelled_frames import LabelledFrames

_BEFORE, _APART = 4, 2.0  # earlier frames that are looked at, and seconds after which one is forgotten
_RADIUS, _NEIGHBOURS, _TEMPERATURE = 4, 5, 0.1
_WEIGHT = 0.5  # of what earlier frames say


@dataclass(frozen=True)
class Reach:
    """Which patches of a frame may vote on one: a window of columns and which of it are too far, row by row.

    Attributes:
        radius: in patches.
        columns: int64 [w, m] of each column's window.
        outside: bool [w, 2 * radius + 1, m]: those too far, by the rows from `radius` above to `radius` below.
    """

    radius: int
    columns: Tensor
    outside: Tensor

    @classmethod
    def of(cls, width: int, radius: int, disc: bool, device: torch.device) -> Reach:
        """That of a grid of that many columns: a disc, or a square."""
        column = torch.arange(width, device=device)[:, None]
        window = min(2 * radius + 1, width)
        columns = (column - radius).clamp(0, width - window) + torch.arange(window, device=device)
        aside = (columns - column)[:, None]
        if disc:
            above = torch.arange(-radius, radius + 1, device=device)[None, :, None]
            return cls(radius, columns, aside**2 + above**2 > radius**2)
        return cls(radius, columns, (aside.abs() > radius).expand(-1, 2 * radius + 1, -1))


def carry(target: Tensor, context: Tensor, labels: Tensor, reach: Reach, neighbours: int, temperature: float) -> Tensor:
    """Labels for a frame, from the patches of others that are most like its own: float32 [h, w, k].

    It goes row by row: what is held is [w, rows * c * w], and not all patches by all patches.

    Args:
        target: float32 [h, w, D], of unit length.
        context: float32 [h, c, w, D], of c frames.
        labels: float32 [h, c, w, k], of their patches.
        neighbours: that vote.
        temperature: of the softmax over their cosines.
    """
    height, _, width, _ = context.shape
    carried = labels.new_empty(height, width, labels.shape[-1])
    window, radius = reach.columns.shape[1], reach.radius
    for y in range(height):
        top, bottom = max(y - radius, 0), min(y + radius + 1, height)
        near, of_near = context[top:bottom].flatten(0, 1), labels[top:bottom].flatten(0, 1)  # [rows * c, w, ...]
        likeness = (target[y] @ near.flatten(0, 1).T).view(width, len(near), width)
        likeness = likeness.gather(2, reach.columns[:, None].expand(-1, len(near), -1))
        outside = reach.outside[:, top - y + radius : bottom - y + radius, None]
        likeness = likeness.view(width, bottom - top, -1, window).masked_fill_(outside, -torch.inf).flatten(1)
        votes, where = likeness.topk(min(neighbours, likeness.shape[1]))
        voters = of_near[where // window, reach.columns.gather(1, where % window)]  # [w, neighbours, k]
        carried[y] = ((votes / temperature).softmax(1)[..., None] * voters).sum(1)
    return carried


class Smoother:
    """Probabilities of a video's frames, each drawn towards what those before it say of its patches.

    The detail of a frame's own prediction stays: what is added is half the difference, patch by patch, between what is
    carried on and what the frame says itself.
    """

    def __init__(self, context: TaskContext, frames: LabelledFrames) -> None:
        self.context, self.frames = context, frames
        self.video, self.before = -1, deque[tuple[float, Tensor, Tensor]](maxlen=_BEFORE)

    def __call__(self, row: int, probabilities: np.ndarray) -> np.ndarray:
        """float32 [planes, H, W] of frame `row`, from its own; frames come in their order.

        Args:
            probabilities: float32 [planes, H, W], of the stored part.
        """
        time, video = float(self.frames.times[row]), int(self.frames.video_of[row])
        if video != self.video:
            self.video = video
            self.before.clear()
        while self.before and time - self.before[0][0] > _APART:
            self.before.popleft()
        patches = self._patches(row)
        side = self.context.grid
        small = np.stack([cv2.resize(each, (side, side), interpolation=cv2.INTER_AREA) for each in probabilities])
        own = torch.from_numpy(small).permute(1, 2, 0).to(patches)
        said = own
        if self.before:
            reach = Reach.of(side, _RADIUS, True, patches.device)
            seen, labels = (torch.stack(each, 1) for each in zip(*((a, b) for _, a, b in self.before), strict=True))
            said = own + _WEIGHT * (carry(patches, seen, labels, reach, _NEIGHBOURS, _TEMPERATURE) - own)
        self.before.append((time, patches, said))
        change = (said - own).permute(2, 0, 1).cpu().numpy()
        size = probabilities.shape[2], probabilities.shape[1]
        return probabilities + np.stack([cv2.resize(each, size, interpolation=cv2.INTER_LINEAR) for each in change])

    def _patches(self, row: int) -> Tensor:
        """float32 [h, w, D], of unit length, of the whole stored frame."""
        context = self.context
        image = context.preprocess.resize(self.frames.store.read(int(self.frames.index[row])))
        patches = context.features.dense(torch.from_numpy(image).permute(2, 0, 1)[None])[0]
        return F.normalize(patches.float(), dim=-1).unflatten(0, (context.grid, context.grid))
