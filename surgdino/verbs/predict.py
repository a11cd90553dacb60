"""`surgdino predict VIDEO ...`: what a fine-tuned checkpoint says of a video, as tables, masks and pictures.

A video goes the way that the training frames went: decoded, cut to its content, shrunk, stored as JPEG. The frames lie
on disk until all is written, so memory stays flat in the video's length, and a command that was interrupted goes on.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console

from surgdino.config import typed
from surgdino.datasets.manifest import FrameLabels
from surgdino.engine.plan import HardwareSettings
from surgdino.errors import SurgdinoError, from_os_error
from surgdino.frames.store import FrameStore, build_store
from surgdino.inputs.settings import DataSettings
from surgdino.inputs.video import find_video
from surgdino.tasks.labelled_frames import every_frame
from surgdino.tasks.request import Request, VideoSource
from surgdino.tasks.saved import SavedTask, load_task
from surgdino.verbs.evaluate import described
from surgdino.verbs.task_setup import build_context

_WORK = ".frames"  # in the output folder, until all is written


@dataclass(frozen=True)
class PredictSettings:
    """The keys at the top of configs/predict.yaml."""

    checkpoint: str
    out: Path | None = None
    truth: Path | None = None
    image_fps: float | None = None

    def __post_init__(self) -> None:
        if self.image_fps is not None and not self.image_fps > 0:
            raise SurgdinoError("image_fps cannot be used", expected="more than 0", found=self.image_fps)


@dataclass(frozen=True)
class Session:
    """What is the same for all videos of one command; `writer` is the module `predict_<task>`."""

    saved: SavedTask
    hardware: HardwareSettings
    data: DataSettings
    writer: ModuleType
    truth: FrameLabels | None
    console: Console


def main(cfg: Mapping[str, Any], videos: list[str]) -> int:
    """Predict each video and print what lies where; 0."""
    console = Console()
    asked = typed(PredictSettings, {key: cfg[key] for key in ("checkpoint", "out", "truth", "image_fps")}, "")
    paths = [Path(video).expanduser() for video in videos]
    if asked.truth is not None and len(paths) > 1:
        raise SurgdinoError("one truth for several videos", file=asked.truth, fix="predict them one by one")
    hardware = typed(HardwareSettings, cfg["hardware"], "hardware")
    saved = load_task(asked.checkpoint)
    writer = import_module(f"surgdino.tasks.{saved.task}.predict")
    truth = _truth(writer, asked.truth, saved.classes)
    session = Session(saved, hardware, data_settings(saved, cfg["data"]["root"]), writer, truth, console)
    # All are looked for before the first is predicted, which may take long.
    sources = [find_video(path, saved, session.data, asked.image_fps, writer.PICTURES, console) for path in paths]
    for source, folder in zip(sources, output_folders(sources, asked.out), strict=True):
        for name, written in predict(session, source, folder).items():
            console.print(f"[bold]{name:<12}[/bold] {written}", soft_wrap=True, highlight=False)
    return 0


def _truth(writer: ModuleType, path: Path | None, classes: Sequence[str]) -> Any:
    """What a file says of the video; where the task's writer reads none, no file can be given."""
    if path is None:
        return None
    if not hasattr(writer, "read_truth"):
        fix = "leave it out; surgdino score compares prediction files with a truth"
        raise SurgdinoError("truth= is of use for phases alone", file=path, fix=fix)
    return writer.read_truth(path, classes)


def predict(session: Session, source: VideoSource, folder: Path) -> dict[str, Path]:
    """Write everything of one video; what it is -> where it lies."""
    saved, work = session.saved, folder / _WORK
    frames = every_frame(stored(source, work, session.data, session.console))
    context = build_context(described(saved, saved.card), saved.model.backbone, session.hardware, work / "features")
    request = Request(
        context=context,
        head=saved.load_head(context),
        frames=frames,
        source=source,
        decoder=session.data.decoder,
        truth=session.truth,
        folder=folder,
        told=model_words(saved, source),
    )
    written = session.writer.write(request)
    try:
        shutil.rmtree(work)
    except OSError as error:
        raise from_os_error(error, work) from error
    return written


def stored(source: VideoSource, work: Path, data: DataSettings, console: Console) -> FrameStore:
    """The frames, stored as in training; pictures that cannot be read are named and left out.

    Raises:
        SurgdinoError: nothing of it can be read.
    """
    store = build_store(source.manifest(), work, data.store_settings, workers=1, max_bad_share=1.0)
    for reason in store.set_aside.values():
        if not store.videos:
            raise SurgdinoError(reason)
        console.print(f"[yellow]![/yellow] left out: {reason}", soft_wrap=True, highlight=False)
    return store


def data_settings(saved: SavedTask, root: str | None) -> DataSettings:
    """How frames were stored in the run, and where the dataset is now."""
    data = DataSettings.of(saved.config)
    return data if root is None else replace(data, root=Path(root))


def output_folders(sources: list[VideoSource], out: Path | None) -> list[Path]:
    """A folder for each video.

    Raises:
        SurgdinoError: two videos of one name.
    """
    names = [source.name for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise SurgdinoError(
                f"two videos are called {name!r}", fix="predict them one by one, each with its own out="
            )
    if out is not None and len(sources) == 1:
        return [out]
    return [(out or Path("predictions")) / name for name in names]


def model_words(saved: SavedTask, source: VideoSource) -> str:
    """Backbone, task's model and training data in a line, and a word of warning for a video that was trained on."""
    name = saved.model.info.get("name") or saved.model.info["timm"]
    parts = [str(name), *_setting_words(saved), f"trained on {saved.card.name}"]
    if source.operation in saved.model.info.get("operations", ()):
        parts.append("this operation among them")
    return " · ".join(parts)


def _setting_words(saved: SavedTask) -> list[str]:
    chosen = getattr(saved.settings, "temporal", None) or getattr(saved.settings, "head", None)
    return [chosen] if chosen and chosen != "none" else []
