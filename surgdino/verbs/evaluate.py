"""`surgdino evaluate`: a fine-tuned checkpoint tested once more, from its folder alone, on its own data or on other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from surgdino.config import shipped, typed
from surgdino.console import field, say, warn
from surgdino.datasets.card import Card
from surgdino.datasets.manifest import Manifest
from surgdino.errors import SurgdinoError
from surgdino.exit_code import ExitCode
from surgdino.inputs.configs import EvaluateConfig
from surgdino.inputs.labelled import (
    engine_of,
    features_folder,
    labelled_parts,
    open_store_of,
    require_parts,
    split_manifest,
    split_name,
)
from surgdino.inputs.settings import DataSettings
from surgdino.paths import file_of
from surgdino.report.page import tried, write_page
from surgdino.report.record import handled, read_evaluation, read_results
from surgdino.report.sections.timelines import Timelines
from surgdino.runs.folder import environment, recorded_mode, set_aside_of
from surgdino.runs.history import History
from surgdino.runs.leaks import find_leaks, refuse_leaks, refuse_named
from surgdino.runs.lock import FolderLock
from surgdino.runs.names import Pseudonyms, real_config
from surgdino.runs.results import RESULTS, print_scores, write_results
from surgdino.tasks.averaging import average
from surgdino.tasks.context import TaskContext
from surgdino.tasks.labelled_frames import LabelledFrames
from surgdino.tasks.saved import SavedTask, load_task
from surgdino.tasks.task import Member, Task

_OF_THE_DATASET = ("split", "labels", "operation_pattern", "organ", "rater", "exclude")


def main(cfg: Mapping[str, Any]) -> ExitCode:
    """Test the checkpoint that `cfg` names; 0."""
    config = typed(EvaluateConfig, cfg, "")
    saved = local_task(config.checkpoint)
    task, run = saved.task, saved.folder.parent
    card = saved.card if config.dataset is None else Card.from_dict(config.dataset)
    data = data_of(config, saved, card)
    names = names_of(saved, data)
    manifest = split_manifest(card, data, task.LABELS, names)
    require_parts(manifest, data, (config.part,))
    manifest = saved.joined(card, manifest).part(config.part)
    info, tested_on = saved.model.info, f"{card.name} {split_name(data, names)} {config.part}"
    past, leakage = History.of(info), config.leakage or saved.config.leakage
    refuse_named(past, manifest, tested_on, names, leakage)
    how = "".join(f"-{each}" for each in (config.averaging, config.smoothing) if each != "none")
    out = config.out or file_of(run / "evaluation", card.name, f"-{config.part}{how}")
    with FolderLock(out):
        store = open_store_of(manifest, data)
        leaks = find_leaks(past, manifest, tested_on, names, store.prints_of(manifest.operations))
        refuse_leaks(leaks, leakage)
        parts = labelled_parts(manifest, store, task.LABELS, (config.part,), names)
        features, where = features_folder(data, card.name, run, saved.tuning), engine_of(data)
        context = saved.context(config.hardware, features, card, parts, **where)
        known = {key: info.get(key) for key in ("started_from", "seed", "stages")}
        facts = {"split": data.split, "checkpoint": saved.folder, **known, "leakage": leaks.as_dict(names)}
        head = saved.load_head(context)
        if averaged := average([Member(task, context, head)], config.averaging, config.smoothing):
            facts["averaged_over"] = averaged
        known_as = None if averaged else saved.folder.parent / RESULTS
        show = Shown(known_as, config.details, f"{out / RESULTS}, or here with details=true")
        path = measure(task, context, head, config.part, out, manifest, facts, names, averaged=averaged, show=show)
    field("results", path)
    page = tried(lambda: _page(saved, context.parts[config.part], path, shown=config.report.frames))
    if page:
        field("report", page)
    return ExitCode(0, out, results=path, report=page)


def _page(saved: SavedTask, frames: LabelledFrames, results: Path, *, shown: bool) -> Path:
    """`report.html` beside the results, with frames of the tested videos where it may show any."""
    record = read_evaluation(saved.folder.parent, results.parent)
    pictures = [Timelines(frames.near, handled(record))] if shown else ()
    return write_page([record], results.parent / "report.html", pictures=pictures)


@dataclass(frozen=True)
class Shown:
    """What is printed of numbers: whether they are those of another results.json, whether all, what has the rest."""

    same_as: Path | None = None
    details: bool = False
    where: str = "report.html, results.json"


_IN_REPORT = Shown()


def measure(
    task: Task[Any, Any],
    context: TaskContext,
    head: nn.Module,
    part: str,
    out: Path,
    manifest: Manifest,
    facts: Mapping[str, Any],
    names: Pseudonyms,
    averaged: str = "",
    show: Shown = _IN_REPORT,
) -> Path:
    """Test a head on a part of `context.parts`; write, print and draw what comes out.

    Args:
        manifest: the data whose hash is recorded.
        facts: what results.json says beyond the numbers and the context: `split`, `checkpoint`, `started_from`, `seed`,
            `stages`, `leakage`.
        averaged: over what predictions are averaged, a part of every protocol's name then.
        names: of the operations; `context.parts` has the videos under what it shows of them.

    Returns:
        The path of results.json.
    """
    frames = context.parts[part]
    scores = task.evaluate(context, head, frames, out)
    scores = scores.under(averaged.replace(", ", "/")) if averaged else scores
    facts = {
        "dataset": context.card.name,
        "part": part,
        "backbone": context.tuning,
        "image_size": context.image_size,
        "precision": context.features.precision,
        "settings": asdict(task.settings),
        **facts,
        "split": names.named(facts["split"]),
        "checkpoint": names.place(facts["checkpoint"]),
        "set_aside": set_aside_of(frames.store, names),
        "environment": environment(manifest.fingerprint(), names),
    }
    path = write_results(out, task.name, scores, facts=facts, names=names)
    if show.same_as is not None:
        print_comparison(show.same_as, path)
    print_scores(scores, leakage=facts["leakage"], details=show.details, where=show.where)
    try:
        task.draw(context, head, frames, out / "predictions", context.backbone.settings.name)
    except Exception as error:  # costs the pictures, not the numbers
        warn(f"the pictures of the predictions could not be drawn: {type(error).__name__}: {error}")
    return path


def frames_tested(run: Path) -> tuple[SavedTask, LabelledFrames]:
    """A run's task, and the labelled frames that it was tested on, as they lie on this machine now."""
    saved = local_task(str(run))
    data = shipped(DataSettings, "data", **saved.config.data)
    names = names_of(saved, data)
    manifest = saved.joined(saved.card, split_manifest(saved.card, data, saved.task.LABELS, names)).part("test")
    return saved, labelled_parts(manifest, open_store_of(manifest, data), saved.task.LABELS, ("test",), names)["test"]


def local_task(checkpoint: str) -> SavedTask:
    """A saved task, with the paths and names that its run folder knows of this machine."""
    return local(load_task(checkpoint))


def local(saved: SavedTask) -> SavedTask:
    """The same with what its run folder knows of this machine."""
    real = real_config({"data": saved.config.data}, saved.folder.parent)
    return replace(saved, config=replace(saved.config, data=real["data"]))


def names_of(saved: SavedTask, data: DataSettings) -> Pseudonyms:
    """The names of the run that a task was trained in."""
    return Pseudonyms.open(recorded_mode(saved.config.run), data.store)


def data_of(config: EvaluateConfig, saved: SavedTask, card: Card) -> DataSettings:
    """The run's `data` section with what was said of the data in its place."""
    given = {key: value for key, value in config.data.items() if value is not None}
    run = dict(saved.config.data)
    if card.name != saved.card.name:
        for key in ("root", "split"):
            if key not in given:
                found = f"another dataset ({card.name}) than the run's ({saved.card.name})"
                raise SurgdinoError(f"data.{key} is not set", found=found, fix=f"add data.{key}=...")
        run |= {key: () if key == "exclude" else None for key in _OF_THE_DATASET}
    return shipped(DataSettings, "data", **{**run, **given})


def print_comparison(before: Path, path: Path) -> None:
    """Say whether the numbers are those that the run wrote down, where it tested the same."""
    if not before.is_file() or before == path:
        return
    try:
        then, now = read_results(before), read_results(path)
    except SurgdinoError as error:
        warn(f"not compared with the run's own numbers: {error.line()}")
        return
    tested = [{op for row in each["scores"] for op in row["per_operation"]} for each in (then, now)]
    if tested[0] != tested[1] or any(then.get(key) != now[key] for key in ("dataset", "split", "part", "checkpoint")):
        return
    # An earlier version computed intervals in another way.
    old, new = ([{**row, "interval_95": None} for row in each["scores"]] for each in (then, now))
    differing = [row["name"] for row, again in zip(old, new, strict=False) if row != again]
    if differing:
        warn(f"numbers differ from {before}: {', '.join(differing[:5])}")
    else:
        say(f"reproduced: all values equal those of {before}", style="green")
