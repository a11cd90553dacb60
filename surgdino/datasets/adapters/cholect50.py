"""CholecT50's layout (`videos/` of images, `labels/` of JSON) and the older CholecT45's (`data/`, folders of text)."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from surgdino.datasets.adapter import Adapter
from surgdino.datasets.files import entries, numbered_images
from surgdino.datasets.manifest import FrameLabels, Labels, Manifest, Problem, Video
from surgdino.datasets.objects import OBJECTS, VideoInstances
from surgdino.datasets.triplet_files import read_triplet_json, read_triplet_text
from surgdino.datasets.triplets import TASKS, check_tables, vocabulary
from surgdino.errors import SurgdinoError

_NAME = re.compile(r"vid(?:eo)?0*(\d+)", re.IGNORECASE)
_FRAMES = ("videos", "data")


class CholecT50(Adapter):
    """Folders of images, their triplets with instrument, verb and target, and their phases (CholecT50 alone has those);
    the instruments' boxes, where a release gives their coordinates.

    A frame is labelled if an annotation exists for it: the challenge's validation release has gaps in its numbers and
    images without annotation, which stay in the Manifest's folders and have no labels.
    """

    def read(self) -> Manifest:
        frames = next((self.root / name for name in _FRAMES if (self.root / name).is_dir()), None)
        if frames is None:
            raise self._another_layout()
        folders = self.keyed(entries(frames), lambda p: _number(p.name) if p.is_dir() else None, "folders VID01, ...")
        for number, folder in folders.items():
            self.check_video(folder, number)
        self.problems += check_tables(self.root, self.card)
        files = self._label_files(folders, frames)
        labels: dict[str, dict[str, FrameLabels]] = {}
        for number, folder in sorted(folders.items()):
            images = self._images(folder)
            if number in files and len(images):
                for task, values in self._labels(files[number], folder, images).items():
                    labels.setdefault(task, {})[self.video_id(number)] = values
        self.check_complete(folders, frames)
        videos = [
            Video(self.video_id(n), self.card.operation_of(n), folder, self.card.fps)
            for n, folder in sorted(folders.items())
        ]
        classes = {**vocabulary(self.card), OBJECTS: self.card.instruments}
        tasks = (*TASKS, "phase", OBJECTS)
        return self.manifest(videos, [Labels(task, classes[task], labels.get(task, {})) for task in tasks])

    def video_id(self, key: int | str) -> str:
        return f"VID{key:02d}"

    def _label_files(self, folders: dict[int, Path], frames: Path) -> dict[int, Path]:
        """Video number -> its JSON, or one of its four text files."""
        is_json = (self.root / "labels").is_dir() or not (self.root / "triplet").is_dir()
        suffix, places = (".json", ("labels",)) if is_json else (".txt", TASKS)

        def number(path: Path) -> int | None:
            return _number(path.stem) if path.suffix.lower() == suffix else None

        files: dict[int, Path] = {}
        for place in places:
            files = self.keyed(entries(self.root / place), number, f"VID01{suffix}") | files
        self.pair(
            "triplet",
            folders,
            files,
            lambda number: self.root / places[0] / f"{self.video_id(number)}{suffix}",
            lambda number: f"{frames.name}/{self.video_id(number)}/",
        )
        return files

    def _images(self, folder: Path) -> np.ndarray:
        """Frame numbers int64 [n] of a folder's images, ascending."""
        try:
            numbers = np.array(list(numbered_images(folder)), np.int64)
        except SurgdinoError as error:
            self.problems.append(Problem.of(error, "name it by its second, or remove it"))
            return np.empty(0, np.int64)
        if not len(numbers):
            self.problem("error", "no images in this folder", folder, expected="000000.png, ...")
        return numbers

    def _labels(self, file: Path, folder: Path, images: np.ndarray) -> dict[str, FrameLabels]:
        """Task -> the labels of one video's images."""
        if file.suffix == ".txt":
            found, problems = read_triplet_text(self.root, file.stem, self.card)
        else:
            found, problems = read_triplet_json(file, self.card)
        self.problems += problems
        if "triplet" in found and not any(problem.severity == "error" for problem in problems):
            self._check_images(found["triplet"].numbers, images, folder, file)
        labels: dict[str, FrameLabels] = {}
        for task, values in found.items():
            known = np.isin(values.numbers, images)
            if isinstance(values, VideoInstances):
                here = {n: frame for n, frame in values.frames.items() if n in set(images.tolist())}
                labels[task] = VideoInstances(here, self.card.instruments)
            elif known.any():
                labels[task] = FrameLabels(values.numbers[known], values.array[known])
        return labels

    def _check_images(self, numbers: np.ndarray, images: np.ndarray, folder: Path, file: Path) -> None:
        """Annotations without an image are an error, images without annotation a warning."""
        without_image = np.setdiff1d(numbers, images)
        if len(without_image):
            self.problem(
                "error",
                f"{len(without_image)} annotations without an image",
                file,
                place=f"frame {int(without_image[0])}",
                expected="an image of every annotated frame",
                found=f"images {int(images[0])} to {int(images[-1])}",
                fix="copy the images again",
            )
        bare = np.setdiff1d(images, numbers)
        if len(bare):
            what = f"{len(bare)} of {len(images)} images have no annotation, the first is {int(bare[0])}"
            self.problem("warning", what, folder, fix="nothing: they are used in pretraining and in no score")

    def _another_layout(self) -> SurgdinoError:
        inside = next((p for p in entries(self.root) if any((p / n).is_dir() for n in _FRAMES)), None)
        if self.root.name in _FRAMES and any(_number(p.name) for p in entries(self.root)):
            fix = f"point data.root one level up, at {self.root.parent}"
        elif inside is not None:
            fix = f"point data.root at {inside}"
        else:
            fix = "point data.root at the folder that holds videos/ and labels/"
        expected = "a folder videos/ (or data/, in the older release) in it"
        what = f"this is not the layout of {self.card.name}"
        return SurgdinoError(what, file=self.root, expected=expected, fix=fix)


def _number(name: str) -> int | None:
    found = _NAME.fullmatch(name)
    return int(found[1]) if found else None
