"""`surgdino verify`: is this folder what its dataset's card says it is? Prints tables, exits 1 on errors."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from surgdino.datasets.card import Card
from surgdino.datasets.manifest import FrameLabels, Labels, Manifest, Problem, SecondLabels, SegmentLabels, Video
from surgdino.datasets.masks import VideoMasks
from surgdino.errors import SurgdinoError
from surgdino.frames.video.decode import VideoInfo, probe
from surgdino.inputs.settings import DataSettings, core_count, manifest_of
from surgdino.verify.masks import check_masks
from surgdino.verify.tables import print_findings

# Reading a container waits for the disk more than it computes.
_READERS = 4
# Label files may stop this long before the video does (seconds): releases round, and the last rows are often cut.
_SLACK = 2.0
_SHORT = 0.5  # of a video: labels that end before this count in another unit, or are another video's


def main(cfg: Mapping[str, Any]) -> int:
    """Check the dataset that `cfg` names; 1 where there are errors, 0 where there are none (warnings may be)."""
    data = DataSettings.of(cfg)
    card = Card.from_dict(cfg["dataset"])
    manifest = manifest_of(Card.from_dict(cfg["dataset"]), data)
    console = Console()
    infos, unreadable = inspect(manifest, data.decoder, console)
    problems = [*manifest.problems, *unreadable]
    for video in manifest.videos:
        if video.id in infos:
            problems += compare(video, infos[video.id], manifest)
    problems += check_masks(manifest, console)
    print_findings(console, card, replace(manifest, problems=tuple(problems)), infos)
    return 1 if any(problem.severity == "error" for problem in problems) else 0


def inspect(manifest: Manifest, decoder: str, console: Console) -> tuple[dict[str, VideoInfo], list[Problem]]:
    """Look through every video's container, decoding next to nothing.

    Returns:
        What was found by video id, and a problem for each video that can't be read.
    """
    infos: dict[str, VideoInfo] = {}
    problems: list[Problem] = []
    told = {problem.file for problem in manifest.errors}  # the adapter has seen that these are empty
    videos = [video for video in manifest.videos if video.path not in told]
    columns = (TextColumn("looking at the videos"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    readers = ThreadPoolExecutor(min(_READERS, core_count()))
    with Progress(*columns, console=console, transient=True) as bar, readers:
        task = bar.add_task("", total=len(videos))
        for video, found in zip(videos, readers.map(lambda v: _inspect_one(v, decoder), videos), strict=True):
            if isinstance(found, Problem):
                problems.append(found)
            else:
                infos[video.id] = found
            bar.advance(task)
    return infos, problems


def _inspect_one(video: Video, decoder: str) -> VideoInfo | Problem:
    try:
        return probe(video.path, decoder, fps=video.fps)
    except SurgdinoError as error:
        fix = error.fix or "repair it or copy it again; pretraining sets it aside"
        return Problem("error", error.what, error.file or video.path, error.place, error.expected, error.found, fix)


def compare(video: Video, info: VideoInfo, manifest: Manifest) -> list[Problem]:
    """A video against its labels: labels beyond its end, a rate that shifts every label, an end without labels."""
    if video.is_image_folder:
        return []
    problems = []

    def told(severity: Literal["error", "warning"], message: str, expected: object, found: object, fix: str) -> None:
        problems.append(Problem(severity, message, video.path, None, expected, found, fix))

    if video.fps and video.frame_count and abs(info.fps - video.fps) > 0.01 * video.fps:
        fix = "use the released video: every label is shifted"
        told("error", "the labels count in another frame rate", f"{video.fps:g} frames/s", f"{info.fps:.3f}", fix)
    for labels in manifest.labels.values():
        count, last, end = beyond_the_end(labels, video, info)
        if count:
            message = f"{count} {labels.task} label{'s lie' if count > 1 else ' lies'} beyond the video's end"
            told("error", message, f"{last} or more", end, "the video is cut short, or the labels are another's")
        share = labelled_until(labels, video, info)
        if not count and not video.frame_count and share < _SHORT:
            fix = "check what the numbers count: frames, seconds or milliseconds"
            told(
                "warning",
                "the labels end long before the video does",
                "labels up to the end",
                f"{share:.0%} of it",
                fix,
            )
    if video.fps and video.frame_count and info.frame_count - video.frame_count > _SLACK * video.fps:
        expected, fix = f"labels up to frame {info.frame_count - 1}", "copy the label file again, or live with it"
        told("warning", "the labels end before the video does", expected, video.frame_count - 1, fix)
    return problems


def beyond_the_end(labels: Labels, video: Video, info: VideoInfo) -> tuple[int, str, str]:
    """How many of a video's labels lie after its last frame, how long it should be for them, and how long it is."""
    values = labels.values.get(video.id)
    if values is None or isinstance(values, VideoMasks) or not len(values):
        return 0, "", ""
    if isinstance(values, FrameLabels) or (isinstance(values, SegmentLabels) and values.by_frame):
        first = values.numbers if isinstance(values, FrameLabels) else values.starts
        return int((first >= info.frame_count).sum()), f"{int(first[-1]) + 1} frames", f"{info.frame_count} frames"
    # A row of the second in which the video ends speaks for the frames before it.
    first, reach = (values.seconds, values.reach) if isinstance(values, SecondLabels) else (values.starts, 0.0)
    count = int((first >= info.duration + reach).sum())
    return count, f"{first[-1]:g} seconds", f"{info.duration:.2f} seconds"


def labelled_until(labels: Labels, video: Video, info: VideoInfo) -> float:
    """The share of a video after which it has no label; 1 where that is not known."""
    values = labels.values.get(video.id)
    if isinstance(values, FrameLabels) and len(values):
        return (int(values.numbers[-1]) + 1) / max(info.frame_count, 1)
    if isinstance(values, SecondLabels) and len(values):
        return (float(values.seconds[-1]) + values.reach) / max(info.duration, 1e-9)
    if isinstance(values, SegmentLabels) and len(values):
        return float(values.ends[-1]) / max(info.frame_count if values.by_frame else info.duration, 1e-9)
    return 1.0
