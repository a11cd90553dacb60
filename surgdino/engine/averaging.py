"""Averages of weights: of several adapted backbones, and of these with the one they began from.

Interpolating between initial and adapted weights keeps much of what either knows (WiSE-FT, Wortsman et al. 2022, arXiv
2109.01903), and so does averaging several runs from one start (model soups, Wortsman et al. 2022, arXiv 2203.05482).
Both need weights of one lineage: where the adapted ones did not begin from the initial ones, their average is noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from surgdino.backbone.vit import Backbone
from surgdino.errors import SurgdinoError

State = Mapping[str, Tensor]
# Measures a backbone: named numbers, of which `score` is to be maximised.
Measure = Callable[[Backbone], Mapping[str, float]]


def mean_of(states: Sequence[State]) -> dict[str, Tensor]:
    """The mean of state dicts with the same entries; of a single one, its very values."""
    if len(states) == 1:
        return dict(states[0])
    return {
        name: torch.stack([state[name].double() for state in states]).mean(0).to(tensor.dtype)
        for name, tensor in states[0].items()
    }


def between(initial: State, adapted: State, alpha: float) -> dict[str, Tensor]:
    """(1 - alpha) initial + alpha adapted; at 0 and at 1 the very values of either."""
    if alpha in (0.0, 1.0):
        return dict(adapted if alpha else initial)
    return {
        name: torch.lerp(initial[name].double(), tensor.double(), alpha).to(tensor.dtype)
        for name, tensor in adapted.items()
    }


@dataclass(frozen=True)
class Trial:
    """One share of the adapted weights, and what was measured with it."""

    alpha: float
    measured: Mapping[str, float]

    @property
    def score(self) -> float:
        """The number to maximise; NaN where it could not be measured."""
        return self.measured["score"]


def sweep(
    backbone: Backbone, initial: State, adapted: State, alphas: Sequence[float], measure: Measure
) -> Iterator[Trial]:
    """Measure the average at each of `alphas`, in their order.

    Args:
        backbone: is overwritten.
        initial, adapted: state dicts of its `.vit`.
    """
    for alpha in alphas:
        backbone.vit.load_state_dict(between(initial, adapted, alpha))
        yield Trial(alpha, dict(measure(backbone)))


def best(trials: Sequence[Trial]) -> Trial:
    """The highest score; of equal ones that nearest to the initial weights."""
    scored = [trial for trial in trials if not math.isnan(trial.score)]
    if not scored:
        raise SurgdinoError(
            "nothing to choose by: the probe has no score on these frames",
            fix="measure on more frames or operations, or give alpha=0.5 instead of sweep",
        )
    return max(scored, key=lambda trial: (trial.score, -trial.alpha))
