"""A tutorial as a program: its blocks run in order in one shell, and what they print is compared with what it shows.

What a page says, and what becomes of it:

- a fence of `sh` or `python` is run. A comment `<!-- not run: WHY -->` before it leaves it out (it needs a network);
- a fence after a line that is a path and a colon (`ours/methods/agree.py`:) is written to that file;
- a fence of `text` is what the block before it prints. Each of its lines must be printed, in this order, with the same
  words; numbers and spaces may differ. `...` stands for anything, also within a line;
- a comment `<!-- executed ... -->` at its top holds YAML: `set`, what `export NAME=...` gives here (`stand_ins.py`);
  `instead`, other values of settings wherever a command gives them; and `small`, by verb, the settings that replace or
  join those of a command. So it takes seconds. Nothing else differs from what a reader types.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tests import ROOT

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_EXECUTED = re.compile(r"<!-- executed\b.*?\n(.*?)-->", re.DOTALL)
_NOT_RUN = re.compile(r"<!-- not run: (.+?) -->\s*$")
_PATH = re.compile(r"(?:^|\n)`([\w./-]+)`:\s*$")
_MARK = "@@ block"
_SURGDINO = """\
#!{python}
import json, sys
from surgdino.cli.main import main
instead, small = json.loads({changes!r})
words = [f"{{key}}={{instead[key]}}" if (key := word.split("=")[0]) in instead else word for word in sys.argv[1:]]
small = small.get(words[0] if words else "", [])
keys = {{word.split("=")[0] for word in small}}
sys.exit(main([word for word in words if word.split("=")[0] not in keys] + small))
"""


@dataclass
class Block:
    """A fence that is run, or written to `file`; `shown` is what the page says it prints."""

    kind: str
    text: str
    file: str | None = None
    not_run: str | None = None
    shown: list[str] = field(default_factory=list)


@dataclass
class Page:
    """A tutorial's blocks, what it sets and what makes it small."""

    path: Path
    blocks: list[Block]
    set: Mapping[str, str]
    instead: Mapping[str, str]
    small: Mapping[str, list[str]]


def read_page(path: Path) -> Page:
    """The blocks of a Markdown file in their order."""
    text = path.read_text(encoding="utf-8")
    head = _EXECUTED.search(text)
    assert head, f"{path.name}: no comment <!-- executed -->"
    given = yaml.safe_load(head[1])
    blocks: list[Block] = []
    for fence in _FENCE.finditer(text):
        kind, content, before = fence[1], fence[2], text[: fence.start()].rstrip("\n")
        if kind == "text":
            assert blocks, f"{path.name}: an output before the first block"
            blocks[-1].shown += content.splitlines()
            continue
        file, not_run = _PATH.search(before), _NOT_RUN.search(before)
        if kind in ("sh", "python") or file:
            blocks.append(Block(kind, content, file and file[1], not_run and not_run[1]))
    return Page(path, blocks, given.get("set", {}), given.get("instead", {}), given.get("small", {}))


def written(path: Path) -> dict[str, str]:
    """File -> text of the files that a page writes."""
    return {block.file: block.text for block in read_page(path).blocks if block.file}


def run(page: Page, folder: Path, values: Mapping[str, str]) -> list[str]:
    """Run the page in `folder` and give what each block printed.

    Args:
        values: NAME -> what `export NAME=...` gives.
    """
    tools = folder / ".bin"
    tools.mkdir()
    changes = json.dumps([page.instead, page.small])
    programs = {
        "surgdino": _SURGDINO.format(python=sys.executable, changes=changes),
        "python": f'#!/bin/sh\nexec {sys.executable} "$@"\n',
        "pip": "#!/bin/sh\necho not here\n",
    }
    for name, program in programs.items():
        (tools / name).write_text(program)
        (tools / name).chmod(0o755)
    script = folder / ".page.sh"
    script.write_text("set -eo pipefail\n" + "".join(_shell(*numbered, values) for numbered in enumerate(page.blocks)))
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    with (folder / ".printed").open("w+") as printed:
        command = ["bash", str(script)]
        code = subprocess.run(command, cwd=folder, env=environment, stdout=printed, stderr=subprocess.STDOUT).returncode
    text = (folder / ".printed").read_text()
    parts = re.split(rf"^{_MARK} \d+\n", text, flags=re.MULTILINE)[1:]
    said = f"$ {page.blocks[len(parts) - 1].text}\n{parts[-1]}" if parts else text
    assert code == 0, f"{page.path.name}: exit code {code}\n{said}"
    return parts


def _shell(number: int, block: Block, values: Mapping[str, str]) -> str:
    """A block as lines of the page's script."""
    text = block.text
    for name, value in values.items():
        text = re.sub(rf"^export {name}=.*$", f"export {name}='{value}'", text, flags=re.MULTILINE)
    if block.not_run:
        text = ":\n"
    elif block.file:
        text = f"mkdir -p $(dirname {block.file})\ncat > {block.file} <<'END_OF_BLOCK'\n{text}END_OF_BLOCK\n"
    elif block.kind == "python":
        guard = (
            "import surgdino.backbone.timm_import\n" if re.search("import timm|transformers", text) else ""
        )  # torchvision may not load here
        text = f"python - <<'END_OF_BLOCK'\n{guard}{text}END_OF_BLOCK\n"
    return f"printf '\\n{_MARK} {number}\\n'\n{text}"


def missing(shown: list[str], printed: str) -> str | None:
    """The first line that a page shows and a block has not printed at that place; None where all are there."""
    left = iter([_shape(line) for line in printed.splitlines()])
    for line in shown:
        wanted = re.compile(".*".join(re.escape(_shape(part)) for part in line.split("...")))
        if line.strip() not in ("", "...") and not any(wanted.fullmatch(each) for each in left):  # takes lines off
            return line
    return None


def _shape(line: str) -> str:
    """A line without its numbers and the lengths of its gaps, bars and frames."""
    return re.sub(r"[\s─━·█▁-▇]+", " ", re.sub(r"[-+]?\d[\d.,:]*", "#", line)).strip("\ufeff ")
