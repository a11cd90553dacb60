"""`surgdino finetune` over several folds and seeds: a run for each in one folder, and what they say together."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from surgdino import distributed
from surgdino.config import typed
from surgdino.console import field, say
from surgdino.datasets.card import Card
from surgdino.engine.stop import sigterm_interrupts
from surgdino.inputs.backbone import StartingBackbone
from surgdino.inputs.configs import FinetuneConfig
from surgdino.inputs.finetune import FREE, Checked, check, guard
from surgdino.inputs.folds import PlannedRun, in_run, planned_runs
from surgdino.inputs.labelled import open_store_of
from surgdino.runs.folder import environment, open_run
from surgdino.runs.folds import is_finished, print_together, write_together
from surgdino.runs.leaks import refuse_shared
from surgdino.runs.lock import FolderLock
from surgdino.runs.names import Mode
from surgdino.runs.results import RESULTS
from surgdino.tasks.task import open_task
from surgdino.verbs.report import try_report

Finetune = Callable[[FinetuneConfig, Mapping[str, Any], FolderLock], tuple[Path, bool]]


def several(config: FinetuneConfig, cfg: Mapping[str, Any], lock: FolderLock, finetune: Finetune) -> tuple[Path, bool]:
    """A run for each fold and seed in one folder, then what they say together; finished ones are not run again. As
    `finetune` says how it ended."""
    task, card = open_task(config.task), Card.from_dict(config.dataset)
    runs = planned_runs(card, config.data, config.train, task.LABELS)
    checked = check_all(runs, config, cfg)
    first = next(iter(checked.values()))
    hashes = {run.fold: checked[run.name].manifest.fingerprint() for run in runs if run.name in checked}
    folder = config.run.dir or first.folder.with_name(f"{first.folder.name}-folds")
    mode: Mode = "plain" if first.names.plain else "pseudonyms"
    data_hash = hashlib.sha256("".join(hashes.values()).encode()).hexdigest()[:16]
    with distributed.main_first():
        if distributed.is_main():
            lock.take(folder)
            recorded = {**cfg, "model": first.start.model.as_dict(), "run": {"dir": str(folder), "names": mode}}
            open_run(folder, recorded, first.names, data_hash=data_hash, free=FREE)
            (folder / "state").mkdir(exist_ok=True)  # marks a run that other settings may not continue
    with sigterm_interrupts():
        for name, found in checked.items():  # by name they were compared before there were frames
            with distributed.main_first():
                store = open_store_of(found.manifest, found.config.data)
            _, leaks = guard(found, store)
            with in_run(name):
                refuse_shared(leaks, config.leakage)
        del checked, found  # their backbones
        for place, run in enumerate(runs, 1):
            say(f"{run.name}, {place} of {len(runs)}", style="bold")
            if distributed.from_main(partial(is_finished, folder / run.name, hashes[run.fold])):
                say("done before")
                continue
            settings = run.settings(cfg, folder / run.name, mode)
            if not finetune(typed(FinetuneConfig, settings, ""), settings, lock)[1]:
                return folder, False
    with distributed.main_first():
        if distributed.is_main():
            by_name = {run.name: (run.fold, run.seed) for run in runs}
            print_together(write_together(folder, by_name, environment(data_hash, first.names)))
            field("results", folder / RESULTS)
            if page := try_report(folder):
                field("report", page)
    return folder, True


def check_all(runs: Sequence[PlannedRun], config: FinetuneConfig, cfg: Mapping[str, Any]) -> dict[str, Checked]:
    """What runs begin with, by name: one of each fold and checkpoint; all are checked before the first is trained."""
    checked: dict[tuple[str, str | None], tuple[str, Checked]] = {}
    starts: dict[str | None, StartingBackbone] = {}
    for run in runs:
        settings = typed(FinetuneConfig, run.settings(cfg, config.run.dir, config.run.names), "")
        if (key := (run.fold, settings.checkpoint)) not in checked:
            with in_run(run.name):
                found = check(settings)
            # One backbone in memory for all that begin with it.
            checked[key] = run.name, replace(found, start=starts.setdefault(settings.checkpoint, found.start))
    return dict(checked.values())
