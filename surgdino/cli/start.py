"""The first and the last line of a verb: what runs, at once and before torch is imported, and how long it took."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from surgdino import __version__, console
from surgdino.wording import duration

_CHOSEN = ("task", "dataset", "model", "method", "suite", "checkpoint")  # said of a command, where it has them


@contextmanager
def started(verb: str, words: Iterable[object], values: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Around a verb and the import of its module.

    Args:
        words: what stands before the settings.
        values: the composed configuration.
    """
    begun = time.monotonic()
    said = [shlex.quote(str(word)) for word in words]
    for key in _CHOSEN:
        found = (values or {}).get(key)
        name = found.get("name") if isinstance(found, Mapping) else found
        if name:
            said.append(f"{key}={', '.join(map(str, name)) if isinstance(name, list | tuple) else name}")
    console.say(" ".join([f"surgdino {__version__} {verb}", *said]), "dim")
    sys.stdout.flush()  # what is read through a pipe waits for its buffer otherwise
    yield
    console.field("time", duration(time.monotonic() - begun))
