"""The sections of the report, one file each: `build(records) -> Section | None`, for one run or for two side by side.

Found by file name; `ORDER` in each file says where on the page it stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from surgdino.paths import names_in
from surgdino.report.blocks import Section
from surgdino.report.record import RunRecord


def build_sections(records: Sequence[RunRecord]) -> list[Section]:
    """Every section that these runs have something to say in, in the page's order."""
    modules = [import_module(f"{__name__}.{name}") for name in names_in(Path(__file__).parent, ".py")]
    built = [module.build(records) for module in sorted(modules, key=lambda module: module.ORDER)]
    return [section for section in built if section is not None]
