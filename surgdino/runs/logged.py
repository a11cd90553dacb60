"""The settings of a run that other programs may know: numbers, choices and single words, no place and no name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from surgdino.runs.names import OPERATIONS, PLACES

_SECTIONS = {"also", "recordings", "backbones", "teachers", "like", "against", "engine", "curation", "masks"}
_WORD = re.compile(r"[\w.+:-]{0,60}")  # not a path, nor what may hold one


def logged_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted key -> number, boolean, word or None; of the dataset its name alone.

    Whether names of operations are pseudonyms in the run or not: none of them is here.
    """
    dataset = config.get("dataset")
    named = {"dataset": dataset.get("name")} if isinstance(dataset, Mapping) else {}
    return {**named, **dict(_flat({key: value for key, value in config.items() if key != "dataset"}))}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if key in PLACES or key in OPERATIONS or key in _SECTIONS:
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            if all(_is_plain(each) for each in value):
                yield f"{prefix}{key}", ", ".join(map(str, value))
        elif _is_plain(value):
            yield f"{prefix}{key}", value


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float) or bool(_WORD.fullmatch(str(value)))
