"""Masks against their pictures, for `surgdino verify`: readable, of the same size, and of one class each."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from surgdino.datasets.files import image_size
from surgdino.datasets.manifest import Manifest, Problem
from surgdino.datasets.masks import FrameMasks, VideoMasks, read_mask
from surgdino.errors import SurgdinoError

# File systems over a network answer several questions in the time of one.
_READERS = 8


def check_masks(manifest: Manifest, console: Console) -> list[Problem]:
    """One problem a kind of fault and video, with the first mask at fault and the count of the others."""
    frames = list(_frames(manifest))
    if not frames:
        return []
    problems: dict[tuple[str, str], list[Problem]] = {}
    columns = (TextColumn("looking at the masks"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    readers = ThreadPoolExecutor(_READERS)
    with Progress(*columns, console=console, transient=True) as bar, readers:
        task = bar.add_task("", total=len(frames))
        for (group, _), found in zip(frames, readers.map(lambda item: _check(item[1]), frames), strict=True):
            for problem in found:
                problems.setdefault((group, problem.message), []).append(problem)
            bar.advance(task)
    return [_first_of(alike) for alike in problems.values()]


def _frames(manifest: Manifest) -> Iterator[tuple[str, FrameMasks]]:
    """(what faults are summed up over, masks) of every picture: its video, or everything where a video is a picture."""
    for labels in manifest.labels.values():
        for video_id, masks in labels.values.items():
            if isinstance(masks, VideoMasks):
                group = video_id if manifest[video_id].is_image_folder else ""
                yield from ((group, frame) for frame in masks.values())


def _check(frame: FrameMasks) -> list[Problem]:
    """What is wrong with the masks of one picture."""
    fix = "copy it again"
    try:
        size = image_size(frame.image)
    except SurgdinoError as error:
        return [Problem.of(error, fix)]
    problems = []
    for path in filter(None, frame.files.values()):
        try:
            found = image_size(path)
            if found == size:
                read_mask(path)
        except SurgdinoError as error:
            problems.append(Problem.of(error, fix))
            continue
        if found != size:
            what = "a mask of another size than its image"
            expected, told = "{}x{}".format(*size), "{}x{}".format(*found)
            fix = "make the mask anew at the image's size: it would lie beside what it means"
            problems.append(Problem("error", what, path, None, expected, told, fix))
    return problems


def _first_of(alike: list[Problem]) -> Problem:
    first, others = alike[0], len(alike) - 1
    return replace(first, message=f"{first.message}, and {others} more like it") if others else first
