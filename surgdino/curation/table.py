"""A curation: what was decided of every frame of a store, one Parquet table, bound to the frames that it is of."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from surgdino.errors import SurgdinoError
from surgdino.paths import atomic_write, regular

FILE = "curation.parquet"
FORMAT = 1
RESEMBLES = "resembles what is tested on"  # a reason that the report and the leak guard look for
_META = b"surgdino"
_COLUMNS = {"video", "operation", "frame", "time", "group", "similarity", "keep", "weight", "reason"}


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
    try:
        table = pq.read_table(regular(path))
        facts = json.loads((table.schema.metadata or {})[_META])
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        found = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise SurgdinoError("not a curation", file=path, found=found, fix="run surgdino curate again") from error
    if missing := _COLUMNS - set(table.column_names):
        raise SurgdinoError("not a curation", file=path, expected=f"a column {min(missing)}", found=table.column_names)
    for name in ("video", "operation", "reason"):
        if not pa.types.is_dictionary(kind := table.schema.field(name).type):
            expected = f"words in the column {name}"
            raise SurgdinoError(
                "not a curation", file=path, expected=expected, found=kind, fix="run surgdino curate again"
            )
    video = table["video"].combine_chunks()
    operations = table["operation"].combine_chunks().dictionary_decode()
    videos = video.dictionary.to_pylist()
    video_of = video.indices.to_numpy()
    places = np.searchsorted(video_of, np.arange(len(videos)))  # the first frame of each
    column = {name: table[name].to_numpy() for name in _COLUMNS - {"video", "operation", "reason"}}
    return Curation(
        videos=tuple(videos),
        operations=tuple(operations.take(pa.array(places)).to_pylist()),
        video_of=video_of,
        frame=column["frame"],
        time=column["time"],
        group=column["group"],
        levels=[table[name].to_numpy() for name in table.column_names if name.startswith("cluster_")],
        similarity=column["similarity"],
        weight=np.where(column["keep"], column["weight"], 0).astype(np.float32),
        reason=_texts(table, "reason"),
        facts=facts,
        phase=_texts(table, "phase") if "phase" in table.column_names else None,
    )


def _texts(table: pa.Table, name: str) -> np.ndarray:
    """A column of words, object [n]; "" for none."""
    column = table[name].combine_chunks()  # the frames share their words: a reference each
    return np.array([*column.dictionary.to_pylist(), ""], object)[column.indices.fill_null(-1).to_numpy()]


def coded(words: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The different words in object [n], in the order in which they come, and which of them each is, int [n]."""
    found = pa.array(words, pa.string()).dictionary_encode()
    return found.dictionary.to_pylist(), found.indices.to_numpy()
