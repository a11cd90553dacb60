"""Videos and the files that label them second by second or frame by frame, as the card's `workflow` says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np

from surgdino.datasets.adapter import Adapter
from surgdino.datasets.card import Entry
from surgdino.datasets.files import is_image, is_video, plain_name, walk
from surgdino.datasets.label_rows import LabelRows
from surgdino.datasets.label_spans import read_spans
from surgdino.datasets.manifest import FrameLabels, Labels, Manifest, Problem, SecondLabels, SegmentLabels, Video
from surgdino.datasets.pickles import Folds
from surgdino.datasets.workflow import LabelFiles, WorkflowLayout, pattern_of
from surgdino.errors import SurgdinoError
from surgdino.records import read_json

_Values = FrameLabels | SecondLabels | SegmentLabels
_Reader = Callable[[LabelFiles, Sequence[str]], tuple[_Values | None, list[Problem]]]


class Workflow(Adapter):
    """Files are found by their names, anywhere in the folder, and joined by the video's number or name in them."""

    def read(self) -> Manifest:
        layout = self.card.workflow
        if layout is None:
            fix = "the card must say the files' names and columns: dataset.workflow={video: ..., labels: ...}"
            raise SurgdinoError(f"dataset={self.card.name} does not say what its label files are", fix=fix)
        folders = list(walk(self.root))
        paths = [path for _, files in folders for path in files]
        pictures = [folder for folder, files in folders if any(map(is_image, files))]
        videos = self._videos(layout, [*filter(is_video, paths), *pictures])
        folds = Folds(layout.folds, paths) if layout.folds else None
        card, labels = self.card, dict[str, dict[str, _Values]]()
        self.classes = {"phase": card.phases, "step": card.steps, "tools": card.tools, "action": card.actions}
        for name, group in groupby(layout.labels, key=lambda files: files.file):
            kinds = list(group)
            files = self.keyed(paths, partial(self._file_key, name))
            readers = dict(self._readers(kinds, files, videos, folds))
            for kind in kinds:
                for key, reader in readers.items():
                    if (values := self._values(reader, kind)) is not None:
                        if videos[key].is_dir():
                            values = _by_picture(values, layout.first_picture)
                        labels.setdefault(kind.kind, {})[self.video_id(key)] = values
        self.check_complete([*map(_entry, videos)], self.root)
        rows = [self._video(key, path, labels) for key, path in videos.items()]
        found = [Labels(kind, self.classes[kind], values) for kind, values in labels.items()]
        return replace(self.manifest(rows, found), splits=folds or {})

    def video_id(self, key: int | str) -> str:
        return self.ids.get(str(key), str(key))

    def _file_key(self, name: str, path: Path) -> str | None:
        return self._key(name, plain_name(path.name))

    def _key(self, name: str, text: str) -> str | None:
        """The number in the place of `#`, or the name as the card spells it; None for another file."""
        numbered = all(isinstance(entry, int) for entry in self.card.videos)
        found = pattern_of(name, r"\d{1,9}" if numbered else r"[^\W_]+").fullmatch(text)
        if found is None:
            return None
        spelled = {str(entry).casefold(): str(entry) for entry in self.card.videos}
        return str(int(found[1])) if numbered else spelled.get(found[1].casefold(), found[1])

    def _videos(self, layout: WorkflowLayout, sources: Sequence[Path]) -> dict[str, Path]:
        """Video -> its file, or its folder of pictures; of copies the one that lies highest, a file before pictures."""
        found: dict[str, list[tuple[bool, int, Path]]] = {}
        for path in sources:
            key = self._key(layout.video, _name(path))
            if key is not None:
                found.setdefault(key, []).append((path.is_dir(), len(path.parts), path))
        copies = [sorted(paths) for paths in found.values() if len(paths) > 1]
        for first, second, *_ in copies:
            if first[:2] == second[:2]:
                told = f"{first[2].relative_to(self.root)} too"
                self.problem("error", "two files for one video", second[2], found=told, fix="keep one of them")
        if copies:
            read, other = (path.relative_to(self.root) for *_, path in copies[0][:2])
            self.notes.append(f"{len(copies)} videos lie here more than once: {read} is read and {other} is not, ...")
        videos = {key: min(found[key])[2] for key in sorted(found, key=lambda key: (len(key), key))}
        self.ids = {key: _name(path) for key, path in videos.items()}
        return videos

    def _readers(
        self,
        kinds: Sequence[LabelFiles],
        files: Mapping[str, Path],
        videos: Mapping[str, Path],
        folds: Folds | None,
    ) -> Iterator[tuple[str, _Reader]]:
        """Video -> what reads each of `kinds`: its file, or its rows in the folds where it has none."""
        lacking, pickled = videos.keys() - files.keys(), dict[str, tuple[Path, _Reader]]()
        if folds and lacking:
            try:
                for name, path, seconds, ids in folds.rows():
                    if name in lacking:
                        pickled[name] = path, partial(_from_rows, seconds, ids)
            except SurgdinoError as error:
                self.problems.append(Problem.of(error))
        folder = min(files.values()).parent if files else self.root
        for kind in kinds:
            self.pair(
                kind.kind,
                {key: path for key, path in videos.items() if _entry(key) not in kind.absent},
                {**{key: path for key, (path, _) in pickled.items()}, **files},
                lambda key: folder / kinds[0].file.replace("#", self._text(key)),
                lambda key: f"a file named after {key}",
            )
        for key in videos:
            if key in pickled:
                yield key, pickled[key][1]
            elif key in files:
                try:
                    yield key, _opened(files[key])
                except SurgdinoError as error:
                    self.problems.append(Problem.of(error, "copy it again from the release"))

    def _text(self, key: str) -> str:
        """What stands in the place of `#` in the video's name, zeros included."""
        layout = self.card.workflow
        found = pattern_of(layout.video, r"[^\W_]+").fullmatch(self.video_id(key)) if layout else None
        return found[1] if found else key

    def _values(self, reader: _Reader, kind: LabelFiles) -> _Values | None:
        try:
            values, problems = reader(kind, self.classes[kind.kind])
        except SurgdinoError as error:
            values, problems = None, [Problem.of(error, "copy it again from the release")]
        self.problems += problems
        return values

    def _video(self, key: str, path: Path, labels: Mapping[str, Mapping[str, _Values]]) -> Video:
        self.check_video(path, _entry(key))
        name, operation = self.video_id(key), self.card.operation_of(_entry(key))
        if path.is_dir():
            return Video(name, operation, path, 1.0)
        values = [found.get(name) for found in labels.values()]
        ends = [int(each.numbers[-1]) + 1 for each in values if isinstance(each, FrameLabels)]
        return Video(name, operation, path, self.card.fps, max(ends, default=None))


def _entry(key: str) -> Entry:
    return int(key) if key.isdecimal() else key


def _name(path: Path) -> str:
    return plain_name(path.name if path.is_dir() else path.stem)


def _opened(path: Path) -> _Reader:
    if path.suffix.lower() != ".json":
        return LabelRows(path).read
    content = read_json(path)
    return lambda kind, classes: read_spans(content, path, kind, classes)


def _from_rows(
    seconds: np.ndarray, ids: Mapping[str, np.ndarray], kind: LabelFiles, classes: Sequence[str]
) -> tuple[SecondLabels, list[Problem]]:
    return SecondLabels(seconds, ids[kind.kind]), []


def _by_picture(values: _Values, first: int) -> _Values:
    """Labels by second as labels by picture, one a second, the first of which has the number `first`."""
    if isinstance(values, SecondLabels):
        numbers, rows = np.unique(values.seconds.round().astype(np.int64) + first, return_index=True)
        return FrameLabels(numbers, values.array[rows])
    if isinstance(values, SegmentLabels) and not values.by_frame:
        return SegmentLabels(values.starts + first, values.ends + first, values.array, by_frame=True)
    return values
