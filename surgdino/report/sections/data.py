"""The data: which operations, how many frames of each, what was left out and why, where in the frame the picture is."""

from __future__ import annotations

from collections.abc import Mapping

from surgdino.report.blocks import Block, Bullets, Folded, Heading, Paragraph, Table
from surgdino.report.record import RunRecord
from surgdino.report.sections import Section


class Data(Section):
    """What data.json says; left out for runs without one."""

    id, title, order = "data", "The data", 40

    def of_run(self, record: RunRecord) -> list[Block]:
        """Counts, then a row a video, then the videos that could not be used."""
        if not record.data:
            return []
        videos = record.data.get("videos", [])
        operations = len({video["operation"] for video in videos})
        text = f"{sum(video['frames'] for video in videos):,} frames of {len(videos)} videos, {operations} operations."
        if reasons := _counts(record.data.get("left_out", {})):
            text += f" Left out: {reasons}."
        heads = ("video", "operation", "frames kept", "left out", "picture", "share of the stored frame")
        rows = []
        for video in videos:
            left_out, share = _counts(video["left_out"]) or "none", f"{100 * video['share']:.1f} %"
            rows.append([video["id"], video["operation"], f"{video['frames']:,}", left_out, video["kind"], share])
        caption = "The picture is the endoscope's disc, a rectangle inside black bars, or all of the frame."
        table = Table(heads, rows, caption, frozenset({2, 5}))
        blocks: list[Block] = [Paragraph(text), Folded("every video", [table])]
        if set_aside := record.data.get("set_aside"):
            blocks += [Heading("Set aside"), Bullets([f"{video}: {reason}" for video, reason in set_aside.items()])]
        return blocks


def _counts(left_out: Mapping[str, int]) -> str:
    """`3 black, 1,204 out of focus`."""
    return ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in left_out.items() if count)
