"""From YAML to typed settings: a dataclass says what a key may be, the YAML file holds its default and explains it."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from yaml import YAMLError

from surgdino.discovery import files, require
from surgdino.errors import SurgdinoError, nearest, shown
from surgdino.yaml_files import invalid, yaml_text

T = TypeVar("T")
_BOUNDS = {
    "greater_than": "more than {gt:,.10g}",
    "greater_than_equal": "at least {ge:,.10g}",
    "less_than": "less than {lt:,.10g}",
    "less_than_equal": "at most {le:,.10g}",
    "finite_number": "a finite number",
    "string_too_short": "a text",
}

# Every number of a setting has a lower and an upper bound: what lies beyond is a slip of the pen or harms the machine.
MOST = 10**9
Positive = Annotated[float, Field(gt=0, le=MOST)]
NonNegative = Annotated[float, Field(ge=0, le=MOST)]
PositiveInt = Annotated[int, Field(ge=1, le=MOST)]
NonNegativeInt = Annotated[int, Field(ge=0, le=MOST)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Share = Annotated[float, Field(ge=0, le=1)]  # 0 to 1
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Range = tuple[Share, Share]  # of shares
LearningRate = Annotated[float, Field(ge=0, le=10)]
Width = Annotated[int, Field(ge=1, le=16384)]  # of a layer, in units
Hidden = Annotated[int, Field(ge=0, le=16384)]  # the same; 0: there is no such layer
Side = Annotated[int, Field(ge=8, le=4096)]  # of a picture, in pixels
Fps = Annotated[float, Field(ge=1e-4, le=1000)]  # frames a second
Workers = Annotated[int, Field(ge=0, le=1024)]  # processes


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


def _not_empty(value: Any) -> Any:
    if value == "":  # would be the present folder
        raise ValueError("empty")
    return value


Text = Annotated[str, Field(min_length=1)]
Location = Annotated[Path, BeforeValidator(_not_empty)]  # a file or folder
Locations = Annotated[tuple[Location, ...], Field(min_length=1), BeforeValidator(_listed)]  # one, or a list of them
Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]  # a list of texts; a single text is a list of one


def typed(kind: type[T], section: Mapping[str, Any], name: str) -> T:
    """Build dataclass `kind` from a config section, each value checked against its field's type and constraints.

    Args:
        kind: a dataclass; its field names are the keys. Its `__post_init__` may check what concerns several of them.
        section: the values; only a field with a default may be missing.
        name: the section's name in the config, for messages (`train`); empty where the keys stand at the top.

    Raises:
        SurgdinoError: an unknown key, a missing one, or a value that its type does not take.
    """
    # In JSON's strict mode lists become tuples and texts become paths, but "3" and true do not become numbers.
    text = json.dumps({"": section}, default=_as_json)
    try:
        return adapter(kind).validate_json(text, strict=True)[""]  # type: ignore[arg-type]
    except ValidationError as error:
        raise in_words(kind, json.loads(text)[""], name, error) from None


def from_words(kind: type[T], words: Sequence[str], usage: str) -> tuple[list[str], T]:
    """The words of a command without a YAML file: those that are no settings, and the settings as dataclass `kind`.

    Args:
        words: a key may be dotted: `report.frames=true`. A path may hold an equals sign after a slash.
        usage: the command as its help gives it.

    Raises:
        SurgdinoError: an unknown setting or option, or a value that its type does not take.
    """
    others: list[str] = []
    values: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if equals and "/" not in key:
            section, _, last = key.rpartition(".")
            (values.setdefault(section, {}) if section else values)[last] = value
        elif word.startswith("-"):
            raise SurgdinoError(f"unknown option {word!r}", fix=f"use {usage}")
        else:
            others.append(word)
    try:
        return others, adapter(kind).validate_strings({"": values})[""]  # type: ignore[arg-type]
    except ValidationError as error:
        raise in_words(kind, values, "", error) from None


@cache
def adapter(kind: Any, *, more: bool = False, finite: bool = True) -> TypeAdapter:
    """What checks a mapping of one `kind`: an adapter's rules reach a dataclass only from a type around it.

    Args:
        more: whether keys that `kind` does not have are left out; otherwise they are refused.
        finite: whether infinity and NaN are refused.
    """
    extra: Literal["ignore", "forbid"] = "ignore" if more else "forbid"
    return TypeAdapter(dict[str, kind], config=ConfigDict(extra=extra, allow_inf_nan=not finite))


def _as_json(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return dict(value) if isinstance(value, Mapping) else str(value)


def in_words(kind: Any, section: Any, name: str, error: ValidationError) -> SurgdinoError:
    """pydantic's errors as one line: the most telling of them, with what the type takes.

    Args:
        kind: the type that `section` should have had; `name` is the section's own, for messages.
    """
    order = {"unexpected_keyword_argument": 0, "missing": 2}
    first = min(error.errors(include_url=False), key=lambda each: order.get(each["type"], 1))
    key, hint, value = name, typing.cast(Any, kind), section
    for step in first["loc"][1:]:
        fields = fields_of(hint)
        if fields is not None and isinstance(value, dict):
            dotted = f"{key}." if key else ""
            if step not in fields:
                fix = nearest(f"{dotted}{step}", [f"{dotted}{field}" for field in fields])
                return SurgdinoError(f"unknown setting {dotted}{step}", fix=fix)
            if step not in value:
                return SurgdinoError(f"{dotted}{step} is not set", fix=f"add {dotted}{step}=...")
            key, hint, value = f"{dotted}{step}", fields[str(step)], value[step]
        elif isinstance(step, int) and isinstance(value, list) and step < len(value) and (entry := _entry(hint, step)):
            key, hint, value = f"{key}[{step}]", entry, value[step]
        elif isinstance(value, dict) and step in value and (entry := _mapped(hint)):
            key, hint, value = (f"{key}.{step}" if key else str(step)), entry, value[step]
        else:  # the names of a union's members, or an entry that is missing: what stands here is refused as a whole
            break
    bound = _BOUNDS.get(first["type"])
    expected = bound.format(**first.get("ctx", {})) if bound else _spelled(hint)
    what = f"{key} cannot be used" if key else "not what it should hold"
    return SurgdinoError(what, expected=expected, found=shown(repr(value), 80))


def fields_of(hint: Any) -> dict[str, Any] | None:
    """Key -> type of a dataclass; None for any other type."""
    for choice in members_of(hint):
        if dataclasses.is_dataclass(choice):
            hints = typing.get_type_hints(choice, include_extras=True)
            return {field.name: hints[field.name] for field in dataclasses.fields(choice) if field.init}
    return None


def _entry(hint: Any, place: int) -> Any:
    """The type of one entry of a list; None where it has no such entry, or where its type depends on the value."""
    listed = [choice for choice in members_of(hint) if typing.get_origin(choice) is tuple]
    arguments = typing.get_args(listed[0]) if len(listed) == 1 else ()
    if Ellipsis in arguments:
        return arguments[0]
    return arguments[place] if place < len(arguments) else None


def _mapped(hint: Any) -> Any:
    """The type of a mapping's values; None for any other type."""
    mappings = [choice for choice in members_of(hint) if typing.get_origin(choice) in (dict, Mapping)]
    return typing.get_args(mappings[0])[1] if len(mappings) == 1 else None


def members_of(hint: Any) -> list[Any]:
    """The members of a union, or the type alone; without what is annotated to them."""
    if typing.get_origin(hint) is Annotated:
        return members_of(typing.get_args(hint)[0])
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [choice for member in typing.get_args(hint) for choice in members_of(member)]
    return [hint]


def _spelled(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        told = [each.description for each in arguments[1:] if isinstance(each, FieldInfo) and each.description]
        return told[0] if told else _spelled(arguments[0])
    if origin is typing.Literal:
        return " or ".join(str(a) for a in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join("null" if a is type(None) else _spelled(a) for a in arguments)
    if dataclasses.is_dataclass(hint):
        return "{" + ", ".join(f"{field.name}: ..." for field in dataclasses.fields(hint)) + "}"
    if origin is tuple and Ellipsis in arguments:
        return f"a list, each entry {_spelled(arguments[0])}"
    if origin is tuple:
        return f"a list of {len(arguments)} values, each {' and '.join(dict.fromkeys(map(_spelled, arguments)))}"
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", Path: "a path"}
    return words.get(hint, str(getattr(hint, "__name__", hint)))


def shipped(kind: type[T], file: str, section: str | None = None, **changes: Any) -> T:
    """Settings as the YAML file gives them: `shipped(PretrainSettings, "pretrain", "train", steps=5)`.

    Args:
        kind: as in `typed`.
        file: under configs/, without its ending: `pretrain`, `method/simdinov2`.
        section: one of its sections; None takes the whole file.
        changes: other values than the file's.

    Raises:
        SurgdinoError: as `typed`, or there is no such file.
    """
    group, _, name = file.rpartition("/")
    values = shipped_settings(group, name)
    values = {k: v for k, v in (values[section] if section else values).items() if k != "defaults" and v != "???"}
    return typed(kind, {**values, **changes}, section or group or name)


def shipped_settings(group: str, name: str) -> dict[str, Any]:
    """The settings of `group=name`, as configs/<group>/<name>.yaml gives them.

    Raises:
        SurgdinoError: there is no such choice; the nearest one is named.
    """
    known = files(f"configs/{group}" if group else "configs")
    require(name, known, group)
    return read_yaml(known[name])


def read_yaml(path: Path) -> dict[str, Any]:
    """What a YAML file says; numbers are read as Hydra reads them (1e-4 is one).

    Raises:
        SurgdinoError: not valid YAML, or not keys with values; see `yaml_text`.
    """
    try:
        values = OmegaConf.create(yaml_text(path))
    except YAMLError as error:
        raise invalid(path, error) from error
    except (OmegaConfBaseException, ValueError, AssertionError) as error:  # AssertionError: a number alone
        found = str(error).partition("\n")[0] or "no keys"
        raise SurgdinoError("not settings", file=path, expected="keys with values", found=found) from error
    if not isinstance(values, DictConfig):
        raise SurgdinoError("not settings", file=path, expected="keys with values", found="a list")
    return OmegaConf.to_container(values)  # type: ignore[return-value]


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The configuration with every interpolation resolved, as plain dicts and lists.

    Raises:
        SurgdinoError: a mandatory value (`???`) was not given, or an interpolation leads nowhere.
    """
    try:
        for key in sorted(OmegaConf.missing_keys(cfg)):
            raise SurgdinoError(f"{key} is not set", fix=f"add {key}=... to the command")
        return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]
    except (OmegaConfBaseException, RecursionError) as error:
        key, found = getattr(error, "full_key", None) or "a setting", str(error).partition("\n")[0]
        raise SurgdinoError(f"{key} cannot be used", expected="values, not deeply nested", found=found) from error


def flat_keys(cfg: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Every dotted key of a nested mapping, sections included."""
    for key, value in cfg.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flat_keys(value, f"{prefix}{key}.")
