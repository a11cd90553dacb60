"""`backbones=[natural:FILE, RUN, CHECKPOINT, ...]`: several backbones to compare, each opened and named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from surgdino.backbone.checkpoint import MODEL_JSON, description_in
from surgdino.backbone.model_json import find_weights
from surgdino.backbone.weights import open_weights
from surgdino.console import field
from surgdino.errors import SurgdinoError
from surgdino.inputs.backbone import StartingBackbone, of_checkpoint, of_weights

NATURAL = "natural:"
_GENERIC = (  # what every run calls its own
    "checkpoint",
    "best",
    "last",
    "backbone.safetensors",
)


@dataclass(frozen=True)
class NamedBackbone:
    """One of several backbones.

    Attributes:
        name: for tables: that of its file or run, with as many of the folders around it as tell it from the others.
        place: its file or folder, without `natural:`.
        natural: whether these are weights as they came from elsewhere.
        start: the backbone, its preprocessing and its past.
    """

    name: str
    place: Path
    natural: bool
    start: StartingBackbone


def open_backbones(items: Sequence[str]) -> list[NamedBackbone]:
    """Open all of them, in this order, before anything is computed.

    Args:
        items: `natural:FILE` is a file of weights from elsewhere, whose architecture is found by its tensors; anything
            else is a run of pretrain or finetune, its checkpoint folder, or the weights in it.

    Raises:
        SurgdinoError: one is missing, damaged, of no known architecture, or there twice; names it.
    """
    if empty := [item for item in items if item in ("", NATURAL)]:
        raise SurgdinoError(
            "names no file", place="backbones", expected=f"{NATURAL}FILE or a run", found=repr(empty[0])
        )
    places = [Path(item.removeprefix(NATURAL)).expanduser() for item in items]
    files = [_file(item, place) for item, place in zip(items, places, strict=True)]
    if twice := [file for file in files if files.count(file) > 1]:
        raise SurgdinoError("the same backbone twice", file=twice[0], place="backbones", fix="leave one of them out")
    opened = []
    for item, place, file, name in zip(items, places, files, short_names(places), strict=True):
        natural = item.startswith(NATURAL)
        start = of_weights(*open_weights(file)) if natural else of_checkpoint(file)
        opened.append(NamedBackbone(name, place, natural, start))
        field("backbone", f"{name}: {start.description} ({place})")
    return opened


def _file(item: str, place: Path) -> Path:
    """The weights that an item names."""
    if place.is_file() and item.startswith(NATURAL):
        return place.resolve()
    file = find_weights(place).resolve()
    if not item.startswith(NATURAL) and description_in(file) is None and not file.with_name(MODEL_JSON).is_file():
        fix = f"write {NATURAL}{place} for weights from elsewhere"
        raise SurgdinoError("not a checkpoint of surgdino", file=place, place="backbones", fix=fix)
    return file


def short_names(places: Sequence[Path]) -> list[str]:
    """A name for each of several different places: the last part of its path, and more of it where two are alike."""
    whole = [place.resolve().parts for place in places]
    short = [_without_generic(parts) for parts in whole]
    parts = short if len(set(short)) == len(short) else whole
    depth = 1
    while len({own[-depth:] for own in parts}) < len(parts):
        depth += 1
    return ["/".join(own[-depth:]).removesuffix(".safetensors") for own in parts]


def _without_generic(parts: tuple[str, ...]) -> tuple[str, ...]:
    while len(parts) > 1 and parts[-1] in _GENERIC:
        parts = parts[:-1]
    return parts
