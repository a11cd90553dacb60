"""Guides: what an archive knows of its frames for free (when, where, of whom), learnt beside a method's objective.

A guide is a small head on the student's class tokens of the two global views. Its loss enters the objective times
`weight`; on the way into the backbone its gradient is brought to `weight` times the size of the objective's there, as
FINO equalises them (Gardès et al. 2026, arXiv 2606.05107). An adversary's is reversed: the head learns to tell what
the backbone unlearns (Ganin & Lempitsky 2015, arXiv 1409.7495). Heads are part of a run's state and are not shipped.

Symbols: b images of a micro-batch, B of the global batch, D the backbone's width, 2 global views.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, get_type_hints

import numpy as np
import torch
from torch import Tensor, nn

from surgdino import discovery
from surgdino.config import typed
from surgdino.engine.methods.parts.views import Views, by_view
from surgdino.engine.processes import Pool, ProcessGroup
from surgdino.engine.settings import GuideSettings
from surgdino.errors import SurgdinoError

Facts = Mapping[str, np.ndarray]
_MEMORY = 0.9  # of the sizes of gradients, from one step to the next


@dataclass(frozen=True)
class Known:
    """What is known of the frames of a step, of which this micro-batch is a part.

    Attributes:
        facts: name -> [2, B], of the frames that the two global views were cut from; NaN and negative: not known.
        own: the b images of this micro-batch.
        pool: the rest of the batch.
    """

    facts: Mapping[str, Tensor]
    own: slice
    pool: Pool

    @property
    def places(self) -> int:
        """B / b: the micro-batches that the loop takes the mean over."""
        whole = next(iter(self.facts.values())).shape[1]
        return whole // (self.own.stop - self.own.start)

    def mean(self, values: Tensor, known: Tensor) -> Tensor:
        """Its mean over micro-batches is the mean over the frames of the step that something is known of; else 0.

        Args:
            values: [2, b], of this micro-batch; whatever they are where nothing is known.
            known: bool [2, B].
        """
        total = torch.where(known[:, self.own], values, 0.0).sum()
        return total * self.places / known.sum().clamp(min=1)

    def complete(self, name: str, own: Tensor) -> Tensor:
        """`own` [2, b, ...] among those of all images, [2, B, ...]; only `own` carries a gradient."""
        return replace(self.pool, share=self.places).complete(name, own)


class Guide(nn.Module):
    """One guide. A new one is one YAML, and one file with one subclass that annotates `settings` with a dataclass.

    Attributes:
        head: what reads the class tokens; None for a guide that has no loss of its own.
        couples: whether its loss compares images: it then completes `ahead`'s features under its own key.
    """

    settings: GuideSettings
    head: nn.Module | None
    couples = False

    def __init__(self, key: str, settings: GuideSettings) -> None:
        super().__init__()
        self.key, self.settings, self.head = key, settings, None

    @classmethod
    def reads(cls, settings: Any) -> tuple[str, ...]:
        """The facts that it needs of each frame."""
        raise NotImplementedError

    @property
    def reverses(self) -> bool:
        """Whether the backbone is to unlearn what the head learns."""
        return False

    def loss(self, cls: Tensor, known: Known) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of one micro-batch, and without gradient its terms: `""` the loss, and figures by name.

        As a method's: a term that couples images enters the loss times `known.places`.

        Args:
            cls: [2, b, D], fp32.
        """
        raise NotImplementedError

    def spreads(self, pool: Pool, known: Known) -> Pool:
        """The pool whose groups a method spreads out."""
        return pool


class Guides(nn.Module):
    """The guides of a run, by their key in the `guide` section.

    Attributes:
        sizes: [guides, 2], squared norms of the objective's and of a guide's gradient at the class tokens of the whole
            batch, running means over steps. The same sums in any layout, so the same factor; 0: not known yet.
    """

    sizes: Tensor

    def __init__(self, guides: Mapping[str, Guide]) -> None:
        super().__init__()
        self.guides = nn.ModuleDict(guides)
        self.register_buffer("sizes", torch.zeros(len(guides), 2))
        self.begin()

    @property
    def each(self) -> list[Guide]:
        """In their order."""
        return list(self.guides.values())  # type: ignore[arg-type]

    @property
    def couple(self) -> bool:
        """Whether any compares images."""
        return any(guide.couples for guide in self.each)

    def begin(self) -> None:
        """Before the passes of a step: no gradient has come through."""
        self._seen = torch.zeros_like(self.sizes)

    @torch.no_grad()
    def settle(self, processes: ProcessGroup) -> None:
        """After the passes of a step: what came through moves the sizes; for all processes to call.

        A guide that nothing was known for, and a step with a gradient that is not finite, leave them alone.
        """
        seen = processes.sum(self._seen) / processes.world**2  # each process's loss is a mean over its own share
        counts = (torch.isfinite(seen) & (seen > 0)).all(1, keepdim=True)
        self.sizes.copy_(torch.where(counts, seen.lerp(self.sizes, _MEMORY), self.sizes))

    def forward(self, cls: Tensor, views: Views, pool: Pool) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum of the weighted losses, and the terms of all, `guide_KEY` and `guide_KEY_FIGURE`.

        Args:
            cls: [2b, D], class tokens of the masked global views.
        """
        known, loss, terms = _known(views, pool), torch.zeros((), device=cls.device), dict[str, Tensor]()
        factors = torch.where(self.sizes[:, 1] > 0, (self.sizes[:, 0] / self.sizes[:, 1]).sqrt(), 0.0)
        for place, guide in enumerate(self.each):
            if guide.head is None:
                continue
            factor = factors[place] * (-guide.settings.weight if guide.reverses else guide.settings.weight)
            tokens = _Scaled.apply(cls, factor, self._seen[place, 1])
            with torch.autocast(cls.device.type, enabled=False):
                own, figures = guide.loss(by_view(tokens.float(), views.images), known)
            loss = loss + guide.settings.weight * own
            terms |= {f"guide_{guide.key}{figure and f'_{figure}'}": value for figure, value in figures.items()}
        return loss, terms

    def watched(self, tokens: Tensor, views: Views) -> Tensor:
        """The class tokens [(2 + L) b, D] as they are; the objective's gradient at the global ones is noted."""
        return _Watched.apply(tokens, self._seen, len(views.global_crops))

    def spreads(self, views: Views, pool: Pool) -> Pool:
        """What a method spreads out, as the guides have it."""
        for guide in self.each:
            pool = guide.spreads(pool, _known(views, pool))
        return pool

    def ahead(self, cls: Tensor, views: Views) -> dict[str, Tensor]:
        """What guides that compare images complete, by name, [2, b, ...]; `cls` as in `forward`."""
        with torch.autocast(cls.device.type, enabled=False):
            tokens = by_view(cls.float(), views.images)
            return {guide.key: guide.head(tokens) for guide in self.each if guide.couples and guide.head is not None}


def open_guides(section: Mapping[str, Mapping[str, Any]], embed_dim: int, facts: Facts) -> Guides | None:
    """The guides of a `guide` section, each with what it knows of the frames; None for an empty section.

    Raises:
        SurgdinoError: a setting that cannot be, or a guide without its information.
    """
    guides = {}
    for key, values in section.items():
        kind, settings = open_guide(key, values)
        guides[key] = kind(key, settings, embed_dim, facts)  # type: ignore[call-arg]
    return Guides(guides) if guides else None


def open_guide(key: str, values: Mapping[str, Any]) -> tuple[type[Guide], Any]:
    """The class that an entry of the `guide` section names, and its settings."""
    kind = discovery.defined(discovery.load("surgdino.engine.guides", str(values.get("name")), "guide"), Guide)
    return kind, typed(get_type_hints(kind)["settings"], values, f"guide.{key}")


def needed(section: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """The facts that the guides of a section read."""
    opened = (open_guide(key, values) for key, values in section.items())
    return {fact for kind, settings in opened for fact in kind.reads(settings)}


def fingerprint(section: Mapping[str, Mapping[str, Any]], facts: Facts) -> dict[str, Any]:
    """What a resumed run must have the same: settings, and what is known."""
    hashes = {name: hashlib.sha256(facts[name].tobytes()).hexdigest()[:16] for name in sorted(needed(section))}
    return {**section, "facts": hashes}


def nothing_known(key: str, expected: str, fix: str, found: str = "none") -> SurgdinoError:
    """A guide without its information."""
    return SurgdinoError(f"guide={key} has nothing to learn from", expected=expected, found=found, fix=fix)


def _known(views: Views, pool: Pool) -> Known:
    return Known(views.facts, slice(views.first, views.first + views.images), pool)


class _Scaled(torch.autograd.Function):
    """The identity; its gradient is noted and multiplied by a factor."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, factor: Tensor, seen: Tensor) -> Tensor:
        ctx.save_for_backward(factor)
        ctx.seen = seen
        return tokens.view_as(tokens)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (factor,) = ctx.saved_tensors
        ctx.seen.add_(grad.float().square().sum())
        return grad * factor.to(grad.dtype), None, None


class _Watched(torch.autograd.Function):
    """The identity; the gradient at the global views is noted for each guide."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, seen: Tensor, count: int) -> Tensor:
        ctx.seen, ctx.count = seen, count
        return tokens.view_as(tokens)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        ctx.seen[:, 0].add_(grad[: ctx.count].float().square().sum())
        return grad, None, None
