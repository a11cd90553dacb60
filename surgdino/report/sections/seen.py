"""What the checkpoint has seen, and which published test sets it may therefore not be tested on."""

from __future__ import annotations

from surgdino.datasets.overlap import UNKNOWN, published_tests
from surgdino.report.blocks import Block, Code, Paragraph, Table
from surgdino.report.record import RunRecord
from surgdino.report.sections import Section


class Seen(Section):
    """The operations of model.json against every dataset card; left out where no checkpoint was written."""

    id, title, order = "seen", "Operations seen, and what they leak into", 50

    def of_run(self, record: RunRecord) -> list[Block]:
        """Published test sets with the operations they share with the run, then the list of all that it has seen."""
        seen = record.model.get("operations")
        if seen is None:
            return []
        apart = [Paragraph(f"{each}.") for each in ((record.results or {}).get("leakage") or {}).get("apart", ())]
        summary = f"the {len(seen)} operations that this checkpoint has seen, initial weights included"
        listed = Code("\n".join(seen), summary=summary)
        tests = published_tests(frozenset(seen))
        touched, unknown = sum(bool(each.shared) for each in tests), sum(each.shared is None for each in tests)
        if not touched and not unknown:
            return [*apart, Paragraph("No published test set that surgdino knows shares an operation with it."), listed]
        text = (
            f"A backbone must not be tested on operations it was trained on. It has seen operations of {touched} of "
            f"{len(tests)} published test sets. surgdino refuses to test on these unless leakage=allow is given, which "
            "stamps the result."
        )
        if unknown:
            text += f" Of {unknown} more nobody knows whether it has seen their operations."
        shared = [UNKNOWN if each.shared is None else str(each.shared) for each in tests]
        rows = [[t.dataset, t.split, count, str(t.tested)] for t, count in zip(tests, shared, strict=True)]
        tones = {(place, 2): "worse" for place, count in enumerate(shared) if count != "0"}
        table = Table(("tested on", "split", "shared", "of"), rows, numeric=frozenset({2, 3}), tones=tones)
        return [*apart, Paragraph(text), table, listed]
