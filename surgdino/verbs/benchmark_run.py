"""A benchmark under way: what is finished, what failed, and what is written and printed of it in the end."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from surgdino import console
from surgdino.errors import SurgdinoError
from surgdino.inputs.backbones import NamedBackbone
from surgdino.inputs.configs import BenchmarkConfig
from surgdino.inputs.suite import Suite
from surgdino.inputs.tested import TestedDataset
from surgdino.metrics.arrays import as_json
from surgdino.paths import write_text
from surgdino.report.record import COMPONENTS
from surgdino.report.sections.benchmark import comparison
from surgdino.runs.benchmark import Cell, Finished, joined_leaks, table
from surgdino.runs.folder import environment
from surgdino.runs.names import Pseudonyms
from surgdino.runs.results import RESULTS, print_stamp

FEATURES = "features"  # what they cost is kept as if they were an evaluation


@dataclass
class Benchmark:
    """A benchmark under way.

    Attributes:
        cells: what is finished, in the order in which it was planned.
        failed: cell or dataset -> the line that says why.
        components: dataset -> rows of pictures of patch features.
        unused: lines on what could not be used, such as an evaluation whose labels no dataset has.
        planned: every cell, in the order of the table.
    """

    config: BenchmarkConfig
    suite: Suite
    backbones: Sequence[NamedBackbone]
    folder: Path
    names: Pseudonyms
    cells: dict[Cell, Finished] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)
    components: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    planned: list[Cell] = field(default_factory=list)

    def fail(self, what: str, error: Exception) -> None:
        """Keep and print why a cell or a dataset gave nothing."""
        line = error.line() if isinstance(error, SurgdinoError) else f"{type(error).__name__}: {error}"
        self.failed[self.names.sentence(what)] = self.names.sentence(line)
        console.warn(f"{what} failed: {line}")


def conclude(run: Benchmark, tested: Sequence[TestedDataset], data_hash: str) -> Path:
    """Write results.json and print the table."""
    order = [each.name for each in run.backbones]
    measured = {cell: finished for cell, finished in run.cells.items() if cell.evaluation != FEATURES}
    leaks = {
        (each.dataset.name, name): report.as_dict(run.names) for each in tested for name, report in each.leaks.items()
    }
    results = {
        "suite": run.suite.name,
        "backbones": {each.name: each.start.description for each in run.backbones},
        "datasets": {
            each.dataset.name: {
                "card": each.dataset.card.name,
                "licence": each.dataset.card.licence or None,
                "split": run.names.named(each.dataset.data.split),
                "operations": len(each.manifest.operations),
                "tested": len(each.tested),
                "data_hash": each.manifest.fingerprint(),
            }
            for each in tested
        },
        "evaluations": {
            entry.name: {"evaluation": entry.kind, **asdict(entry.evaluation.settings)} for entry in run.suite.entries
        },
        "unused": [*run.unused, *_nothing_found(run)],
        "failed": run.failed,
        "leakage": joined_leaks(leaks),
        "rows": table(measured, order),
        "cost": [{**asdict(cell), "seconds": done.seconds, "frames": done.frames} for cell, done in run.cells.items()],
        "environment": environment(data_hash, run.names),
    }
    results = run.names.hide(as_json(results))
    print_table(results)
    write_text(run.folder / COMPONENTS, json.dumps({"datasets": run.components}, ensure_ascii=False) + "\n")
    text = json.dumps(results, indent=2, ensure_ascii=False, allow_nan=False)
    return write_text(run.folder / RESULTS, text + "\n")


def print_table(results: Mapping[str, Any]) -> None:
    """Print every measure of every backbone, then what is missing or failed."""
    print_stamp(results["leakage"])
    heads, rows, _ = comparison(results)
    keys = 3
    console.grid(f"benchmark, suite {results['suite']}", heads, rows, left=range(keys), keys=keys)
    for line in results["unused"]:
        console.say(f"left out: {line}")
    for what, line in results["failed"].items():
        console.warn(f"{what} failed: {line}")


def _nothing_found(run: Benchmark) -> list[str]:
    """A line on each evaluation that the frames of a dataset gave nothing to find."""
    cells = (cell for cell, done in run.cells.items() if cell.evaluation != FEATURES and not done.found)
    return list(
        dict.fromkeys(f"{cell.evaluation}: its frames of {cell.dataset} have nothing to find" for cell in cells)
    )
