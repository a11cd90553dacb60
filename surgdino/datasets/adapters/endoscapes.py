"""Endoscapes: pictures of all videos in one folder a part, critical view of safety, boxes, and masks of few."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from surgdino.datasets.adapter import Adapter
from surgdino.datasets.card import PARTS
from surgdino.datasets.class_names import class_finder
from surgdino.datasets.drawn_pictures import objects_of
from surgdino.datasets.files import entries, is_image, read_cells
from surgdino.datasets.manifest import FrameLabels, Labels, Manifest, Problem, Video
from surgdino.datasets.mask_exports import read_export
from surgdino.datasets.mask_files import Layer, Legend
from surgdino.datasets.masks import FrameMasks, VideoMasks
from surgdino.datasets.objects import OBJECTS, FrameInstances, VideoInstances
from surgdino.errors import SurgdinoError

_NAME = re.compile(r"(\d{1,9})_(\d{1,15})")  # video and frame
_TABLE, _BOXES, _MASKS = "all_metadata.csv", "annotation_coco.json", "semseg"
_WITH_MASKS = "_seg"  # ends the name of a part's folder that has masks by instance
_RATERS = ("cvs_annotator_1", "cvs_annotator_2", "cvs_annotator_3")
_AGAIN = "copy it again from the release"

Key = tuple[int, int]  # video, frame


class Endoscapes(Adapter):
    """A video is the pictures of one number in `train/`, `val/` or `test/`, numbered by its frames.

    Labels: `cvs`, each criterion by the majority of three annotators; `structures`, which of the mask's classes have a
    box; `objects`, those boxes; `masks`. Frames that nobody has looked at have none.
    """

    def read(self) -> Manifest:
        pictures: dict[Key, Path] = {}
        for part in PARTS:
            for key, path in self._named(self.root / part):
                if pictures.setdefault(key, path) != path:
                    found, fix = f"{pictures[key].parent.name}/ too", "keep one of them"
                    self.problem("error", "two pictures of one frame", path, found=found, fix=fix)
        numbers = {number: path.parent for (number, _), path in pictures.items()}
        videos = []
        for number, folder in sorted(numbers.items()):
            self.check_video(folder, number)
            path = folder / f"{number}_*"
            videos.append(Video(str(number), self.card.operation_of(number), path, self.card.fps))
        self.check_complete(numbers, self.root)
        labels = [
            self._labels("cvs", self.card.cvs, self._views(pictures)),
            *self._boxes(pictures),
            Labels("masks", self.card.mask_classes, self._masks(pictures)),
        ]
        return self.manifest(videos, labels)

    def _named(self, folder: Path) -> Iterator[tuple[Key, Path]]:
        """The pictures of a folder by video and frame."""
        for path in entries(folder):
            found = _NAME.fullmatch(path.stem) if is_image(path) else None
            if found:
                yield (int(found[1]), int(found[2])), path
            elif is_image(path):
                self.unexpected(path, "names such as 8_14775.jpg")

    def _labels(self, kind: str, classes: tuple[str, ...], told: Mapping[Key, Sequence[int]]) -> Labels:
        """Labels of frames, a 0 or 1 a class."""
        frames: dict[int, dict[int, Sequence[int]]] = {}
        for (video, frame), row in told.items():
            frames.setdefault(video, {})[frame] = row
        values = {}
        for video, rows in frames.items():
            numbers = np.array(sorted(rows), np.int64)
            values[str(video)] = FrameLabels(numbers, np.array([rows[n] for n in numbers.tolist()], np.uint8))
        return Labels(kind, classes, values)

    def _views(self, pictures: Mapping[Key, Path]) -> dict[Key, list[int]]:
        """Each criterion of the critical view of safety in the frames that were annotated."""
        path = self.root / _TABLE
        if not path.is_file():
            fix = "pretraining needs none; copy it from the release"
            self.problem(
                "warning", "no annotations of the critical view of safety", path, found="no such file", fix=fix
            )
            return {}
        try:
            found = dict(self._rows(path))
        except SurgdinoError as error:
            self.problems.append(Problem.of(error, _AGAIN))
            return {}
        if strange := [key for key in found if key not in pictures]:
            self._not_here(path, strange)
        return {key: row for key, row in found.items() if key in pictures}

    def _rows(self, path: Path) -> Iterator[tuple[Key, list[int]]]:
        """The annotated rows: scores of three annotators, such as `[1, 0, 0]`, one a criterion.

        Raises:
            SurgdinoError: no such table, or a row that cannot be read.
        """
        header, *rows = read_cells(path) or [[]]
        names = ("vid", "frame", *_RATERS)
        if absent := [name for name in names if name not in header]:
            expected, found = ", ".join(names), ", ".join(header)[:80]
            raise SurgdinoError(f"no column {absent[0]}", file=path, place="row 1", expected=expected, found=found)
        columns = [header.index(name) for name in names]
        seen = set[Key]()
        for place, row in enumerate(rows, start=2):
            video, frame, *cells = (row[column] if column < len(row) else "" for column in columns)
            if not any(cells):
                continue  # interpolated from other frames
            scores = [[float(score) for score in re.findall(r"\d+(?:\.\d*)?", cell)] for cell in cells]
            whole = [re.fullmatch(r"(\d{1,15})(?:\.0*)?", text) for text in (video, frame)]
            fault, found = "", ""
            if not all(whole):
                fault, found = "not a video and a frame", f"{video}, {frame}"
            elif any(len(each) != len(self.card.cvs) or {*each} - {0.0, 1.0} for each in scores):
                fault, found = f"not {len(self.card.cvs)} scores of 0 or 1 by each annotator", "; ".join(cells)[:80]
            if fault:
                raise SurgdinoError(fault, file=path, place=f"row {place}", expected="as [1, 0, 0]", found=found)
            key = tuple(int(match[1]) for match in whole if match)
            if key in seen:
                raise SurgdinoError("a frame twice", file=path, place=f"row {place}", found=f"{video}_{frame}")
            seen.add(key)  # type: ignore[arg-type]
            yield key, [int(sum(votes) >= 2) for votes in zip(*scores, strict=True)]  # type: ignore[misc]

    def _boxes(self, pictures: Mapping[Key, Path]) -> list[Labels]:
        """The structures in the frames that boxes were drawn on, and those with masks by instance in their place."""
        found: dict[Key, FrameInstances] = {}
        for path in (path for part in PARTS if (path := self.root / part / _BOXES).is_file()):
            found |= self._coco(path)
        seen = dict(found)
        for path in (path for part in PARTS if (path := self.root / f"{part}{_WITH_MASKS}" / _BOXES).is_file()):
            found |= self._coco(path)
        if strange := [key for key in found if key not in pictures]:
            self._not_here(found[strange[0]].path, strange)
        classes = self.card.mask_classes
        flags = {k: [any(o.label == c for o in f.objects) for c in classes] for k, f in seen.items() if k in pictures}
        frames: dict[str, dict[int, FrameInstances]] = {}
        for (video, frame), each in found.items():
            if (video, frame) in pictures:
                frames.setdefault(str(video), {})[frame] = each
        objects = {video: VideoInstances(each, classes) for video, each in frames.items()}
        return [self._labels("structures", classes, flags), Labels(OBJECTS, classes, objects)]

    def _coco(self, path: Path) -> dict[Key, FrameInstances]:
        """The objects of each frame of a file in COCO's form, by the card's classes; what is wrong with it is told."""
        try:
            export = read_export(path)
        except SurgdinoError as error:
            self.problems.append(Problem.of(error, _AGAIN))
            return {}
        if export is None or export.tool != "COCO":
            expected = "images, categories and annotations, lists of mappings"
            self.problem("error", "not COCO's form", path, expected=expected, fix=_AGAIN)
            return {}
        find, found = class_finder(self.card.mask_classes), dict[Key, FrameInstances]()
        for picture in export.pictures:
            name = _NAME.fullmatch(Path(picture.name).stem)
            if name is None:
                export.tell("not a picture's name", picture.place, "8_14775.jpg", picture.name[:60])
                continue
            for each in picture.objects.values():
                place = find(each.label)
                each.label = each.label if place is None else self.card.mask_classes[place]
            found[int(name[1]), int(name[2])] = objects_of(export, picture, self.card.mask_classes)
        self.problems += export.problems.values()
        return found

    def _masks(self, pictures: Mapping[Key, Path]) -> dict[str, VideoMasks]:
        legend = Legend(self.card.masks)
        found, strange = dict[int, dict[int, FrameMasks]](), dict[Key, Path]()
        for key, path in self._named(self.root / _MASKS):
            if key in pictures:
                files = {name: Layer(path, name, legend) for name in self.card.masks}
                found.setdefault(key[0], {})[key[1]] = FrameMasks(pictures[key], files)
            else:
                strange[key] = path
        if strange:
            self._not_here(next(iter(strange.values())), list(strange), "masks")
        return {str(video): VideoMasks(frames, self.card.mask_classes) for video, frames in found.items()}

    def _not_here(self, path: Path, keys: Sequence[Key], what: str = "annotated frames") -> None:
        expected, fix = f"{keys[0][0]}_{keys[0][1]}.jpg in train, val or test", "copy the pictures; these are left out"
        self.problem("error", f"{len(keys)} {what} without a picture", path, expected=expected, found="none", fix=fix)
