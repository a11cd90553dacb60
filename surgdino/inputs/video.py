"""The video that is predicted: a file or folder of images, and what a dataset that it belongs to knows of it."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

from surgdino.console import warn
from surgdino.datasets.files import EXPORT_DICOM, entries, image_size, is_dicom, is_image, numbered_images, plain_name
from surgdino.datasets.manifest import Video
from surgdino.datasets.open import open_dataset
from surgdino.errors import SurgdinoError
from surgdino.inputs.settings import DataSettings
from surgdino.tasks.request import InputVideo
from surgdino.tasks.saved import SavedTask


def find_video(path: Path, saved: SavedTask, data: DataSettings, image_fps: float | None) -> InputVideo:
    """The video at `path`, with its labels where it lies in the dataset that the task was trained on.

    Args:
        path: a video file or a folder of images.
        data: `root` says where the dataset is.
        image_fps: frames a second that image numbers count in; None takes the dataset's.
    """
    if not path.exists():
        fix = "check the path"
        raise SurgdinoError("does not exist", file=path, expected="a video or a folder of images", fix=fix)
    known = _in_dataset(Path(os.path.realpath(path)), saved, data)
    if known is not None:
        return replace(known, videos=tuple(replace(v, fps=image_fps or v.fps) for v in known.videos))
    if not path.is_dir():
        name = plain_name(path.stem)
        return InputVideo(name, (Video(name, f"unknown/{name}", path),))
    name = plain_name(Path(os.path.realpath(path)).name)
    if not _is_numbered(path, saved.task.SINGLE_IMAGES):
        return InputVideo(name, tuple(Video(each, f"unknown/{name}", file) for each, file in _pictures(path)))
    return InputVideo(name, (Video(name, f"unknown/{name}", path, image_fps or saved.card.fps),))


def _pictures(folder: Path) -> list[tuple[str, Path]]:
    """(name, file) of each image; the suffix is part of the name where two files differ in it alone."""
    files = [path for path in entries(folder) if is_image(path)]
    names = [plain_name(path.stem) for path in files]
    if len(set(names)) < len(names):
        names = [plain_name(path.name) for path in files]
    return list(zip(names, files, strict=True))


def _is_numbered(folder: Path, single_images: bool) -> bool:
    """Whether the images of a folder are the frames of a video; images that must be and are not are refused."""
    try:
        images = numbered_images(folder)
    except SurgdinoError:
        if single_images:
            return False
        raise
    if not images and (archived := next((path for path in entries(folder) if is_dicom(path)), None)):
        raise SurgdinoError("is a DICOM file", file=archived, expected="videos or images", fix=EXPORT_DICOM)
    if not images:
        expected = "files such as 000025.png, or a video"
        raise SurgdinoError("the folder holds no images", file=folder, expected=expected, fix="check the path")
    # Digits inside a name such as a hash are no frame number: a video's names differ in their number alone.
    patterns = {re.sub(r"\d+(?=\D*$)", "", image.stem) for image in images.values()}
    return not single_images or (len(patterns) == 1 and len({image_size(image) for image in images.values()}) == 1)


def _in_dataset(path: Path, saved: SavedTask, data: DataSettings) -> InputVideo | None:
    """The dataset's own video of that path; None where it lies elsewhere, or the dataset is gone."""
    root = data.root.expanduser().resolve()
    if not path.is_relative_to(root):
        return None
    try:
        manifest = open_dataset(saved.card, root, options=data.options)
    except SurgdinoError as error:
        warn(f"no truth: {error.line()}")
        return None
    for video in manifest.videos:
        if os.path.realpath(video.path) == str(path):
            found, known = manifest.labels_for(saved.task.LABELS), None
            if found is not None and video.id in found.values:
                try:
                    known = saved.joined(saved.card, manifest).labels[found.task]
                except SurgdinoError as error:
                    warn(f"no truth: {error.line()}")
            return InputVideo(video.id, (video,), video.operation, known)
    return None
