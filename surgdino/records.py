"""JSON that comes from disk or from other people, as typed records: read within limits, each field checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from surgdino.config import adapter, in_words
from surgdino.errors import SurgdinoError
from surgdino.paths import read_bytes

T = TypeVar("T")

SIZE_LIMIT = 64 << 20  # bytes; the largest files of ours are below 10 MB
DEPTH_LIMIT = 64
_AGAIN = "restore it from a copy, or write it again"


def read_json(path: Path, limit: int = SIZE_LIMIT, fix: str = _AGAIN) -> Any:
    """What a JSON file holds.

    Args:
        limit: largest size in bytes.
        fix: what to do where it cannot be read.

    Raises:
        SurgdinoError: as `read_bytes` and `parse_json`.
    """
    return parse_json(read_bytes(path, limit), path, fix)


def parse_json(content: str | bytes, file: Path, fix: str = _AGAIN) -> Any:
    """The values of JSON text; `file` is where it was found, for messages.

    Raises:
        SurgdinoError: not UTF-8, not JSON, a number that is none (NaN, Infinity, one that overflows), or nested deeper
            than `DEPTH_LIMIT`.
    """
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
        values = json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise SurgdinoError("nested too deeply", file=file, expected=f"at most {DEPTH_LIMIT} levels", fix=fix) from None
    except ValueError as error:
        raise SurgdinoError("not valid JSON", file=file, found=error, fix=fix) from error
    if (depth := _depth(values)) > DEPTH_LIMIT:
        expected = f"at most {DEPTH_LIMIT} levels"
        raise SurgdinoError("nested too deeply", file=file, expected=expected, found=depth, fix=fix)
    return values


def checked(kind: type[T], values: Any, file: Path, fix: str = _AGAIN, *, more: bool = False) -> T:
    """`values` as a `kind`: a dataclass, or any type that pydantic knows, with its constraints.

    Args:
        file: where the values were found, for messages.
        more: whether keys that `kind` does not have are left out; otherwise they are refused.

    Raises:
        SurgdinoError: names the field, what it takes and what it holds.
    """
    try:
        text = json.dumps({"": values})
        return adapter(kind, more=more, finite=False).validate_json(text, strict=True)[""]  # type: ignore[arg-type]
    except ValidationError as error:
        fault = in_words(kind, values, "", error)
        raise SurgdinoError(fault.what, file=file, expected=fault.expected, found=fault.found, fix=fix) from None


def read_record(kind: type[T], path: Path, fix: str = _AGAIN, *, more: bool = False) -> T:
    """A JSON file as a `kind`; see `read_json` and `checked`."""
    return checked(kind, read_json(path, fix=fix), path, fix, more=more)


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _finite(text: str) -> float:
    number = float(text)
    return number if abs(number) != float("inf") else _refuse(text[:20])


def _depth(values: Any) -> int:
    """Levels of lists and objects; json's own limit is the interpreter's recursion limit, far above ours."""
    depth, level = 0, [values]
    while level := [each for each in level if isinstance(each, dict | list)]:
        depth += 1
        level = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each)]
    return depth
