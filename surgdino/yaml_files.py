"""YAML from disk or from other people: data alone, within limits of size, depth and what its aliases unfold to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from surgdino.errors import SurgdinoError
from surgdino.paths import read_bytes

SIZE_LIMIT = 4 << 20  # bytes; the largest files of ours are below 100 kB
DEPTH_LIMIT = 64
NODE_LIMIT = 200_000  # values, each alias counted as what it stands for


def yaml_text(path: Path) -> str:
    """The text of a YAML file that is harmless to parse.

    Raises:
        SurgdinoError: no regular file, too large, not UTF-8, not YAML, or it would unfold beyond the limits.
    """
    try:
        text = read_bytes(path, SIZE_LIMIT).decode("utf-8-sig")
        _refuse_bombs(text, path)
    except UnicodeDecodeError as error:
        raise SurgdinoError("not UTF-8", file=path, place=f"byte {error.start}", fix="save it as UTF-8") from error
    except yaml.YAMLError as error:
        raise invalid(path, error) from error
    return text


def invalid(path: Path, error: yaml.YAMLError) -> SurgdinoError:
    """The parser's error as one line."""
    mark = getattr(error, "problem_mark", None)
    place = f"line {mark.line + 1}" if mark else None
    found = getattr(error, "problem", None) or str(error).partition("\n")[0]
    return SurgdinoError("not valid YAML", file=path, place=place, found=found)


def read_settings(path: Path) -> dict[str, Any]:
    """What the `config.yaml` of a run folder says; every key is a text, and dates are texts too.

    Raises:
        SurgdinoError: as `yaml_text`, or it does not hold keys with values.
    """
    try:
        values = yaml.safe_load(yaml_text(path))
        if isinstance(values, dict):
            return json.loads(json.dumps(values, default=str))
    except yaml.YAMLError as error:
        raise invalid(path, error) from error
    except (TypeError, ValueError, OverflowError) as error:  # a key that is a list, a number of thousands of digits
        raise SurgdinoError("not valid YAML", file=path, found=error) from error
    fix = "restore it from a copy, or give another run.dir"
    raise SurgdinoError("damaged", file=path, expected="keys with values", found=type(values).__name__, fix=fix)


def _refuse_bombs(text: str, path: Path) -> None:
    """One pass over the parser's events, which are as many as the file is long, whatever they would unfold to."""
    sizes: dict[str, int] = {}  # anchor -> values it stands for
    open_nodes: list[tuple[str | None, int]] = [(None, 0)]  # (anchor, values so far)

    def add(count: int, anchor: str | None) -> None:
        outer, before = open_nodes.pop()
        open_nodes.append((outer, before + count))
        if anchor:
            sizes[anchor] = count

    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise SurgdinoError("an alias to itself, or to nothing", file=path, found=f"*{event.anchor}")
            add(sizes[event.anchor], None)
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, 1))
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, count = open_nodes.pop()
            add(count, anchor)
        elif isinstance(event, yaml.ScalarEvent):
            add(1, event.anchor)
        if len(open_nodes) > DEPTH_LIMIT or open_nodes[-1][1] > NODE_LIMIT:
            expected = f"at most {DEPTH_LIMIT} levels and {NODE_LIMIT:,} values"
            raise SurgdinoError("too deeply nested, or too many values", file=path, expected=expected)
