"""The commands that README, docs and recipes give are commands that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from surgdino.backbone.catalogue import entry
from surgdino.cli.compose import compose
from surgdino.cli.configured import SUBJECTS
from surgdino.cli.main import CONFIGURED, VERBS
from tests import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "recipes").glob("*.yaml"))]
COMMAND = re.compile(r"^(?:#\s+)?(?:\$ )?(?:torchrun .* --no-python )?surgdino ((?!VERB)[a-z]+.*)$", re.MULTILINE)


def code_of(page: Path) -> str:
    """A recipe's text, and of a page what stands in fences: prose may begin a line with our name too."""
    text = page.read_text()
    return text if page.suffix == ".yaml" else "\n".join(re.findall(r"```\w*\n(.*?)```", text, re.DOTALL))


COMMANDS = sorted({(page.name, line) for page in PAGES for line in COMMAND.findall(code_of(page))})


def test_the_readme_opens_with_its_two_commands():
    head = (ROOT / "README.md").read_text().splitlines()[:6]
    assert any("`make demo`" in line for line in head)
    assert any("`make test`" in line for line in head)
    targets = (ROOT / "Makefile").read_text()
    assert "\ndemo:" in targets
    assert "\ntest:" in targets


def test_commands_were_found():
    assert len(COMMANDS) > 8


@pytest.mark.quick("README")
@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=lambda value: value[:60])
def test_every_command_is_one(page, line):
    words = [word for word in shlex.split(line.split("  #")[0]) if word != "..."]
    verb, rest = words[0], words[1:]
    assert verb in VERBS, f"{page}: surgdino {line}"
    if verb == "weights" and rest[0] == "get":
        assert entry(rest[1]).name == rest[1]
    if verb not in CONFIGURED:
        return
    if verb in SUBJECTS:
        assert rest[0] in SUBJECTS[verb]
        rest = rest[1:]
    settings = [word for word in rest if "=" in word and "..." not in word and not word.startswith("hydra")]
    compose(verb, settings)
