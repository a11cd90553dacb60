"""Whether patch tokens know their place: the same tissue is found again in another crop of the frame."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from surgdino.engine.probing.frames import MaskLabels, ProbeFrames, even
from surgdino.engine.probing.measures import Finding, Measure, Probe
from surgdino.engine.probing.view import View

_FRAMES, _BATCH = 64, 32
# The crop's side as a share of the frame's, its corner in turn each of the frame's four.
_ZOOM = 0.75
_CORNERS = ((0.0, 0.0), (0.0, 1 - _ZOOM), (1 - _ZOOM, 0.0), (1 - _ZOOM, 1 - _ZOOM))


class Patches(Probe):
    """How many patches are found again in a crop of the frame."""

    order = 40
    measures: ClassVar = {"patch_matches": Measure("patches found again in another crop")}

    def dense(self, frames: ProbeFrames, masks: MaskLabels | None) -> np.ndarray:
        """64 of the tested frames."""
        return even(np.flatnonzero(frames.tested), _FRAMES)

    def find(self, view: View) -> Iterator[Finding]:
        """Share of a crop's patches whose nearest patch (cosine) of the whole frame is at most one patch off.

        The crop is three quarters of the frame wide and high and enlarged to the same size: a position embedding alone
        points to the wrong patches.
        """
        rows = self.dense(view.frames, None)
        shares = []
        for start in range(0, len(rows), _BATCH):
            places = range(start, min(start + _BATCH, len(rows)))
            crops = [crop(view.pictures[rows[place]], _CORNERS[place % 4]) for place in places]
            tokens = view.features.encode(crops)
            whole = view.features.patches_of(rows[list(places)]).float()
            for place, ours, theirs in zip(places, tokens, whole, strict=True):
                shares.append(share_found(ours, theirs, view.grid, _CORNERS[place % 4]))
        found = torch.stack(shares).cpu().double().numpy() if shares else np.empty(0)
        values = {op: float(found[np.isin(rows, at)].mean()) for op, at in view.frames.of(rows).items()}
        if values:
            yield Finding.over("patch_matches", values, len(rows))


def crop(picture: np.ndarray, corner: tuple[float, float]) -> np.ndarray:
    """The crop whose upper left corner is at (row, column), as shares of the frame, enlarged to the frame's size."""
    height, width = picture.shape[:2]
    top, left = round(corner[0] * height), round(corner[1] * width)
    cut = picture[top : top + round(_ZOOM * height), left : left + round(_ZOOM * width)]
    return cv2.resize(cut, (width, height), interpolation=cv2.INTER_CUBIC)


def share_found(tokens: Tensor, whole: Tensor, grid: tuple[int, int], corner: tuple[float, float]) -> Tensor:
    """Of the crop's patch tokens [N, D], those whose nearest of the whole frame's [N, D] is in the right place."""
    similarity = F.normalize(tokens, dim=-1) @ F.normalize(whole, dim=-1).T
    nearest = similarity.argmax(1)
    sides = (torch.arange(side, device=nearest.device) for side in grid)
    rows, columns = torch.meshgrid(*sides, indexing="ij")
    expected = [
        share * side + _ZOOM * (index.flatten() + 0.5) - 0.5
        for share, side, index in zip(corner, grid, (rows, columns), strict=True)
    ]
    apart = torch.stack([nearest // grid[1] - expected[0], nearest % grid[1] - expected[1]]).abs()
    return (apart.amax(0) <= 1).float().mean()
