"""`surgdino verify`: is this folder what its dataset's card says it is? Prints tables, exits 1 on errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from surgdino import console
from surgdino.config import typed
from surgdino.datasets.card import Card
from surgdino.datasets.files import image_size
from surgdino.datasets.held import SLACK, Length, held_against
from surgdino.datasets.manifest import Manifest, Problem, Video
from surgdino.datasets.masks import FrameMasks, VideoMasks, read_mask
from surgdino.errors import SurgdinoError
from surgdino.frames.pool import probe_all
from surgdino.frames.video.decode import VideoInfo
from surgdino.inputs.settings import DataSettings, manifest_of
from surgdino.verify.tables import print_findings

# Reading a header waits for the disk more than it computes; network file systems answer several questions at once.
_VIDEO_READERS, _MASK_READERS = 4, 8

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True)
class VerifySettings:
    """The sections of the configuration that are used here; a recipe may bring others."""

    data: DataSettings
    dataset: dict


def main(cfg: Mapping[str, Any]) -> int:
    """Check the dataset that `cfg` names; 1 where there are errors, 0 where there are none (warnings may be)."""
    settings = typed(VerifySettings, {"data": cfg["data"], "dataset": cfg["dataset"]}, "")
    card, data = Card.from_dict(settings.dataset), settings.data
    manifest = manifest_of(card, data)
    infos, unreadable = inspect(manifest, data.decoder)
    problems = [*manifest.problems, *unreadable]
    for video in manifest.videos:
        if video.id in infos:
            problems += compare(video, infos[video.id], manifest)
    problems += check_masks(manifest)
    print_findings(card, replace(manifest, problems=tuple(problems)), infos)
    return 1 if any(problem.severity == "error" for problem in problems) else 0


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
    length = Length(info.frame_count, info.duration)
    problems += [problem for labels in manifest.labels.values() for problem in held_against(video, length, labels)]
    if fps and count and info.frame_count - count > SLACK * fps:
        message, fix = "the labels end before the video does", "copy the label file again, or go on without them"
        expected = f"labels up to frame {info.frame_count - 1}"
        problems.append(Problem("warning", message, video.path, None, expected, count - 1, fix))
    return problems


def check_masks(manifest: Manifest) -> list[Problem]:
    """Masks against their images: readable, complete, of the same size and of one class each.

    Returns:
        One problem for each kind of fault and video, with the first mask at fault and the count of the others.
    """
    masks = list(_masks(manifest))
    problems: dict[tuple[str, str], list[Problem]] = {}
    frames = [frame for _, frame in masks]
    for (group, _), faults in zip(masks, _in_threads("reading the masks", _check, frames, _MASK_READERS), strict=True):
        for problem in faults:
            problems.setdefault((group, problem.message), []).append(problem)
    more = [(first, len(others)) for first, *others in problems.values()]
    return [replace(p, message=f"{p.message}, and {n} more like it") if n else p for p, n in more]


def _masks(manifest: Manifest) -> Iterator[tuple[str, FrameMasks]]:
    """(what faults are summed up over, masks) of every picture: its video, or everything where a video is a picture."""
    for labels in manifest.labels.values():
        for video_id, masks in labels.values.items():
            if isinstance(masks, VideoMasks):
                group = video_id if manifest[video_id].is_image_folder else ""
                yield from ((group, frame) for frame in masks.values())


def _check(frame: FrameMasks) -> list[Problem]:
    """What is wrong with the masks of one image."""
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
            message, remedy = "a mask of another size than its image", "make the mask again at the image's size"
            expected, actual = "{}x{}".format(*size), "{}x{}".format(*found)
            problems.append(Problem("error", message, path, None, expected, actual, remedy))
    return problems
