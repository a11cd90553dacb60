"""From Hydra's configuration to checked values: what a key may be is said by a dataclass, once."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import DictConfig, OmegaConf

from surgdino.errors import SurgdinoError, nearest
from surgdino.paths import names_in, share

T = TypeVar("T")


def register_groups() -> None:
    """Offer every card as `dataset=NAME` and every recipe as `recipe=NAME`: their folders have other names."""
    from hydra.core.config_store import ConfigStore

    # Hydra copies the whole store for each of the 85 questions behind a `--help`, 8 s for our cards. What it loads
    # from the store it copies once more, so the store itself can be shared.
    ConfigStore.__deepcopy__ = lambda store, memo: store  # type: ignore[attr-defined]
    for group, folder, package in (("dataset", "datasets", "dataset"), ("recipe", "recipes", "_global_")):
        for name in names_in(share(folder)):
            node = _read_yaml(share(folder) / f"{name}.yaml")
            ConfigStore.instance().store(group=group, name=name, node=node, package=package, provider="surgdino")


def _read_yaml(path: Path) -> dict:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}" if mark else None
        raise SurgdinoError("not valid YAML", file=path, place=place, found=getattr(error, "problem", error)) from error


def typed(kind: type[T], section: Mapping[str, Any], name: str) -> T:
    """Build dataclass `kind` from a config section, each value checked against its field's type.

    Args:
        kind: a dataclass; its field names are the keys, its annotations the types.
        section: the values; a field with a default may be missing.
        name: the section's name in the config, for messages (`train`); empty where the keys stand at the top.

    Raises:
        SurgdinoError: a key that `kind` does not have, a missing one, or a value of another type.
    """
    hints = typing.get_type_hints(kind)
    dot = f"{name}." if name else ""
    fields = {f.name: f for f in dataclasses.fields(kind) if f.init}  # type: ignore[arg-type]
    for key in section:
        if key not in fields:
            raise SurgdinoError(
                f"unknown setting {dot}{key}", fix=nearest(f"{dot}{key}", [f"{dot}{f}" for f in fields])
            )
    values = {}
    for key, field in fields.items():
        if key in section:
            values[key] = _checked(hints[key], section[key], f"{dot}{key}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise SurgdinoError(f"{dot}{key} is not set", fix=f"add {dot}{key}=...")
    return kind(**values)


def _checked(hint: Any, value: Any, key: str) -> Any:
    """`value` in the type that `hint` names: ints may stand for floats, lists for tuples, a text for a list of one."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        for choice in arguments:
            try:
                return _checked(choice, value, key)
            except SurgdinoError:
                continue
    elif origin is typing.Literal:
        if value in arguments:
            return value
    elif origin is tuple:
        if arguments == (str, ...) and isinstance(value, str):
            return (value,)
        inner = (
            arguments[:1] * len(value)
            if len(arguments) == 2 and arguments[1] is Ellipsis and _listed(value)
            else arguments
        )
        if _listed(value) and len(value) == len(inner):
            return tuple(_checked(h, v, f"{key}[{i}]") for i, (h, v) in enumerate(zip(inner, value, strict=True)))
    elif dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, Mapping):
            return typed(hint, value, key)
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    elif hint is Path and isinstance(value, str | Path):
        return Path(value)
    elif hint is typing.Any or (isinstance(hint, type) and hint not in (int, float) and isinstance(value, hint)):
        return value
    raise SurgdinoError(f"{key} has a value of the wrong kind", expected=_spelled(hint), found=repr(value))


def _listed(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _spelled(hint: Any) -> str:
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(str(a) for a in arguments)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join("null" if a is type(None) else _spelled(a) for a in arguments)
    if dataclasses.is_dataclass(hint):
        return "{" + ", ".join(f"{field.name}: ..." for field in dataclasses.fields(hint)) + "}"
    if typing.get_origin(hint) is tuple and Ellipsis in arguments:
        return f"a list, each entry {_spelled(arguments[0])}"
    if typing.get_origin(hint) is tuple:
        return f"a list of {len(arguments)} values"
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", Path: "a path"}
    return words.get(hint, str(getattr(hint, "__name__", hint)))


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The configuration with every interpolation resolved, as plain dicts and lists.

    Raises:
        SurgdinoError: a mandatory value (`???`) was not given.
    """
    for key in sorted(OmegaConf.missing_keys(cfg)):
        raise SurgdinoError(f"{key} is not set", fix=f"add {key}=... to the command")
    return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]


def flat_keys(cfg: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Every dotted key of a nested mapping, sections included."""
    for key, value in cfg.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flat_keys(value, f"{prefix}{key}.")


def shipped_settings(group: str, name: str) -> dict[str, Any]:
    """The settings of `group=name`, as configs/<group>/<name>.yaml gives them.

    Raises:
        SurgdinoError: there is no such choice; the nearest one is named.
    """
    folder = share("configs") / group
    if name not in names_in(folder):
        raise SurgdinoError(f"there is no {group}={name}", fix=nearest(name, names_in(folder)))
    return _read_yaml(folder / f"{name}.yaml")
