"""The pages of the reference that are made from the code: settings, choices, datasets, commands, Python.

Nothing is said twice: defaults and explanations are those of the YAML files, types those of the dataclasses that check
the settings, and the Python pages are docstrings of what `surgdino` exports.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from generator import choices, commands, python


def pages() -> dict[str, str]:
    """Name -> Markdown of every generated page."""
    return {**commands.pages(), **choices.pages(), **python.pages()}


def write(folder: Path) -> None:
    """Write the pages into `folder`, and remove what is no page any more; unchanged files keep their time."""
    made = pages()
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.suffix != ".md" or path.stem not in made:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name, text in made.items():
        path = folder / f"{name}.md"
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
