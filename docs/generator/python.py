"""The page on Python: what `surgdino` exports and gives back, from signatures and docstrings."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterable
from typing import Any

import surgdino
from generator.markdown import escaped
from surgdino.api import calls
from surgdino.api.calls import Verb
from surgdino.api.result import Result
from surgdino.cli.main import VERBS

_SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises", "Args of the call")
_START = re.compile(rf"({'|'.join(_SECTIONS)}):\s*(.*)")


def pages() -> dict[str, str]:
    """`python` -> its page."""
    exported = {name: getattr(surgdino, name) for name in surgdino.__all__}
    found = {name: getattr(calls, name, None) for name in exported}  # a folder of the package may have a verb's name
    verbs = {name: thing for name, thing in found.items() if isinstance(thing, Verb)}
    lines = ["# Python", "", escaped(inspect.getdoc(surgdino) or ""), "", "```python", "import surgdino", "```", ""]
    lines += ["## Commands as functions", "", "| function | what it does | gives |", "| --- | --- | --- |"]
    for name, verb in verbs.items():
        lines.append(f"| `surgdino.{name}` | [{escaped(_about(name))}](command-{name}.md) | {_given(verb)} |")
    lines += ["", documented(Verb), *_members("VERB", Verb), ""]
    others = {name: thing for name, thing in exported.items() if name not in verbs}
    for name in sorted(others, key=lambda each: (each.startswith("_"), each[:1].isupper(), each)):
        lines += [*_exported(f"surgdino.{name}", others[name]), ""]
    for kind in dict.fromkeys(_below(Result)):
        lines += [*_exported(kind.__name__, kind), ""]
    return {"python": "\n".join(lines)}


def _about(verb: str) -> str:
    return VERBS[verb].partition(": surgdino ")[0]


def _given(verb: Verb) -> str:
    found = re.search(r"Returns:\s+(\w+)\.", verb.__doc__ or "")
    return f"[`{found[1]}`](#{found[1].lower()})" if found else ""


def _below(kind: type) -> list[type]:
    """A class, and all that are made from it."""
    return [kind, *(each for child in kind.__subclasses__() for each in _below(child))]


def _exported(name: str, thing: Any) -> Iterable[str]:
    yield from (f"## {escaped(name)}", "")
    if not callable(thing):
        yield f"`{thing!r}`"
        return
    yield from ("```python", f"{name}{_signature(thing)}", "```", "", documented(thing))
    if inspect.isclass(thing):
        yield from _members(name.rpartition(".")[2], thing)


def _members(name: str, kind: type) -> Iterable[str]:
    """Methods and properties of a class that have a docstring; its fields are told of in its own. Inherited ones too:
    those of a result by a link to where they are told of."""
    for base in kind.__mro__:
        found = {
            each: value for each, value in vars(base).items() if not each.startswith("_") and inspect.getdoc(value)
        }
        found = {each: value for each, value in found.items() if each not in _fields(base)}
        if base is not kind and issubclass(base, Result) and found:
            listed = ", ".join(f"`{each}`" for each in found)
            yield from ("", f"Of [`{base.__name__}`](#{base.__name__.lower()}): {listed}.")
        elif base.__module__.startswith("surgdino"):
            yield from (line for each, value in found.items() for line in _member(name, each, value))


def _member(name: str, member: str, value: Any) -> Iterable[str]:
    call = getattr(value, "__func__", value)
    if isinstance(value, property):
        yield from ("", f"### {name}.{escaped(member)}", "", documented(value))
    elif inspect.isfunction(call):
        yield from ("", f"### {name}.{escaped(member)}", "", "```python", f"{member}{_signature(call)}", "```", "")
        yield documented(call)


def _fields(kind: type) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else set()


def _signature(thing: Any) -> str:
    try:
        text = str(inspect.signature(thing))
    except ValueError:
        return "(...)"
    return re.sub(r"(?<![\w.])(?:[a-z_]\w*\.)+(?=[A-Z])", "", text.replace("'", ""))  # names without their modules


def documented(thing: Any) -> str:
    """A docstring as Markdown: its text, then its sections as lists."""
    lines: list[str] = []
    inside = False
    for line in (inspect.getdoc(thing) or "").splitlines():
        if started := _START.fullmatch(line):
            inside = True
            lines += ["", f"**{started[1]}**", "", *([f"- {escaped(started[2])}"] if started[2] else [])]
        elif inside and (entry := re.fullmatch(r" {4}([\w.*,\[\] ]+): (.*)", line)):
            lines.append(f"- `{entry[1]}`: {escaped(entry[2])}")
        elif inside and line.startswith(" "):
            lines.append(f"  {escaped(line.strip())}")
        else:
            inside = inside and not line
            lines.append(line if line.startswith("    ") else escaped(line))
    return "\n".join(lines)
