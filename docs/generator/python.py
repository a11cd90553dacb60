"""The page on Python: what `surgdino` exports, from its signatures and docstrings."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterable
from typing import Any

import surgdino
from generator.markdown import escaped

_SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises", "Args of the call")
_START = re.compile(rf"({'|'.join(_SECTIONS)}):\s*(.*)")


def pages() -> dict[str, str]:
    """`python` -> its page."""
    lines = ["# Python", "", escaped(inspect.getdoc(surgdino) or ""), "", "```python", "import surgdino", "```", ""]
    for name in sorted(surgdino.__all__, key=lambda each: (each.startswith("_"), each[:1].isupper(), each)):
        lines += [*_exported(name, getattr(surgdino, name)), ""]
    return {"python": "\n".join(lines)}


def _exported(name: str, thing: Any) -> Iterable[str]:
    yield from (f"## surgdino.{escaped(name)}", "")
    if not callable(thing):
        yield f"`{thing!r}`"
        return
    yield from ("```python", f"{name}{_signature(thing)}", "```", "", documented(thing))
    for member, value in vars(thing).items() if inspect.isclass(thing) else ():
        if member.startswith("_") or not inspect.getdoc(value) or member in _fields(thing):
            continue
        if isinstance(value, property):
            yield from ("", f"### {name}.{escaped(member)}", "", documented(value))
        elif inspect.isfunction(getattr(value, "__func__", value)):
            call = getattr(value, "__func__", value)
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
