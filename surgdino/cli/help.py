"""`surgdino VERB --help`: the settings of a verb, explained by the comments of the YAML files that hold them."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from omegaconf import OmegaConf

from surgdino.cli.compose import GROUPS, choices, compose
from surgdino.config import read_yaml
from surgdino.paths import share

# A mapping's line: its key, its value, the comment behind it. A hash inside quotes or a word opens no comment.
_LINE = re.compile(r"""( *)"?([\w-]+)"?:(?: +|$)((?:"[^"]*"|'[^']*'|[^'"#]|(?<=\S)\#)*?) *(?:(?<!\S)\# ?(.*))?$""")
_COMMON = re.compile(r"# help: (.*)")  # a line of a verb's file: the settings that most of its users need
_PACKAGE = re.compile(r"# @package (\w+)")
_PLAIN = ("data", "crops", "probe")  # files without a list of defaults
_WIDTHS = (60, 120)  # columns: narrower and wider terminals get these


def page(verb: str, about: str, usage: str, words: Sequence[str]) -> str:
    """The text of `surgdino VERB [group=choice ...] --help [all]`; with the choices and values that `words` make.

    Raises:
        SurgdinoError: a choice that there is not, a word that is no setting.
    """
    everything = "all" in words
    values, comments, chosen = explained(verb, [word for word in words if word not in ("-h", "--help", "all")])
    width = min(max(shutil.get_terminal_size().columns, _WIDTHS[0]), _WIDTHS[1]) - 1
    keys = list(values) if everything else [key for key in common(verb) if key in values]
    about = about.partition(": surgdino ")[0]  # the usage says the rest
    lines = textwrap.wrap(f"surgdino {verb}: {about}", width, break_on_hyphens=False)
    lines += ["", f"Usage: {usage}", "", "Choices, and which is made"]
    for group in (group for group in GROUPS if group in chosen):
        lines += _row(group, chosen[group] or "none", " | ".join(choices(group)), width)
    lines += ["", "All settings" if everything else "Common settings"]
    for key in keys:
        lines += _row(key, values[key], comments.get(key, ""), width)
    lines += [""] if everything else ["", f"surgdino {verb} --help all lists all {len(values)} settings."]
    foot = f"A choice changes what is listed: surgdino {verb} GROUP=CHOICE --help."
    foot += f" surgdino {verb} ... --cfg job prints what a command runs with."
    lines += textwrap.wrap(foot, width, break_on_hyphens=False)
    return "\n".join(lines)


def explained(verb: str, words: Sequence[str] = ()) -> tuple[dict[str, str], dict[str, str], dict[str, str | None]]:
    """Every setting of a command with its value, those with a comment with that, and what each group chose."""
    values, chosen = _composed(verb, words)
    return values, _comments(verb, chosen), chosen


def _composed(verb: str, words: Sequence[str]) -> tuple[dict[str, str], dict[str, str | None]]:
    """Every setting with its value as YAML writes it, and what each group of the verb chose."""
    cfg = compose(verb, words, with_hydra=True)
    chosen = {key: value for key, value in cfg.hydra.runtime.choices.items() if key in GROUPS}
    named = {key: value if isinstance(value, str) and value != "null" else None for key, value in chosen.items()}
    values = OmegaConf.to_container(cfg)
    assert isinstance(values, dict)
    return dict(flat({key: value for key, value in values.items() if key not in ("hydra", "dataset")})), named


def flat(values: Mapping, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every dotted key of nested settings with its value as YAML writes it; an augmentation's are one."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value and prefix != "augment.transforms.":
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _as_yaml(value)


def _as_yaml(value: object) -> str:
    if value == "???":
        return "required"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _comments(verb: str, chosen: Mapping[str, str | None]) -> dict[str, str]:
    """Setting -> its comment, of the file that is read last where several have one."""
    found: dict[str, str] = {}
    for path, package in _files(verb, chosen):
        text = path.read_text(encoding="utf-8")
        package = named.group(1) if (named := _PACKAGE.search(text)) else package
        found |= commented(text, "" if package == "_global_" else package)
    return found


def _files(verb: str, chosen: Mapping[str, str | None]) -> Iterator[tuple[Path, str]]:
    """The files a verb is composed of, with the section that each fills."""
    yield from ((path, "") for path in _bases(verb))
    yield from ((choices(group)[name], group) for group, name in chosen.items() if name and group != "recipe")


def _bases(name: str) -> Iterator[Path]:
    """The file of configs/ and those it builds on, itself last."""
    path = share("configs") / f"{name}.yaml"
    for base in read_yaml(path)["defaults"] if name not in _PLAIN else ():
        if isinstance(base, str) and base not in ("_self_", "quiet"):
            yield from _bases(base)
    yield path


def commented(text: str, package: str = "") -> dict[str, str]:
    """Dotted key -> the comment behind it, with the lines of comment alone that go on below it.

    Args:
        text: of a YAML file in block style.
        package: the section that its keys belong to.
    """
    found: dict[str, str] = {}
    above: list[tuple[int, str]] = []  # the keys that the line lies in, with their indentation
    last = ""
    for line in text.splitlines():
        if last and re.match(r" {12,}# ", line):  # further in than any comment that opens something
            found[last] += " " + line.strip()[2:]
            continue
        last = ""
        if not (matched := _LINE.fullmatch(line)):
            continue
        indent, name, _, comment = matched.groups()
        above = [(depth, key) for depth, key in above if depth < len(indent)] + [(len(indent), name)]
        if comment:
            last = ".".join([package] * bool(package) + [key for _, key in above])
            found[last] = comment.strip()
    return found


def common(verb: str) -> list[str]:
    """What the line `# help:` of a verb's file names."""
    text = (share("configs") / f"{verb}.yaml").read_text(encoding="utf-8")
    return [key for names in _COMMON.findall(text) for key in names.split()]


def _row(name: str, value: str, text: str, width: int) -> list[str]:
    """`  name = value   text`, the text wrapped in a column of its own, below where the start is long."""
    column = min(34, width // 2 - 6)
    head = f"  {name} = {value}"
    rows = textwrap.wrap(text, width - column, break_on_hyphens=False, break_long_words=False)
    if len(head) < column - 1 and rows:
        return [f"{head:<{column}}{rows[0]}", *(f"{'':<{column}}{row}" for row in rows[1:])]
    return [head, *(f"{'':<{column}}{row}" for row in rows)]
