"""What a probe loses at another tower or hospital: taught there, against as many operations of the tested one's own"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from surgdino.config import Names, Text
from surgdino.engine.probing.folds import as_targets, fit_linear
from surgdino.errors import SurgdinoError, nearest
from surgdino.evaluations.parts.evaluation import Evaluation
from surgdino.evaluations.parts.given import Given
from surgdino.evaluations.parts.outcome import Outcome, merit
from surgdino.metrics.arrays import nanmean


@dataclass(frozen=True)
class ShiftSettings:
    """Between which sites.

    Attributes:
        labels: kinds that it is tried with, each by itself.
        column: of `data.table`; operations of one value are of one site.
        choices: of the operations of a site that teach, averaged; at least two, so that each is tested by others.
    """

    labels: Names
    column: Text
    choices: Annotated[int, Field(ge=2, le=100)]


class Shift(Evaluation[ShiftSettings]):
    """Balanced accuracy, or mean average precision where a frame may have many classes: of operations taught by others
    of their own site, by as many of another site (the mean over these), and the difference.

    Half as many teach as the smallest site has. Sites of a single operation are left out. Without a table there is
    nothing to find.
    """

    Settings = ShiftSettings
    tabled: ClassVar = True

    def labels(self) -> tuple[str, ...]:
        return self.settings.labels

    def outcomes(self, given: Given) -> Iterator[Outcome]:
        if not given.columns:
            return
        site_of = self._sites(given)
        tokens, values = given.tokens("class+mean"), given.values
        tested = given.of_operations(np.flatnonzero(given.tested))
        own: dict[str, list[float]] = {}
        other: dict[str, dict[str, list[float]]] = {}
        count, teachers = self._teachers(given, site_of)
        for site, chosen in teachers:
            taught = np.flatnonzero(given.learns & np.isin(given.operations, chosen))
            predict = fit_linear(tokens[taught], *as_targets(values[taught], len(given.classes)))
            for operation, rows in tested.items():
                if operation in chosen or operation not in site_of:
                    continue
                found = merit(values[rows], predict(tokens[rows]))
                if site_of[operation] == site:
                    own.setdefault(operation, []).append(found)
                else:
                    other.setdefault(operation, {}).setdefault(site, []).append(found)
        both = sorted(own.keys() & other.keys())
        if not both:
            what, expected = "no operation is tested by its own site and by another", "tested operations of two sites"
            raise SurgdinoError(what, expected=expected, found=f"{len(tested)} tested operations")
        at_home = {op: float(nanmean(np.array(own[op]))) for op in both}
        away = {op: float(np.mean([nanmean(np.array(each)) for each in other[op].values()])) for op in both}
        name = "balanced accuracy" if values.ndim == 1 else "mean average precision"
        by = f"{count} operation{'s' * (count > 1)}"
        yield Outcome.mean(f"{name}, taught by {by} of the own {self.settings.column}", at_home)
        yield Outcome.mean(f"{name}, taught by {by} of another {self.settings.column}", away)
        lost = {op: at_home[op] - away[op] for op in both}
        yield Outcome.mean(f"lost at another {self.settings.column}", lost, "lower", percent=False)

    def _sites(self, given: Given) -> Mapping[str, str]:
        """Operation -> its site, of those that the frames show."""
        column = self.settings.column
        if column not in given.columns:
            raise SurgdinoError(f"data.table has no column {column!r}", fix=nearest(column, given.columns))
        here = set(given.operations.tolist())
        return {operation: site for operation, site in given.columns[column].items() if operation in here}

    def _teachers(self, given: Given, site_of: Mapping[str, str]) -> tuple[int, list[tuple[str, list[str]]]]:
        """How many teach, and (site, operations) of each choice: evenly around a circle of the site's operations, so
        that none teaches in all of them."""
        learns = set(given.operations[given.learns].tolist())
        by_site: dict[str, list[str]] = {}
        for operation in sorted(learns & site_of.keys(), key=lambda name: hashlib.sha256(name.encode()).hexdigest()):
            by_site.setdefault(site_of[operation], []).append(operation)
        large = {site: each for site, each in sorted(by_site.items()) if len(each) > 1}
        if len(large) < 2:
            what, expected = f"too few operations of each {self.settings.column}", "two values with two operations each"
            counts = ", ".join(str(len(each)) for each in by_site.values()) or "none"
            raise SurgdinoError(what, expected=expected, found=f"operations of each: {counts}")
        count = min(map(len, large.values())) // 2
        choices = []
        for site, each in large.items():
            many = min(self.settings.choices, len(each))
            starts = [place * len(each) // many for place in range(many)]
            choices += [(site, [each[(start + k) % len(each)] for k in range(count)]) for start in starts]
        return count, choices
