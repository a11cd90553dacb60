"""Whether a frame's nearest neighbours show the same operation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from surgdino.engine.probing.frames import ProbeFrames
from surgdino.engine.probing.measures import Finding, Measure, Probe
from surgdino.engine.probing.view import View
from surgdino.transfers import uploaded

NEIGHBOURS, GAP_SECONDS = 5, 10.0


class Operations(Probe):
    """How many of the nearest neighbours show the same operation."""

    order = 50
    # It also falls where features learn what operations have in common: only a large fall is warned of.
    measures: ClassVar = {
        "operation_knn": Measure("neighbours from the same operation", margin=0.2, relative=True),
        "operation_chance": Measure("neighbours from the same operation, by chance", margin=None),
    }

    def find(self, view: View) -> Iterator[Finding]:
        """Mean share of a frame's 5 nearest neighbours (cosine) of its own operation, and that of random neighbours.

        Frames of the same video within 10 s, or a quarter of a short video's length, do not count as neighbours.
        Nothing where there is one operation only, or none of which more than one moment was chosen.
        """
        frames = view.tested_frames
        allowed = different_moments(frames)
        same = torch.from_numpy(frames.operations[:, None] == frames.operations[None, :])
        if bool(same.all()) or not bool((same & allowed).any()):
            return
        allowed, same = (uploaded(each, view.cls.device) for each in (allowed, same))
        unit = F.normalize(view.cls, dim=-1)
        nearest = (unit @ unit.T).masked_fill(~allowed, -torch.inf).topk(min(NEIGHBOURS, len(unit) - 1), dim=1)
        counts = torch.isfinite(nearest.values)
        hits = same.gather(1, nearest.indices) & counts
        chance = (same & allowed).sum(1) / allowed.sum(1).clamp(min=1)
        found = torch.stack([hits.sum() / counts.sum().clamp(min=1), chance.mean()]).cpu().tolist()
        for name, value in zip(self.measures, found, strict=True):
            yield Finding(name, value, frames=len(unit))


def different_moments(frames: ProbeFrames) -> Tensor:
    """bool [n, n], False between frames of the same moment of the same video."""
    gap = np.empty(len(frames))
    for video in np.unique(frames.videos):
        of_it = frames.videos == video
        gap[of_it] = min(GAP_SECONDS, np.ptp(frames.times[of_it]) / 4)
    same_video = frames.videos[:, None] == frames.videos[None, :]
    apart = np.abs(frames.times[:, None] - frames.times[None, :])
    return torch.from_numpy(~(same_video & (apart <= gap[:, None])))
