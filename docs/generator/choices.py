"""A page for each kind of choice: models, methods, guides, tasks, augmentations, hardware, suites, recipes, cards."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_type_hints

from generator.markdown import Row, code, escaped, settings_table, spelled, type_of
from surgdino import discovery
from surgdino.backbone.settings import ModelSettings
from surgdino.cli import help
from surgdino.config import read_yaml
from surgdino.crops.augment.build import AugmentSettings
from surgdino.datasets.card import Card, load_card
from surgdino.discovery import files
from surgdino.engine.guide import Guide
from surgdino.engine.method import Method
from surgdino.engine.settings import HardwareSettings
from surgdino.tasks.task import MAIN, PACKAGE, Task
from surgdino.verbs.list import KINDS, describe
from surgdino.yaml_files import yaml_text

_INTRO = {
    "models": "What is adapted: a vision transformer of timm. `model.weights` names the file it starts from; "
    "`surgdino weights list` shows what can be had.",
    "methods": "What is learnt from frames without labels. See [the objective](../../objective.md).",
    "guides": "What is learnt beside the method from what an archive knows for free. See [guides](../../guides.md).",
    "tasks": "What `surgdino finetune` learns from labels. See [tasks](../../tasks.md).",
    "augments": "How frames are changed while the backbone learns. `surgdino show augment` draws it.",
    "hardware": "Where it runs. All three take the same settings.",
    "suites": "What `surgdino benchmark` measures. See [benchmark](../../benchmark.md).",
    "recipes": "Whole experiments: a file that sets many settings at once. What the command says beside it wins.",
    "datasets": "The cards: what is known of a dataset before its folder is opened. See [data](../../data.md).",
}
_WHOLE = ("suites", "recipes")  # shown as the files that they are
_LISTS = ("phases", "steps", "tools", "actions", "instruments", "verbs", "targets", "cvs", "mask_classes")


def pages() -> dict[str, str]:
    """Kind -> its page."""
    return {kind: _page(kind, setting, folder) for kind, (setting, folder) in KINDS.items()}


def _page(kind: str, setting: str, folder: str) -> str:
    found = files(folder)
    lines = [f"# {kind.capitalize()}", "", _INTRO.get(kind, ""), ""]
    lines += ["| word | what it is |", "| --- | --- |"]
    lines += [f"| [`{setting}={name}`](#{_anchor(name)}) | {escaped(describe(path))} |" for name, path in found.items()]
    for name, path in found.items():
        lines += ["", f"## {name}", "", *_entry(kind, name, path)]
    return "\n".join(lines) + "\n"


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")


def _entry(kind: str, name: str, path: Path) -> Iterable[str]:
    if kind == "datasets":
        return _card(load_card(name))
    text = yaml_text(path)
    if kind in _WHOLE:
        return ["```yaml", text.strip(), "```"]
    about = " ".join(line.lstrip("# ").strip() for line in _head(text))
    return [escaped(about), "", settings_table(_rows(kind, path, text))]


def _head(text: str) -> Iterable[str]:
    """The lines of comment that a file begins with, but Hydra's own."""
    for line in text.splitlines():
        if not line.startswith("#"):
            return
        if not line.startswith("# @package"):
            yield line


def _rows(kind: str, path: Path, text: str) -> Iterable[Row]:
    package = KINDS[kind][0]
    if named := re.search(r"# @package (\S+)", text):
        package = named[1]
    values = read_yaml(path)
    comments = help.commented(text, package)
    checked = settings_of(kind, values)
    for key, value in help.flat(values, f"{package}."):
        if key == f"{package}.name":
            continue
        found = type_of(checked, key.removeprefix(f"{package}.").split("."))
        yield key, value, spelled(found) if found is not None else "", comments.get(key, "")


def settings_of(kind: str, values: dict[str, Any]) -> Any:
    """The dataclass that checks a choice's settings."""
    fixed = {"models": ModelSettings, "augments": AugmentSettings, "hardware": HardwareSettings}
    if kind in fixed:
        return fixed[kind]
    name = str(values["name"])
    if kind == "tasks":
        return discovery.defined(discovery.load(PACKAGE, name, "task", MAIN), Task).Settings  # type: ignore[type-abstract]
    base, package = (Method, "methods") if kind == "methods" else (Guide, "guides")
    module = discovery.load(f"surgdino.engine.{package}", name, package)
    return get_type_hints(discovery.defined(module, base))["settings"]  # type: ignore[type-abstract]


def _card(card: Card) -> Iterable[str]:
    facts = {
        "licence": escaped(card.licence),
        "where to get it": escaped(card.how_to_get),
        "frames a second that labels count in": f"{card.fps:g}" if card.fps else "",
        "videos": ", ".join(map(str, card.videos)) if len(card.videos) <= 12 else str(len(card.videos)),
        "operation": code(card.operation) if card.operation else "",
        **{key.replace("_", " "): escaped(", ".join(getattr(card, key))) for key in _LISTS},
        "masks, by id or colour": escaped(", ".join(f"{name}: {value}" for name, value in card.masks.items())),
        "splits": "<br>".join(f"{code(split)}: {', '.join(parts)}" for split, parts in card.splits.items()),
        "shows operations of": ", ".join(map(code, card.overlaps)),
        "may show operations of": ", ".join(map(code, card.overlap_unknown)),
        "notes": escaped(card.notes),
        "not confirmed on released files": escaped("; ".join(_texts(card.unconfirmed))),
    }
    yield from (escaped(card.title), "", "| | |", "| --- | --- |")
    yield from (f"| {name} | {text} |" for name, text in facts.items() if text)
    if card.layout:
        yield from ("", "```text", *card.layout, "```")


def _texts(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)
