"""A page a command: its settings, with defaults and explanations of the YAML files and types of the code."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import redirect_stdout

from generator.markdown import Row, escaped, settings_table, spelled, type_of
from surgdino.cli import help
from surgdino.cli.compose import GROUPS
from surgdino.cli.configured import PATHS, SUBJECTS
from surgdino.cli.early import settings_of
from surgdino.cli.main import CONFIGURED, VERBS, main
from surgdino.config import read_yaml
from surgdino.inputs.settings import AlsoSettings
from surgdino.paths import share

# Sections that a choice fills: which page explains them.
CHOSEN = {"model": "models", "method": "methods", "guide": "guides", "task": "tasks", "augment": "augments"}
PAGES = {**CHOSEN, "dataset": "datasets", "recipe": "recipes", "hardware": "hardware"}


def pages() -> dict[str, str]:
    """`command-VERB` -> its page, for every command that there is."""
    return {f"command-{verb}": configured(verb) if verb in CONFIGURED else other(verb) for verb in VERBS}


def configured(verb: str) -> str:
    """The page of a command with settings."""
    values, comments, chosen = help.explained(verb)
    chosen |= {
        group: None for group in GROUPS if {group: []} in read_yaml(share("configs") / f"{verb}.yaml")["defaults"]
    }
    lines = [f"# surgdino {verb}", "", _about(verb), "", "```text", _usage(verb), "```", ""]
    if chosen:
        lines += ["## Choices", "", "| word | default | choose from |", "| --- | --- | --- |"]
        for group, name in chosen.items():
            lines.append(f"| `{group}=` | {f'`{name}`' if name else 'none'} | [{PAGES[group]}]({PAGES[group]}.md) |")
        lines.append("")
    common = [key for key in help.common(verb) if key in values and key.partition(".")[0] not in CHOSEN]
    lines += ["## Common settings", "", settings_table(_rows(verb, common, values, comments))] if common else []
    sections: dict[str, list[str]] = defaultdict(list)
    for key in values:
        section = key.partition(".")[0] if "." in key else ""
        sections[section].append(key)
    lines += ["## All settings", ""] if common else []
    for section in sorted(sections, key=lambda each: each != ""):
        if section in CHOSEN:
            continue
        title = f"`{section}.`" if section else "Without a section"
        lines += [f"### {title}", "", settings_table(_rows(verb, sections[section], values, comments))]
    if "data.also" in values:
        lines += ["### An entry of `data.also`", "", settings_table(_also())]
    if filled := [group for group in CHOSEN if group in chosen]:
        links = ", ".join(f"[`{group}.`]({CHOSEN[group]}.md)" for group in filled)
        lines += ["### What a choice brings", "", f"The settings of these sections depend on the choice: {links}.", ""]
    return "\n".join(lines)


def _also() -> Iterable[Row]:
    path = share("configs") / "also.yaml"
    comments = help.commented(path.read_text(encoding="utf-8"))
    for key, value in help.flat(read_yaml(path)):
        yield key, value, spelled(type_of(AlsoSettings, [key])), comments.get(key, "")


def other(verb: str) -> str:
    """The page of a command that has words of its own: its help."""
    shown = io.StringIO()
    with redirect_stdout(shown):
        main([verb, "--help"])
    return f"# surgdino {verb}\n\n{_about(verb)}\n\n```text\n{shown.getvalue().strip()}\n```\n"


def _about(verb: str) -> str:
    text = VERBS[verb].partition(": surgdino ")[0]
    return f"{escaped(text[:1].upper() + text[1:])}."


def _usage(verb: str) -> str:
    start = PATHS[verb][1] if verb in PATHS else f"surgdino {verb} {'|'.join(SUBJECTS.get(verb, ()))}".rstrip()
    return f"{start} [group=choice ...] [section.key=value ...]"


def _rows(verb: str, keys: Iterable[str], values: Mapping[str, str], comments: Mapping[str, str]) -> Iterable[Row]:
    root = settings_of(verb)
    for key in keys:
        kind = type_of(root, key.split("."))
        yield key, values[key], spelled(kind) if kind is not None else "", comments.get(key, "")
