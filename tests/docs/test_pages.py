"""The pages of docs/: their links lead somewhere, what they name exists, and they make a site without a warning."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_type_hints
from urllib.parse import unquote, urlsplit

import pytest
from pydantic import Field

from surgdino.backbone.model_json import ModelJson
from surgdino.cli import early, help
from surgdino.cli.main import CONFIGURED
from surgdino.config import NonNegativeInt, flat_keys, read_yaml
from surgdino.curation import table as curation_table
from surgdino.discovery import files
from surgdino.frames import shard_index
from surgdino.metrics.scores import Score
from surgdino.runs import results
from surgdino.tasks.saved import TaskJson
from surgdino.verbs.list import KINDS
from tests import ROOT
from tests.docs.pages import DOCS, escaped, settings_table, spelled, written_pages

PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + written_pages()
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```|`[^`\n]+`", re.DOTALL | re.MULTILINE)
_SETTING = re.compile(r"`'?([a-z_]+\.[a-z_0-9.]+)(?:=[^`]*)?`")
_NOT_SETTINGS = re.compile(r"\.(?:json|jsonl|py|csv|md|txt|png|safetensors|html|yaml|zip|npy|mp4|pt|pth)$|\.cpp$")


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """The names that a forge and Sphinx give to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text_of(page), flags=re.DOTALL | re.MULTILINE), re.M)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(page):
    wrong = []
    for target in LINK.findall(_FENCE.sub("", text_of(page))):
        parts = urlsplit(target)
        if parts.scheme:
            continue
        file = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        if "generated" in file.parts:
            continue  # made with the site, which is checked as a whole
        if not file.exists() or (parts.fragment and parts.fragment not in anchors(file)):
            wrong.append(target)
    assert not wrong, f"{page.name}: {', '.join(wrong)}"


def test_files_that_name_a_page_name_one_that_there_is():
    folders = [ROOT / name for name in ("surgdino", "configs", "recipes", "datasets", "benchmarks", "tests")]
    named = {
        (path.relative_to(ROOT), page)
        for folder in folders
        for path in [*folder.rglob("*.py"), *folder.rglob("*.yaml")]
        for page in re.findall(r"\bdocs/(?!README)[\w/]+\.md", path.read_text(encoding="utf-8"))
    }
    assert named
    assert not [f"{path}: {page}" for path, page in sorted(named) if not (ROOT / page).is_file()]


def known_settings() -> set[str]:
    """Every setting of every command and of every choice."""
    found = {f"data.{key}" for key in read_yaml(files("configs")["also"])}
    suites = " ".join(text_of(path) for path in files("configs/suites").values())
    found |= {f"data.{name}" for name in [*files("datasets"), *re.findall(r"\w+", suites)]}  # of surgdino benchmark
    found |= {"method.width", "method.widht"}  # of a tutorial's own method, and a slip of the pen that a page shows
    for verb in CONFIGURED:
        values = help.explained(verb)[0]
        found |= set(values) | {key.rpartition(".")[0] for key in values}
    for word, folder in KINDS.values():
        for name, path in files(folder).items():
            prefix = f"{word}.{name}." if word == "guide" else f"{word}."
            found |= {key if word == "recipe" else f"{prefix}{key}" for key in flat_keys(read_yaml(path))}
    return found


@pytest.mark.slow
def test_every_setting_that_a_page_names_is_one():
    known = known_settings()
    sections = {key.partition(".")[0] for key in known if "." in key} - {"defaults", "name"}
    wrong = []
    for page in written_pages():
        if page.name == "python.md":  # `model.info` is an attribute there
            continue
        for key in _SETTING.findall(text_of(page)):
            key = key.rstrip(".")
            free = key.startswith(("guide.column_", "dataset.", "hydra.")) or _NOT_SETTINGS.search(key)
            if key.partition(".")[0] in sections and key not in known and not free:
                wrong.append(f"{page.name}: {key}")
    assert not wrong, "\n".join(wrong)


# The generated pages


@dataclass(frozen=True)
class Settings:
    size: Annotated[int, Field(ge=8, le=4096)]
    share: Annotated[float, Field(gt=0, le=1)] | None
    names: tuple[str, ...]
    mode: Literal["a", "b"]
    count: NonNegativeInt


def test_types_are_told_in_words_with_their_bounds():
    hints = {name: spelled(hint) for name, hint in get_type_hints(Settings, include_extras=True).items()}
    assert hints == {
        "size": "whole number, 8 to 4,096",
        "share": "number, more than 0, at most 1; or null",
        "names": "list: text",
        "mode": "a or b",
        "count": "whole number, 0 or more",
    }


def test_a_table_shows_comments_as_they_are():
    row = ("train.lr", "0.1", "number", "a|b of <x>, [c] in `d|e`")
    assert settings_table([row]).splitlines()[2] == (
        r"| `train.lr`<br>`0.1` | a\|b of \<x\>, \[c\] in `d\|e`<br>*number* |"
    )
    assert escaped("*_$") == r"\*\_\$"


@pytest.mark.parametrize("verb", CONFIGURED)
def test_every_command_has_a_class_that_checks_its_settings(verb):
    assert early.settings_of(verb).__dataclass_fields__


# The page on files


def written_names() -> dict[str, set[str]]:
    """What of each file the code reads or writes, by the file's name."""
    return {
        "model.json": {field.name for field in dataclasses.fields(ModelJson)},
        "task.json": {field.name for field in dataclasses.fields(TaskJson)},
        "index.json": {field.name for field in dataclasses.fields(shard_index._Index)} | set(shard_index.COLUMNS),
        "curation.parquet": set(curation_table._COLUMNS),
        "results.json": set(results._row(Score("accuracy", "phase/script", 0.5, 0.1, 0.4, 0.6, 6, {}))),
    }


@pytest.mark.parametrize("file", written_names())
def test_the_page_on_files_names_each_field(file):
    told = set(re.findall(r"`([\w.-]+)`", text_of(DOCS / "reference" / "files.md")))
    assert not written_names()[file] - told
