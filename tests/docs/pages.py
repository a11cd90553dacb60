"""The pages of docs/, and the code that makes the generated ones."""

from __future__ import annotations

import sys
from pathlib import Path

from tests import ROOT

DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS))

import generator  # noqa: E402
from generator.choices import settings_of  # noqa: E402
from generator.markdown import escaped, settings_table, spelled  # noqa: E402

__all__ = ["DOCS", "escaped", "generator", "settings_of", "settings_table", "spelled"]


def written_pages() -> list[Path]:
    """Every page but the generated ones."""
    return sorted(path for path in DOCS.rglob("*.md") if "generated" not in path.relative_to(DOCS).parts)
