"""What the checkpoint has seen, and what it may therefore not be tested on: a row a test, a column a training."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from surgdino.datasets.files import DRAWN
from surgdino.datasets.overlap import PublishedTest, has_public_id, published_tests
from surgdino.report.blocks import Block, Code, Paragraph, Table
from surgdino.report.record import RunRecord
from surgdino.report.sections import Section
from surgdino.wording import capital

_DISJOINT, _UNKNOWN = "✓ disjoint", "? not known"  # signs with words: no colour is needed
_TONES = {"✗": "worse", "?": "open"}


@dataclass(frozen=True)
class Source:
    """Data that a training behind the checkpoint has seen.

    Attributes:
        name: its dataset.
        operations: their names.
        how: `pretrain, trained on`, say, of each training that saw them.
        known: what the leak guard says of them begins with one of these.
    """

    name: str
    operations: frozenset[str]
    how: tuple[str, ...]
    known: tuple[str, ...]

    @property
    def head(self) -> str:
        """The column's heading."""
        count = len(self.operations)
        return f"{self.name}, {count} operation{'' if count == 1 else 's'}: {'; '.join(self.how)}"

    def cells(self) -> list[str]:
        """Against every published test set, in the order of `published_tests`."""
        if not any(map(has_public_id, self.operations)):
            drawn = all(operation.startswith(f"{DRAWN}/") for operation in self.operations)
            return [_DISJOINT if drawn else _UNKNOWN] * len(published_tests(frozenset()))
        return [_cell(test) for test in published_tests(self.operations)]


class Seen(Section):
    """The operations of model.json against every dataset card; left out where no checkpoint was written."""

    id, title, order = "seen", "Operations seen, and what they leak into", 50

    def of_run(self, record: RunRecord) -> list[Block]:
        """The run's own test and the published ones that are touched, then the list of all that it has seen."""
        seen = record.model.get("operations")
        if seen is None:
            return []
        leakage = (record.results or {}).get("leakage") or {}
        blocks: list[Block] = [Paragraph(f"{each}.") for each in leakage.get("apart", ())]
        summary = f"the {len(seen)} operations that this checkpoint has seen, initial weights included"
        listed = Code("\n".join(seen), summary=summary)
        tests, sources = published_tests(frozenset(seen)), _sources(record.model)
        touched, unknown = sum(bool(each.shared) for each in tests), sum(each.shared is None for each in tests)
        if touched or unknown:
            text = (
                f"A backbone must not be tested on operations it was trained on. It has seen operations of {touched} "
                f"of {len(tests)} published test sets. surgdino refuses to test on these unless leakage=allow is "
                "given, which stamps the result."
            )
            text += f" Of {unknown} more nobody knows whether it has seen their operations." if unknown else ""
        else:
            text = "No published test set that surgdino knows shares an operation with it."
        own = [source.name for source in sources if not any(map(has_public_id, source.operations))]
        if own and not all(operation.startswith(f"{DRAWN}/") for operation in seen):
            text += f" Operations of {', '.join(own)} have no public names: only a test of their frames tells."
        table = _matrix(leakage, tests, sources, record.model.get("history_unknown") or ())
        return [*blocks, Paragraph(text), *([table] if table else []), listed]


def _matrix(
    leakage: Mapping[str, Any], tests: list[PublishedTest], sources: list[Source], history: tuple[str, ...]
) -> Table | None:
    columns = [source.cells() for source in sources]
    rows = []
    if tested := leakage.get("tested_on"):
        name = re.sub(r"\{.*\}", "own split", tested)  # an inline split may be long
        rows.append([f"this run's test: {name}", str(leakage.get("tested_operations") or ""), *_own(leakage, sources)])
    strong = frozenset(range(len(rows)))
    for place, test in enumerate(tests):
        if test.shared != 0:
            rows.append([f"{test.dataset} {test.split}", str(test.tested), *(column[place] for column in columns)])
    if not rows:
        return None
    heads = ["tested on", "operations", *(source.head for source in sources)]
    if history:
        heads, rows = [*heads, "the weights before"], [[*row, _UNKNOWN] for row in rows]
    tones = {
        (row, column): _TONES[cell[0]]
        for row, cells in enumerate(rows)
        for column, cell in enumerate(cells[2:], 2)
        if cell[0] in _TONES
    }
    apart = sum(test.shared == 0 for test in tests)
    caption = "✓ disjoint: no operation in common; ✗ shared: so many of those tested were seen; ? nobody knows."
    caption += f" {apart} more published test sets share none with any of these." if apart else ""
    return Table(
        heads, rows, " ".join([caption, *(f"{capital(each)}." for each in history)]), frozenset({1}), strong, tones
    )


def _own(leakage: Mapping[str, Any], sources: list[Source]) -> list[str]:
    """What the leak guard found of each source, by name and by content."""
    told = leakage.get("seen_operations") or {}
    cells = []
    for source in sources:
        shared = sum(any(line.startswith(source.known) for line in lines) for lines in told.values())
        cells.append(f"✗ shared {shared} of {leakage.get('tested_operations')}" if shared else _DISJOINT)
    return cells


def _cell(test: PublishedTest) -> str:
    if test.shared is None:
        return _UNKNOWN
    return f"✗ shared {test.shared} of {test.tested}" if test.shared else _DISJOINT


def _sources(model: Mapping[str, Any]) -> list[Source]:
    """The trainings of model.json, those of the same operations together; of earlier versions, all in one."""
    rows: dict[tuple[str, frozenset[str]], list[Mapping[str, Any]]] = {}
    for row in model.get("seen") or ():
        rows.setdefault((row["dataset"] or "unnamed data", frozenset(row["operations"])), []).append(row)
    if not rows and model.get("operations"):
        return [Source(model.get("dataset") or "all", frozenset(model["operations"]), ("seen",), ("",))]
    return [
        Source(
            name,
            operations,
            tuple(dict.fromkeys(f"{row['by']}, {row['how']}" for row in each)),
            tuple(f"{row['by']}, {row['how']} {_where(row)}" for row in each),
        )
        for (name, operations), each in rows.items()
    ]


def _where(row: Mapping[str, Any]) -> str:
    return " ".join(filter(None, (row["dataset"], row["split"], row["part"]))) or "unnamed data"
