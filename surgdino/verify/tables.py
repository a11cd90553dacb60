"""What `surgdino verify` prints: the problems, then what is there, by part of the split and by class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from surgdino import console
from surgdino.datasets.adapters.oxford_paris import INSTANCE
from surgdino.datasets.card import PARTS, Card
from surgdino.datasets.files import is_image
from surgdino.datasets.manifest import Labels, Manifest, Problem, SegmentLabels
from surgdino.datasets.masks import Shown, VideoMasks
from surgdino.frames.video.decode import VideoInfo
from surgdino.wording import counted

_BAR = 16  # characters
_MARKS = {"error": ("✗ error", "bold red"), "warning": ("! warning", "yellow")}


def print_findings(
    card: Card, manifest: Manifest, infos: Mapping[str, VideoInfo], shown: Mapping[str, Sequence[Shown]]
) -> None:
    """All tables and the verdict; `shown` is what masks were found to show, by video."""
    console.field(card.name, card.title)
    console.say(str(manifest.root), "dim")
    if manifest.problems:
        console.table(problem_table(manifest))
    parts = _parts(manifest)
    for note in manifest.notes:
        console.say(note, "dim")
    for fact in card.unconfirmed:
        console.say(f"not confirmed: {fact}", "yellow")
    print_overview(manifest, infos, parts)
    for labels in (each for each in manifest.labels.values() if each.task != INSTANCE):
        is_mask = any(isinstance(values, VideoMasks) for values in labels.values.values())
        console.table(pixel_table(labels, shown, parts) if is_mask else class_table(labels, infos, parts))
    errors, warnings = len(manifest.errors), len(manifest.problems) - len(manifest.errors)
    counts = f"{_plural(errors, 'error')}, {_plural(warnings, 'warning')}"
    console.say(f"✗ {counts}" if errors else f"✓ {counts}", "bold red" if errors else "bold green")


def problem_table(manifest: Manifest) -> Table:
    """One row for each problem, errors first: where, what, what to do."""
    table = console.new_table("Problems", box=box.ROUNDED, show_lines=True, expand=True)
    table.add_column("", no_wrap=True)
    for heading, ratio in (("where", 3), ("what", 4), ("what to do", 3)):
        table.add_column(heading, overflow="fold", ratio=ratio)
    for problem in sorted(manifest.problems, key=lambda p: p.severity):  # stable: errors, then warnings
        mark, style = _MARKS[problem.severity]
        table.add_row(Text(mark, style), _where(problem, manifest.root), _what(problem), Text(problem.fix or ""))
    return table


def _where(problem: Problem, root: Path) -> Text:
    text = Text()
    if problem.file is not None:
        path = Path(problem.file)
        inside = path.relative_to(root) if path.is_relative_to(root) else path
        text.append(str(inside) if str(inside) != "." else str(root.name), "cyan")
    if problem.place is not None:
        text.append(f"\n{problem.place}", "bold")
    return text


def _what(problem: Problem) -> Text:
    text = Text(problem.message)
    for label, value in (("expected", problem.expected), ("found", problem.found)):
        if value is not None:
            text.append(f"\n{label:<9}", "dim").append(str(value))
    return text


def print_overview(manifest: Manifest, infos: Mapping[str, VideoInfo], parts: Mapping[str, set[str]]) -> None:
    """Videos, operations, length and labels, by part of the split."""
    rows = []
    heads = ["part" if set(parts) != {"all"} else "", "videos", "readable", "operations", "length", "frames"]
    heads += [f"with {task}" for task in manifest.labels]
    for part, ids in parts.items():
        videos = [video for video in manifest.videos if video.id in ids]
        readable = [infos[video.id] for video in videos if video.id in infos]
        labelled = [str(sum(video.id in labels.values for video in videos)) for labels in manifest.labels.values()]
        operations = len({video.operation for video in videos})
        seconds = sum(info.duration for info in readable if not _is_still(info))
        frames = f"{sum(info.frame_count for info in readable):,}"
        length = _clock(seconds) if seconds else "-"
        rows.append([part, str(len(videos)), str(len(readable)), str(operations), length, frames, *labelled])
    console.grid("What is here", heads, rows, caption="  ".join(_formats(infos)))


def class_table(labels: Labels, infos: Mapping[str, VideoInfo], parts: Mapping[str, set[str]]) -> Table:
    """Labelled frames of each class, by part, with their share of the part's labelled frames as a bar."""
    table = console.new_table("Pairs by answer" if labels.asked else f"Frames by {labels.task}")
    table.add_column("class", no_wrap=True)
    counts = {part: count for part, ids in parts.items() if (count := count_frames(labels, ids, infos))[1]}
    for part in counts:
        table.add_column(part, justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
    for position, name in enumerate(labels.classes):
        cells: list[Text] = []
        for frames, total in counts.values():
            share = frames[position] / total if total else 0.0
            bar = console.share_bar(share, _BAR).append(f" {share:5.1%}")
            cells += [Text(f"{frames[position]:,}", "" if frames[position] else "red"), bar]
        table.add_row(name, *cells)
    table.add_section()
    totals = [cell for _, total in counts.values() for cell in (Text(f"{total:,}", "bold"), Text(""))]
    table.add_row(Text("pairs" if labels.asked else "labelled frames", "bold"), *totals)
    return table


def pixel_table(labels: Labels, shown: Mapping[str, Sequence[Shown]], parts: Mapping[str, set[str]]) -> Table:
    """Pictures that show each class, by part, and the class's share of all pixels in which it is labelled."""
    table = console.new_table(f"Pictures by {labels.task}")
    table.add_column("class", no_wrap=True)
    pictures = {part: [each for video in ids for each in shown.get(video, ())] for part, ids in parts.items()}
    pictures = {part: found for part, found in pictures.items() if found}
    for part in pictures:
        table.add_column(part, justify="right", no_wrap=True)
        table.add_column("of pixels", justify="right", no_wrap=True)
    for position, name in enumerate(labels.classes):
        cells: list[Text] = []
        for found in pictures.values():
            pixels = [int(each.pixels[position]) for each in found if each.labelled[position]]
            size = sum(each.size for each in found if each.labelled[position])
            count = sum(number > 0 for number in pixels)
            cells += [Text(f"{count:,}", "" if count else "red"), Text(f"{sum(pixels) / size:.1%}" if size else "-")]
        table.add_row(name, *cells)
    if any(each.unlabelled for found in pictures.values() for each in found):
        shares = [
            sum(each.unlabelled for each in found) / sum(each.size for each in found) for found in pictures.values()
        ]
        table.add_row("unlabelled", *(cell for share in shares for cell in (Text(""), Text(f"{share:.1%}"))))
    table.add_section()
    totals = [cell for found in pictures.values() for cell in (Text(f"{len(found):,}", "bold"), Text(""))]
    table.add_row(Text(f"pictures with {labels.task}", "bold"), *totals)
    return table


def count_frames(labels: Labels, ids: set[str], infos: Mapping[str, VideoInfo]) -> tuple[list[int], int]:
    """Frames of each class in the given videos, and all their labelled frames (one may show several classes)."""
    frames, total = np.zeros(len(labels.classes), np.int64), 0
    for video_id in ids & set(labels.values):
        values = labels.values[video_id]
        array = values.array
        if isinstance(values, SegmentLabels):
            info = infos.get(video_id)
            if info is None:
                continue
            present, found = values.at(info.numbers, info.times)
            array = found[present]
        total += 0 if labels.asked else len(array)
        if labels.asked:  # a pair counts, not a frame
            array = array[array[..., 1] >= 0][:, 1]
            total += len(array)
        frames += array.sum(0, dtype=np.int64) if array.ndim == 2 else np.bincount(array, minlength=len(frames))
    return [int(count) for count in frames], total


def _parts(manifest: Manifest) -> dict[str, set[str]]:
    """Part of the split -> video ids; `all` where no split was given, `no part` for videos that it leaves out."""
    if all(video.split is None for video in manifest.videos):
        return {"all": {video.id for video in manifest.videos}}
    parts = {part: {v.id for v in manifest.videos if v.split == part} for part in (*PARTS, None)}
    return {part or "no part": ids for part, ids in parts.items() if ids}


def _formats(infos: Mapping[str, VideoInfo]) -> list[str]:
    """`h264 854x480 25 fps`, the most frequent first: one dataset with several formats should be checked."""
    kinds: Counter[str] = Counter()
    for info in infos.values():
        codec = info.path.suffix[1:].lower() if is_image(info.path) else info.codec  # `images` does not name the format
        size = "" if info.codec == "pictures" else f" {info.width}x{info.height}"  # of many sizes
        kinds[codec + size + ("" if _is_still(info) else f" {info.fps:.4g} fps")] += 1
    shown = [f"{count} x {kind}" for kind, count in kinds.most_common(4)]
    return shown + ([f"and {len(kinds) - 4} other formats"] if len(kinds) > 4 else [])


def _is_still(info: VideoInfo) -> bool:
    """Images have no frame rate, so they have no length."""
    return info.codec in ("images", "pictures") or is_image(info.path)


def _plural(count: int, word: str) -> str:
    return counted(count, word) if count else f"no {word}s"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
