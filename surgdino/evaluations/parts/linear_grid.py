"""Linear classifiers of frozen tokens with DINOv2's grid of learning rates and inputs, all fitted at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Those of DINOv2's linear evaluation, for a batch of 256.
RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1)
LAYERS = 4
_MOMENTUM, _BATCH, _INITIAL = 0.9, 256, 0.01
_AT_ONCE = 4096  # pictures that are scored at a time


@dataclass(frozen=True)
class Choice:
    """One of the grid: class tokens of the last `layers` blocks, the mean patch token beside them or not, a rate."""

    layers: int
    mean_patch: bool
    rate: float

    def columns(self, width: int, layers: int) -> slice:
        """Of tokens [n, width * (layers + 1)]: class tokens block by block, then the mean patch token."""
        return slice((layers - self.layers) * width, (layers + self.mean_patch) * width)


@dataclass(frozen=True)
class Steps:
    """How a grid is fitted: SGD with momentum, no decay, the rate down to 0 by a cosine.

    Attributes:
        epochs, steps: at most so many, whichever are fewer.
        batch: pictures of a step; all, where there are fewer.
    """

    epochs: int
    steps: int
    batch: int


def grid(layers: int) -> list[Choice]:
    """All choices of a backbone of which so many layers are read."""
    return [Choice(*each) for each in product(sorted({1, layers}), (False, True), RATES)]


class LinearGrid(nn.Module):
    """Classifiers of all choices, fitted in one pass: those that read the same tokens are one matrix.

    A choice's rate stands before its loss, which for SGD is the same as to step at that rate. No choice sees another.
    """

    def __init__(self, choices: Sequence[Choice], width: int, layers: int, classes: int) -> None:
        """Args:
        width, layers: of the tokens [n, width * (layers + 1)] that it is given.
        """
        super().__init__()
        self._classes, self.choices = classes, list[Choice]()
        generator, self._columns, parts = torch.Generator().manual_seed(0), list[slice](), list[nn.Module]()
        self._rates = list[list[float]]()
        for inputs in dict.fromkeys((each.layers, each.mean_patch) for each in choices):
            alike = [each for each in choices if (each.layers, each.mean_patch) == inputs]
            self.choices += alike
            columns = alike[0].columns(width, layers)
            linear = nn.Linear(columns.stop - columns.start, len(alike) * classes)
            nn.init.normal_(linear.weight, std=_INITIAL, generator=generator)
            nn.init.zeros_(linear.bias)
            parts.append(linear)
            self._columns.append(columns)
            self._rates.append([each.rate for each in alike])
        self._parts = nn.ModuleList(parts)

    def forward(self, tokens: Tensor) -> list[Tensor]:
        """[b, choices, classes] of each input, in the order of `choices`."""
        pairs = zip(self._parts, self._columns, strict=True)
        return [part(tokens[:, columns]).unflatten(1, (-1, self._classes)) for part, columns in pairs]

    def fit(self, tokens: Tensor, truth: Tensor, rows: Tensor, steps: Steps) -> None:
        """Fit all choices; the same pictures come in the same order.

        Args:
            tokens: float [n, ...], anywhere; batches of it go where the classifiers are.
            truth: int64 [n].
            rows: int64 [m], which of them teach.
        """
        device = next(self.parameters()).device
        batch = min(steps.batch, len(rows))
        count = min(steps.steps, max(1, steps.epochs * len(rows) // batch))
        rates = [torch.tensor(each, device=device) * batch / _BATCH for each in self._rates]
        optimizer = torch.optim.SGD(self.parameters(), lr=1.0, momentum=_MOMENTUM)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, count)
        generator, order = torch.Generator().manual_seed(0), torch.empty(0, dtype=torch.int64)
        for _ in range(count):
            if len(order) < batch:
                order = rows[torch.randperm(len(rows), generator=generator)]
            some, order = order[:batch], order[batch:]
            wanted, loss = truth[some].to(device), torch.zeros((), device=device)
            for logits, rate in zip(self(tokens[some].to(device)), rates, strict=True):
                each = F.cross_entropy(logits.transpose(1, 2), wanted[:, None].expand(-1, len(rate)), reduction="none")
                loss = loss + (each.mean(0) * rate).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()

    @torch.no_grad()
    def scores(self, tokens: Tensor, rows: Tensor) -> np.ndarray:
        """float32 [m, classes] of the only choice."""
        device = next(self.parameters()).device
        return np.concatenate([self(tokens[some].to(device))[0][:, 0].cpu().numpy() for some in rows.split(_AT_ONCE)])

    @torch.no_grad()
    def best(self, tokens: Tensor, truth: Tensor, rows: Tensor) -> Choice:
        """The choice that is right most often on these pictures; of equal ones that with the least cross-entropy."""
        device = next(self.parameters()).device
        right, loss = torch.zeros(2, len(self.choices), dtype=torch.float64, device=device)
        for some in rows.split(_AT_ONCE):
            wanted = truth[some].to(device)
            logits = torch.cat(self(tokens[some].to(device)), 1).transpose(0, 1)
            right += (logits.nan_to_num(-torch.inf).argmax(2) == wanted).sum(1)
            shares = logits.log_softmax(2)[:, torch.arange(len(wanted), device=device), wanted]
            loss -= shares.nan_to_num(-torch.inf).double().sum(1)
        places = range(len(self.choices))
        return self.choices[min(places, key=lambda place: (-int(right[place]), float(loss[place])))]
