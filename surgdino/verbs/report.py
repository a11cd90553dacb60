"""`surgdino report RUN`: what a run did, as one HTML file that opens anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from surgdino import console
from surgdino.backbone.checkpoint import LoadedBackbone, load
from surgdino.backbone.vit import build_backbone
from surgdino.backbone.weights import load_weights
from surgdino.exit_code import ExitCode
from surgdino.inputs.curated import RunFrames, places_in
from surgdino.inputs.curation import phase_of
from surgdino.report.examples import Examples, Scored, chosen, read_scored
from surgdino.report.gallery import Gallery
from surgdino.report.learned import Learned, Sample
from surgdino.report.page import tried, write_page
from surgdino.report.record import RunRecord, handled, read_run
from surgdino.report.sections import Section
from surgdino.report.sections.timelines import Timelines
from surgdino.report.timeline import clock
from surgdino.runs.names import settings_of
from surgdino.runs.results import PER_FRAME
from surgdino.tasks.labelled_frames import LabelledFrames
from surgdino.tasks.saved import SavedTask
from surgdino.verbs.evaluate import frames_tested
from surgdino.verbs.words import RUN_VERBS

_FRAMES = 192  # nearest neighbours are searched among these many frames


def main(words: Sequence[str]) -> ExitCode:
    """Write the report of the run folder that `words` names."""
    (folder,), settings = RUN_VERBS["report"].read(words)
    target = settings.out or folder / "report.html"
    page = report_run(folder, target, frames=settings.report.frames)
    console.field("report", page)
    return ExitCode(0, folder, report=page)


def report_run(folder: Path, target: Path, *, frames: bool = False) -> Path:
    """Write the page of a run folder; `frames` says whether pictures made of patient frames may be in it."""
    record = read_run(folder)
    return write_page([record], target, pictures=pictures_of(record) if frames else ())


def try_report(folder: Path, *, frames: bool = False) -> Path | None:
    """The report at the end of a run; a failure costs the page, not the run."""
    return tried(lambda: report_run(folder, folder / "report.html", frames=frames))


def pictures_of(record: RunRecord) -> list[Section]:
    """The sections with pictures of patient frames."""
    if not (record.folder / PER_FRAME).is_file():
        return [learned_of(record)]
    saved, frames = frames_tested(record.folder)
    shown = handled(record)
    return [Timelines(frames.near, shown), examples_of(record, saved, frames), learned_of(record)]


def examples_of(record: RunRecord, saved: SavedTask, frames: LabelledFrames) -> Section:
    """What a fine-tuned run predicted best and worst, as its task shows it.

    Args:
        frames: those that it was tested on.
    """
    measure, scored = read_scored(record.folder / PER_FRAME)
    places = {
        (video, number): int(row + frames.starts[place])
        for place, video in enumerate(frames.videos)
        for row, number in enumerate(frames.numbers[frames.span(place)].tolist())
    }
    known = [each for each in scored if (each.video, each.frame) in places]
    kinds = chosen(known, lambda each: float(frames.times[places[each.video, each.frame]]))
    drawn = saved.task.pictures(frames, record.folder / "predictions", saved.classes)

    def draw(each: Scored) -> dict[str, np.ndarray]:
        return drawn(places[each.video, each.frame])

    return Examples(measure, kinds, draw, saved.classes, f"{saved.task.PICTURE} {handled(record)}")


def learned_of(record: RunRecord) -> Section:
    """The section with pictures of a run, from frames of all its datasets."""
    data = RunFrames.of(record.folder)
    if record.curation is not None:
        return Gallery(record.curation, data.store.read, places_in(data.store, record.curation))
    models, note = _models(record.folder)
    return Learned(_sample(data), models, handled(record), note)


def _models(folder: Path) -> tuple[dict[str, LoadedBackbone], str]:
    """The backbone before a run and after it, and why one of them is not there."""
    config, after = settings_of(folder), load(folder)
    if config.get("backbone") == "frozen":
        return {"backbone": after}, "The backbone was frozen: fine-tuning has not changed it."
    begun, weights = config.get("checkpoint"), (config.get("model") or {}).get("weights")
    if begun and Path(begun).exists():
        return {"before": load(begun), "after": after}, ""
    if begun or not weights or not Path(weights).exists():
        return {"after": after}, "The weights that the run started from were not found: no pictures of before."
    backbone = build_backbone(config["model"], drop_path=0.0)
    load_weights(backbone, Path(weights))
    return {"before": LoadedBackbone(backbone, after.info), "after": after}, ""


def _sample(data: RunFrames) -> Sample:
    """Frames spread over all that a run had, without black ones and those out of the body."""
    store = data.store.select(flagged=False)
    index = np.unique(np.linspace(0, len(store) - 1, min(_FRAMES, len(store))).astype(int)).tolist()
    operations = {video.id: name for video, name in zip(data.store.videos, data.operations, strict=True)}
    phases = phase_of(store, data.labels["phase"]) if "phase" in data.labels else [""] * len(store)
    return Sample(
        frames=[store.read(i) for i in index],
        operations=[operations[store.video_id(i)] for i in index],
        names=[f"{store.video_id(i)} {clock(store.time(i))}" for i in index],
        phases=[str(phases[i]) for i in index],
        contents=[store.content(i) for i in index],
    )
