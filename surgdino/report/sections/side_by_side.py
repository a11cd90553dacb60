"""Two runs measure by measure: the value of each, and their difference over the operations that both have."""

from __future__ import annotations

from collections.abc import Sequence

from surgdino.report.blocks import Block
from surgdino.report.evidence import between_runs
from surgdino.report.record import RunRecord
from surgdino.report.sections import Section
from surgdino.report.sections.before_after import changes_shown


class SideBySide(Section):
    """Measures of fine-tuned runs by protocol, then the last probes; left out for one run."""

    id, title, order = "side-by-side", "Side by side", 3

    def blocks(self, records: Sequence[RunRecord]) -> list[Block]:
        """The second run against the first."""
        if len(records) != 2:
            return []
        first, second = records
        found = between_runs(first, second)
        title = f"{second.name} against {first.name}"
        return changes_shown(found, title, (first.name, second.name)) if found else []
