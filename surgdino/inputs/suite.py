"""What `surgdino benchmark` is asked for: a suite of evaluations, and the datasets of it that are at hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from surgdino.config import Names, Text, read_yaml, shipped, shipped_settings, typed
from surgdino.datasets.card import Card, card_names, load_card
from surgdino.discovery import files, is_path, require
from surgdino.errors import SurgdinoError, nearest
from surgdino.evaluations.parts.evaluation import Evaluation, open_evaluation
from surgdino.inputs.settings import AlsoSettings, DataSettings, with_defaults
from surgdino.paths import safe_name

_OWN = ("evaluation", "datasets")  # keys of an entry that are not the evaluation's
_NOT_HERE = ("dataset", "root", "recordings")
_STORED = ("short_side", "content_crop", "table")  # of the `data` section, which a dataset may have of its own


def _given(entry: Any) -> Any:
    return {} if entry is None else entry


@dataclass(frozen=True)
class SuiteSettings:
    """A suite's file: dataset -> how it is read, and name -> an evaluation with its settings."""

    datasets: dict[str, Annotated[dict[str, Any], BeforeValidator(_given)]]
    evaluations: dict[str, Annotated[dict[str, Any], BeforeValidator(_given)]]


@dataclass(frozen=True)
class Entry:
    """One evaluation of a suite.

    Attributes:
        name: in the suite.
        kind: of the evaluation, its file's name.
        evaluation: with its settings.
        datasets: those that it is for; None: all that have its labels.
    """

    name: str
    kind: str
    evaluation: Evaluation[Any]
    datasets: tuple[str, ...] | None


@dataclass(frozen=True)
class Suite:
    """A suite, checked.

    Attributes:
        datasets: name -> how it is read: keys of configs/also.yaml, and `short_side`, `content_crop` and `table`.
        entries: in the order of the file.
    """

    name: str
    datasets: Mapping[str, Mapping[str, Any]]
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class SuiteDataset:
    """A dataset that is at hand.

    Attributes:
        name: in the suite, or as `data.NAME` calls it.
        data: how it is read; frames of a name that is not its card's have a folder of their own in the store.
    """

    name: str
    card: Card
    data: DataSettings


def open_suite(name: str) -> Suite:
    """The suite `configs/suites/NAME.yaml`, or a YAML file.

    Raises:
        SurgdinoError: no such suite, not its form, an unknown evaluation, or settings that one does not take.
    """
    is_file = is_path(name)
    path = Path(name).expanduser()
    try:
        values = read_yaml(path) if is_file else _shipped(name)
        settings = typed(SuiteSettings, values, "")
        return Suite(path.stem if is_file else name, settings.datasets, tuple(_entries(settings)))
    except SurgdinoError as error:
        raise error if error.file or not is_file else error.but(file=path) from error


def _shipped(name: str) -> dict[str, Any]:
    known = files("configs/suites")
    require(name, known, "suite")
    return read_yaml(known[name])


def _entries(settings: SuiteSettings) -> list[Entry]:
    if not settings.evaluations:
        raise SurgdinoError("the suite has no evaluation", place="evaluations", expected="at least one", found="none")
    entries = []
    for name, section in settings.evaluations.items():
        place = f"evaluations.{name}"
        own = typed(_EntrySettings, {key: section[key] for key in _OWN if key in section}, place)
        kind = own.evaluation or name
        rest = {key: value for key, value in section.items() if key not in _OWN}
        for dataset in own.datasets or ():
            if dataset not in settings.datasets:
                what = f"{place}.datasets names {dataset!r}, which the suite does not have"
                raise SurgdinoError(what, fix=nearest(dataset, settings.datasets))
        entries.append(Entry(name, kind, open_evaluation(kind, rest, place), own.datasets))
    return entries


@dataclass(frozen=True)
class _EntrySettings:
    evaluation: Text | None = None
    datasets: Names | None = None


def open_data(suite: Suite, data: Mapping[str, Any]) -> tuple[list[SuiteDataset], list[str]]:
    """The datasets at hand, and the names of those of the suite that are not.

    Args:
        data: the `data` section: settings of frames and store, and `NAME: folder` or `NAME: {root: folder, ...}`, which
            a suite of one's own may say itself.

    Raises:
        SurgdinoError: a dataset that nobody knows, settings that it does not take, or none at all.
    """
    common = {key: value for key, value in data.items() if key in shipped_settings("", "benchmark")["data"]}
    given = {name: entry["root"] for name, entry in suite.datasets.items() if "root" in entry}
    given |= {name: value for name, value in data.items() if name not in common}
    found = [_dataset(name, value, suite, common) for name, value in given.items()]
    missing = [name for name in suite.datasets if name not in given]
    if not found:
        fix = f"name a folder: data.{next(iter(suite.datasets), 'cholec80')}=/path"
        raise SurgdinoError("no dataset at hand", expected=f"one of {', '.join(missing)}, or another", fix=fix)
    return found, missing


def _dataset(name: str, value: Any, suite: Suite, common: Mapping[str, Any]) -> SuiteDataset:
    place = f"data.{name}"
    entry = {**suite.datasets.get(name, {}), **(value if isinstance(value, Mapping) else {"root": value})}
    card = entry.setdefault("dataset", name)
    if card not in card_names():
        fix = nearest(str(card), [*card_names(), *suite.datasets])
        raise SurgdinoError(
            f"{place}: there is no dataset={card}", fix=f"{fix} Or write {place}={{dataset: folder, root: ...}}"
        )
    stored = {key: entry.pop(key) for key in _STORED if key in entry}
    settings = typed(AlsoSettings, with_defaults(entry), place)
    own = stored | {key: value for key, value in asdict(settings).items() if key not in _NOT_HERE}
    own["fps"] = settings.fps or common["fps"]
    store = Path(common["store"]) if name == card else Path(common["store"]) / safe_name(name)
    return SuiteDataset(
        name,
        load_card(card),
        shipped(DataSettings, "data", **{**common, **own, "root": settings.root, "store": store}),
    )
