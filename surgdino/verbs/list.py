"""`surgdino list`: what can be chosen by name, found in the folders. Imports nothing heavy."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from surgdino import console
from surgdino.datasets.card import card_names, load_card
from surgdino.datasets.overlap import TITLES, UNKNOWN, cells, matrix, overlap_tables
from surgdino.discovery import files, modules
from surgdino.errors import SurgdinoError, nearest
from surgdino.evaluations import PACKAGE

# Kind -> the setting that takes its names, and the folder of its YAML files.
KINDS = {
    "datasets": ("dataset", "datasets"),
    "recipes": ("recipe", "recipes"),
    "models": ("model", "configs/model"),
    "methods": ("method", "configs/method"),
    "guides": ("guide", "configs/guide"),
    "tasks": ("task", "configs/task"),
    "augments": ("augment", "configs/augment"),
    "suites": ("suite", "configs/suites"),
    "hardware": ("hardware", "configs/hardware"),
}
_OVERLAPS, _EVALUATIONS = "overlaps", "evaluations"
HELP = f"""surgdino list [{" | ".join(KINDS)}]: what can be chosen by name
surgdino list {_EVALUATIONS}: what a suite can name
surgdino list {_OVERLAPS}: which operations datasets and their splits share"""


def main(words: Sequence[str] = ()) -> int:
    """Print the tables of the kinds in `words`, or of all; 0."""
    spellings = {name: name for name in (*KINDS, _EVALUATIONS, _OVERLAPS)} | {
        word: name for name, (word, _) in KINDS.items()
    }
    for word in words:
        if word not in spellings:
            raise SurgdinoError(f"surgdino list does not know {word!r}", fix=nearest(word, spellings))
    for kind in [spellings[word] for word in words] or KINDS:
        if kind == _OVERLAPS:
            _print_overlaps()
        elif kind == _EVALUATIONS:
            console.table(_evaluations())
        else:
            console.table(_table(kind))
    return 0


def describe(path: Path) -> str:
    """What a YAML file says of itself: its first comment line (before Hydra's `@package`), or its title."""
    title = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.strip()
        if text.startswith("#") and not text.lstrip("# ").startswith("@package"):
            return text.lstrip("# ").rstrip()
        key, _, value = text.partition(":")
        if key in ("title", "description") and value:
            title = title or value.strip().strip("'\"")
        elif text and not text.startswith("#") and title:
            break
    return title


def _table(kind: str) -> Table:
    setting, folder = KINDS[kind]
    table = console.new_table(kind, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for name, path in files(folder).items():
        table.add_row(Text(f"{setting}=", "dim").append(name, "bold cyan"), Text(describe(path)))
    return table


def _evaluations() -> Table:
    """Each with the first line of its file, which is not imported: torch takes seconds."""
    table = console.new_table(_EVALUATIONS, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for name, path in modules(PACKAGE).items():
        said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        table.add_row(Text("evaluation: ", "dim").append(name, "bold cyan"), Text(said.partition("\n")[0]))
    return table


def _print_overlaps() -> None:
    """What a backbone trained on one set has seen of another; docs/overlaps.md is the same as a page."""
    cards = [load_card(name) for name in card_names()]
    _print_shared("operations that two datasets share", "", *matrix(cards))
    console.say(f"{UNKNOWN}: nobody knows")
    for overlap in overlap_tables(cards):
        title = f"seen of {overlap.dataset} ({TITLES[overlap.part].lower()})"
        _print_shared(title, "pretrained on", *cells(overlap))


def _print_shared(title: str, corner: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = console.new_table(title)
    table.add_column(corner)
    for head in heads:
        table.add_column(head, justify="right")
    for row in rows:
        table.add_row(row[0], *(Text(cell, "dim" if cell == "0" else "") for cell in row[1:]))
    console.table(table)
