"""How far the features have moved from those that the run began with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from surgdino.engine.probing.measures import Finding, Measure, Probe
from surgdino.engine.probing.view import View


class Drift(Probe):
    """The likeness of the features to those at step 0."""

    order = 70
    # Neither is judged: to adapt is to move. Near 0 little is left of the initial checkpoint.
    measures: ClassVar = {
        "cka_cls": Measure("likeness to step 0 of class tokens (CKA)", percent=False, margin=None),
        "cka_patches": Measure("likeness to step 0 of mean patch tokens (CKA)", percent=False, margin=None),
    }

    def find(self, view: View) -> Iterator[Finding]:
        """Both, on the tested frames; 1 at step 0."""
        cls, mean_patches = view.reference
        found = torch.stack([_cka(view.cls, cls), _cka(view.mean_patches, mean_patches)]).cpu().tolist()
        for name, value in zip(self.measures, found, strict=True):
            yield Finding(name, value, frames=len(cls))


def linear_cka(first: Tensor, second: Tensor) -> float:
    """Linear centred kernel alignment of the same n frames: [n, D] and [n, D'] -> a number in [0, 1].

    Kornblith et al. 2019 (arXiv 1905.00414), section 3: ||Y'X||_F^2 / (||X'X||_F ||Y'Y||_F) with centred columns, here
    through the n x n Gram matrices, which is the same. It does not change with a rotation or a scale of the features.
    Features that have nothing in common come near 0 only where n is well above D.
    """
    return float(_cka(first, second))


def _cka(first: Tensor, second: Tensor) -> Tensor:
    x, y = (features.double() - features.double().mean(0) for features in (first, second))
    gram_x, gram_y = x @ x.T, y @ y.T
    return (gram_x * gram_y).sum() / (gram_x.norm() * gram_y.norm()).clamp(min=1e-24)
