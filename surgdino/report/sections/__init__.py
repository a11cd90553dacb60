"""The sections of the report, one file each, found by file name: each file defines one subclass of `Section`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from surgdino import discovery
from surgdino.report.blocks import Block, Heading
from surgdino.report.record import RunRecord


class Section:
    """A part of the page about one run, or about two side by side. A section without blocks is left out.

    Attributes:
        id: the anchor to link to.
        title: its heading.
        order: its place on the page, ascending.
    """

    id: str
    title: str
    order: int

    def blocks(self, records: Sequence[RunRecord]) -> list[Block]:
        """The section's content; by default what it says of each run."""
        return run_by_run(records, self.of_run)

    def of_run(self, record: RunRecord) -> list[Block]:
        """What the section says of one run."""
        return []


def run_by_run(records: Sequence[RunRecord], of_run: Callable[[RunRecord], list[Block]]) -> list[Block]:
    """What there is to say of each run, under its name where there are two."""
    blocks: list[Block] = []
    for record in records:
        own = of_run(record)
        blocks += [Heading(record.name), *own] if own and len(records) > 1 else own
    return blocks


def all_sections() -> list[Section]:
    """One of every section in this folder, or in `sections/` of an extension."""
    for name in discovery.names(__name__):
        discovery.load(__name__, name, "section")
    return [kind() for kind in Section.__subclasses__() if kind.__module__.startswith(f"{__name__}.")]
