"""What can be told of a command before torch is imported, which takes seconds: a setting of the wrong type, a file that
is not there, a folder that is no such dataset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

from surgdino import discovery, tasks
from surgdino.backbone.model_json import find_weights
from surgdino.config import shipped, typed
from surgdino.crops.augment.settings import VIEWS, AugmentSettings
from surgdino.engine.phase_settings import phase_entry
from surgdino.errors import SurgdinoError

# Verb -> what its settings are; none of these modules imports torch.
CONFIGS = {
    "pretrain": "inputs.configs.PretrainConfig",
    "finetune": "inputs.configs.FinetuneConfig",
    "evaluate": "inputs.configs.EvaluateConfig",
    "predict": "inputs.configs.PredictConfig",
    "benchmark": "inputs.configs.BenchmarkConfig",
    "curate": "inputs.configs.CurateConfig",
    "merge": "inputs.configs.MergeConfig",
    "export": "inputs.configs.ExportConfig",
    "verify": "inputs.configs.VerifySettings",
    "show": "show.frames.ShowConfig",
    "bench": "bench.frames.BenchConfig",
    "score": "tasks.scoring.folders.Folders",
}
# Section of what is chosen by name -> where the choices are.
_CHOSEN = {
    "method": ("surgdino.engine.methods", None),
    "guide": ("surgdino.engine.guides", None),
    "task": (tasks.PACKAGE, tasks.MAIN),
}
_USED_ALONE = ("verify", "show", "bench")  # of whose sections some have no use: a recipe may bring them
_PLACES = ("model.weights", "checkpoint", "data.curation", "data.table", "truth", "predictions")  # to be read
_NATURAL = "natural:"


def settings_of(verb: str) -> Any:
    """The dataclass that checks the settings of a verb."""
    room, _, name = CONFIGS[verb].rpartition(".")
    return getattr(import_module(f"surgdino.{room}"), name)


def check(verb: str, values: Mapping[str, Any], paths: Sequence[str] = ()) -> None:
    """Refuse what is wrong with a command, as far as that can be told without torch.

    Args:
        values: the composed configuration.
        paths: what stands before the settings.

    Raises:
        SurgdinoError: the same that the verb would raise later.
    """
    kind = settings_of(verb)
    data = values.get("data") or {}
    if (rootless := "root" in data and data["root"] is None) and verb in _USED_ALONE:  # generated frames
        values = {**values, "data": {**data, "root": "."}}
    used = {field.name for field in fields(kind)} if verb in _USED_ALONE else set(values)
    more = {"generated": rootless} if verb == "bench" else {}
    settings = typed(kind, {**{key: value for key, value in values.items() if key in used}, **more}, "")
    _check_data(data)
    _check_chosen(values)
    for number, entry in enumerate(values.get("phases") or ()):
        phase_entry(entry, f"phases[{number}]")
    for path in paths:
        _there(path)
    for key, path in _named(values):
        _there(path, key)
        if key == "checkpoint" and verb != "predict":  # which takes a folder of runs too
            find_weights(Path(path).expanduser())
    if verb == "benchmark":
        _check_suite(settings.suite)
        _check_backbones(settings.backbones)
        _check_one_of(data)
    if verb == "export":
        find_weights(Path(paths[0]).expanduser())
        discovery.require(settings.format, discovery.names("surgdino.exports.formats"), "format")
    dataset = values.get("dataset")
    if dataset and data.get("root") and not rootless and verb not in ("evaluate", "predict", "score"):
        _check_dataset(verb, dataset, data)


def _check_data(data: Mapping[str, Any]) -> None:
    """The types in a `data` section, also of a verb that takes those of a run for what is null."""
    known = {field.name for field in fields(_data_settings())}
    given = {key: value for key, value in data.items() if key in known and value is not None}
    shipped(_data_settings(), "data", **{"root": ".", **given})


def _check_chosen(values: Mapping[str, Any]) -> None:
    """The sections of what is chosen by name, where their settings are in a file of their own."""
    chosen = [(f"guide.{key}", section) for key, section in (values.get("guide") or {}).items()]
    for place, section in [*chosen, *((key, values.get(key)) for key in ("method", "task"))]:
        if section:
            word = place.partition(".")[0]
            package, main = _CHOSEN[word]
            if kind := discovery.settings_of(package, str(section.get("name")), word, main):
                typed(kind, section, place)
    if augment := values.get("augment"):
        settings = typed(AugmentSettings, augment, "augment")
        for view in VIEWS:
            settings.effects(view)


def _data_settings() -> Any:
    from surgdino.inputs.settings import DataSettings

    return DataSettings


def _named(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Setting -> each file or folder that it names, where that must be there."""
    for key in _PLACES:
        section, _, last = key.rpartition(".")
        found = (values.get(section) or {} if section else values).get(last)
        for path in found if isinstance(found, list | tuple) else [found]:
            if isinstance(path, str) and "{" not in path:  # of several runs, each has its own
                yield key, path


def _there(path: str, key: str | None = None) -> None:
    if not Path(path).expanduser().exists():
        raise SurgdinoError("does not exist", file=path, place=key, fix="check the path")


def _check_suite(name: str) -> None:
    if discovery.is_path(name):
        _there(name, "suite")
    else:
        discovery.require(name, discovery.files("configs/suites"), "suite")


def _check_backbones(items: Sequence[str]) -> None:
    for item in items:
        if place := item.removeprefix(_NATURAL):
            _there(place, "backbones")


def _check_one_of(data: Mapping[str, Any]) -> None:
    """Of the datasets `data.NAME=FOLDER`, one must be there: the others cost themselves alone."""
    from surgdino.datasets.open import folder_of

    named = {key: value for key, value in data.items() if key not in {field.name for field in fields(_data_settings())}}
    roots = {key: value.get("root") if isinstance(value, Mapping) else value for key, value in named.items()}
    given = {key: root for key, root in roots.items() if isinstance(root, str)}
    if given and not any(Path(root).expanduser().is_dir() for root in given.values()):
        key, root = next(iter(given.items()))
        folder_of(key, root, f"data.{key}")


def _check_dataset(verb: str, dataset: Mapping[str, Any], data: Mapping[str, Any]) -> None:
    """The card, the folders of the datasets, and what the first of them holds."""
    from surgdino.datasets.card import Card
    from surgdino.datasets.open import folder_of
    from surgdino.inputs.settings import open_ahead, require_split

    card, settings = Card.from_dict(dict(dataset)), shipped(_data_settings(), "data", **data)
    folder_of(card.name, settings.root)
    for entry in settings.also:
        folder_of(entry.dataset, entry.root, "data.also")
    if verb == "finetune":
        require_split(card, settings)
    if verb != "verify":  # which is about to do the same
        open_ahead(card, settings)
