"""What the pages, the README and the recipes tell to type are commands, with settings and values that there are."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from surgdino.backbone.catalogue import entry
from surgdino.cli import configured, early
from surgdino.cli.compose import GROUPS, choices
from surgdino.cli.main import CONFIGURED, VERBS
from surgdino.config import plain, typed
from tests import ROOT
from tests.docs.pages import settings_of, written_pages

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *written_pages(), *sorted((ROOT / "recipes").glob("*.yaml"))]
COMMAND = re.compile(r"^(?:#\s+)?(?:\$ )?(?:torchrun .* --no-python )?surgdino ((?!VERB)[a-z]+.*)$", re.MULTILINE)
LEFT_OUT = re.compile(
    r"\.\.\.|^-m|^hydra|^\[|=[A-Z]+$|^task=bleeding$"
)  # not told, the launcher's, or not ours to know
INLINE = re.compile(r"`surgdino ([a-z]+ [^`]+)`")


def commands_of(page: Path) -> set[str]:
    """What a page tells to type: in fences, indented, and in the text; in a recipe, wherever it stands."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    if page.suffix == ".yaml":
        return set(COMMAND.findall(text))
    fences = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)  # prose may begin with our name too
    indented = re.findall(r"^    (\S.*)$", text, re.MULTILINE)
    return {line for block in [*fences, "\n".join(indented)] for line in COMMAND.findall(block)} | set(
        INLINE.findall(text)
    )


COMMANDS = sorted({(page.name, line) for page in PAGES for line in commands_of(page)})


# Pages that show how to add a choice of one's own, which no command of ours knows.
EXTENDING = {page.name for page in PAGES if "export SURGDINO_EXTENSIONS=" in page.read_text(encoding="utf-8")}


def pairs(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    for word in words:
        key, equals, value = word.partition("=")
        if equals:
            yield key, value


def test_commands_were_found():
    assert len(COMMANDS) > 150


@pytest.mark.quick("README")
@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=lambda value: value[:60])
def test_every_command_is_one(page, line, monkeypatch, capsys):
    words = shlex.split(re.sub(r"\s#\s.*", "", line))
    verb = words[0]
    assert verb in VERBS, f"{page}: surgdino {line}"
    if verb == "weights" and words[1:2] == ["get"] and len(words) > 2 and words[2].islower():
        assert entry(words[2]).name == words[2]
    if verb not in CONFIGURED:
        return
    if page in EXTENDING and any(group in GROUPS and name not in choices(group) for group, name in pairs(words)):
        return
    composed: list[DictConfig] = []
    monkeypatch.setattr(configured, "_run", lambda verb, subject, cfg, **how: composed.append(cfg) or 0)
    kept = [word for word in words[1:] if not LEFT_OUT.search(word)]
    if verb in configured.PATHS and not any("=" not in word for word in kept[:1]):
        kept = ["PATH", *kept]
    if verb in configured.SUBJECTS and kept[:1] and "|" in kept[0]:
        kept[0] = kept[0].partition("|")[0]
    if len(words) == 1:  # the name of the verb alone
        return
    configured.run_configured(verb, kept)
    for cfg in composed:
        check_types(verb, cfg)


def check_types(verb: str, cfg: DictConfig) -> None:
    """That every value is one that the setting takes; nothing is said of a command that leaves required words out."""
    if OmegaConf.missing_keys(cfg):
        return
    values = plain(cfg)
    kind = early.settings_of(verb)
    taken = {field.name: values[field.name] for field in fields(kind) if field.name in values}
    if verb in ("show", "bench"):
        taken["data"] = {**taken["data"], "root": taken["data"]["root"] or "x"}
    if verb == "bench":
        taken["generated"] = True
    typed(kind, taken, "")
    for section, kinds in {"method": "methods", "task": "tasks", "augment": "augments"}.items():
        if values.get(section):
            typed(settings_of(kinds, values[section]), values[section], section)
    for key, guide in values.get("guide", {}).items():
        typed(settings_of("guides", guide), guide, f"guide.{key}")
