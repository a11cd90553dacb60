"""A dataset's card: what a person would have to know of it, as a YAML file in `datasets/`; and lists of videos."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from surgdino.config import Fps, NonNegativeInt, PositiveInt, read_yaml, typed
from surgdino.datasets.class_names import corrected
from surgdino.datasets.depth import DepthLayout
from surgdino.datasets.picture_layout import MaskLayout
from surgdino.datasets.questions import QuestionLayout
from surgdino.datasets.workflow import WorkflowLayout
from surgdino.discovery import files
from surgdino.errors import SurgdinoError, nearest

PARTS = ("train", "val", "test")
_MaskValue = Annotated[int, Field(ge=0, le=65535)]
Recordings = Literal["whole", "excerpts"]
Entry = NonNegativeInt | str  # a video's number, or its id or operation where it has no number

_RANGE = re.compile(r"(?P<first>\d{1,9})\s*-\s*(?P<last>\d{1,9})")
_NAMES = re.compile(r"(?P<prefix>.*?\D)(?P<first>\d{1,9})\.\.(?P<last>\d{1,9})")
_NUMBERED = re.compile(r"(.*?\D)(\d{1,9})")
_MOST_VIDEOS = 100_000  # in a range


@dataclass(frozen=True)
class Card:
    """What is known of a dataset before its folder is opened.

    Attributes:
        name: what `dataset=` takes, and the name of its shards' folder.
        adapter: the file in `surgdino/datasets/adapters/` that reads its layout.
        title, licence, how_to_get, notes, layout: for people.
        fps: frames per second that its label files count in; None where it has none.
        videos: numbers of all videos as released (names, where they have none); empty where nobody can know.
        operation: how an operation is named, with `{number}` of its video, or `{place}` on disk (its path or name
            without the folder's), `{content}` of its first recording, `{root}`, the folder's name.
        operation_pattern: how names say the operation, where data.operation_pattern does not.
        operations: videos that show another set's operation -> its name there.
        phases, steps, tools, actions, instruments, verbs, targets: class names in the order of their ids.
        cvs: the criteria of the critical view of safety.
        triplets: `instrument,verb,target` in the order of their ids.
        mask_classes: what the masks show, in the order of their channels.
        masks: class -> its id or colour (RGB) in masks that show several; 0 and black are none of them. It names the
            mask classes too.
        parts: part of an instrument -> its id, where masks show parts.
        multilabel: those of them that one picture's masks tell of together.
        mask_files: where its masks lie, of recordings with a file a frame.
        depth: where its depth maps lie, and what they count in.
        workflow: where its label files lie, and what stands in them.
        questions: where its questions about frames lie, and which answers there are.
        tool_step: frames from one row of a tool file to the next.
        columns: column -> value -> videos, such as their hospital; read where there is no data.table.
        recordings: whether its recordings are whole operations, so that their frames tell the time in the operation.
        splits: split -> part -> video numbers or ids. Those called `fold1`, `fold2`, ... are a cross-validation.
        overlaps: other dataset -> numbers of the videos whose operation it shows too.
        overlap_unknown: datasets of which nobody knows whether they show these operations too; it holds both ways.
        unconfirmed: what the card says and nobody has seen on the released files; `surgdino verify` says it.
    """

    name: str
    adapter: str
    title: str = ""
    licence: str = ""
    how_to_get: str = ""
    notes: str = ""
    layout: tuple[str, ...] = ()
    fps: Fps | None = None
    videos: tuple[Entry, ...] = ()
    operation: str = "own/{place}~{content}"
    operation_pattern: str | None = None
    operations: dict[NonNegativeInt, str] = field(default_factory=dict)
    phases: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    instruments: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    cvs: tuple[str, ...] = ()
    triplets: tuple[str, ...] = ()
    mask_classes: tuple[str, ...] = ()
    masks: dict[str, _MaskValue | tuple[_MaskValue, _MaskValue, _MaskValue]] = field(default_factory=dict)
    parts: dict[str, _MaskValue] = field(default_factory=dict)
    multilabel: tuple[str, ...] = ()
    mask_files: MaskLayout | None = None
    depth: DepthLayout | None = None
    workflow: WorkflowLayout | None = None
    questions: QuestionLayout | None = None
    tool_step: PositiveInt = 25
    columns: dict[str, dict[str, tuple[Entry, ...]]] = field(default_factory=dict)
    recordings: Recordings = "whole"
    splits: dict[str, dict[str, tuple[Entry, ...]]] = field(default_factory=dict)
    overlaps: dict[str, tuple[Entry, ...]] = field(default_factory=dict)
    overlap_unknown: tuple[str, ...] = ()
    unconfirmed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        values = list(self.masks.values())
        for name, value in self.masks.items():
            if values.count(value) > 1:
                raise SurgdinoError(f"dataset.masks gives {name!r} the value of another class", found=value)
        for f in fields(self):
            names = getattr(self, f.name)
            if isinstance(names, tuple) and len(set(names)) < len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise SurgdinoError(f"dataset.{f.name} names {twice!r} twice", expected="names that differ")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str | Path | None = None) -> Card:
        """A card from a YAML file or a config section, each value checked.

        Args:
            values: the keys of a card; videos may be written as ranges (`1-40`, `B01..40`), triplets as a tree.
            source: the file they stand in, for messages.

        Raises:
            SurgdinoError: a key that no card has, a missing one, or a value of another kind.
        """
        try:
            given = {key: value for key, value in values.items() if value is not None}
            readers = {
                "videos": _entries,
                "splits": _each(read_parts),
                "overlaps": _each(_entries),
                "columns": _each(_each(_entries)),
                "triplets": _tree,
                "masks": _each(_id_or_colour),
                "phases": _phases,
            }
            for key, reader in readers.items():
                if key in given:
                    given[key] = reader(given[key], f"dataset.{key}")
            if given.get("masks"):
                given["mask_classes"] = list(given["masks"])
            return typed(cls, given, "dataset")
        except SurgdinoError as error:
            if source is None:
                raise
            raise error.but(file=source) from error

    def operation_of(self, video: Entry) -> str:
        """The operation that a video of `videos` shows: by its number, or the set's own where it has a name only."""
        if video in self.operations:
            return self.operations[int(video)]
        if isinstance(video, str) or "{content}" in self.operation:
            return f"{self.name}/{video}"
        return self.operation.format(number=video, root=self.name, place=video)


def card_names() -> list[str]:
    """The datasets that have a card: what `dataset=` takes."""
    return list(files("datasets"))


def load_card(name: str) -> Card:
    """The card `datasets/<name>.yaml`.

    Raises:
        SurgdinoError: no such card (the nearest is named), or one that cannot be read.
    """
    known = files("datasets")
    if name not in known:
        raise SurgdinoError(f"there is no dataset={name}", fix=nearest(name, known))
    return _read(known[name], known[name].stat().st_mtime_ns)


@cache
def _read(path: Path, changed: int) -> Card:
    return Card.from_dict(read_yaml(path), source=path)


def read_parts(value: Any, key: str) -> dict[str, tuple[Entry, ...]]:
    """One split, `{train: [1-40], test: [41-80]}`, checked for its form; whether the videos exist is not asked here.

    A part may be a rule in words instead, `{train: rest, test: every 5th}`; see `open.apply_split`.

    Raises:
        SurgdinoError: another part than train, val, test, something else than lists, or a video in two parts.
    """
    parts = {}
    for part, entries in _mapping(value, key).items():
        if part not in PARTS:
            raise SurgdinoError(f"a split has no part {part!r}", place=key, fix=nearest(str(part), PARTS))
        parts[str(part)] = _entries([entries] if isinstance(entries, str) else entries, f"{key}.{part}")
    listed = [entry for entries in parts.values() for entry in entries]
    for entry in listed:
        if listed.count(entry) > 1:
            raise SurgdinoError(f"the split names {entry} twice", place=key, fix="keep its parts apart")
    return parts


def _each(reader: Callable[[Any, str], Any]) -> Callable[[Any, str], dict[str, Any]]:
    """A reader of a mapping whose values `reader` reads."""
    return lambda value, key: {str(name): reader(item, f"{key}.{name}") for name, item in _mapping(value, key).items()}


def _entries(value: Any, key: str) -> tuple[Entry, ...]:
    if not _is_list(value) or not all(isinstance(item, int | str) for item in value):
        raise _wrong(key, "a list such as [1, 2, 5-8]", value)
    return expand(value)


def _phases(value: Any, key: str) -> Any:
    return [corrected(name) if isinstance(name, str) else name for name in value] if _is_list(value) else value


def _id_or_colour(value: Any, key: str) -> Any:
    """`3`, `[255, 0, 0]` or `"#ff0000"`."""
    text = re.fullmatch(r"#?([0-9a-fA-F]{6})", value) if isinstance(value, str) else None
    parts = list(bytes.fromhex(text[1])) if text else value if _is_list(value) else [value]
    whole = all(isinstance(part, int) and not isinstance(part, bool) and 0 <= part <= 65535 for part in parts)
    if not whole or len(parts) not in (1, 3) or not any(parts) or (len(parts) == 3 and max(parts) > 255):
        raise _wrong(key, "an id from 1, or a colour such as [255, 0, 0] or '#ff0000' that is not black", value)
    return parts if len(parts) == 3 else parts[0]


def _tree(value: Any, key: str) -> tuple[str, ...]:
    """`[{hook: {cut: [peritoneum, gut]}}]` -> `("hook,cut,peritoneum", "hook,cut,gut")`, in the order written."""
    if not _is_list(value):
        raise _wrong(key, "a list of {instrument: {verb: [target, ...]}}", value)
    names = []
    for block in value:
        for instrument, verbs in _mapping(block, key).items():
            for verb, targets in _mapping(verbs, f"{key}.{instrument}").items():
                if not _is_list(targets):
                    raise _wrong(f"{key}.{instrument}.{verb}", "a list of targets", targets)
                names += [f"{instrument},{verb},{target}" for target in targets]
    return tuple(names)


def _mapping(value: Any, key: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _wrong(key, "keys with values", value)
    return value


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _wrong(key: str, expected: str, found: Any) -> SurgdinoError:
    return SurgdinoError(f"{key} cannot be used", expected=expected, found=repr(found))


def expand(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """`[1, "3-5", "OP 7", "B08..10"]` -> `(1, 3, 4, 5, "OP 7", "B08", "B09", "B10")`; quoted digits are numbers."""
    expanded: list[Entry] = []
    for entry in entries:
        text = str(entry).strip()
        span = _NAMES.fullmatch(text) or _RANGE.fullmatch(text)
        if span and int(span["first"]) <= int(span["last"]):
            if int(span["last"]) - int(span["first"]) >= _MOST_VIDEOS:
                what, fix = "a range of too many videos", "name the videos that are there"
                raise SurgdinoError(what, expected=f"at most {_MOST_VIDEOS:,}", found=text, fix=fix)
            numbers, prefix = range(int(span["first"]), int(span["last"]) + 1), span.groupdict().get("prefix")
            digits = len(span["first"])
            expanded += numbers if prefix is None else [f"{prefix}{number:0{digits}}" for number in numbers]
        else:
            expanded.append(int(text) if text.isdecimal() and len(text) < 16 else text)
    return tuple(expanded)


def compact(numbers: Iterable[Entry]) -> str:
    """`[1, 2, 3, 7, "B08", "B09"]` -> `1-3, 7, B08..09`: a list that stays readable with 80 videos in it."""
    listed = list(numbers)
    ordered: list[Entry] = [*sorted(entry for entry in listed if isinstance(entry, int))]
    ordered += [entry for entry in listed if not isinstance(entry, int)]
    runs: list[list[Entry]] = []
    for entry in ordered:
        if runs and entry == _after(runs[-1][-1]):
            runs[-1].append(entry)
        else:
            runs.append([entry])
    return ", ".join(_run(run[0], run[-1]) for run in runs)


def _after(entry: Entry) -> Entry | None:
    found = _NUMBERED.fullmatch(entry) if isinstance(entry, str) else None
    if found:
        return f"{found[1]}{int(found[2]) + 1:0{len(found[2])}}"
    return None if isinstance(entry, str) else entry + 1


def _run(first: Entry, last: Entry) -> str:
    if first == last:
        return str(first)
    found = _NUMBERED.fullmatch(last) if isinstance(last, str) else None
    return f"{first}..{found[2]}" if found else f"{first}-{last}"


def number_in(name: str) -> int | None:
    """The number that a name ends with (`video07` -> 7), or None where it has none or several."""
    found = re.fullmatch(r"\D*?0*(\d+)", name)
    return int(found[1]) if found else None


def stride(words: str) -> int | None:
    """`every 5th` -> 5; None for anything else."""
    found = re.fullmatch(r"every 0*([1-9]\d{0,8})(?:st|nd|rd|th)", words.strip().lower())
    return int(found[1]) if found else None
