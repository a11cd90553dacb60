"""`surgdino verify`: is this folder what its dataset's card says it is? Prints tables, exits 1 on errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from surgdino import console
from surgdino.config import typed
from surgdino.datasets.card import Card
from surgdino.datasets.depth import DEPTH
from surgdino.datasets.files import image_size
from surgdino.datasets.held import SLACK, Length, held_against
from surgdino.datasets.manifest import Labels, Manifest, Problem, Video
from surgdino.datasets.masks import FrameMasks, Shown, VideoMasks, count_pixels
from surgdino.errors import SurgdinoError
from surgdino.exit_code import ExitCode
from surgdino.frames.pool import probe_all
from surgdino.frames.video.decode import VideoInfo
from surgdino.inputs.configs import VerifySettings
from surgdino.inputs.settings import manifest_of
from surgdino.verify.tables import print_findings

# Reading a header waits for the disk more than it computes; network file systems answer several questions at once.
_VIDEO_READERS, _MASK_READERS = 4, 8
_SHOWN = 6

In = TypeVar("In")
Out = TypeVar("Out")


def main(cfg: Mapping[str, Any]) -> ExitCode:
    """Check the dataset that `cfg` names; 1 where there are errors, 0 where there are none (warnings may be)."""
    card, manifest, infos, shown = findings(cfg)
    print_findings(card, manifest, infos, shown)
    return ExitCode(1 if manifest.errors else 0, found=manifest)


def findings(cfg: Mapping[str, Any]) -> tuple[Card, Manifest, dict[str, VideoInfo], dict[str, list[Shown]]]:
    """The card, the folder with all problems found, what each video's container says, what each mask shows."""
    settings = typed(VerifySettings, {"data": cfg["data"], "dataset": cfg["dataset"]}, "")
    card, data = Card.from_dict(settings.dataset), settings.data
    manifest = manifest_of(card, data)
    infos, unreadable = inspect(manifest, data.decoder)
    problems = [*manifest.problems, *unreadable]
    for video in manifest.videos:
        if video.id in infos:
            problems += compare(video, infos[video.id], manifest)
    faults, shown = check_masks(manifest)
    problems += [*faults, *check_pictures(manifest)]
    return card, replace(manifest, problems=tuple(problems)), infos, shown


def inspect(manifest: Manifest, decoder: str) -> tuple[dict[str, VideoInfo], list[Problem]]:
    """Read every video's container, decoding next to nothing.

    Returns:
        What was found by video id, and a problem for each video that cannot be read.
    """
    known = {problem.file for problem in manifest.errors}  # the adapter has reported that these are empty
    videos = [video for video in manifest.videos if video.path not in known]
    infos: dict[str, VideoInfo] = {}
    problems: list[Problem] = []
    with console.bar("reading the videos", len(videos), shown=bool(videos), stays=False) as bar:
        for video, found in zip(videos, probe_all(videos, decoder, _VIDEO_READERS), strict=True):
            bar.advance()
            if isinstance(found, VideoInfo):
                infos[video.id] = found
                problems += [Problem("warning", remark, video.path) for remark in found.remarks]
                continue
            problem = Problem.of(found, "repair it or copy it again; pretraining sets it aside")
            problems.append(replace(problem, file=problem.file or video.path))
    return infos, problems


def _in_threads(title: str, work: Callable[[In], Out], items: Sequence[In], threads: int) -> Iterator[Out]:
    with console.bar(title, len(items), shown=bool(items), stays=False) as bar, ThreadPoolExecutor(threads) as readers:
        for found in readers.map(work, items):
            yield found
            bar.advance()


def compare(video: Video, info: VideoInfo, manifest: Manifest) -> list[Problem]:
    """A video against its labels: labels beyond its end, a rate that shifts every label, an end without labels."""
    if video.is_image_folder:
        return []
    problems = []
    fps, count = video.fps, video.frame_count  # of the labels
    if fps and count and abs(info.fps - fps) > 0.01 * fps:
        message, fix = "the labels count in another frame rate", "use the released video: every label is shifted"
        expected, found = f"{fps:g} frames/s", f"{info.fps:.3f}"
        problems.append(Problem("error", message, video.path, None, expected, found, fix))
    length = Length(info.frame_count, info.duration, (info.width, info.height))
    problems += [problem for labels in manifest.labels.values() for problem in held_against(video, length, labels)]
    if count and info.frame_count - count > SLACK * (fps or info.fps):
        message, fix = "the labels end before the video does", "copy the label file again, or go on without them"
        expected = f"labels up to frame {info.frame_count - 1}"
        problems.append(Problem("warning", message, video.path, None, expected, count - 1, fix))
    return problems


def check_pictures(manifest: Manifest) -> list[Problem]:
    """Pictures of a set by their heads: a problem for each kind of fault, with the first one and how many more."""
    files = [video.path / name for video in manifest.videos for name in video.pictures]
    found: dict[str, list[Problem]] = {}
    for fault in filter(None, _in_threads("reading the pictures", _unreadable, files, _MASK_READERS)):
        found.setdefault(fault.message, []).append(fault)
    more = [(first, len(others)) for first, *others in found.values()]
    return [replace(p, message=f"{p.message}, and {n} more like it") if n else p for p, n in more]


def _unreadable(file: Path) -> Problem | None:
    try:
        image_size(file)
    except SurgdinoError as error:
        return Problem.of(error, "copy it again; it is left out")
    return None


def check_masks(manifest: Manifest) -> tuple[list[Problem], dict[str, list[Shown]]]:
    """Masks against their images: readable, complete, of the same size, with no value that no class has.

    Returns:
        One problem for each kind of fault and video, with the first mask at fault and the count of the others, and one
        for classes that no picture shows; and video id -> what each of its pictures shows.
    """
    problems: dict[tuple[str, str], list[Problem]] = {}
    shown: dict[str, list[Shown]] = {}
    for labels in manifest.labels.values():
        videos = {video: masks for video, masks in labels.values.items() if isinstance(masks, VideoMasks)}
        pictures = [(video, frame) for video, masks in videos.items() for frame in masks.values()]
        read = partial(_shown, classes=labels.classes)
        found = _in_threads("reading the masks", read, [frame for _, frame in pictures], _MASK_READERS)
        for (video, _), each in zip(pictures, found, strict=True):
            if isinstance(each, Shown):
                shown.setdefault(video, []).append(each)
            else:  # summed up over a video, or over everything where a video is a picture
                group = video if manifest[video].is_image_folder else ""
                problems.setdefault((group, each.message), []).append(each)
        if videos and shown:
            problems |= {("", p.message): [p] for p in _never_shown(labels, shown, manifest)}
    more = [(first, len(others)) for first, *others in problems.values()]
    return [replace(p, message=f"{p.message}, and {n} more like it") if n else p for p, n in more], shown


def _shown(frame: FrameMasks, classes: Sequence[str]) -> Shown | Problem:
    try:
        return count_pixels(frame, classes)
    except SurgdinoError as error:
        return Problem.of(error, "copy it again")


def _never_shown(labels: Labels, shown: Mapping[str, Sequence[Shown]], manifest: Manifest) -> Iterator[Problem]:
    """Classes of which masks tell and which no picture shows, and pictures that are all one class."""
    pictures = [each for video in labels.values for each in shown.get(video, ())]
    labelled = np.any([each.labelled for each in pictures], axis=0)
    seen = np.any([each.pixels > 0 for each in pictures], axis=0)
    if labels.task == DEPTH:
        if not seen.any():
            what, found = "no pixel of a known depth in any picture", f"none in {len(pictures)} pictures"
            fix = "check the card's depth: its unit, nearest and farthest"
            yield Problem("error", what, manifest.root, None, "depth in range", found, fix)
        return
    absent = [name for name, told, any_pixel in zip(labels.classes, labelled, seen, strict=True) if told > any_pixel]
    if absent:
        empty = not seen.any()
        what = "the masks are all empty" if empty else "no picture shows some classes"
        fix = "check their values: dataset.masks says which id or colour is which class"
        names = ", ".join(absent[:_SHOWN]) + (", ..." if len(absent) > _SHOWN else "")
        found = f"none of {names} in {len(pictures)} pictures"
        yield Problem("error" if empty else "warning", what, manifest.root, None, "pixels of every class", found, fix)
    if full := sum(bool((each.pixels == each.size).any()) for each in pictures):
        what, fix = (
            f"{full} of {len(pictures)} pictures are covered by one class",
            "check that black is not the class",
        )
        yield Problem("warning", what, manifest.root, None, "some background", "none", fix)
