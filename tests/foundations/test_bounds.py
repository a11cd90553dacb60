"""Every number of every settings dataclass has bounds: a slip of the pen is refused by its key."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest

import surgdino
from surgdino.config import typed
from surgdino.errors import SurgdinoError

# Made by our own code from values that were checked.
DERIVED = {"StageTraining", "StoreSettings"}
SUFFIXES = ("Settings", "Config", "Words", "Training", "Folders", "DatasetRoot", "Card")
SLIPS = [float("nan"), float("inf"), float("-inf"), -1, 10**30, 1e30, "", "many", [], [None], {"a": 1}, {"nan": {}}]


def kinds() -> dict[str, type]:
    found: dict[str, type] = {}
    for module in pkgutil.walk_packages(surgdino.__path__, "surgdino."):
        if module.name.endswith("__main__"):
            continue
        for kind in vars(importlib.import_module(module.name)).values():
            ours = inspect.isclass(kind) and dataclasses.is_dataclass(kind) and kind.__module__ == module.name
            if ours and kind.__name__.endswith(SUFFIXES) and kind.__name__ not in DERIVED:
                found[f"{module.name}.{kind.__name__}"] = kind
    return found


KINDS = kinds()


def leaves(hint: Any, notes: tuple = ()) -> Iterator[tuple[Any, tuple]]:
    """(type, what is annotated to it) of all that a field may hold."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        yield from leaves(arguments[0], arguments[1:])
    elif origin is not typing.Literal and arguments:
        for each in arguments:
            yield from leaves(each)
    else:
        yield hint, notes


def numbers(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind, include_extras=True)
    names = [field.name for field in dataclasses.fields(kind) if field.init]
    return {n: hints[n] for n in names if any(leaf in (int, float) for leaf, _ in leaves(hints[n]))}


def test_the_settings_are_found():
    found = {name.removeprefix("surgdino.") for name in KINDS}
    assert {"engine.settings.PretrainSettings", "engine.methods.dino_settings.Settings"} <= found


@pytest.mark.parametrize("name", KINDS)
def test_every_number_has_a_lower_and_an_upper_bound(name):
    for key, hint in numbers(KINDS[name]).items():
        for leaf, notes in leaves(hint):
            if leaf in (int, float):
                metadata = [each for note in notes for each in getattr(note, "metadata", ())]
                bounds = {side for each in metadata for side in ("gt", "ge", "lt", "le") if hasattr(each, side)}
                assert bounds & {"gt", "ge"}, f"{name}.{key} has no lower bound"
                assert bounds & {"lt", "le"}, f"{name}.{key} has no upper bound"


@pytest.mark.parametrize("name", KINDS)
def test_a_slip_is_refused_by_its_key(name):
    for key, hint in numbers(KINDS[name]).items():
        plain = all(leaf in (int, float, type(None)) for leaf, _ in leaves(hint))  # no texts or lists beside
        for slip in SLIPS if plain and "tuple" not in str(hint) else SLIPS[:6]:
            with pytest.raises(SurgdinoError, match=rf"^sec\.{key}\W") as caught:
                typed(KINDS[name], {key: slip}, "sec")
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", KINDS)
def test_an_empty_path_is_not_the_present_folder(name):
    hints = typing.get_type_hints(KINDS[name], include_extras=True)
    for field in dataclasses.fields(KINDS[name]):
        if any(leaf is Path for leaf, _ in leaves(hints[field.name])):
            with pytest.raises(SurgdinoError, match=rf"^sec\.{field.name} "):
                typed(KINDS[name], {field.name: ""}, "sec")
