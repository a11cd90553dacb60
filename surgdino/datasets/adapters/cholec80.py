"""Cholec80's layout: `videos/`, `phase_annotations/`, `tool_annotations/`, joined by the video's number."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from surgdino.datasets.card import Card
from surgdino.datasets.labels import FrameLabels
from surgdino.datasets.listing import entries, is_video, plain_name
from surgdino.datasets.manifest import Labels, Manifest, Problem, Video
from surgdino.datasets.numbers import compact
from surgdino.datasets.tables import Table, read_table
from surgdino.errors import SurgdinoError, nearest

_VIDEO = re.compile(r"video0*(\d+)", re.IGNORECASE)
_FOLDERS = {"phase": "phase_annotations", "tool": "tool_annotations"}


def build(card: Card, root: Path, options: Mapping[str, Any]) -> Manifest:
    """Videos, phases and tools of a folder in Cholec80's layout; everything amiss becomes a Problem.

    Raises:
        SurgdinoError: there is no `videos/` folder, so that this is another layout altogether, or an option that it
            has no use for.
    """
    if not (root / "videos").is_dir():
        raise _no_videos_folder(root)
    if options.get("operation_pattern"):
        fix = f"leave it out: the operations of {card.name} are known"
        raise SurgdinoError("data.operation_pattern is for dataset=folder", fix=fix)
    files, problems = _find_videos(root, card)
    phases, tools = FrameReader("phase", card, root), FrameReader("tool", card, root)
    for reader in (phases, tools):
        reader.read_folder()
        problems += [*reader.problems, *_unpaired(reader, set(files))]
    videos = [_video(number, path, card, phases, tools) for number, path in sorted(files.items())]
    problems += [_missing(files, card, root)] if card.videos and set(card.videos) - set(files) else []
    for number in sorted(files):
        problems += _tails(number, phases, tools, card.tool_step)
    labels = {
        "phase": Labels("phase", card.phases, {_id(n): v for n, v in phases.labels.items() if n in files}),
        "tools": Labels("tools", card.tools, {_id(n): v for n, v in tools.labels.items() if n in files}),
    }
    labels = {task: found for task, found in labels.items() if found.values}
    return Manifest(card.name, root, tuple(videos), labels, tuple(problems))


class FrameReader:
    """Reads one kind of annotation file (`phase` or `tool`) for every video.

    Attributes:
        files: video number -> annotation file.
        labels: video number -> its labels.
        problems: in the order found.
    """

    def __init__(self, kind: str, card: Card, root: Path) -> None:
        self.kind, self.card, self.folder = kind, card, root / _FOLDERS[kind]
        self.files: dict[int, Path] = {}
        self.labels: dict[int, FrameLabels] = {}
        self.problems: list[Problem] = []

    def read_folder(self) -> None:
        """Read every annotation file of this kind."""
        pattern = re.compile(rf"video0*(\d+)-{self.kind}\.txt", re.IGNORECASE)
        for path in entries(self.folder):
            found = pattern.fullmatch(path.name)
            if not found:
                self.problems.append(_unexpected(path, f"video01-{self.kind}.txt"))
            elif int(found[1]) in self.files:
                self.problems.append(_twice(path, self.files[int(found[1])]))
            else:
                self._read(int(found[1]), path)

    def _read(self, number: int, path: Path) -> None:
        self.files[number] = path
        header, step = (
            (("Frame", "Phase"), 1) if self.kind == "phase" else (("Frame", *self.card.tools), self.card.tool_step)
        )
        table = read_table(path, header, step)
        values, faults = (_phase_ids if self.kind == "phase" else _tool_flags)(table, self.card)
        self.problems += [*table.problems, *faults]
        if len(values):
            self.labels[number] = FrameLabels(table.frames[: len(values)], values)


def _phase_ids(table: Table, card: Card) -> tuple[np.ndarray, list[Problem]]:
    """Class ids uint8 [n] of the rows before the first unknown phase."""
    ids = {name: position for position, name in enumerate(card.phases)}
    names = [row[0].strip() for row in table.cells]
    values = np.fromiter((ids.get(name, 255) for name in names), np.uint8, len(names))
    unknown = np.flatnonzero(values == 255)
    if not len(unknown):
        return values, []
    first, name = int(unknown[0]), names[int(unknown[0])]
    message, fix = f"unknown phase {name!r}", nearest(name, card.phases)
    if name.isdecimal():
        message = "a phase's number instead of its name"
        fix = "write names: releases number the phases differently (one swaps 4 and 6)"
    expected = "a phase of the card"
    more = Problem(
        "error", message, table.path, table.row(first), expected=expected, found=_rows(len(unknown)), fix=fix
    )
    return values[:first], [more]


def _tool_flags(table: Table, card: Card) -> tuple[np.ndarray, list[Problem]]:
    """0/1 flags uint8 [n, tools] of the rows before the first that holds anything else."""
    flags = {"0": 0, "1": 1}
    rows = [[flags.get(cell.strip(), 2) for cell in row] for row in table.cells]
    values = np.array(rows, np.uint8).reshape(len(rows), len(card.tools))
    bad = np.argwhere(values == 2)
    if not len(bad):
        return values, []
    row, column = (int(x) for x in bad[0])
    found = repr(table.cells[row][column])
    place = f"{table.row(row)}, {card.tools[column]}"
    return values[:row], [Problem("error", "neither 0 nor 1", table.path, place, expected="0 or 1", found=found)]


def _find_videos(root: Path, card: Card) -> tuple[dict[int, Path], list[Problem]]:
    files: dict[int, Path] = {}
    problems: list[Problem] = []
    for path in entries(root / "videos"):
        found = _VIDEO.fullmatch(path.stem)
        if re.fullmatch(r"video\d+-timestamp\.txt", path.name, re.IGNORECASE):
            continue
        if not found or not is_video(path):
            problems.append(_unexpected(path, "video01.mp4"))
            continue
        number = int(found[1])
        if number in files:
            problems.append(_twice(path, files[number]))
            continue
        files[number] = path
        problems += _looked_at(path, number, card)
    problems += [_unexpected(p, "videos, phase_annotations, tool_annotations") for p in _strangers(root)]
    return files, problems


def _looked_at(path: Path, number: int, card: Card) -> list[Problem]:
    problems = []
    if path.is_file() and path.stat().st_size == 0:
        fix = "copy it again; pretraining sets it aside"
        problems.append(Problem("error", "the file is empty", path, expected="a video", found="0 bytes", fix=fix))
    if card.videos and number not in card.videos:
        message = f"not a video of {card.name}"
        problems.append(Problem("warning", message, path, expected=f"numbers {compact(card.videos)}", found=number))
    return problems


def _strangers(root: Path) -> list[Path]:
    known = {"videos", *_FOLDERS.values()}
    readable = re.compile(r"readme.*|licen[cs]e.*|.*\.(md|pdf|txt)", re.IGNORECASE)
    return [p for p in entries(root) if p.name not in known and not readable.fullmatch(p.name)]


def _video(number: int, path: Path, card: Card, phases: FrameReader, tools: FrameReader) -> Video:
    promised = [int(reader.labels[number].numbers[-1]) + 1 for reader in (phases, tools) if number in reader.labels]
    operation = card.operation.format(number=number, root=card.name, place=number)
    return Video(_id(number), operation, path, card.fps, max(promised, default=None))


def _id(number: int) -> str:
    return f"video{number:02d}"


def _unpaired(reader: FrameReader, videos: set[int]) -> list[Problem]:
    """Videos without labels and labels without a video; a kind of label that is absent altogether is one warning."""
    if not reader.files:
        message = f"no {reader.kind} annotations"
        fix = "pretraining needs none; copy the folder from the release for phases and tools"
        return [Problem("warning", message, reader.folder, expected=f"video01-{reader.kind}.txt, ...", fix=fix)]
    problems = []
    for number in sorted(videos - set(reader.files)):
        file = reader.folder / f"{_id(number)}-{reader.kind}.txt"
        message = f"{_id(number)} has no {reader.kind} labels"
        problems.append(Problem("error", message, file, found="no such file", fix="copy it from the release"))
    for number in sorted(set(reader.files) - videos):
        fix = "copy the video, or take the labels away"
        message, expected = "labels without a video", f"videos/{_id(number)}.mp4"
        problems.append(
            Problem("error", message, reader.files[number], expected=expected, found="no such file", fix=fix)
        )
    return problems


def _tails(number: int, phases: FrameReader, tools: FrameReader, step: int) -> list[Problem]:
    """Phases and tools may end a row apart, as they do in the release; more than that, one of them is cut short."""
    if number not in phases.labels or number not in tools.labels:
        return []
    last_phase, last_tool = int(phases.labels[number].numbers[-1]), int(tools.labels[number].numbers[-1])
    if last_phase - 2 * step < last_tool <= last_phase:
        return []
    expected = f"a last row between frames {max(last_phase - 2 * step + 1, 0)} and {last_phase}, where the phases end"
    fix = "one of the two files is cut short: copy both from the release"
    return [
        Problem("error", "tools and phases end apart", tools.files[number], expected=expected, found=last_tool, fix=fix)
    ]


def _missing(files: Mapping[int, Path], card: Card, root: Path) -> Problem:
    absent = sorted(set(card.videos) - set(files))
    message = f"{len(absent)} of {len(card.videos)} videos are not here: {compact(absent)}"
    fix = "fine for pretraining; published splits need them all"
    return Problem(
        "warning", message, root / "videos", expected=compact(card.videos), found=f"not {compact(absent)}", fix=fix
    )


def _unexpected(path: Path, expected: str) -> Problem:
    fix = "it is left alone; move it elsewhere if it got here by mistake"
    return Problem("warning", "an unexpected file", path, expected=expected, found=plain_name(path.name), fix=fix)


def _twice(path: Path, first: Path) -> Problem:
    return Problem("error", "two files for one video", path, found=f"{first.name} too", fix="keep one of them")


def _rows(count: int) -> str:
    return "it in 1 row" if count == 1 else f"such in {count} rows"


def _no_videos_folder(root: Path) -> SurgdinoError:
    inside = next((p for p in entries(root) if (p / "videos").is_dir()), None)
    if root.name == "videos" and any(is_video(p) for p in entries(root)):
        fix = f"point data.root one level up, at {root.parent}"
    elif inside is not None:
        fix = f"point data.root at {inside}"
    else:
        fix = "point data.root at the folder that holds videos/, or read any folder of videos with dataset=folder"
    return SurgdinoError("this is not Cholec80's layout", file=root, expected="a folder videos/ in it", fix=fix)
