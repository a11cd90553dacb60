"""`surgdino predict VIDEO ...`: what a fine-tuned checkpoint says of a video, as tables, masks and pictures.

A video is treated as the training frames were: decoded, cut to its content, shrunk, stored as JPEG. The frames stay on
disk until all is written, so memory stays flat in the video's length, and an interrupted command continues.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from surgdino.config import shipped, typed
from surgdino.console import field, say, warn
from surgdino.datasets.manifest import FrameLabels
from surgdino.engine.settings import HardwareSettings
from surgdino.errors import SurgdinoError, from_os_error
from surgdino.exit_code import ExitCode
from surgdino.frames.store import FrameStore, build_store
from surgdino.inputs.configs import PredictConfig
from surgdino.inputs.settings import DataSettings
from surgdino.inputs.video import find_video
from surgdino.paths import file_of
from surgdino.report.colours import readable_name
from surgdino.report.operation import read_timeline
from surgdino.report.page import write_page
from surgdino.report.record import RunRecord, handled
from surgdino.report.sections.timelines import Timelines
from surgdino.report.timeline import clock, recorded
from surgdino.report.verdict import OPEN, Verdict
from surgdino.runs.lock import FolderLock
from surgdino.runs.names import Pseudonyms
from surgdino.tasks.averaging import average, load_runs
from surgdino.tasks.labelled_frames import every_frame
from surgdino.tasks.request import InputVideo, PredictRequest
from surgdino.tasks.saved import SavedTask
from surgdino.tasks.settings import Averaging, Smoothing
from surgdino.tasks.task import Member
from surgdino.verbs.evaluate import local

_OUT = Path("predictions")
_WORK = ".frames"  # in the output folder, until all is written


@dataclass(frozen=True)
class PredictedVideo:
    """What was written of one video.

    Attributes:
        name: the dataset's id of the video, or the name of the file or folder.
        folder: that holds it all.
        written: what it is -> where it is.
    """

    name: str
    folder: Path
    written: Mapping[str, Path]


@dataclass(frozen=True)
class Predictor:
    """A trained task, or several that are averaged.

    Attributes:
        runs: the first one's task is asked.
        data: how frames are stored, the same for all.
        hardware: what the networks compute on.
    """

    runs: Sequence[SavedTask]
    data: DataSettings
    hardware: HardwareSettings

    @classmethod
    def open(cls, places: Sequence[str], hardware: HardwareSettings) -> Predictor:
        """Of runs, checkpoint folders, or folders of runs.

        Raises:
            SurgdinoError: as `load_runs`, or the runs see their frames in different ways.
        """
        runs = [local(each) for each in load_runs(places)]
        data = shipped(DataSettings, "data", **runs[0].config.data)
        for other in runs[1:]:
            if (theirs := shipped(DataSettings, "data", **other.config.data).store_settings) != data.store_settings:
                what, fix = "trained on frames that are stored in another way", "predict them one by one"
                raise SurgdinoError(what, file=other.folder, expected=data.store_settings, found=theirs, fix=fix)
        return cls(runs, data, hardware)

    @property
    def first(self) -> SavedTask:
        """The run whose task is asked."""
        return self.runs[0]

    def refuse_questions(self, questions: Sequence[str]) -> None:
        """Raise where the task answers none."""
        if questions and not self.first.task.ASKS:
            what = f"task={self.first.task.name} answers no questions"
            raise SurgdinoError(what, place="questions", found=questions[0], fix="leave questions= out")

    def request(
        self, source: InputVideo, work: Path, averaging: Averaging, smoothing: Smoothing
    ) -> tuple[PredictRequest, str]:
        """What the task is asked about a video, and over what it averages, in words.

        Args:
            work: a folder for the stored frames, which are read until all is predicted.
        """
        frames = every_frame(stored(source, work, self.data))
        members = []
        for each in self.runs:
            context = each.context(self.hardware, work / "features")
            members.append(Member(each.task, context, each.load_head(context)))
        first = members[0]
        averaged = average(members, averaging, smoothing)
        request = PredictRequest(first.context, first.head, frames, source, self.data.decoder, None, work, "")
        return request, averaged


def main(cfg: Mapping[str, Any], videos: list[str]) -> ExitCode:
    """Predict each video and print what was written where; 0, with a `PredictedVideo` of each."""
    config = typed(PredictConfig, cfg, "")
    paths = [Path(video).expanduser() for video in videos]
    if config.truth is not None and len(paths) > 1:
        raise SurgdinoError("one truth for several videos", file=config.truth, fix="predict them one by one")
    places = [config.checkpoint] if isinstance(config.checkpoint, str) else config.checkpoint
    predictor = Predictor.open(places, config.hardware)
    predictor = replace(predictor, data=replace(predictor.data, root=config.data.root or predictor.data.root))
    saved, data = predictor.first, predictor.data
    predictor.refuse_questions(config.questions or ())
    names = Pseudonyms.open("plain", data.store)  # files are called as the videos that the user names
    truth = None if config.truth is None else saved.task.read_truth(config.truth, saved.classes)
    # All are looked for before the first is predicted, which may take long.
    sources = [find_video(path, saved, data, config.image_fps) for path in paths]
    faults, done = [], []
    for source, folder in zip(sources, output_folders(sources, config.out), strict=True):
        try:
            written = _predict(source, folder, predictor, config, truth, names)
        except SurgdinoError as error:
            if len(sources) == 1:
                raise
            warn(f"not predicted: {error.line()}")
            faults.append(source.name)
            continue
        done.append(PredictedVideo(source.name, folder, written))
        for name, path in written.items():
            field(name, path)
    if faults:
        what = f"{len(faults)} of {len(sources)} videos could not be predicted"
        raise SurgdinoError(what, found=", ".join(faults), fix="see the lines above; the others are written")
    return ExitCode(0, done[0].folder if len(done) == 1 else config.out or _OUT, tuple(done))


def _predict(
    source: InputVideo,
    folder: Path,
    predictor: Predictor,
    config: PredictConfig,
    truth: FrameLabels | None,
    names: Pseudonyms,
) -> Mapping[str, Path]:
    """Predict one video into its folder; what was written where."""
    work, saved = folder / _WORK, predictor.first
    with FolderLock(folder):
        request, averaged = predictor.request(source, work, config.averaging, config.smoothing)
        caption = model_line(saved, source, names)
        if averaged:
            say(f"averaged: {averaged}")
            caption = f"{caption} · averaged: {averaged}"
        asked = config.questions or ()
        request = replace(request, truth=truth, folder=folder, caption=caption, questions=asked)
        written = saved.task.write(request)
        if "timeline" in written:
            written = {**written, "report": _page(written["timeline"], request, saved, frames=config.report.frames)}
        try:
            shutil.rmtree(work)
        except OSError as error:
            raise from_os_error(error, work) from error
    return written


def _page(timeline: Path, request: PredictRequest, saved: SavedTask, *, frames: bool) -> Path:
    """`<video>.html`: the video in time, with frames where the page may show any."""
    video, task = read_timeline(timeline), saved.task
    record = RunRecord(request.folder, {"task": {"name": task.name}}, {}, saved.model.info, [])
    durations = video.durations()
    lasted = ", ".join(f"{readable_name(name)} {clock(seconds)}" for name, seconds in durations.items())
    whole = recorded(sum(durations.values()), video.end - video.start, clock)

    def near(_: str, seconds: Sequence[float]) -> list[tuple[float, np.ndarray]]:
        return request.frames.near(request.frames.videos[0], seconds)

    return write_page(
        [record],
        file_of(request.folder, request.source.name, ".html"),
        pictures=[Timelines(near, handled(record))] if frames else (),
        title=video.video,
        kind=f"prediction, task {task.name}",
        verdict=Verdict([(OPEN, f"{video.video}, {whole}: {lasted}.")]),
    )


def stored(source: InputVideo, work: Path, data: DataSettings) -> FrameStore:
    """The frames, stored as in training; pictures that cannot be read are named and left out."""
    store = build_store(source.manifest(), work, data.store_settings, workers=1, max_bad_share=1.0)
    for reason in store.set_aside.values():
        if not store.videos:
            raise SurgdinoError(reason)
        warn(f"left out: {reason}")
    return store


def output_folders(sources: list[InputVideo], out: Path | None) -> list[Path]:
    """A folder for each video; two videos of one name are refused."""
    names = [source.name for source in sources]
    for name in names:
        if names.count(name) > 1:
            fix = "predict them one by one, each with its own out="
            raise SurgdinoError(f"two videos are called {name!r}", fix=fix)
    if out is not None and len(sources) == 1:
        return [out]
    return [file_of(out or _OUT, name) for name in names]


def model_line(saved: SavedTask, source: InputVideo, names: Pseudonyms) -> str:
    """Backbone, task's model and training data in a line, and a warning for a video that was trained on."""
    name = saved.model.info.get("name") or saved.model.info["timm"]
    parts = [str(name), saved.task.variant(), f"trained on {saved.card.name}"]
    if source.operation and names.aliases(source.operation).intersection(saved.model.info.get("operations", ())):
        parts.append("this operation among them")
    return " · ".join(filter(None, parts))
