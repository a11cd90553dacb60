"""Settings as words: `key=value`, so that Hydra reads the value that was meant."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from surgdino.errors import SurgdinoError, shown


def parsable(word: str, *, sweeps: bool = False) -> str:
    """`key=value` with its value in quotes where Hydra's grammar cannot read it: spaces, commas, brackets, umlauts.

    Args:
        sweeps: whether commas at the top stand for several values.
    """
    key, equals, value = word.partition("=")
    if not equals or word.startswith("-"):
        return word
    try:
        override = OverridesParser.create().parse_override(word)
        if sweeps or not override.is_sweep_override():
            return word
    except (HydraException, ValueError, RecursionError):  # ValueError: a number of thousands of digits
        pass
    return f"{key}={_quoted(value)}"


def word_of(key: str, value: Any) -> str:
    """A setting with a value of Python's: None, booleans, numbers, texts, paths, lists and mappings of these.

    Raises:
        SurgdinoError: a value of another type.
    """
    return f"{key}={_as_word(value, key)}"


def _as_word(value: Any, key: str) -> str:
    if value is None:
        return "null"
    if hasattr(value, "item") and not getattr(value, "shape", None):  # a number of NumPy's or torch's
        value = value.item()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Path | str):
        return _text(str(value))
    if isinstance(value, Mapping):
        pairs = (f"{_escaped(str(name))}: {_as_word(each, f'{key}.{name}')}" for name, each in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list | tuple | set | frozenset | range):
        return "[" + ", ".join(_as_word(each, key) for each in value) + "]"
    expected = "None, a boolean, a number, a text, a path, or a list or mapping of these"
    raise SurgdinoError(f"{key} cannot be used", expected=expected, found=f"{type(value).__name__} {shown(value, 80)}")


def _text(text: str) -> str:
    """The text as it is where Hydra reads the same text from it; in quotes where it would read a number, or fail."""
    try:
        if OverridesParser.create().parse_override(f"key={text}").value() == text and "," not in text:
            return text
    except (HydraException, ValueError, RecursionError):
        pass
    return _quoted(text)


def _quoted(text: str) -> str:
    """In single quotes; Hydra's grammar halves the backslashes before a quote, and those alone."""
    inside = re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + found[2].replace("'", "\\'"), text)
    return f"'{inside}'"


def _escaped(name: str) -> str:
    return re.sub(r"([\\()\[\]{}:=,'\"\s])", r"\\\1", name)
