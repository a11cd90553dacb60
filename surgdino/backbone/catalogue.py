"""The catalogue of natural-image checkpoints: configs/weights.yaml, read without torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from surgdino.errors import SurgdinoError, nearest
from surgdino.paths import share


@dataclass(frozen=True)
class Entry:
    """One checkpoint.

    Attributes:
        name: as in `surgdino weights get NAME`.
        family, trained_on: the method, and its images.
        model: the `model=` that it fits.
        licence: as the publisher states it.
        file: its file name.
        mean, std: the input's normalisation in training, in the 0..1 range.
        megabytes: 10^6 bytes, rounded.
        bytes, sha256: exact, where they are known.
        url: a direct download; None where the publisher asks for something first, which `by_hand` explains.
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

    def is_it(self, size: int, sha256: str) -> bool:
        """Whether a file of this many bytes is the published one: by its hash, or where none is known by its size."""
        return sha256 == self.sha256 if self.sha256 else abs(size / 1e6 - self.megabytes) < 2


@cache
def catalogue() -> tuple[Entry, ...]:
    """All entries in the order of the file."""
    document = yaml.safe_load((share("configs") / "weights.yaml").read_text(encoding="utf-8"))
    entries = []
    for name, row in document["weights"].items():
        facts = {**document["families"][row["family"]], **row, "name": name}
        facts["family"] = facts.pop("title")
        entries.append(Entry(**{**facts, "mean": tuple(facts["mean"]), "std": tuple(facts["std"])}))
    return tuple(entries)


def entry(name: str) -> Entry:
    """The entry of that name."""
    known = {e.name: e for e in catalogue()}
    if name not in known:
        raise SurgdinoError(f"no weights named {name!r}", fix=f"{nearest(name, known)} See surgdino weights list")
    return known[name]


def entry_of_file(path: Path) -> Entry | None:
    """The entry with a file's name and, where known, its size; None for any other file."""
    for known in catalogue():
        if path.name == known.file and known.bytes in (None, path.stat().st_size):
            return known
    return None
