"""A table that others wrote is a curation, or told in a line: never a traceback, and no other frames than it says."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from surgdino.curation import table
from surgdino.curation.table import FILE, Curation, read_curation
from surgdino.errors import SurgdinoError

CODED = ("video", "operation", "reason")


def columns() -> dict[str, Any]:
    """Those of a curation of two videos; `facts` is its header."""
    return {
        "video": ["a"] * 3 + ["b"] * 3,
        "operation": ["own/a"] * 3 + ["own/b"] * 3,
        "frame": [0, 10, 20] * 2,
        "time": [0.0, 1.0, 2.0] * 2,
        "group": list(range(6)),
        "cluster_1": [0] * 6,
        "similarity": [float("nan")] * 6,
        "keep": [True] * 6,
        "weight": [1.0] * 6,
        "reason": [""] * 6,
        "facts": {"format": 1, "videos": {"a": "0", "b": "1"}, "medoids": [3]},
    }


def written(folder, values: dict[str, Any]) -> None:
    facts = json.dumps(values.pop("facts")).encode()
    arrays = {name: pa.array(column) for name, column in values.items()}
    texts = {name for name in CODED if name in arrays and pa.types.is_string(arrays[name].type)}
    arrays = {name: array.dictionary_encode() if name in texts else array for name, array in arrays.items()}
    pq.write_table(pa.table(arrays).replace_schema_metadata({b"surgdino": facts}), folder / FILE)


def test_a_sound_one_is_read_and_written_as_it_was(tmp_path):
    written(tmp_path, columns())
    found = read_curation(tmp_path)
    assert (found.videos, found.operations, len(found)) == (("a", "b"), ("own/a", "own/b"), 6)
    (tmp_path / "again").mkdir()
    found.write(tmp_path / "again")
    again = read_curation(tmp_path / "again")
    for name in ("video_of", "frame", "time", "group", "similarity", "weight", "reason"):
        assert np.array_equal(getattr(found, name), getattr(again, name), equal_nan=name == "similarity"), name


OTHER = {"texts": "x", "null": None, "lists": [1], "halves": 0.5, "negative": -1, "NaN": float("nan"), "huge": 1 << 60}
RIGHT = {
    *(("operation", "texts"), ("reason", "texts")),
    *(("time", name) for name in ("halves", "negative")),  # any moment
    *(("similarity", name) for name in ("halves", "negative", "NaN")),
    ("weight", "halves"),
}


@pytest.mark.parametrize("column", [name for name in columns() if name != "facts"])
def test_a_column_of_another_type_is_told_in_a_line(tmp_path, column):
    for name, value in OTHER.items():
        written(tmp_path, {**columns(), column: [value] * 6})
        if (column, name) in RIGHT - {("video", "texts")}:
            assert isinstance(read_curation(tmp_path), Curation)
            continue
        with pytest.raises(SurgdinoError, match="not a curation"):
            read_curation(tmp_path)
    written(tmp_path, {key: each for key, each in columns().items() if key != column})
    if column != "cluster_1":
        with pytest.raises(SurgdinoError, match=f"expected a column {column}"):
            read_curation(tmp_path)


FACTS = [[], 5, "x", None, {}, {"format": 99}, {"format": "1"}, {"format": 1, "videos": 5}, {"format": 1, "map": []}]
FACTS += [{"format": 1, "copies": [{"copy": "a"}]}, {"format": 1, "medoids": [99]}, {"format": 1, "medoids": ["x"]}]
FACTS += [{"format": 1, "map": {"rows": [0, 1, 2], "xy": []}}, {"format": 1, "calibration": {"1 s": [1.0]}}]
FACTS += [{"format": 1, "copies": [{"copy": "a", "of": "c", "from": 0.0, "to": 1.0}]}]
FACTS += [{"format": 1, "likeness": {"edges": [0.0, 1.0], "shares": {"1 s": []}}}]
FACTS += [{"format": 1, "against": {}}, {"format": 1, "entropy": [[1]]}, {"format": 1, "thresholds": {"1 s": "high"}}]


@pytest.mark.parametrize("facts", FACTS, ids=str)
def test_facts_of_another_kind_are_told_in_a_line(tmp_path, facts):
    written(tmp_path, {**columns(), "facts": facts})
    with pytest.raises(SurgdinoError, match=FILE):
        read_curation(tmp_path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"video": ["a", "b"] * 3}, "frames of a video together"),
        ({"frame": [20, 10, 0] * 2}, "order of time"),
        ({"weight": [-1.0, *[1.0] * 5]}, "weights from 0"),
        ({"cluster_1": [5] * 6}, "a medoid a cluster"),
    ],
)
def test_rows_that_contradict_each_other_are_told_in_a_line(tmp_path, change, told):
    written(tmp_path, {**columns(), **change})
    with pytest.raises(SurgdinoError, match=told):
        read_curation(tmp_path)


def test_more_rows_than_a_file_can_hold_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "_MOST_ROWS", 10)
    written(tmp_path, {name: each if name == "facts" else each * 10_000 for name, each in columns().items()})
    with pytest.raises(SurgdinoError, match="found 60,000"):
        read_curation(tmp_path)
