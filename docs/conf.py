"""Sphinx's settings for the documentation: `make docs`. The site needs no network, neither to build nor to read."""

from __future__ import annotations

import re
import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS), str(DOCS.parent)]

import generator  # noqa: E402

from surgdino import __version__  # noqa: E402

project = "surgdino"
author = "The surgdino developers"
project_copyright = author
release = version = __version__

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
root_doc = "index"
exclude_patterns = ["generator"]
nitpicky = True
language = "en"
highlight_language = "text"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4  # the same names as on a forge, so that `page.md#a-heading` works in both

html_theme = "furo"
html_title = f"surgdino {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True, "top_of_page_buttons": []}


# Files beside docs/ that pages link to, and the pages that have what they say.
_BESIDE = {"README.md#install": "start.md#1-install", "README.md": "index.md"}
_BESIDE |= {f"{name}.md": f"{name.lower()}.md" for name in ("CONTRIBUTING", "CHANGELOG")}


def _inside(app, docname, source):
    """Turn links to files beside docs/ into links to pages."""
    for file, page in _BESIDE.items():
        source[0] = re.sub(rf"\]\((?:\.\./)+{re.escape(file)}\)", f"](/{page})", source[0])


def setup(app):
    """Write the pages that are made from the code, before Sphinx looks for pages."""
    app.connect("source-read", _inside)
    app.connect("builder-inited", lambda app: generator.write(Path(app.srcdir) / "reference" / "generated"), priority=1)
