"""`surgdino export RUN format=timm out=FOLDER`: a model for another program, compared before it is done."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from surgdino import console
from surgdino.backbone.checkpoint import find_weights, load
from surgdino.config import shipped, typed
from surgdino.datasets.manifest import Video
from surgdino.engine.settings import HardwareSettings
from surgdino.errors import SurgdinoError
from surgdino.exit_code import ExitCode
from surgdino.exports.card import card_of
from surgdino.exports.compare import Expected, features_differ, outputs_differ, refuse_other
from surgdino.exports.format import Format, open_format
from surgdino.exports.graph import BACKBONE, Head, Subject, of_backbone
from surgdino.frames.store import build_store
from surgdino.inputs.configs import ExportConfig
from surgdino.inputs.settings import DataSettings
from surgdino.report.record import read_results
from surgdino.runs.results import RESULTS
from surgdino.tasks.context import TaskContext
from surgdino.tasks.features.cache import ReadFrames
from surgdino.tasks.labelled_frames import LabelledFrames, every_frame
from surgdino.tasks.request import InputVideo
from surgdino.tasks.saved import HEAD, SavedTask, load_task

TOLERANCE = 1e-4
_FRAMES, _SEED = 6, 0  # that a task's export is compared on


@dataclass(frozen=True)
class _Reference:
    """What an export is compared with: frames as the first program takes them, and what the task predicts of them."""

    images: Tensor
    expected: Expected


def main(cfg: Mapping[str, Any], paths: Sequence[str]) -> ExitCode:
    """Write, read with the other program, compare, add the card; 0. Nothing stands in `out` that was not compared."""
    settings = typed(ExportConfig, cfg, "")
    if len(paths) != 1:
        found = f"{len(paths)} paths"
        raise SurgdinoError("export takes one run", found=found, fix="surgdino export RUN format=timm out=FOLDER")
    target = open_format(settings.format)
    if settings.out.exists() and (not settings.out.is_dir() or any(settings.out.iterdir())):
        raise SurgdinoError("there is something already", file=settings.out, fix="name a folder that is not there yet")
    weights = find_weights(paths[0])
    with_head = settings.head and (weights.parent / HEAD).is_file()
    if with_head and not target.HEADS:
        console.say(f"format={settings.format} takes backbones: the head of the task is left out")
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings.out.parent, prefix=".export-") as scratch:
        folder = Path(scratch) / settings.out.name
        folder.mkdir()
        if with_head and target.HEADS:
            subject, reference = _task(load_task(weights.parent), Path(scratch) / "frames")
        else:
            subject, reference = of_backbone(load(weights)), None
        _write(target, settings.format, subject, folder)
        worst, compared = _compared(target, settings.format, subject, folder, reference)
        use = target.use(subject, settings.out.name)
        (folder / "README.md").write_text(card_of(subject, use, target.LIBRARY, compared), encoding="utf-8")
        if settings.out.exists():
            settings.out.rmdir()
        shutil.move(folder, settings.out)
    for line in compared:
        console.field("compared", line)
    console.field("exported", settings.out)
    return ExitCode(0, settings.out, worst)


def _write(target: Format, name: str, subject: Subject, folder: Path) -> None:
    """The files, or a line on why the other program's exporter cannot make them."""
    try:
        target.write(subject, folder)
    except (SurgdinoError, OSError):
        raise
    except Exception as error:  # whatever an exporter raises on a layer that it does not know
        last: BaseException = error
        while last.__cause__ is not None:
            last = last.__cause__
        found = f"{type(last).__name__}: {str(last).partition(chr(10))[0][:200]}"
        fix = "use another format, or head=false" if subject.head else "use another format"
        raise SurgdinoError(f"format={name} cannot express this model", found=found, fix=fix) from error


def _compared(
    target: Format, name: str, subject: Subject, folder: Path, reference: _Reference | None
) -> tuple[float, list[str]]:
    """Refuse what is not the same; the largest difference, and a sentence on each thing that was compared."""
    programs = target.read(subject, folder)
    if reference is not None:
        worst = outputs_differ(subject.graphs, programs, reference.images, reference.expected)
        refuse_other(worst, TOLERANCE, name)
        own = f"the run's own predictions within {worst:.1e} of the largest one"
        return worst, [f"{', '.join(reference.expected)}: {own}, {len(reference.images)} random frames"]
    model, side = subject.model, subject.model.info["image_size"]
    worst = features_differ(model, programs[BACKBONE], side)
    refuse_other(worst, TOLERANCE, name)
    told = [f"the same features within {worst:.1e} of the largest one, batches of 1 and 3 random pictures"]
    if target.OTHER_SIZES:
        larger = side + 2 * model.backbone.patch_size
        there = features_differ(model, programs[BACKBONE], larger)
        same = "the same" if there <= TOLERANCE else "other features, positions being interpolated in another way:"
        told.append(f"at {larger} instead of {side} pixels {same} within {there:.1e}")
    return worst, told


def _task(saved: SavedTask, work: Path) -> tuple[Subject, _Reference]:
    """Backbone and head, and what the run predicts of frames that are stored as it stores them."""
    hardware = shipped(HardwareSettings, "hardware/cpu", precision="fp32")
    context = saved.context(hardware, work / "features")
    context.backbone.requires_grad_(False)
    head, data = saved.load_head(context).requires_grad_(False), shipped(DataSettings, "data", **saved.config.data)
    graphs = saved.task.graphs(context, head)
    frames = _random_frames(work, context.image_size, replace(data, workers=1))
    preprocess = replace(context.preprocess, image_size=graphs[0].row[1])
    images = context.normalize(ReadFrames(frames.store, preprocess)(frames.index))
    expected = saved.task.said(context, head, frames, images)
    return Subject(saved.model, graphs, _head(saved, context)), _Reference(images, expected)


def _head(saved: SavedTask, context: TaskContext) -> Head:
    file = saved.folder.parent / RESULTS
    settings: Any = saved.task.settings
    facts = {"Trained on": saved.card.name, "Backbone": saved.tuning}
    if variant := saved.task.variant():
        facts["Head"] = variant
    window = getattr(settings, "window", None) if saved.task.name == "segmentation" else None
    return Head(
        saved.task.name,
        context.classes,
        facts,
        saved.task.remarks(),
        read_results(file) if file.is_file() else None,
        (window, settings.overlap) if window else None,
        getattr(settings, "classes", "") == "exclusive",
        shipped(DataSettings, "data", **saved.config.data).short_side,
    )


def _random_frames(work: Path, side: int, data: DataSettings) -> LabelledFrames:
    """A video of a few pictures of soft random colours, stored as the run's own frames were."""
    folder, drawn = work / "video", np.random.default_rng(_SEED)
    folder.mkdir(parents=True)
    for number in range(_FRAMES):
        picture = Image.fromarray(drawn.integers(20, 256, (12, 16, 3), np.uint8))
        picture.resize((4 * side // 3, side), Image.Resampling.BICUBIC).save(folder / f"{number:06d}.png")
    source = InputVideo("video", (Video("video", "unknown/video", folder, data.fps),))
    return every_frame(build_store(source.manifest(), work / "store", data.store_settings, workers=1))
