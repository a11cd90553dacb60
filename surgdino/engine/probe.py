"""What the backbone's features are worth, on the same few frames from step 0 to the end. No labels, no training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from surgdino.backbone.preprocess import Preprocess
from surgdino.backbone.vit import Backbone

if TYPE_CHECKING:
    from surgdino.frames.store import FrameStore

NEIGHBOURS = 5
GAP_SECONDS = 10.0
_BATCH = 32


@dataclass(frozen=True)
class ProbeReport:
    """One measurement.

    Attributes:
        effective_rank: (RankMe) of the class tokens.
        operation_knn: mean share of a frame's 5 nearest neighbours (cosine) that show the same operation; frames of the
            same video within 10 s, or a quarter of a short video's length, do not count as neighbours. NaN where there
            is one operation only.
        operation_chance: the same share if neighbours were drawn blindly.
        drift: mean cosine between a frame's class token now and at step 0.
    """

    effective_rank: float
    operation_knn: float
    operation_chance: float
    drift: float

    def as_dict(self) -> dict[str, float]:
        """Plain numbers, for the log and the result."""
        return asdict(self)


class Probe:
    """A fixed set of whole frames, evenly spread over the store, and their class tokens at step 0.

    Frames are kept as uint8 in memory (256 frames at 224 px: 39 MB), since reading them again would cost more than the
    forward pass.
    """

    def __init__(self, store: FrameStore, count: int, preprocess: Preprocess) -> None:
        self.index = np.unique(np.linspace(0, len(store) - 1, min(count, len(store))).astype(int))
        self._preprocess = preprocess
        self._images: list[np.ndarray] | None = None
        self._store = store
        self.neighbours_allowed = _allowed(store, self.index)
        operations = np.array([store.operation(int(i)) for i in self.index])
        self.same_operation = torch.from_numpy(operations[:, None] == operations[None, :])
        self.reference: Tensor | None = None

    def measure(self, backbone: Backbone, autocast: Callable) -> ProbeReport:
        """Measure `backbone`; its first measurement becomes the reference for `drift`."""
        features = self._features(backbone, autocast)
        if self.reference is None:
            self.reference = features
        knn, chance = self._operation_knn(features)
        drift = F.cosine_similarity(features, self.reference).mean().item()
        return ProbeReport(float(effective_rank(features)), knn, chance, drift)

    @torch.no_grad()
    def _features(self, backbone: Backbone, autocast: Callable) -> Tensor:
        device = backbone.mask_token.device
        was_training = backbone.training
        backbone.eval()
        images = self._resized()
        with autocast():
            batches = [images[i : i + _BATCH] for i in range(0, len(images), _BATCH)]
            features = [backbone(self._preprocess(batch).to(device)).cls.float().cpu() for batch in batches]
        backbone.train(was_training)
        return torch.cat(features)

    def _resized(self) -> list[np.ndarray]:
        if self._images is None:
            side = (self._preprocess.image_size,) * 2
            frames = (self._store.read(int(i)) for i in self.index)
            self._images = [cv2.resize(frame, side, interpolation=cv2.INTER_AREA) for frame in frames]
        return self._images

    def _operation_knn(self, features: Tensor) -> tuple[float, float]:
        if bool(self.same_operation.all()) or not bool(self.neighbours_allowed.any()):
            return float("nan"), float("nan")
        allowed = self.neighbours_allowed
        unit = F.normalize(features, dim=-1)
        similarity = (unit @ unit.T).masked_fill(~allowed, -torch.inf)
        nearest = similarity.topk(min(NEIGHBOURS, len(unit) - 1), dim=1)
        counts = torch.isfinite(nearest.values)
        hits = self.same_operation.gather(1, nearest.indices) & counts
        chance = (self.same_operation & allowed).sum(1) / allowed.sum(1).clamp(min=1)
        return float(hits.sum() / counts.sum()), float(chance.mean())


def effective_rank(features: Tensor) -> Tensor:
    """RankMe (Garrido et al. 2023, eq. 1): exp of the entropy of the singular values' shares; [n, D] -> scalar.

    NaN where a feature is not finite.
    """
    if not torch.isfinite(features).all():
        return torch.tensor(torch.nan)
    values = torch.linalg.svdvals(features.float())
    shares = values / values.sum().clamp(min=1e-12) + 1e-7
    return torch.exp(-(shares * shares.log()).sum())


def _allowed(store: FrameStore, index: np.ndarray) -> Tensor:
    """[n, n], False between frames of the same moment of the same video."""
    videos = np.array([store.video_id(int(i)) for i in index])
    times = np.array([store.time(int(i)) for i in index])
    gap = np.empty(len(index))
    for video in np.unique(videos):
        of_it = videos == video
        gap[of_it] = min(GAP_SECONDS, np.ptp(times[of_it]) / 4)
    same_video = videos[:, None] == videos[None, :]
    return torch.from_numpy(~(same_video & (np.abs(times[:, None] - times[None, :]) <= gap[:, None])))
