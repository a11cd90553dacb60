"""What a user sees: lines on stdout, progress on stderr. Only the main process prints.

Texts are printed as they are, in lines and in tables: nothing in them is read as rich markup, and what would steer the
terminal becomes visible. So they may hold names of files, labels and operations.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from surgdino.distributed import is_main
from surgdino.errors import shown

_STYLE: dict[str, Any] = {"title_style": "bold", "box": box.SIMPLE_HEAD}
_bars: list[Progress] = []  # those now shown; a line printed meanwhile goes above the innermost
_listeners: list[tuple[bool, list[str]]] = []  # whether they want it quiet, and what they heard


@contextmanager
def warnings_kept(*, quiet: bool) -> Iterator[list[str]]:
    """Keep the sentences of `warn` for those who call from Python; with `quiet` nothing is shown meanwhile."""
    listener = (quiet, list[str]())
    _listeners.append(listener)
    try:
        yield listener[1]
    finally:
        _listeners.remove(listener)


def _shows() -> bool:
    return is_main() and not any(quiet for quiet, _ in _listeners)


def say(text: str = "", style: str = "") -> None:
    """Print a line. On a terminal it goes on below at a space, never within a word; elsewhere it stays one line."""
    _print(Text(text, style=style))


def warn(text: str) -> None:
    """Print a line that the user should not miss."""
    for _, heard in _listeners:
        heard.append(shown(text))
    _print(Text(text), Text("! ", "yellow"))


def field(label: str, value: object) -> None:
    """Print one labelled value, such as a path that was written."""
    _print(Text(str(value)), Text(f"{label:<10} ", "bold"))


def command(label: str, words: str) -> None:
    """Print a labelled command, in one line on any screen, so that it can be copied."""
    _print(Text(words), Text(f"{label:<10} ", "bold"), wrapped=False)


def table(content: RenderableType) -> None:
    """Print a table, or anything else that rich can draw."""
    if _shows():
        Console(width=width()).print(content)


class PlainTable(Table):
    """A table whose texts are printed as they are."""

    def add_column(self, header: RenderableType = "", *more: Any, **options: Any) -> None:
        """A column under a heading; see rich."""
        super().add_column(plain(header) or "", *more, **options)

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        """A row of texts, or of anything that rich can draw."""
        super().add_row(*map(plain, cells), **options)


def new_table(title: str, **options: Any) -> PlainTable:
    """An empty table under a heading, to be filled and given to `table`."""
    caption = plain(options.pop("caption", None))
    style = {**_STYLE, **options}
    return PlainTable(title=plain(title), title_justify="left", caption=caption, pad_edge=False, **style)  # type: ignore[arg-type]


def grid(
    title: str,
    heads: Sequence[str],
    rows: Sequence[Sequence[str | Text]],
    *,
    caption: str = "",
    bold: Collection[int] = (),
    left: Collection[int] = (0,),
    keys: int = 1,
) -> None:
    """Print rows of texts under headings. Where they are wider than the screen, the columns that do not fit come below,
    beside the first ones once more: none is lost, and nothing is broken within a word.

    Args:
        bold: numbers of the rows that stand out.
        left: numbers of the columns of words; the others are of numbers, and end in one line.
        keys: how many columns say what a row is.
    """
    widths = [
        max(max(map(len, head.split()), default=0), *(len(row[place]) for row in rows), 1)
        for place, head in enumerate(heads)
    ]
    first = list(range(keys))
    groups: list[list[int]] = [[]]
    for place in range(keys, len(heads)):
        if groups[-1] and sum(widths[each] + 2 for each in [*first, *groups[-1], place]) > width():
            groups.append([])
        groups[-1].append(place)
    for number, group in enumerate(groups):
        shown = new_table(title if not number else "")
        for place in [*first, *group]:
            justify, least = "left" if place in left else "right", widths[place] if place else None
            shown.add_column(heads[place], justify=justify, min_width=least)  # type: ignore[arg-type]
        for place, row in enumerate(rows):
            if len(groups) == 1 or any(row[each] for each in group):
                shown.add_row(*(row[each] for each in [*first, *group]), style="bold" if place in bold else "")
        table(shown)
    for line in textwrap.wrap(caption, width(), break_long_words=False, break_on_hyphens=False):
        say(line, "dim")


def plain(content: RenderableType | None) -> RenderableType | None:
    """Text without markup and without characters that steer a terminal; anything else as it is."""
    if not isinstance(content, str | Text):
        return content
    lines = str(content).split("\n")
    safe = "\n".join(map(shown, lines))
    return content if isinstance(content, Text) and safe == content.plain else Text(safe)


def share_bar(share: float, characters: int) -> Text:
    """A bar that is filled by a share of 0 to 1; NaN is none."""
    filled = 0 if math.isnan(share) else min(max(round(share * characters), 0), characters)
    return Text("█" * filled, "cyan").append("·" * (characters - filled), "dim")


def width() -> int:
    """Characters that a table may take in a line: the terminal's, or enough where there is no terminal."""
    console = Console()
    return console.width if console.is_terminal else max(console.width, 160)


def _print(text: Text, head: Text | None = None, *, wrapped: bool = True) -> None:
    """A line; where it is longer than the screen it goes on below, behind as much space as its head takes."""
    if not _shows():
        return
    console = _bars[-1].console if _bars else Console()
    line, body = Text.assemble(head or ""), plain(text)
    assert isinstance(body, Text)
    room = console.width - len(line)
    if wrapped and console.is_terminal and len(body) > room > 20:
        pieces = textwrap.wrap(body.plain, room, break_long_words=False, break_on_hyphens=False)
        body = Text(("\n" + " " * len(line)).join(pieces), body.style)
    console.print(line.append_text(body), soft_wrap=True, highlight=False)


class Bar:
    """A progress bar that is being shown."""

    def __init__(self, progress: Progress, total: float | None, title: str) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=total, title=title)

    def update(self, done: float | None = None, total: float | None = None, text: str | None = None) -> None:
        """Set what is done, of how much, and the words beside it; what is None stays."""
        self._progress.update(self._task, completed=done, total=total, description=text)

    def advance(self, amount: float = 1) -> None:
        """So much more is done."""
        self._progress.advance(self._task, amount)

    def remove(self) -> None:
        """Take it off the screen."""
        self._progress.remove_task(self._task)


@contextmanager
def bar(
    title: str, total: float | None = None, *, shown: bool = True, in_bytes: bool = False, stays: bool = True
) -> Iterator[Bar]:
    """Show progress on stderr; lines printed meanwhile appear above it. Within another it is a line below that one.

    Args:
        title: what is being done.
        total: steps, or bytes with `in_bytes`; None where it is not known yet.
        shown: False draws nothing; neither does any process but the main one, nor anything that is no terminal.
        stays: whether the bar is left on the screen at the end.
    """
    if _bars:  # two that are drawn by themselves would be drawn over each other
        inner = Bar(_bars[-1], total, title)
        try:
            yield inner
        finally:
            inner.remove()
        return
    amounts: tuple[ProgressColumn, ...] = (MofNCompleteColumn(),)
    if in_bytes:
        amounts = (DownloadColumn(), TransferSpeedColumn())
    screen = Console(stderr=True)
    progress = Progress(
        TextColumn("{task.fields[title]}", style="bold", markup=False),
        BarColumn(),
        *amounts,
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
        TextColumn("to go"),
        TimeRemainingColumn(),
        console=screen,
        disable=not (shown and screen.is_terminal and _shows()),
        transient=not stays,
    )
    _bars.append(progress)
    try:
        with progress:
            yield Bar(progress, total, title)
    finally:
        _bars.remove(progress)
