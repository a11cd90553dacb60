"""The shift between towers: who teaches, who is tested, and what is lost; and tables that cannot serve."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from surgdino.errors import SurgdinoError
from surgdino.evaluations import shift
from surgdino.evaluations.parts.evaluation import open_evaluation
from surgdino.evaluations.parts.given import Given
from surgdino.inputs.suite import Entry
from surgdino.runs.benchmark import Cell, read_finished
from surgdino.runs.names import Pseudonyms
from surgdino.verbs.benchmark_cells import Job, measured_here
from tests.evaluations.test_pictures import given_of, named

SECTION = {"labels": ["phase"], "column": "tower", "choices": 3}
COUNT = 11  # operations: 5 of tower A, 5 of B, one of C


@pytest.fixture
def given(monkeypatch, tmp_path) -> Given:
    """Tokens tell the class; at tower B one of them has the other sign."""
    rng = np.random.default_rng(0)
    ids = np.tile(np.arange(2), 10 * COUNT)
    names = [f"op{number:02d}" for number in range(COUNT) for _ in range(20)]
    towers = {f"op{number:02d}": "AB"[number % 2] if number < 10 else "C" for number in range(COUNT)}
    sign = np.array([-1 if towers[name] == "B" else 1 for name in names])
    tokens = np.stack([sign * (2 * ids - 1), 2 * ids - 1], 1) + rng.normal(scale=0.3, size=(len(ids), 2)) * [0.1, 5]
    monkeypatch.setattr(Given, "tokens", lambda *_: torch.from_numpy(tokens).float())
    every = np.ones(len(ids), bool)
    return replace(given_of(ids, names, every, 2, tmp_path), learns=every, columns={"tower": towers})


def test_what_a_tower_changes_is_lost(given):
    found = named(open_evaluation("shift", SECTION, "").outcomes(given))
    names = [f"balanced accuracy, taught by 2 operations of {which} tower" for which in ("the own", "another")]
    assert list(found) == [*names, "lost at another tower"]
    own, other, lost = found.values()
    assert own.per_operation.keys() == {f"op{number:02d}" for number in range(10)}  # tower C has one operation alone
    assert own.value > 0.95
    assert other.value < 0.2
    assert lost.value == pytest.approx(own.value - other.value)


def test_nobody_is_tested_by_what_it_taught(given, monkeypatch):
    """Each fit has two operations of one tower; an operation is tested by every fit of another tower, and by those of
    its own that it did not teach."""
    taught: list[set[str]] = []
    owner = {tuple(row): name for row, name in zip(given.tokens().tolist(), given.operations.tolist(), strict=True)}
    fit = shift.fit_linear
    tested: list[tuple[int, str]] = []

    def watched(x, *more):
        taught.append({owner[tuple(row)] for row in x.tolist()})
        predict, number = fit(x, *more), len(taught) - 1
        return lambda z: (tested.append((number, owner[tuple(z[0].tolist())])), predict(z))[1]

    monkeypatch.setattr(shift, "fit_linear", watched)
    list(open_evaluation("shift", SECTION, "").outcomes(given))
    towers = given.columns["tower"]
    assert len(taught) == 2 * 3
    assert all(len(names) == 2 and len({towers[name] for name in names}) == 1 for names in taught)
    for operation in list(towers)[:10]:
        by = [taught[number] for number, name in tested if name == operation]
        assert all(operation not in names for names in by)
        assert sum(towers[next(iter(names))] != towers[operation] for names in by) == 3
        assert any(towers[next(iter(names))] == towers[operation] for names in by)


def test_a_split_keeps_its_parts(given, monkeypatch):
    test = np.isin(given.operations, ["op00", "op01"])
    found = named(open_evaluation("shift", SECTION, "").outcomes(replace(given, tested=test, learns=~test)))
    assert all(outcome.per_operation.keys() == {"op00", "op01"} for outcome in found.values())


def test_without_a_table_there_is_nothing_to_find(given):
    assert not list(open_evaluation("shift", SECTION, "").outcomes(replace(given, columns={})))


@pytest.mark.parametrize(
    ("column", "towers", "expected"),
    [
        ("towr", {}, "data.table has no column 'towr'.*did you mean 'tower'"),
        ("tower", {"op00": "A", "op02": "A", "op04": "B"}, "too few operations of each tower.*2, 1"),
        ("tower", {}, "too few operations of each tower.*none"),
    ],
)
def test_towers_that_cannot_serve_are_one_line(column, towers, expected, given):
    evaluation = open_evaluation("shift", {**SECTION, "column": column}, "")
    with pytest.raises(SurgdinoError, match=rf"(?i){expected}"):
        list(evaluation.outcomes(replace(given, columns={"tower": towers})))


def test_a_changed_table_is_measured_again(given):
    frames = replace(given.frames, videos=(), starts=np.zeros(1, np.int64))
    for tabled in (True, False):
        sides = (replace(given, frames=frames, columns={"tower": towers}) for towers in ({}, {"op00": "A"}))
        one, two = (side.identity(False, tabled) for side in sides)
        assert (one != two) == tabled


def test_a_worker_knows_what_the_table_says(given, tmp_path):
    entry = Entry("another tower", "shift", open_evaluation("shift", SECTION, ""), None)
    job = Job(Cell("another tower", "set", "phase", "ours"), entry, given, "identity")
    there = SimpleNamespace(recipe=lambda cache, _: SimpleNamespace(cache=lambda: cache))
    measured_here(*job.sent(there, 1, tmp_path, Pseudonyms.open("plain", tmp_path)))
    finished = read_finished(job.cell.file(tmp_path), "identity")
    assert [found.name for found in finished.found] == list(named(entry.evaluation.outcomes(given)))
