"""`surgdino pretrain`: video folder and natural-image weights in, adapted backbone out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.text import Text

from surgdino import console, distributed
from surgdino.backbone.checkpoint import usual_size
from surgdino.backbone.model_json import Apart
from surgdino.backbone.preprocess import Preprocess
from surgdino.backbone.weights import WeightsReport
from surgdino.config import typed
from surgdino.crops.multicrop import MultiCrop
from surgdino.crops.workers import AHEAD, within_memory
from surgdino.datasets.card import Card
from surgdino.datasets.files import EXPORT_DICOM
from surgdino.engine.devices import choose_device
from surgdino.engine.guide import needed
from surgdino.engine.hardware import loader_workers
from surgdino.engine.logger import RunLog
from surgdino.engine.method import open_method
from surgdino.engine.phases import open_phases
from surgdino.engine.plan import Phase, TrainPlan, TrainResult
from surgdino.engine.probing.probe_set import Probing
from surgdino.engine.saving import BEST
from surgdino.engine.train import train
from surgdino.errors import SurgdinoError
from surgdino.exit_code import ExitCode
from surgdino.frames.prints import Prints
from surgdino.frames.store import FrameStore
from surgdino.inputs.backbone import natural_backbone
from surgdino.inputs.configs import PretrainConfig
from surgdino.inputs.curated import Drawn, curated
from surgdino.inputs.datasets import (
    RunDataset,
    data_hash,
    joined_store,
    licence_note,
    no_test_after,
    open_datasets,
    overlap_warnings,
    summaries,
)
from surgdino.inputs.facts import facts_of
from surgdino.inputs.probe import ProbeData, choose_probe, open_probe, probe_leaks, refuse_trained
from surgdino.inputs.settings import ReportSettings
from surgdino.paths import safe_name
from surgdino.report.curves import GUIDE, TERMS, draw_curves
from surgdino.runs.folder import names_mode, open_run, write_data
from surgdino.runs.history import CHOSEN, TRAINED, History, How, Seen
from surgdino.runs.leaks import LeakReport
from surgdino.runs.lock import FolderLock
from surgdino.runs.logged import logged_settings
from surgdino.runs.names import Pseudonyms
from surgdino.verbs.report import try_report
from surgdino.wording import counted

_SHOWN = 5


def main(cfg: Mapping[str, Any]) -> ExitCode:
    """Run or continue the pretraining that `cfg` describes; 0 also where a signal stopped it and all is saved.

    Under torchrun or another launcher its processes train together, and the first one writes and prints.
    """
    settings = typed(PretrainConfig, cfg, "")
    with distributed.together(lambda: choose_device(settings.hardware)), FolderLock() as lock:
        return pretrain(settings, cfg, lock)


def pretrain(settings: PretrainConfig, cfg: Mapping[str, Any], lock: FolderLock) -> ExitCode:
    """What `main` does in each process; `cfg` is what the run folder's config.yaml records."""
    data, card = settings.data, Card.from_dict(settings.dataset)
    teachers, wanted, phases = checked_settings(settings)
    parts = ("pretrain", "+".join([card.name, *(entry.dataset for entry in data.also)]), settings.model.name)
    # The same command continues in the same folder.
    folder_name, log = safe_name("-".join([*parts, settings.method["name"]])), settings.log
    folder = settings.run.dir or Path("runs") / folder_name
    mode = names_mode(folder, settings.run.names)
    names = Pseudonyms.open(mode, data.store)
    datasets = open_datasets(card, data, names)
    chosen = choose_probe(settings.probe, card, data, datasets, names)
    datasets = chosen.left_of(datasets) if chosen else datasets
    torch.manual_seed(settings.train.seed)  # of a backbone without weights, and of the mask token
    backbone, weights = natural_backbone(settings.model, settings.train.drop_path)
    print_teachers(teachers, weights)
    side = (phases[-1].crops if phases else settings.crops).side  # of what is shipped in the end
    preprocess = Preprocess(usual_size(backbone, side), settings.model.mean, settings.model.std)
    with distributed.main_first():
        if distributed.is_main():
            lock.take(folder)
            open_run(folder, {**cfg, "run": {"dir": str(folder), "names": mode}}, names, data_hash=data_hash(datasets))
        store = joined_store(datasets, data, progress=distributed.is_main())
        probe = open_probe(chosen, data, preprocess)
        if distributed.is_main():
            write_data(folder, store, names)
    drawn = None if data.curation is None else curated(store, data.curation, names)
    store = drawn.store if drawn else store
    past, leaks = histories(datasets, store, [*filter(None, [weights]), *teachers], chosen, probe, names, drawn)
    facts = facts_of(wanted, store, datasets, data.table)
    print_store(store)
    print_probe(probe, leaks, held_out=chosen is not None and chosen.held_out)
    print_overlaps(datasets, past)
    result = train(
        TrainPlan(
            backbone=backbone,
            model=settings.model.as_dict(),
            method=settings.method,
            store=store,
            augment=settings.augment,
            crops=settings.crops,
            train=settings.train,
            hardware=settings.hardware,
            folder=folder,
            data_hash=data_hash(datasets) if drawn is None else f"{data_hash(datasets)}-{drawn.hash}",
            weights=None if drawn is None else drawn.weights,
            model_json=provenance(datasets, store, weights, teachers, past, leaks, names, drawn),
            probe=probe,
            hide=names.hide,
            guides=settings.guide,
            facts=facts,
            phases=phases,
            log=RunLog(log.to, log.project, log.name or folder_name, logged_settings(cfg)),
        )
    )
    page, picture = conclude(result, folder, settings.report) if distributed.is_main() else (None, None)
    return ExitCode(0, folder, result, stopped=result.status == "stopped", report=page, curves=picture)


def conclude(result: TrainResult, folder: Path, report: ReportSettings) -> tuple[Path | None, Path | None]:
    """Draw, report and print how a run went; the page and the curves."""
    picture = draw_curves(result.metrics, folder / "curves.png", result.collapse)
    page = try_report(folder, frames=report.frames)
    print_outcome(result, picture, page)
    return page, picture


def checked_settings(settings: PretrainConfig) -> tuple[list[WeightsReport], set[str], tuple[Phase, ...]]:
    """The teachers, what the guides must know of each frame, and the phases.

    Whatever can be wrong is found here, before the store is built, which may take hours.
    """
    kind, method = open_method(settings.method)
    crops, train, augment, guide = settings.crops, settings.train, settings.augment, settings.guide
    MultiCrop(crops, augment)
    phases = open_phases(settings.phases, crops, train, augment, guide, settings.model.patch_size)
    each = [(phase.crops, phase.train) for phase in phases] or [(crops, train)]
    teachers = kind.taught_by(method, [one for crops, _ in each for one in crops.each])
    batch = max(train.batch_size // distributed.world_size() * crops.image_bytes for crops, train in each)
    within_memory(loader_workers(settings.hardware), AHEAD, batch)
    return teachers, needed(guide), phases


def print_teachers(teachers: Sequence[WeightsReport], weights: WeightsReport | None) -> None:
    """Which frozen backbones the student learns from, and whether it is one of them."""
    for each in teachers:
        console.field("teacher", each.line())
        if weights and weights.sha256 == each.sha256:
            console.warn(f"{each.path} is teacher and start of the student: there is nothing to learn from it")


def histories(
    datasets: Sequence[RunDataset],
    store: FrameStore,
    weights: Sequence[WeightsReport],
    chosen: ProbeData | None,
    probe: Probing | None,
    names: Pseudonyms,
    drawn: Drawn | None,
) -> tuple[History, LeakReport | None]:
    """What the weights will have seen, and what of the probe's operations those before them had.

    Args:
        weights: those they begin with, and those of their teachers.

    Raises:
        SurgdinoError: the probe holds operations out that are trained on under other names.
    """
    begun = History.joined(History.of(each.past) for each in weights)
    prints = store.prints_of({video.operation for video in store.videos})
    trained = seen_in(datasets, TRAINED, prints, drawn.apart if drawn else None)
    if drawn and drawn.copies:
        copies = {other: [each for own in owns for each in prints[own]] for other, owns in drawn.copies.items()}
        row = Seen(
            "pretrain", TRAINED, "copies that its curation found", None, None, tuple(sorted(copies)), drawn.apart
        )
        trained = trained.after([row], copies)
    if probe is None or chosen is None:
        return History.joined((begun, trained)), None
    tested = probe.frames.store.prints_of(chosen.tested)
    if chosen.held_out:
        refuse_trained(probe_leaks(chosen, tested, trained, names))
    chose = seen_in(chosen.datasets, CHOSEN, {each: tested[each] for each in probe.frames.operations})
    return History.joined((begun, trained, chose)), probe_leaks(chosen, tested, begun, names)


def seen_in(
    datasets: Sequence[RunDataset], how: How, prints: Mapping[str, Sequence[Prints]], apart: Apart | None = None
) -> History:
    """This training's own: the operations that there are prints of, by dataset."""
    each = [(dataset.card.name, tuple(sorted(prints.keys() & {*dataset.manifest.operations}))) for dataset in datasets]
    rows = [Seen("pretrain", how, name, None, None, found, apart) for name, found in each if found]
    return History().after(rows, prints)


def provenance(
    datasets: Sequence[RunDataset],
    store: FrameStore,
    weights: WeightsReport | None,
    teachers: Sequence[WeightsReport],
    past: History,
    leaks: LeakReport | None,
    names: Pseudonyms,
    drawn: Drawn | None,
) -> dict[str, Any]:
    """What a checkpoint records of its data, and all that it has seen, its initial weights included."""
    if not len(store):
        root, fix = datasets[0].manifest.root, "run surgdino verify on this folder"
        raise SurgdinoError("no usable frame in any video", file=root, fix=fix)
    facts = {
        "dataset": datasets[0].card.name,
        "dataset_licence": licence_note(datasets),
        "datasets": summaries(datasets, store),
        "data_hash": data_hash(datasets),
        "frames": len(store),
        "initial_weights": {**weights.as_dict(), "path": names.place(weights.path)} if weights else None,
        **({"teachers": [{**t.as_dict(), "path": names.place(t.path)} for t in teachers]} if teachers else {}),
        "probe_leakage": leaks.as_dict(names) if leaks else None,
        **past.facts(),
        **({} if drawn is None else {"curation": drawn.facts}),
    }
    return names.hide(facts)


def print_store(store: FrameStore) -> None:
    """One line on the frames there are, and one on each thing that was left out."""
    summary = store.summary()
    console.field("frames", f"{summary['frames']:,} of {counted(summary['videos'], 'video')}")
    left_out = ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in summary["left_out"].items())
    if left_out:
        console.field("", f"left out: {left_out}")
    for video, reason in summary["set_aside"].items():
        console.warn(f"set aside {video}: {reason}")


def print_overlaps(datasets: Sequence[RunDataset], past: History) -> None:
    """A line each on what is left out, on operations that come in twice or by mistake, and on what has no test left."""
    for problem in (problem for each in datasets for problem in each.manifest.problems):
        if problem.fix == EXPORT_DICOM:
            console.warn(problem.error().line())
    for line in overlap_warnings(datasets):
        console.warn(line)
    for line in no_test_after(datasets, {name for row in past.seen for name in row.operations}):
        console.field("after this", line)


def print_probe(probe: Probing | None, leaks: LeakReport | None, *, held_out: bool) -> None:
    """One line on what the backbone is measured on, and one where its initial weights may have seen it."""
    if probe is None:
        return
    operations, tasks = probe.frames.operations, ", ".join(probe.frames.tasks) or "none"
    named = ", ".join(operations[:_SHOWN]) + (", ..." if len(operations) > _SHOWN else "")
    where = "held out of training" if held_out else "trained on as well; probe.hold_out=1 keeps one out"
    count = counted(len(operations), "operation")
    console.field(
        "probe", f"{counted(len(probe.frames), 'frame')}; tested on {count} ({named}), {where}; labels: {tasks}"
    )
    if leaks and leaks.stamp:
        console.warn(f"step 0 is measured with the initial weights; they, or the teachers, have a past. {leaks.stamp}")


def print_outcome(result: TrainResult, picture: Path | None, page: Path | None) -> None:
    """Tables of the loss terms and of the backbone before and after, then the warnings, then the paths."""
    if result.status == "already finished":
        console.say(f"This run is finished ({result.step} of {result.steps} steps); nothing was done.", "bold")
    elif result.status == "stopped":
        console.say(f"Stopped at step {result.step} of {result.steps}; the same command continues.", "yellow")
    if result.first and result.last:
        print_losses(result)
    if result.probes.changes and result.probes.last_step > 0:
        print_changes(result)
        console.say(_chosen(result))
        if result.probes.last_step < result.step:
            since = counted(result.step - result.probes.last_step, "step")
            console.say(f"measured last at step {result.probes.last_step}; what the {since} after it did is not known")
    elif result.step > 0:
        console.say(_not_measured(result))
    for warning in result.warnings:
        console.warn(warning)
    if result.skipped:
        console.warn(f"left out {counted(result.skipped, 'step')}: the gradient was not finite")
    paths = {
        "backbone": result.checkpoint / "backbone.safetensors",
        "best": result.checkpoint.with_name(BEST) / "backbone.safetensors",
        "model card": result.checkpoint / "model.json",
        "metrics": result.metrics,
        "curves": picture,
        "report": page,
    }
    for label, path in paths.items():
        if path is not None and path.exists():
            console.field(label, path)


def _not_measured(result: TrainResult) -> str:
    """Why there is no comparison."""
    if result.probes.start is None:
        return "nothing was measured: no operation is held out of training (probe.hold_out=1 holds one out)"
    return "nothing was measured after step 0, so it is not known whether the backbone got better"


def print_losses(result: TrainResult) -> None:
    """Every loss term in the first and the last logged window, and what it would be had all features collapsed."""
    guides = [key for key in result.last if key.startswith(GUIDE)]
    keys = [*TERMS, *sorted(result.collapse.keys() - TERMS.keys()), *guides]
    rows = [
        (
            TERMS.get(key, key.replace("_", " ")),
            *(f"{window[key]:.4f}" for window in (result.first, result.last)),
            f"{result.collapse[key]:.4f}" if key in result.collapse else "",
        )
        for key in keys
        if key in result.first and key in result.last
    ]
    console.grid("Objective", ("term", "first", "last", "if it collapsed"), rows)


def print_changes(result: TrainResult) -> None:
    """What was measured at step 0 and last."""
    changes = result.probes.changes
    intervals = any(change.difference for change in changes)
    heads = ["measure", "step 0", f"step {result.probes.last_step}", "change", *["95 % over operations"] * intervals]
    rows: list[list[str | Text]] = []
    for change in changes:
        moved = Text(change.signed(change.after - change.before))
        if change.fell:
            moved = Text(f"{moved} worse", "red")
        values = (change.measure.words, change.form(change.before), change.form(change.after), moved)
        rows.append([*values, *([change.interval] if intervals else [])])
    console.grid("Backbone before and after", heads, rows)


def _chosen(result: TrainResult) -> str:
    """One line on the best state by the probe."""
    probes = result.probes
    if probes.start is None or probes.last is None or probes.best_step < 0:
        return "nothing was measured that could choose a best checkpoint"
    words = f"score {probes.start.score:.3f} at step 0, {probes.last.score:.3f} at step {probes.last_step}"
    best = f"best {probes.best:.3f} at step {probes.best_step}"
    if probes.best_step == 0:
        best = "never better than at step 0: `best` holds the weights that it started from"
    took = f"; measuring took {probes.seconds:.0f} s" if probes.seconds else ""
    return f"{words}, {best}{took}"
