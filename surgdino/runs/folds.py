"""What several runs say together: the results of their folds and seeds as one results.json and one table."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from surgdino import console
from surgdino.errors import SurgdinoError
from surgdino.metrics.arrays import as_json
from surgdino.metrics.folds import OverRuns, Run, over_runs
from surgdino.metrics.scores import FRACTION
from surgdino.paths import write_text
from surgdino.report.record import read_results
from surgdino.report.sections.folds import SUMMARY, fold_rows
from surgdino.runs.results import RESULTS, print_stamp, write_per_operation
from surgdino.wording import counted

Results = Mapping[str, Any]
_OWN = (
    "headline",
    "split",
    "seed",
    "checkpoint",
    "stages",
    "leakage",
    "operations",
    "notes",
    "scores",
    "classes",
    "confusions",
)


def is_finished(folder: Path, data_hash: str) -> bool:
    """Whether a run has its results.

    Raises:
        SurgdinoError: they are of other recordings than those that are there now.
    """
    try:
        before = read_results(folder / RESULTS).get("environment") or {}
    except SurgdinoError:  # not there, or damaged: the run writes it again
        return False
    if before.get("data_hash") != data_hash:
        raise SurgdinoError(
            "the recordings have changed since this run was finished",
            file=folder,
            expected=data_hash,
            found=before.get("data_hash"),
            fix="give another run.dir, or remove this folder",
        )
    return True


def write_together(folder: Path, runs: Mapping[str, Run], environment: Mapping[str, Any]) -> Results:
    """Write results.json and per_operation.csv of a folder of finished runs; gives the former's content.

    Args:
        runs: name of a run's folder -> its fold and seed.

    Raises:
        SurgdinoError: a run has no results, or they are damaged.
    """
    each = {name: read_results(folder / name / RESULTS) for name in runs}
    results = {**together(each, runs), "environment": dict(environment)}
    write_text(folder / RESULTS, json.dumps(results, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    write_per_operation(folder, [(row["protocol"], row["name"], row["per_operation"]) for row in results["scores"]])
    return results


def together(each: Mapping[str, Results], runs: Mapping[str, Run]) -> Results:
    """The results of several runs as one: what is the same in all of them, and every measure over folds and seeds.

    Args:
        each: name of a run -> what its results.json holds.
        runs: name -> its fold and seed.
    """
    first, *others = each.values()
    same = {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}
    tables = {name: {(r["protocol"], r["name"]): r for r in results["scores"]} for name, results in each.items()}
    shared = [key for key in next(iter(tables.values())) if all(key in table for table in tables.values())]
    rows = [_row({name: table[key] for name, table in tables.items()}, runs) for key in shared]
    left_out = sorted({"/".join(key) for table in tables.values() for key in table} - {"/".join(key) for key in shared})
    notes = dict.fromkeys(note for results in each.values() for note in results.get("notes", ()))
    if left_out:
        notes[f"left out, since not every run has them: {', '.join(left_out)}"] = None
    tested = [operation for results in each.values() for operation in results["scores"][0]["per_operation"]]
    wanted = first["headline"]["protocol"], first["headline"]["name"]
    value = next((row["value"] for row in rows if (row["protocol"], row["name"]) == wanted), None)
    folds, seeds = (list(dict.fromkeys(run[place] for run in runs.values())) for place in (0, 1))
    return as_json(
        {
            "task": first["task"],
            "headline": {**first["headline"], "value": value},
            **{key: value for key, value in same.items() if key not in (*_OWN, "task", "environment")},
            "folds": folds,
            "seeds": seeds,
            "runs": {name: {"fold": fold, "seed": seed} for name, (fold, seed) in runs.items()},
            "leakage": _leakage(each),
            "operations": len(set(tested)),
            "notes": list(notes),
            "scores": rows,
            "confusions": _added(each.values()),
        }
    )


def _added(each: Iterable[Results]) -> list[dict[str, Any]]:
    """The confusions of all runs, those of the same classes added up."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for table in (table for results in each for table in results.get("confusions") or ()):
        key = table["title"], tuple(table["rows"]), tuple(table["columns"]), table["unit"]
        before = found.get(key)
        counts = np.array(table["counts"], np.int64)
        found[key] = {**table, "counts": counts if before is None else before["counts"] + counts}
    return list(found.values())


def _row(of_runs: Mapping[str, Mapping[str, Any]], runs: Mapping[str, Run]) -> dict[str, Any]:
    """One measure over all runs, as results.json has it."""
    first = next(iter(of_runs.values()))
    unit = first.get("unit", FRACTION)
    found = over_runs(
        {runs[name]: _number(row["value"]) for name, row in of_runs.items()},
        {runs[name]: {op: _number(v) for op, v in row["per_operation"].items()} for name, row in of_runs.items()},
        shares=unit == FRACTION,
    )
    return {
        "name": first["name"],
        "protocol": first["protocol"],
        "value": found.value,
        "unit": unit,
        **_spreads(found, runs),
        "mean_over_operations": found.operations.value,
        "std_over_operations": found.operations.std,
        "interval_95": [found.operations.low, found.operations.high],
        "operations": found.operations.n,
        "per_operation": found.per_operation,
        "per_run": {name: row["value"] for name, row in of_runs.items()},
    }


def _spreads(found: OverRuns, runs: Mapping[str, Run]) -> dict[str, float]:
    several = [len({run[place] for run in runs.values()}) > 1 for place in (0, 1)]
    spreads = {"std_over_folds": found.std_over_folds, "std_over_seeds": found.std_over_seeds}
    return {key: value for (key, value), kept in zip(spreads.items(), several, strict=True) if kept}


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _leakage(each: Mapping[str, Results]) -> dict[str, Any]:
    """What the leak guard says of all runs: the worst state, every stamp once, what is listed joined."""
    found = {name: results.get("leakage") or {} for name, results in each.items()}
    stamps: dict[str, list[str]] = {}
    joined: dict[str, Any] = {}
    for name, leakage in found.items():
        if leakage.get("stamp"):
            stamps.setdefault(leakage["stamp"], []).append(name)
        for key, value in leakage.items():
            if isinstance(value, list):
                joined[key] = sorted({*joined.get(key, ()), *value})
            elif isinstance(value, Mapping):
                joined[key] = {**joined.get(key, {}), **value}
    states = {leakage.get("state") for leakage in found.values()}
    lines = (text if len(names) == len(each) else f"{', '.join(names)}: {text}" for text, names in stamps.items())
    state = next((state for state in ("shared", "unknown", "disjoint") if state in states), None)
    return {"state": state, **joined, "stamp": "; ".join(lines) or None}


def print_together(results: Results) -> None:
    """Print every run, their mean and their spreads, in the headline's protocol."""
    print_stamp(results["leakage"])
    protocol = results["headline"]["protocol"]
    others = sorted({row["protocol"] for row in results["scores"]} - {protocol})
    more = f"; {', '.join(others)}: {RESULTS}" if others else ""
    title = f"{results['task']}, {counted(len(results['runs']), 'run')}"
    heads, rows = fold_rows(results, protocol)
    bold = [place for place, row in enumerate(rows) if row[0].startswith(SUMMARY)]
    console.grid(title, heads, rows, caption=f"protocol {protocol}; shares in %{more}", bold=bold)
    for note in results["notes"]:
        console.warn(note)
