"""The data: which operations, how many frames of each, what was left out and why, where in the frame the picture is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from surgdino.report.blocks import Block, Bullets, Heading, Paragraph, Section, Table
from surgdino.report.record import RunRecord

ORDER = 40
_HEADS = ("video", "operation", "frames kept", "left out", "picture", "share of the stored frame")


def build(records: Sequence[RunRecord]) -> Section | None:
    """None for runs without a data.json."""
    blocks: list[Block] = []
    for record in records:
        if record.data:
            blocks += [Heading(record.name)] if len(records) > 1 else []
            blocks += _of_run(record.data)
    return Section("data", "The data", blocks) if blocks else None


def _of_run(data: Mapping[str, Any]) -> list[Block]:
    videos = data.get("videos", [])
    operations = len({video["operation"] for video in videos})
    text = f"{sum(video['frames'] for video in videos):,} frames of {len(videos)} videos, {operations} operations."
    left_out = {reason: count for reason, count in data.get("left_out", {}).items() if count}
    if left_out:
        text += (
            " Left out: "
            + ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in left_out.items())
            + "."
        )
    rows = [_row(video) for video in videos]
    caption = "The picture is the endoscope's disc, a rectangle inside black bars, or all of the frame."
    blocks: list[Block] = [Paragraph(text), Table(_HEADS, rows, caption, frozenset({2, 5}))]
    if set_aside := data.get("set_aside"):
        blocks += [Heading("Set aside"), Bullets([f"{video}: {reason}" for video, reason in set_aside.items()])]
    return blocks


def _row(video: Mapping[str, Any]) -> list[str]:
    left_out = ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in video["left_out"].items())
    share = f"{100 * video['share']:.1f} %"
    return [video["id"], video["operation"], f"{video['frames']:,}", left_out or "none", video["kind"], share]
