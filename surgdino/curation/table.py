"""A curation: what was decided of every frame of a store, one Parquet table, bound to the frames that it is of."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Required

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import NonNegativeInt
from typing_extensions import TypedDict

from surgdino.errors import SurgdinoError
from surgdino.paths import atomic_write, regular
from surgdino.records import checked, parse_json

FILE = "curation.parquet"
FORMAT = 1
RESEMBLES = "resembles what is tested on"  # a reason that the report and the leak guard look for
_META = b"surgdino"
_WORDS = pa.dictionary(pa.int32(), pa.string())
_COLUMNS = {
    "video": _WORDS,
    "operation": _WORDS,
    "frame": pa.int64(),
    "time": pa.float64(),
    "group": pa.int64(),
    "similarity": pa.float32(),
    "keep": pa.bool_(),
    "weight": pa.float32(),
    "reason": _WORDS,
}
_CLUSTER = "cluster_"
_MOST_ROWS = 1 << 20  # of a small file: a row of a large one takes a byte and more
_AGAIN = "run surgdino curate again"
_Copy = TypedDict("_Copy", {"copy": str, "of": str, "from": float, "to": float})


class _Against(TypedDict):
    of: str
    frames: int
    cosine: float | None
    nearest: float | None
    backbone: str
    operations: list[str]


class _Likeness(TypedDict):
    edges: list[float]
    shares: dict[str, list[float]]


class _Map(TypedDict, total=False):
    by: str
    rows: list[NonNegativeInt]
    xy: list[tuple[float, float]]


class _Facts(TypedDict, total=False):
    """Of the facts, those that are read again."""

    format: Required[int]
    videos: dict[str, str]
    thresholds: dict[str, float]
    calibration: dict[str, tuple[float, float, float] | None]
    likeness: _Likeness
    entropy: list[tuple[int, float, float]]
    medoids: list[int]
    map: _Map
    copies: list[_Copy]
    against: _Against | None


@dataclass
class Curation:
    """n frames of v videos, a video's together and in the order of time.

    Attributes:
        videos, operations: of each video, v entries.
        video_of: int32 [n].
        frame: int64 [n], frame numbers in the source.
        time: float64 [n], seconds.
        group: int64 [n], the duplicate group; the frames of a group show the same.
        levels: int32 [n] each, the cluster at each level, the finest first.
        similarity: float32 [n], the largest cosine with the wanted frames; NaN where none were given.
        weight: float32 [n], how often it is drawn, relative to the others that are kept; 0 where it is left out.
        reason: why it is left out, "" where it is kept; n entries.
        facts: how it was made: settings, thresholds, and `videos`, of which frames it is.
        phase: object [n], the class where the data have labels, "" elsewhere; None where they have none at all.
    """

    videos: tuple[str, ...]
    operations: tuple[str, ...]
    video_of: np.ndarray
    frame: np.ndarray
    time: np.ndarray
    group: np.ndarray
    levels: Sequence[np.ndarray]
    similarity: np.ndarray
    weight: np.ndarray
    reason: np.ndarray
    facts: Mapping[str, Any] = field(default_factory=dict)
    phase: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.video_of)

    @property
    def keep(self) -> np.ndarray:
        """bool [n]."""
        return self.weight > 0

    def counts(self) -> list[tuple[str, int]]:
        """(reason, frames), the most frequent first; "" stands for the frames that are kept."""
        return sorted(Counter(self.reason.tolist()).items(), key=lambda each: (-each[1], each[0]))

    def write(self, folder: Path) -> Path:
        """Write `curation.parquet`; the file appears whole or not at all."""
        names = pa.array(self.videos, pa.string()), pa.array(self.operations, pa.string())
        columns = {
            "video": pa.DictionaryArray.from_arrays(self.video_of.astype(np.int32), names[0]),
            "operation": names[1].take(pa.array(self.video_of)).dictionary_encode(),
            "frame": self.frame,
            "time": self.time,
            "group": self.group,
            **{f"cluster_{depth + 1}": level.astype(np.int32) for depth, level in enumerate(self.levels)},
            "similarity": self.similarity.astype(np.float32),
            "keep": self.keep,
            "weight": self.weight.astype(np.float32),
            "reason": pa.array(self.reason, pa.string()).dictionary_encode(),
        }
        if self.phase is not None:
            columns["phase"] = pa.array(self.phase, pa.string(), mask=self.phase == "").dictionary_encode()
        meta = json.dumps({"format": FORMAT, **self.facts}, ensure_ascii=False).encode()
        table = pa.table(columns).replace_schema_metadata({_META: meta})
        target = folder / FILE
        with atomic_write(target) as temporary:
            pq.write_table(table, temporary)
        return target


def read_curation(folder: Path) -> Curation:
    """What `Curation.write` wrote.

    Raises:
        SurgdinoError: no such file, or not such a table.
    """
    path = folder / FILE if folder.is_dir() else folder
    if not path.exists():
        raise SurgdinoError("no curation here", file=path, expected=FILE, fix="run surgdino curate first")
    table, facts = _opened(path)
    video = table["video"].combine_chunks()
    videos = video.dictionary.to_pylist()
    video_of = video.indices.to_numpy()
    places = np.searchsorted(video_of, np.arange(len(videos)))  # the first frame of each
    column = {name: table[name].to_numpy() for name in _COLUMNS.keys() - {"video", "operation", "reason"}}
    levels = [table[name].to_numpy() for name in table.column_names if name.startswith(_CLUSTER)]
    operations = table["operation"].combine_chunks().dictionary_decode()
    found = Curation(
        videos=tuple(videos),
        operations=tuple(operations.take(pa.array(places)).to_pylist()),
        video_of=video_of,
        frame=column["frame"],
        time=column["time"],
        group=column["group"],
        levels=levels,
        similarity=column["similarity"],
        weight=np.where(column["keep"], column["weight"], 0).astype(np.float32),
        reason=_texts(table, "reason"),
        facts=facts,
        phase=_texts(table, "phase") if "phase" in table.column_names else None,
    )
    if lacking := _lacking(found):
        raise _no_curation(path, lacking, "others")
    return found


def _opened(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    """The table of a file, its columns of the right types, and its facts."""
    try:
        with pq.ParquetFile(regular(path)) as file:
            most = max(_MOST_ROWS, path.stat().st_size)
            if (claimed := file.metadata.num_rows) > most:
                raise _no_curation(path, f"at most {most:,} rows in a file of this size", f"{claimed:,}")
            table = file.read()
        table.validate(full=True)
        text = (table.schema.metadata or {})[_META]
        table = table.cast(_schema(table, path))
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        found = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise _no_curation(path, None, found) from error
    facts = parse_json(text, path, _AGAIN)
    checked(_Facts, facts, path, _AGAIN, more=True)
    if facts["format"] > FORMAT:
        expected, found = f"format {FORMAT}", f"format {facts['format']}"
        raise SurgdinoError("newer than this program", file=path, expected=expected, found=found, fix="update surgdino")
    return table, facts


def _lacking(found: Curation) -> str | None:
    """What a curation says that cannot be; None where all agrees."""
    facts, videos = found.facts, found.videos
    steps, medoids = np.diff(found.video_of), np.array([0, *facts.get("medoids", ())])
    points, bins = facts.get("map", {}), facts.get("likeness", {"edges": [], "shares": {}})
    sound = {
        "each video once": len(set(videos)) == len(videos) == len(np.unique(found.video_of)),
        "the frames of a video together": (steps >= 0).all(),
        "frames in the order of time": (np.diff(found.frame)[steps == 0] > 0).all(),
        "times that are finite": np.isfinite(found.time).all(),
        "weights from 0 that are finite": (np.isfinite(found.weight) & (found.weight >= 0)).all(),
        "groups, clusters and medoids among its frames": all(
            each.min(initial=0) >= -1 and each.max(initial=0) < len(found)
            for each in (found.group, *found.levels, medoids)
        ),
        "clusters and groups from 0": all(each.min(initial=0) >= 0 for each in (found.group, *found.levels)),
        "a medoid a cluster": len(medoids) == 1
        or (found.levels and found.levels[-1].max(initial=0) < len(medoids) - 1),
        "copies of its videos": {each[end] for each in facts.get("copies", ()) for end in ("copy", "of")} <= {*videos},
        "a point for each row of the map": len(points.get("rows", ())) == len(points.get("xy", ())),
        "a share for each bin": all(len(each) + 1 == len(bins["edges"]) for each in bins["shares"].values()),
    }
    return next((what for what, holds in sound.items() if not holds), None)


def _schema(table: pa.Table, path: Path) -> pa.Schema:
    """The types that the columns of a curation must have, in the order of the table; none without a value but phases.

    A column of whole numbers or of another precision is taken, where no value changes.
    """
    if missing := _COLUMNS.keys() - set(table.column_names):
        raise _no_curation(path, f"a column {min(missing)}", ", ".join(table.column_names)[:200])
    if len(set(table.column_names)) < len(table.column_names):
        raise _no_curation(path, "each column once", ", ".join(table.column_names)[:200])
    kinds = {name: pa.int32() for name in table.column_names if name.startswith(_CLUSTER)} | {
        "phase": _WORDS,
        **_COLUMNS,
    }
    for name in kinds.keys() & set(table.column_names):
        kind = table.schema.field(name).type
        if (kinds[name] == _WORDS) != pa.types.is_dictionary(kind) or pa.types.is_boolean(kind) != (name == "keep"):
            raise _no_curation(path, f"{kinds[name]} in the column {name}", kind)
        if name != "phase" and table[name].null_count:
            raise _no_curation(path, f"a value in each row of the column {name}", f"{table[name].null_count:,} without")
    return pa.schema([pa.field(each.name, kinds.get(each.name, each.type)) for each in table.schema])


def _no_curation(path: Path, expected: object, found: object) -> SurgdinoError:
    return SurgdinoError("not a curation", file=path, expected=expected, found=found, fix=_AGAIN)


def _texts(table: pa.Table, name: str) -> np.ndarray:
    """A column of words, object [n]; "" for none."""
    column = table[name].combine_chunks()  # the frames share their words: a reference each
    return np.array([*column.dictionary.to_pylist(), ""], object)[column.indices.fill_null(-1).to_numpy()]


def coded(words: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The different words in object [n], in the order in which they come, and which of them each is, int [n]."""
    found = pa.array(words, pa.string()).dictionary_encode()
    return found.dictionary.to_pylist(), found.indices.to_numpy()
