"""The site is made of the pages without a warning and without network; it is whole, and names everything."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from surgdino.cli import help
from surgdino.cli.main import CONFIGURED, VERBS
from surgdino.config import read_yaml
from surgdino.discovery import files
from surgdino.verbs.list import KINDS
from tests import ROOT
from tests.docs.pages import DOCS, generator, written_pages

pytestmark = pytest.mark.slow


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


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
