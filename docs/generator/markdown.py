"""Markdown of plain texts, tables of settings, and types in words."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from surgdino.config import MOST

Row = tuple[str, str, str, str]  # key, default, type in words (or nothing), explanation
_WORDS = {int: "whole number", float: "number", str: "text", bool: "true or false", Path: "path", type(None): "null"}
_SPECIAL = re.compile(r"([\\*_<>\[\]|~$`#])")
_LARGE = MOST  # a bound that only catches slips is not told


def escaped(text: str) -> str:
    """A plain text (a comment, a docstring's line) as Markdown that shows it; code in backticks stays code."""
    parts = re.split(r"(`[^`]+`)", text)
    shown = (code(part[1:-1]) if len(part) > 2 and part[0] == "`" else _SPECIAL.sub(r"\\\1", part) for part in parts)
    return "".join(shown)


def code(text: str) -> str:
    """Code in a cell of a table."""
    fence = "``" if "`" in text else "`"
    return f"{fence}{text}{fence}".replace("|", "\\|")


def settings_table(rows: Iterable[Row]) -> str:
    """A table of settings: the key with its default, then what it is and what it takes."""
    lines = ["| setting | what it is |", "| --- | --- |"]
    for key, default, kind, text in rows:
        what = escaped(text)
        taken = f"*{escaped(kind)}*" if kind else ""
        lines.append(f"| {code(key)}<br>{code(default)} | {'<br>'.join(each for each in (what, taken) if each)} |")
    return "\n".join(lines) + "\n"


def spelled(hint: Any) -> str:
    """A type in words, with its bounds: "whole number, 1 or more"; empty where it says nothing."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return ", ".join(each for each in (spelled(arguments[0]), _bounds(arguments[1:])) if each)
    if origin is typing.Literal:
        return " or ".join(map(str, arguments))
    if origin in (typing.Union, types.UnionType):
        return "; or ".join(dict.fromkeys(each for each in map(spelled, arguments) if each))
    if origin is tuple:
        inner = " and ".join(dict.fromkeys(each for each in map(spelled, arguments) if each))
        listed = "list" if Ellipsis in arguments else f"list of {len(arguments)}"
        return f"{listed}: {inner}" if inner else listed
    if origin in (dict, Mapping) or hint is dict:
        return "mapping"
    if dataclasses.is_dataclass(hint):
        return "mapping of " + ", ".join(field.name for field in dataclasses.fields(hint))
    return _WORDS.get(hint, "")


def _bounds(notes: Sequence[Any]) -> str:
    """The limits that a field's annotations set; those that only catch slips of the pen are left out."""
    found: dict[str, float] = {}
    for note in notes:
        for each in (note, *getattr(note, "metadata", ())):
            found |= {
                name: value for name in ("gt", "ge", "lt", "le") if (value := getattr(each, name, None)) is not None
            }
    low = f"{found['ge']:,.10g} or more" if "ge" in found else f"more than {found['gt']:,.10g}" if "gt" in found else ""
    most, below = found.get("le", _LARGE), found.get("lt", _LARGE)
    high = f"at most {most:,.10g}" if most < _LARGE else f"less than {below:,.10g}" if below < _LARGE else ""
    if low and high and "ge" in found and most < _LARGE:
        return f"{found['ge']:,.10g} to {most:,.10g}"
    return ", ".join(each for each in (low, high) if each)


def type_of(hint: Any, steps: Sequence[str]) -> Any:
    """The type of a dotted key below a type; None where it leads through what has no types."""
    for step in steps:
        kinds = [each for each in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(each)]
        hints = typing.get_type_hints(kinds[0], include_extras=True) if kinds else {}
        if step not in hints:
            return None
        hint = hints[step]
    return hint
