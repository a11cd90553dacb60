"""m2cai16-workflow: videos with a phase file beside each, wherever they lie in the folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from surgdino.datasets.annotations import phase_ids
from surgdino.datasets.card import Card
from surgdino.datasets.complaints import empty_video, foreign, missing, twice
from surgdino.datasets.labels import FrameLabels
from surgdino.datasets.listing import is_video, walk
from surgdino.datasets.manifest import Labels, Manifest, Problem, Video
from surgdino.datasets.numbers import Entry
from surgdino.datasets.tables import read_table

_NAME = re.compile(r"(test_)?workflow_video_0*(\d+)", re.IGNORECASE)
_STEP = 25  # a row a frame as released; some sites keep every 25th


def build(card: Card, root: Path, options: Mapping[str, Any]) -> Manifest:
    """Videos and phases, by name. Training and test videos are counted apart: each from 1."""
    videos, problems = _find(root, is_video)
    tables, faults = _find(root, lambda path: path.suffix.lower() == ".txt")
    problems += faults
    labels: dict[str, FrameLabels] = {}
    for name, path in videos.items():
        problems += empty_video(path) + foreign(path, _entry(name), card)
        if name in tables:
            found, faults = _phases(tables[name], card)
            problems += faults
            if found is not None:
                labels[name] = found
        elif tables:
            what, file, fix = f"{name} has no phase labels", path.with_suffix(".txt"), "copy it from the release"
            problems.append(Problem("error", what, file, None, None, "no such file", fix))
    for name in sorted(set(tables) - set(videos)):
        what, fix = "labels without a video", "copy the video, or take the labels away"
        problems.append(Problem("error", what, tables[name], None, f"{name}.mp4", "no such file", fix))
    if not tables:
        fix = "pretraining needs none; copy them from the release"
        problems.append(
            Problem("warning", "no phase annotations", root, expected="workflow_video_01.txt, ...", fix=fix)
        )
    problems += missing({_entry(name) for name in videos}, card, root)
    found_videos = tuple(_video(name, path, card, labels.get(name)) for name, path in videos.items())
    read = {"phase": Labels("phase", card.phases, labels)} if labels else {}
    return Manifest(card.name, root, found_videos, read, tuple(problems))


def _find(root: Path, wanted: Callable[[Path], bool]) -> tuple[dict[str, Path], list[Problem]]:
    """Name as released -> file; training before test, by number."""
    files: dict[str, Path] = {}
    problems = []
    for _, paths in walk(root):
        for path in paths:
            found = _NAME.fullmatch(path.stem)
            if not found or not wanted(path):
                continue
            name = f"{(found[1] or '').lower()}workflow_video_{int(found[2]):02d}"
            if name in files:
                problems.append(twice(path, files[name]))
            else:
                files[name] = path
    return dict(sorted(files.items(), key=lambda item: (item[0].startswith("test"), item[0]))), problems


def _entry(name: str) -> Entry:
    """How the card lists a video: training videos by number, test videos by name."""
    return name if name.startswith("test") else int(name.rpartition("_")[2])


def _phases(path: Path, card: Card) -> tuple[FrameLabels | None, list[Problem]]:
    table = read_table(path, ("Frame", "Phase"), 1)
    if table.problems:
        sparse = read_table(path, ("Frame", "Phase"), _STEP)
        table = table if sparse.problems else sparse
    values, faults = phase_ids(table, card)
    labels = FrameLabels(table.frames[: len(values)], values) if len(values) else None
    return labels, [*table.problems, *faults]


def _video(name: str, path: Path, card: Card, labels: FrameLabels | None) -> Video:
    promised = int(labels.numbers[-1]) + 1 if labels is not None else None
    return Video(name, card.operation_of(_entry(name)), path, card.fps, promised)
