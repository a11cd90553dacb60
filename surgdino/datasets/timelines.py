"""Phases that labelling tools export of videos, as rows of a table: Label Studio's timelines, CVAT's tags on frames.

Label Studio counts frames from 1, the last of a range among them, in the rate that its interface was told
(`<Video framerate="25">`): where that is not the video's, the labels are too long or too short for it, which is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from surgdino.datasets.cvat import frame_tags
from surgdino.datasets.drawn_pictures import AGAIN
from surgdino.datasets.files import is_video
from surgdino.paths import read_bytes
from surgdino.records import parse_json

SUFFIXES = frozenset((".json", ".xml"))
_SIZE_LIMIT = 512 << 20  # bytes

Cells = tuple[str, list[str]]


def timeline_rows(path: Path) -> tuple[list[str], list[Cells]] | None:
    """The header, and (place, cells) of each row, as of a table; None where the file says nothing of phases.

    Raises:
        SurgdinoError: it cannot be read at all.
    """
    content = read_bytes(path, _SIZE_LIMIT)
    if path.suffix.lower() == ".xml":
        rows = [
            (f"image {number}", [source, label, str(number)]) for source, number, label in frame_tags(path, content)
        ]
        return (["video", "label", "frame"], rows) if rows else None
    tasks = parse_json(content, path, AGAIN)
    rows = list(_ranges(tasks)) if isinstance(tasks, list) else []
    return (["video", "label", "start_frame", "end_frame"], rows) if rows else None


def _ranges(tasks: list[Any]) -> Iterator[Cells]:
    """Of each range: its place, and video, label, first frame from 0, frame after the last."""
    for number, task in enumerate(tasks):
        if not isinstance(task, dict):
            continue
        data = task.get("data")
        texts = [v for v in (data if isinstance(data, dict) else task).values() if isinstance(v, str)]
        video = next((text for text in texts if is_video(Path(text))), texts[0] if texts else "")
        place = f"task {task.get('id', number)}"
        for value in _values(task):
            labels, ranges = value.get("timelinelabels"), value.get("ranges")
            label = labels[0] if isinstance(labels, list) and labels else ""
            for each in ranges if isinstance(ranges, list) else []:
                start, end = (each.get("start"), each.get("end")) if isinstance(each, dict) else (None, None)
                # What is no number stays as it is, and is refused with its row.
                first = str(start - 1) if isinstance(start, int) and start > 0 else f"{start}"
                yield place, [video, str(label), first, f"{end}"]


def _values(task: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The timelines of one task: of its first annotation that was not cancelled; or of the small form of the export."""
    done = [a for a in task.get("annotations") or () if isinstance(a, dict) and not a.get("was_cancelled")]
    results = done[0].get("result") if done else None
    rows = [row.get("value") for row in results if isinstance(row, dict)] if isinstance(results, list) else []
    rows += [row for value in task.values() if isinstance(value, list) for row in value]
    yield from (row for row in rows if isinstance(row, dict) and "timelinelabels" in row)
