"""A picture of the replies to what a video was asked: each question in time, or a list of those about a clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from surgdino.paths import atomic_write
from surgdino.report.colours import ALARM, INK, SOFT, class_colours, readable_name
from surgdino.report.timeline import WIDTH, draw_title, mark_times, shown_spans
from surgdino.tasks.vqa.replies import WHOLE, Replies, Truth

_LEFT, _RIGHT, _STRIP, _ROW = 4.2, 0.8, 0.36, 0.62  # inches
_ABOVE, _BELOW, _LEGEND_ROW, _COLUMNS = 0.95, 0.45, 0.24, 4
_SHOWN = 24  # questions
_LIGHT = 0.45  # the mean of a colour on which ink is read
_LETTERS, _INCHES = 56, 0.085  # of a question; of a letter in a strip


def draw_replies(
    replies: Replies, numbers: np.ndarray, times: np.ndarray, truth: Truth | None, video: str, caption: str, path: Path
) -> Path:
    """Draw into a PNG.

    Args:
        numbers, times: int64 and float64 [n], of the video's frames.
        truth: of the same questions, where it is known.
        video: the picture's title, and `caption` a line under it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    if len(replies) and replies.frames[0] == WHOLE:
        figure = _list(replies, truth, video, caption)
    else:
        figure = _strips(replies, numbers, times, truth, video, caption)
    with atomic_write(path) as temporary:
        FigureCanvasAgg(figure).print_png(str(temporary), metadata={"Software": None})
    return path


def _strips(
    replies: Replies, numbers: np.ndarray, times: np.ndarray, truth: Truth | None, video: str, caption: str
) -> Any:
    """A strip a question, coloured by the answer, with a red line under it where that is wrong."""
    from matplotlib.colors import to_rgb
    from matplotlib.figure import Figure

    asked = [*dict.fromkeys(replies.questions)]
    left_out = len(asked) - _SHOWN
    asked = asked[:_SHOWN]
    shown = {replies.answers[k]: None for k, question in enumerate(replies.questions) if question in asked}
    colours = class_colours([*shown])
    legend = _LEGEND_ROW * -(-len(colours) // _COLUMNS) + 0.2
    height = _ABOVE + _STRIP * len(asked) + _BELOW + legend
    figure = Figure(figsize=(WIDTH, height), dpi=150, facecolor="white")
    box = (_LEFT / WIDTH, (_BELOW + legend) / height, (WIDTH - _LEFT - _RIGHT) / WIDTH, _STRIP * len(asked) / height)
    axis = figure.add_axes(box)
    starts, ends = shown_spans(times)
    axis.set_xlim(float(starts[0]), float(ends[-1]))
    axis.set_ylim(len(asked), 0)
    seconds = (ends[-1] - starts[0]) / (WIDTH - _LEFT - _RIGHT)  # of an inch
    questions, right = np.array(replies.questions), _right(replies, truth)
    beside: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "fontsize": 8, "color": SOFT, "va": "center"}
    for row, question in enumerate(asked):
        of = np.flatnonzero(questions == question)
        at = np.searchsorted(numbers, replies.frames[of])
        for first, last in _runs([replies.answers[k] for k in of.tolist()], starts[at], ends[at]):
            answer, begin, end = replies.answers[int(of[first])], starts[at[first]], ends[at[last]]
            axis.broken_barh([(begin, end - begin)], (row + 0.08, 0.68), facecolors=colours[answer], linewidth=0)
            if len(answer) * _INCHES * seconds < end - begin:
                where = ((begin + end) / 2, row + 0.43)
                ink = INK if np.mean(to_rgb(colours[answer])) > _LIGHT else "white"
                style: dict[str, Any] = {"fontsize": 7.5, "ha": "center", "va": "center", "color": ink}
                axis.text(*where, readable_name(answer), parse_math=False, **style)
        wrong = [(starts[k], ends[k] - starts[k]) for k, good in zip(at, right[of], strict=True) if good == 0]
        axis.broken_barh(wrong, (row + 0.8, 0.12), facecolors=ALARM, linewidth=0)
        axis.annotate(f"{np.nanmean(replies.confidence[of]):.2f}", (1.01, row + 0.45), **beside)
    axis.annotate("confidence", (1.0, -0.2), **{**beside, "fontsize": 7.5})
    axis.set_yticks(np.arange(len(asked)) + 0.45, [_cut(question) for question in asked], parse_math=False)
    axis.tick_params(labelsize=8.5, colors=INK, length=0)
    axis.tick_params(axis="x", colors=SOFT, length=3)
    mark_times(axis)
    for side in axis.spines.values():
        side.set_visible(False)
    _legend(figure, colours, height, legend)
    more = [f"{left_out} more questions in the table"] if left_out > 0 else []
    red = ["red: wrong"] if truth is not None else []
    draw_title(figure, 0.4, height, video, "; ".join([caption, *red, *more]))
    return figure


def _legend(figure: Any, colours: Mapping[str, str], height: float, legend: float) -> None:
    """Each answer's colour, in the lowest `legend` inches."""
    for place, (answer, colour) in enumerate(colours.items()):
        x = (0.4 + (WIDTH - 0.8) / _COLUMNS * (place % _COLUMNS)) / WIDTH
        y = (legend - _LEGEND_ROW * (1 + place // _COLUMNS)) / height
        figure.text(x, y, "\u25a0", fontsize=11, color=colour)
        figure.text(x + 0.2 / WIDTH, y, _cut(readable_name(answer), 40), fontsize=8.5, color=INK, parse_math=False)


def _list(replies: Replies, truth: Truth | None, video: str, caption: str) -> Any:
    """Question, reply and how sure, a row each; the truth and the question alone under it."""
    from matplotlib.figure import Figure

    shown = range(min(len(replies), _SHOWN))
    height = _ABOVE + _ROW * len(shown) + 0.2
    figure = Figure(figsize=(WIDTH, height), dpi=150, facecolor="white")
    right = _right(replies, truth)
    for row in shown:
        y = height - _ABOVE - _ROW * row - 0.2
        alone = [f"by the question alone: {replies.alone[0][row]}"] if replies.alone else []
        told = [f"truth: {truth.answers[row]}"] if truth is not None else []
        colour = ALARM if right[row] == 0 else INK
        sentence = f"{_cut(replies.sentences[row], 90)}  ({replies.confidence[row]:.2f})"
        for x, below, text, size, ink in (
            (0.4, 0.0, _cut(replies.questions[row]), 10, INK),
            (5.4, 0.0, sentence, 10, colour),
            (5.4, 0.22, _cut("; ".join([*told, *alone]), 110), 8, SOFT),
        ):
            figure.text(x / WIDTH, (y - below) / height, text, fontsize=size, color=ink, parse_math=False)
    draw_title(figure, 0.4, height, video, caption)
    return figure


def _right(replies: Replies, truth: Truth | None) -> np.ndarray:
    """int [m]: 1 for a right answer, 0 for a wrong one, -1 where nobody knows."""
    if truth is None:
        return np.full(len(replies), -1)
    return np.array([a == b for a, b in zip(replies.answers, truth.answers, strict=True)], np.int64)


def _runs(answers: Sequence[str], starts: np.ndarray, ends: np.ndarray) -> list[tuple[int, int]]:
    """(first, last) of every run of one answer without a gap in time."""
    breaks = [k for k in range(1, len(answers)) if answers[k] != answers[k - 1] or starts[k] > ends[k - 1]]
    return [*zip([0, *breaks], [*(k - 1 for k in breaks), len(answers) - 1], strict=True)]


def _cut(text: str, letters: int = _LETTERS) -> str:
    return text if len(text) <= letters else text[: letters - 1] + "…"
