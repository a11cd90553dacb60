"""The attentive probe: a query that learns which patches to pool, and a linear layer over it and the class token.

As V-JEPA (Bardes et al. 2024) and CAPI (Darcet et al. 2025) judge frozen backbones, with one attention and no MLP.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from surgdino.engine.probing.folds import as_targets
from surgdino.tasks.classifier.head import FrameClassifier
from surgdino.tasks.features.files import FeatureRows

_WEIGHT_DECAY, _CLIP = 0.01, 1.0
_ROWS = 256  # that are judged at a time

Judge = Callable[[np.ndarray], np.ndarray]  # rows [t] -> scores [t, classes]


@dataclass(frozen=True)
class Attention:
    """How it is fitted: AdamW with one cycle of the rate; `heads` must divide the backbone's width."""

    heads: Annotated[int, Field(ge=1, le=64)]
    steps: Annotated[int, Field(ge=1, le=10**6)]
    batch: Annotated[int, Field(ge=1, le=65_536)]
    lr: Annotated[float, Field(gt=0, le=10)]


def fit_attentive(
    cls: Tensor, patches: FeatureRows | np.ndarray, values: np.ndarray, train: np.ndarray, classes: int, how: Attention
) -> Judge:
    """Fit to the rows `train`; the same start and the same order for every backbone, whatever was drawn before.

    Args:
        cls: float32 [n, D], on the device that computes.
        patches: [n, N, D].
        values: class ids int [n], with which every class counts the same, or bool [n, classes].
    """
    targets, weight = as_targets(values[train], classes)
    truth = torch.from_numpy(targets).float().to(cls.device)
    weights = truth.new_ones(len(train)) if weight is None else torch.from_numpy(weight).to(truth)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = FrameClassifier(cls.shape[1], classes, tokens="attentive", pool_heads=how.heads).to(cls.device)
    optimizer = torch.optim.AdamW(head.parameters(), lr=how.lr, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, how.lr, how.steps)

    def logits(rows: np.ndarray) -> Tensor:
        of_patches = torch.from_numpy(patches[rows]).to(cls.device).float()
        return head(cls[torch.from_numpy(rows).to(cls.device)], of_patches)

    rng, order = np.random.default_rng(0), np.empty(0, np.int64)
    for _ in range(how.steps):
        if not len(order):
            order = rng.permutation(len(train))
        some, order = order[: how.batch], order[how.batch :]
        at = torch.from_numpy(some).to(cls.device)
        found = logits(train[some])
        if values.ndim > 1:
            loss = F.binary_cross_entropy_with_logits(found, truth[at], reduction="sum") / len(some)
        else:
            loss = (F.cross_entropy(found, truth[at], reduction="none") * weights[at]).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(head.parameters(), _CLIP)
        optimizer.step()
        schedule.step()

    @torch.no_grad()
    def judge(rows: np.ndarray) -> np.ndarray:
        starts = range(0, len(rows), _ROWS)
        return np.concatenate([logits(rows[start : start + _ROWS]).cpu().numpy() for start in starts])

    return judge
