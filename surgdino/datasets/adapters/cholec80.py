"""Cholec80's layout: `videos/`, `phase_annotations/`, `tool_annotations/`, joined by the video's number."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from surgdino.datasets.annotations import Annotations
from surgdino.datasets.card import Card
from surgdino.datasets.complaints import empty_video, foreign, missing, twice, unexpected
from surgdino.datasets.listing import entries, is_video
from surgdino.datasets.manifest import Labels, Manifest, Problem, Video
from surgdino.errors import SurgdinoError

_VIDEO = re.compile(r"video0*(\d+)", re.IGNORECASE)
_FOLDERS = ("videos", "phase_annotations", "tool_annotations")


def build(card: Card, root: Path, options: Mapping[str, Any]) -> Manifest:
    """Videos, phases and tools of a folder in Cholec80's layout; everything amiss becomes a Problem.

    Raises:
        SurgdinoError: there is no `videos/` folder, so that this is another layout altogether.
    """
    if not (root / "videos").is_dir():
        raise _no_videos_folder(root)
    files, problems = _find_videos(root, card)
    phases = Annotations("phase", root / "phase_annotations", card)
    tools = Annotations("tool", root / "tool_annotations", card)
    for kind in (phases, tools):
        problems += [*kind.problems, *_unpaired(kind, set(files))]
    for number in sorted(files):
        problems += _tails(number, phases, tools, card.tool_step)
    problems += missing(files, card, root / "videos")
    videos = [_video(number, path, card, phases, tools) for number, path in sorted(files.items())]
    labels = {
        "phase": Labels("phase", card.phases, {_id(n): v for n, v in phases.labels.items() if n in files}),
        "tools": Labels("tools", card.tools, {_id(n): v for n, v in tools.labels.items() if n in files}),
    }
    labels = {task: found for task, found in labels.items() if found.values}
    return Manifest(card.name, root, tuple(videos), labels, tuple(problems))


def _find_videos(root: Path, card: Card) -> tuple[dict[int, Path], list[Problem]]:
    files: dict[int, Path] = {}
    problems: list[Problem] = []
    for path in entries(root / "videos"):
        found = _VIDEO.fullmatch(path.stem)
        if re.fullmatch(r"video\d+-timestamp\.txt", path.name, re.IGNORECASE):
            continue
        if not found or not is_video(path):
            problems.append(unexpected(path, "video01.mp4"))
            continue
        number = int(found[1])
        if number in files:
            problems.append(twice(path, files[number]))
            continue
        files[number] = path
        problems += empty_video(path) + foreign(path, number, card)
    problems += [unexpected(p, ", ".join(_FOLDERS)) for p in _strangers(root)]
    return files, problems


def _strangers(root: Path) -> list[Path]:
    known = set(_FOLDERS)
    readable = re.compile(r"readme.*|licen[cs]e.*|.*\.(md|pdf|txt)", re.IGNORECASE)
    return [p for p in entries(root) if p.name not in known and not readable.fullmatch(p.name)]


def _video(number: int, path: Path, card: Card, phases: Annotations, tools: Annotations) -> Video:
    sound = [kind.labels[number] for kind in (phases, tools) if kind.is_sound(number)]
    promised = [int(labels.numbers[-1]) + 1 for labels in sound]
    return Video(_id(number), card.operation_of(number), path, card.fps, max(promised, default=None))


def _id(number: int) -> str:
    return f"video{number:02d}"


def _unpaired(annotations: Annotations, videos: set[int]) -> list[Problem]:
    """Videos without labels and labels without a video; a kind of label that is absent altogether is one warning."""
    if not annotations.files:
        message = f"no {annotations.kind} annotations"
        fix = "pretraining needs none; copy the folder from the release for phases and tools"
        expected = f"video01-{annotations.kind}.txt, ..."
        return [Problem("warning", message, annotations.folder, expected=expected, fix=fix)]
    problems = []
    for number in sorted(videos - set(annotations.files)):
        file = annotations.folder / f"{_id(number)}-{annotations.kind}.txt"
        message = f"{_id(number)} has no {annotations.kind} labels"
        problems.append(Problem("error", message, file, found="no such file", fix="copy it from the release"))
    for number in sorted(set(annotations.files) - videos):
        file, expected = annotations.files[number], f"videos/{_id(number)}.mp4"
        fix = "copy the video, or take the labels away"
        problems.append(Problem("error", "labels without a video", file, None, expected, "no such file", fix))
    return problems


def _tails(number: int, phases: Annotations, tools: Annotations, step: int) -> list[Problem]:
    """Phases and tools may end a row apart, as they do in the release; more than that, one of them is cut short."""
    if not (phases.is_sound(number) and tools.is_sound(number)):
        return []
    last_phase, last_tool = int(phases.labels[number].numbers[-1]), int(tools.labels[number].numbers[-1])
    if last_phase - 2 * step < last_tool <= last_phase:
        return []
    expected = f"a last row between frames {max(last_phase - 2 * step + 1, 0)} and {last_phase}, where the phases end"
    fix = "one of the two files is cut short: copy both from the release"
    return [Problem("error", "tools and phases end apart", tools.files[number], None, expected, last_tool, fix)]


def _no_videos_folder(root: Path) -> SurgdinoError:
    inside = next((p for p in entries(root) if (p / "videos").is_dir()), None)
    if root.name == "videos" and any(is_video(p) for p in entries(root)):
        fix = f"point data.root one level up, at {root.parent}"
    elif inside is not None:
        fix = f"point data.root at {inside}"
    else:
        fix = "point data.root at the folder that holds videos/, or read any folder of videos with dataset=folder"
    return SurgdinoError("this is not Cholec80's layout", file=root, expected="a folder videos/ in it", fix=fix)
