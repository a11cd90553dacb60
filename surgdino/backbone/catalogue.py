"""The natural-image checkpoints that we know of: configs/weights.yaml, read without torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from surgdino.errors import SurgdinoError, nearest
from surgdino.paths import share


@dataclass(frozen=True)
class Entry:
    """One checkpoint.

    Attributes:
        name: how `surgdino weights get` calls it.
        family, trained_on: the method, and its images.
        model: the `model=` that it fits.
        licence: of the weights, as their publisher states it.
        file: the name under which it is kept.
        mean, std: what its training normalised the input with, in the 0..1 range.
        megabytes: 10^6 bytes, rounded.
        bytes, sha256: exact, where they are known.
        url: where it can be had directly; None where the publisher wants something first, which `by_hand` tells.
        page: the publisher's page.
    """

    name: str
    family: str
    trained_on: str
    model: str
    licence: str
    file: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    megabytes: int
    page: str
    url: str | None = None
    by_hand: str | None = None
    bytes: int | None = None
    sha256: str | None = None


@cache
def catalogue() -> tuple[Entry, ...]:
    """All entries in the order of the file."""
    document = yaml.safe_load((share("configs") / "weights.yaml").read_text(encoding="utf-8"))
    return tuple(
        _entry(name, {**document["families"][row["family"]], **row}) for name, row in document["weights"].items()
    )


def entry(name: str) -> Entry:
    """The entry of that name.

    Raises:
        SurgdinoError: there is none; names the nearest.
    """
    known = {e.name: e for e in catalogue()}
    if name not in known:
        raise SurgdinoError(f"no weights named {name!r}", fix=f"{nearest(name, known)} See surgdino weights list")
    return known[name]


def entry_of_file(path: Path) -> Entry | None:
    """The entry that a file is, told by its name and, where it is known, its size; None for any other file."""
    for known in catalogue():
        if path.name == known.file and known.bytes in (None, path.stat().st_size):
            return known
    return None


def _entry(name: str, facts: dict[str, Any]) -> Entry:
    facts["family"] = facts.pop("title")
    return Entry(**{**facts, "name": name, "mean": tuple(facts["mean"]), "std": tuple(facts["std"])})
