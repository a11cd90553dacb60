"""The pages of docs/: their links lead somewhere, what they name exists, and they make a site without a warning."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Annotated, Literal, get_type_hints
from urllib.parse import unquote, urlsplit

import pytest
from pydantic import Field

from surgdino.cli import help
from surgdino.cli.main import CONFIGURED, VERBS
from surgdino.config import NonNegativeInt, flat_keys, read_yaml
from surgdino.discovery import files
from surgdino.verbs.list import KINDS
from tests import ROOT
from tests.house.pages import CHECKED_BY, DOCS, checked_by, escaped, generator, settings_table, spelled, written_pages

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
        for page in re.findall(r"\bdocs/[\w/]+\.md", path.read_text(encoding="utf-8"))
    }
    assert named
    assert not [f"{path}: {page}" for path, page in sorted(named) if not (ROOT / page).is_file()]


def known_settings() -> set[str]:
    """Every setting of every command and of every choice."""
    found = {f"data.{key}" for key in read_yaml(files("configs")["also"])}
    found |= {f"data.{name}" for name in files("datasets")}  # of surgdino benchmark
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
    assert CHECKED_BY.keys() == set(CONFIGURED)
    assert checked_by(verb).__dataclass_fields__


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, made as `make docs` makes it: a warning is an error, and no connection can be opened."""
    pytest.importorskip("sphinx")
    pytest.importorskip("myst_parser")
    pytest.importorskip("furo")
    out = tmp_path_factory.mktemp("site")
    offline = "import socket, sys\ndef refused(*_, **__): raise OSError('no network here')\n"
    offline += "socket.socket.connect = refused; socket.getaddrinfo = refused\n"
    offline += "from sphinx.cmd.build import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", offline, "-W", "--keep-going", "-q", "-E", "-d", str(out / "trees")]
    done = subprocess.run([*command, str(DOCS), str(out / "html")], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-4000:]
    return out / "html"


class Links(HTMLParser):
    """What a page refers to, and what it can be referred to by."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.targets: set[str] = set()
        self.loaded: set[str] = set()
        self.names: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if name := found.get("id"):
            self.names.add(name)
        if target := found.get("href"):
            (self.loaded if tag == "link" and found.get("rel") == "stylesheet" else self.targets).add(target)
        if target := found.get("src"):
            self.loaded.add(target)


@pytest.mark.slow
def test_the_site_is_whole(site):
    """Every link and anchor exists, nothing is loaded from elsewhere, and every page can be reached from the first."""
    pages = {path.resolve(): Links(text_of(path)) for path in site.rglob("*.html")}
    wrong, leads = [], {}
    for path, links in pages.items():
        leads[path] = set()
        for target in links.targets | links.loaded:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                if target in links.loaded and parts.scheme != "data":
                    wrong.append(f"{path.name} loads {target}")
                continue
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not file.exists():
                wrong.append(f"{path.name} -> {target}")
            elif file in pages:
                leads[path].add(file)
                if parts.fragment and unquote(parts.fragment) not in pages[file].names:
                    wrong.append(f"{path.name} -> {target}")
    for style in site.rglob("*.css"):
        wrong += [
            f"{style.name}: {found}"
            for found in re.findall(r"url\(['\"]?(?:https?:)?//[^)]*\)|@import[^;]*", text_of(style))
        ]
    assert not wrong, "\n".join(wrong[:50])
    first = (site / "index.html").resolve()
    reached, ahead = set(), {first}
    while ahead:
        reached |= ahead
        ahead = {there for page in ahead for there in leads[page]} - reached
    assert {path.name for path in pages.keys() - reached} <= {"search.html", "genindex.html", "404.html"}
    assert {page.relative_to(DOCS).with_suffix(".html") for page in written_pages()} <= {
        path.relative_to(site.resolve()) for path in pages
    }


@pytest.mark.slow
def test_the_reference_names_every_command_setting_and_choice(site):
    folder = site / "reference" / "generated"
    shown = {path.stem: re.sub(r"<[^>]+>", " ", text_of(path)) for path in folder.glob("*.html")}
    for verb in VERBS:
        assert f"surgdino {verb}" in shown[f"command-{verb}"]
    for verb in CONFIGURED:
        for key in help.explained(verb)[0]:
            section = key.partition(".")[0]
            page = generator.commands.CHOSEN.get(section, f"command-{verb}")
            if not key.endswith(".name"):
                assert key in shown[page], f"{page} lacks {key}"
    for kind, (word, folder_of) in KINDS.items():
        for name, path in files(folder_of).items():
            assert f"{word}={name}" in shown[kind]
            for key in read_yaml(path) if kind in ("methods", "tasks", "models") else ():
                assert key == "name" or f"{word}.{key}" in shown[kind]
