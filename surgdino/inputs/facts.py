"""What guides read of each frame: its operation, when in it, in which recording, and what a table says of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from surgdino.datasets.card import Card, number_in
from surgdino.datasets.files import read_cells
from surgdino.datasets.manifest import Manifest
from surgdino.engine.guides.column import OPERATION
from surgdino.errors import SurgdinoError, first_of, nearest
from surgdino.frames.store import FrameStore
from surgdino.inputs.datasets import RunDataset

_KEYS = ("video", "operation")


def facts_of(
    wanted: Collection[str], store: FrameStore, datasets: Sequence[RunDataset], table: str | Path | None = None
) -> dict[str, np.ndarray]:
    """The wanted facts of every frame of the store, [len(store)] each.

    `operation` and `video`: int64, counted from 0. `seconds` in its recording: float32. `time`: float32, from 0 to 1 in
    the operation; NaN where recordings are excerpts. `column:NAME`: int64, the values counted in their order; -1 where
    the table says nothing.

    Args:
        datasets: whose videos the store holds, under their prefixes.
        table: a CSV with a column `video` or `operation`; without it, cards are asked.

    Raises:
        SurgdinoError: there is no such table or column, or it has no row of any video.
    """
    if not wanted:
        return {}
    per_video: dict[str, np.ndarray] = {}
    operations = {name: place for place, name in enumerate(sorted({video.operation for video in store.videos}))}
    per_video[OPERATION] = np.array([operations[video.operation] for video in store.videos], np.int64)
    per_video["video"] = np.arange(len(store.videos))
    columns = {fact: fact.partition(":")[2] for fact in wanted if fact not in (*per_video, "seconds", "time")}
    if columns:
        per_video |= _columns(columns, store, datasets, None if table is None else Path(table))
    counts = [len(store.of_video(place)[0]) for place in range(len(store.videos))]
    facts = {name: values.repeat(counts) for name, values in per_video.items() if name in wanted}
    times = [store.of_video(place)[2] for place in range(len(store.videos))]
    if "seconds" in wanted:
        facts["seconds"] = np.concatenate(times).astype(np.float32)
    if "time" in wanted:
        begins, lasts = _spans(store, datasets)
        parts = [(time + begins[place]) / lasts[place] for place, time in enumerate(times)]
        facts["time"] = np.concatenate(parts).astype(np.float32)
    return facts


def _spans(store: FrameStore, datasets: Sequence[RunDataset]) -> tuple[np.ndarray, np.ndarray]:
    """Where in its operation each video begins, and how long that is, in seconds; NaN where nobody knows.

    A recording begins with frame 0, even if its first image is a later one, and ends with its last frame. Several of
    one operation follow each other in the order of the dataset.
    """
    begins, lasts = np.full(len(store.videos), np.nan), np.full(len(store.videos), np.nan)
    for dataset in datasets:
        if dataset.recordings != "whole":
            continue
        ids = {dataset.prefix + video.id for video in dataset.manifest.videos}
        places_of: dict[str, list[int]] = {}
        for place, video in enumerate(store.videos):
            if video.id in ids:
                places_of.setdefault(video.operation, []).append(place)
        for places in places_of.values():
            end = 0.0
            for place in places:
                numbers, times = (store.videos[place].shard.columns[name] for name in ("number", "time"))
                pace = (times[-1] - times[0]) / max(numbers[-1] - numbers[0], 1)
                begins[place] = end + numbers[0] * pace
                end = begins[place] + times[-1]
            lasts[places] = end or np.nan
    return begins, lasts


def _columns(
    columns: dict[str, str], store: FrameStore, datasets: Sequence[RunDataset], table: Path | None
) -> dict[str, np.ndarray]:
    wanted = sorted(columns.values())
    told = _by_cards(wanted, datasets) if table is None else _by_table(wanted, datasets, table)
    classes = {}
    for fact, name in columns.items():
        values = [told[name].get(video.id, "") for video in store.videos]
        places = {value: place for place, value in enumerate(sorted({value for value in values if value}))}
        classes[fact] = np.array([places.get(value, -1) for value in values], np.int64)
    return classes


def _by_cards(columns: Sequence[str], datasets: Sequence[RunDataset]) -> dict[str, dict[str, str]]:
    """Column -> video -> its value."""
    told: dict[str, dict[str, str]] = {name: {} for name in columns}
    for name in columns:
        for dataset in datasets:
            known = columns_of_card(dataset.card, dataset.manifest).get(name, {})
            told[name] |= {dataset.prefix + video: value for video, value in known.items()}
        if not told[name]:
            what = f"guide=column:{name} needs a table"
            raise SurgdinoError(what, fix="name it: data.table=FILE.csv, with a column video or operation")
    return told


def columns_of_card(card: Card, manifest: Manifest) -> dict[str, dict[str, str]]:
    """Column -> video -> its value, as a card says it."""
    return {
        name: {
            video.id: value
            for value, entries in values.items()
            for video in manifest.videos
            if {video.id, number_in(video.id)} & {*entries}
        }
        for name, values in card.columns.items()
    }


def _by_table(columns: Sequence[str], datasets: Sequence[RunDataset], table: Path) -> dict[str, dict[str, str]]:
    """Column -> video -> its value."""
    return columns_of_table(table, named_videos((each.prefix, each.manifest) for each in datasets), columns)


def named_videos(manifests: Iterable[tuple[str, Manifest]]) -> dict[str, set[str]]:
    """All that a table may call a video, or several of one operation -> the videos, under their sets' prefixes."""
    named: dict[str, set[str]] = {}
    for prefix, manifest in manifests:
        for video in manifest.videos:
            for name in manifest.names_of(video):
                named.setdefault(name, set()).add(prefix + video.id)
    return named


def columns_of_table(
    table: Path, named: Mapping[str, Collection[str]], columns: Collection[str] | None = None, required: bool = True
) -> dict[str, dict[str, str]]:
    """Column -> video -> its value, as a table says it.

    Args:
        table: a CSV with a column `video` or `operation`.
        named: see `named_videos`.
        columns: that are asked for; None: all.
        required: whether a table without a row of any video is refused.

    Raises:
        SurgdinoError: it has no such columns, no row of any video, or two rows that say different things of one.
    """
    rows = _rows(table)
    header = list(rows[0]) if rows else []
    key = next((name for name in _KEYS if name in header), None)
    if key is None:
        raise SurgdinoError("not a table of videos", file=table, expected="a column video or operation", found=header)
    columns = [name for name in header if name != key] if columns is None else columns
    for name in columns:
        if name not in header:
            raise SurgdinoError(f"the table has no column {name!r}", file=table, fix=nearest(name, header))
    row_of: dict[str, dict[str, str]] = {}
    for place, row in enumerate(rows, start=2):
        for video in named.get(row[key], ()):
            if any(row_of.setdefault(video, row)[name] != row[name] for name in columns):
                raise SurgdinoError(f"two rows say different things of {row[key]!r}", file=table, place=f"row {place}")
    if not row_of and required:
        found = first_of([row[key] for row in rows], 3)
        what, expected = "no row of the table is of a video of this run", first_of(sorted(named), 3)
        raise SurgdinoError(what, file=table, expected=f"{key}s such as {expected}", found=found or "no rows")
    return {name: {video: row[name] for video, row in row_of.items()} for name in columns}


def _rows(table: Path) -> list[dict[str, str]]:
    """The table's rows by column."""
    header, *rows = read_cells(table) or [[]]
    return [dict(zip(header, [*row, *[""] * len(header)], strict=False)) for row in rows]
