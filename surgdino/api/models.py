"""Trained models to call: a backbone with its preprocessing, and a task's model with its head.

Frames that are given as arrays to a task's model go the way of a video: they are written to a temporary folder, cut to
their content, shrunk and stored as in training, so that `predict` says what `surgdino predict` says of the same frames.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from surgdino.backbone import checkpoint
from surgdino.backbone.checkpoint import LoadedBackbone
from surgdino.backbone.vit import Backbone
from surgdino.config import shipped
from surgdino.console import warnings_kept
from surgdino.datasets.files import is_image, plain_name
from surgdino.datasets.manifest import Video
from surgdino.engine.settings import HardwareSettings
from surgdino.errors import SurgdinoError
from surgdino.frames.video.decoders.images import load_image
from surgdino.inputs.settings import DataSettings
from surgdino.inputs.video import find_video
from surgdino.paths import atomic_write
from surgdino.runs.names import settings_of
from surgdino.tasks.averaging import runs_in
from surgdino.tasks.prediction import Prediction
from surgdino.tasks.request import InputVideo
from surgdino.tasks.saved import HEAD, SavedTask
from surgdino.tasks.settings import Averaging, Smoothing
from surgdino.verbs.predict import Predictor, stored

Place = str | Path


@dataclass(frozen=True)
class FrameFeatures:
    """Features of n frames.

    Attributes:
        cls: float32 [n, D], the class tokens.
        patches: float32 [n, N, D], the patch tokens, row by row of their grid; None where they were not asked for.
        numbers: int64 [n], frame numbers in the source.
        times: float64 [n], seconds from its first frame; NaN of single pictures.
    """

    cls: np.ndarray
    patches: np.ndarray | None
    numbers: np.ndarray
    times: np.ndarray

    def __repr__(self) -> str:
        return f"FrameFeatures({len(self.cls)} frames, width {self.cls.shape[1]})"


class BackboneModel(LoadedBackbone):
    """A backbone in evaluation mode: `model(model.preprocess(images))` as a module of torch, `features` for arrays."""

    def __init__(self, backbone: Backbone, info: dict[str, Any], folder: Path) -> None:
        super().__init__(backbone, info)
        self.folder = folder

    def features(
        self, source: Any, *, patches: bool = True, batch: int = 32, fps: float | None = None
    ) -> FrameFeatures:
        """Class and patch tokens of frames.

        Args:
            source: a PIL image, uint8 array [H, W, 3] or [n, H, W, 3] (RGB), a list of these, or the path of a picture:
                taken whole, as they are. Or the path of a video or of a folder of numbered images: sampled, and cut to
                the endoscope's picture, as in training.
            patches: whether to keep the patch tokens, which of an hour of video take gigabytes.
            batch: frames at a time.
            fps: of a video, frames a second that are looked at; None takes the training's.

        Raises:
            SurgdinoError: not pictures, or a video that cannot be read.
        """
        if not isinstance(source, str | Path):
            pictures = _listed(source)
            return self._of(pictures, np.arange(len(pictures)), np.full(len(pictures), np.nan), patches, batch)
        path = Path(source).expanduser()
        if is_image(path):
            return self._of([load_image(path)], np.zeros(1, np.int64), np.full(1, np.nan), patches, batch)
        data = self._data()
        data = data if fps is None else replace(data, fps=fps)
        name = plain_name(path.stem)
        video = InputVideo(name, (Video(name, f"unknown/{name}", path, data.fps if path.is_dir() else None),))
        with tempfile.TemporaryDirectory(prefix="surgdino-") as work, warnings_kept(quiet=True):
            store = stored(video, Path(work), data).select(flagged=True)
            places, numbers, times = store.of_video(0)
            return self._of((store.read(place) for place in places.tolist()), numbers, times, patches, batch)

    def _data(self) -> DataSettings:
        """How the run stored its frames; as by default where the checkpoint stands alone."""
        run = self.folder.parent
        known = settings_of(run).get("data") if (run / "config.yaml").is_file() else None
        return shipped(DataSettings, "data", **{"root": ".", **(known or {})})

    @torch.no_grad()
    def _of(
        self, pictures: Iterable[Any], numbers: np.ndarray, times: np.ndarray, patches: bool, batch: int
    ) -> FrameFeatures:
        device, found = next(self.backbone.parameters()).device, []
        for several in _pieces(pictures, batch):
            tokens = self(self.preprocess(several).to(device))
            found.append((tokens.cls.float().cpu().numpy(), tokens.patches.float().cpu().numpy() if patches else None))
        if not found:
            raise SurgdinoError("no frames to look at", expected="at least one")
        of_patches = [each for _, each in found if each is not None]
        return FrameFeatures(
            np.concatenate([each for each, _ in found]), np.concatenate(of_patches) if patches else None, numbers, times
        )


class TaskModel(BackboneModel):
    """A fine-tuned run, or several whose predictions are averaged: the backbone with its head.

    Attributes:
        task: `phase`, `tools`, ...
        classes: C names in the order of their ids.
        fps: frames a second at which it was trained to look at a video.
    """

    def __init__(self, predictor: Predictor) -> None:
        saved = predictor.first
        super().__init__(saved.model.backbone, saved.model.info, saved.folder)
        self._predictor = predictor
        self.task, self.classes = saved.task.name, saved.classes
        self.fps = predictor.data.fps

    def predict(
        self,
        source: Any,
        *,
        questions: Sequence[str] | str = (),
        averaging: Averaging = "none",
        smoothing: Smoothing = "none",
        image_fps: float | None = None,
        quiet: bool = True,
    ) -> Prediction:
        """What the model says of frames, in the task's own type: see docs/python.md.

        Args:
            source: the path of a video or a folder of images, as for `surgdino predict`; or uint8 frames [n, H, W, 3]
                (RGB) or a list of them, of a video in the order of time and `fps` a second. Frames of different sizes
                are single pictures, which segmentation and instances take.
            questions: what to ask, of a task that answers questions; none asks all that was learned.
            averaging, smoothing: as for `surgdino predict`.
            image_fps: frames a second that the numbers of a folder's images count in.
            quiet: False shows progress.

        Raises:
            SurgdinoError: frames that cannot be used.
        """
        predictor, saved = self._predictor, self._predictor.first
        asked = (questions,) if isinstance(questions, str) else tuple(questions)
        predictor.refuse_questions(asked)
        with tempfile.TemporaryDirectory(prefix="surgdino-") as folder, warnings_kept(quiet=quiet):
            work = Path(folder)
            if isinstance(source, str | Path):
                video = find_video(Path(source).expanduser(), saved, predictor.data, image_fps)
            else:
                video = _written(_listed(source), work / "frames", self.fps, saved)
            request, _ = predictor.request(video, work / "store", averaging, smoothing)
            return saved.task.prediction(replace(request, questions=asked))


def load(path: Place | Sequence[Place], device: str | torch.device = "cpu") -> BackboneModel | TaskModel:
    """A trained model, ready to use.

    Args:
        path: a run folder, its `checkpoint` folder, or the `backbone.safetensors` in it. A run of `finetune` gives a
            `TaskModel`, all else a `BackboneModel`; a folder of runs (seeds, folds) or a list of runs gives a
            `TaskModel` that averages them.
        device: where the weights go: `cpu`, `cuda`.

    Raises:
        SurgdinoError: nothing there, a damaged file, or weights that are not of the architecture model.json names.
    """
    places = [path] if isinstance(path, str | Path) else list(path)
    runs = [run for place in places for run in runs_in(Path(place))]
    if len(places) > 1 or any((run / name / HEAD).is_file() for run in runs for name in ("", "checkpoint")):
        where = torch.device(device).type
        hardware = shipped(HardwareSettings, "hardware/auto", device="cpu" if where == "cpu" else "cuda")
        model = TaskModel(Predictor.open([str(place) for place in places], hardware))
        model.to(device)
        return model
    found = checkpoint.load(places[0], device)
    return BackboneModel(found.backbone, found.info, checkpoint.find_weights(places[0]).parent)


def _listed(source: Any) -> list[Any]:
    """Pictures one by one; a single one is a list of one."""
    if isinstance(source, list | tuple):
        return list(source)
    if isinstance(source, np.ndarray) and source.ndim == 4:
        return list(source)
    return [source]


def _pieces(pictures: Iterable[Any], size: int) -> Iterator[list[Any]]:
    pictures = iter(pictures)
    while piece := list(islice(pictures, size)):
        yield piece


def _written(pictures: Sequence[Any], folder: Path, fps: float, saved: SavedTask) -> InputVideo:
    """The frames as files without loss, in a folder as a video has it."""
    arrays = [np.asarray(each.convert("RGB") if hasattr(each, "convert") else each) for each in pictures]
    if bad := [each for each in arrays if each.dtype != np.uint8 or each.ndim != 3 or each.shape[2] != 3]:
        expected = "uint8 arrays [H, W, 3], RGB, or PIL images"
        raise SurgdinoError("not frames", expected=expected, found=f"{bad[0].dtype} {bad[0].shape}")
    if not arrays:
        raise SurgdinoError("no frames to look at", expected="at least one")
    files = []
    for number, array in enumerate(arrays):
        files.append(folder / f"{number:06d}.bmp")
        coded = cv2.imencode(".bmp", cv2.cvtColor(array, cv2.COLOR_RGB2BGR))[1]
        with atomic_write(files[-1]) as temporary:
            temporary.write_bytes(coded.tobytes())
    if len({array.shape for array in arrays}) == 1:
        return InputVideo("frames", (Video("frames", "unknown/frames", folder, fps),))
    if not saved.task.SINGLE_IMAGES:
        sizes = sorted({"x".join(map(str, array.shape[1::-1])) for array in arrays})
        what = f"task={saved.task.name} takes frames of one video"
        raise SurgdinoError(what, expected="frames of one size", found=", ".join(sizes[:3]))
    return InputVideo("frames", tuple(Video(file.stem, "unknown/frames", file) for file in files))
