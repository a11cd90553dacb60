"""Frames with a text file of `question|answer` lines each, as the card's `questions` says: EndoVis18-VQA, Cholec80-VQA,
PitVQA, and own sets."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from surgdino.datasets.adapter import Adapter
from surgdino.datasets.card import Entry
from surgdino.datasets.files import entries, is_image, numbered_images, plain_name, walk
from surgdino.datasets.manifest import FrameLabels, Labels, Manifest, Problem, Video
from surgdino.datasets.questions import (
    QUESTION,
    Answers,
    PairTable,
    QuestionLayout,
    folder_pattern,
    pair_array,
    read_pairs,
)
from surgdino.errors import SurgdinoError, nearest

_Frames = dict[int, list[tuple[int, str, int]]]
_SENTENCES, _CLASSES = "sentences", "classes"


class Questions(Adapter):
    """A video is a folder of pictures; its questions lie in a folder of the same number or name.

    Option `labels` is `classes`, or `sentences` for a release's answers in whole sentences.
    """

    takes = ("labels", "operation_pattern")

    def read(self) -> Manifest:
        layout = self.card.questions
        if layout is None:
            fix = "the card must say where frames and questions lie: dataset.questions={pictures: [...], files: ...}"
            raise SurgdinoError(f"dataset={self.card.name} does not say where its questions lie", fix=fix)
        option = self.options.get("labels", _CLASSES)
        if option not in (_CLASSES, _SENTENCES) or (option == _SENTENCES and not layout.sentences):
            known = [_CLASSES, *([_SENTENCES] if layout.sentences else [])]
            raise SurgdinoError(f"{self.card.name} has no labels={option!r}", fix=nearest(option, known))
        free = option == _SENTENCES
        self.ids: dict[str, str] = {}
        self._numbered = bool(self.card.videos) and all(isinstance(entry, int) for entry in self.card.videos)
        answers = Answers(QuestionLayout(pictures=layout.pictures, files=layout.files) if free else layout)
        folders = list(walk(self.root))
        videos = self._folders(folders, layout.pictures, pictures=True)
        files = self._folders(folders, ((layout.sentences if free else None) or layout.files,), pictures=False)
        rows = [self._video(key, path) for key, path in videos.items()]
        self.pair(QUESTION, videos, files, lambda key: self.root / self._place(layout.files, key), str)
        self.left_out, self.table, frames = Counter[str](), PairTable(), dict[str, _Frames]()
        for key, path in videos.items():
            if key in files and (found := self._frames(files[key], path, layout, answers)):
                frames[self.ids[key]] = found
        self.check_complete([*map(_entry, videos)], self.root)
        for answer, count in self.left_out.items():
            self.notes.append(f"{count:,} pairs with the answer {answer} are left out, as published")
        return self.manifest(rows, [self._labels(frames, answers)])

    def video_id(self, key: int | str) -> str:
        return self.ids.get(str(key), str(key))

    def _place(self, folder: str, key: str) -> Path:
        """A video's folder in the layout."""
        return Path(*(self.ids.get(key, part.replace("#", key)) if "#" in part else part for part in folder.split("/")))

    def _labels(self, frames: Mapping[str, _Frames], answers: Answers) -> Labels:
        classes = answers.listed or tuple(sorted(self.table.answers))
        places = {answer: place for place, answer in enumerate(classes)}
        most = max((len(pairs) for found in frames.values() for pairs in found.values()), default=1)
        values = {}
        for key, found in frames.items():
            numbers = sorted(found)
            values[key] = FrameLabels(numbers, pair_array([found[n] for n in numbers], places, most))
        return Labels(QUESTION, classes, values, self.table.asked(answers.kinds))

    def _folders(self, folders: list[tuple[Path, list[Path]]], names: tuple[str, ...], *, pictures: bool) -> dict:
        """Video's number or name -> its folder, of those that hold pictures, or text; in the order of numbers."""
        patterns = [folder_pattern(name, numbered=self._numbered) for name in names]
        found = {}
        for folder, paths in folders:
            inside = plain_name(folder.relative_to(self.root).as_posix())
            match = next(filter(None, (pattern.fullmatch(inside) for pattern in patterns)), None)
            if match and any(is_image(path) if pictures else path.suffix.lower() == ".txt" for path in paths):
                found[folder] = match["key"]
                if pictures:
                    self.ids[match["key"]] = match["video"]
        keyed: dict[str, Path] = self.keyed(found, found.__getitem__)
        return {key: keyed[key] for key in sorted(keyed, key=lambda key: (len(key) * self._numbered, key))}

    def _video(self, key: str, path: Path) -> Video:
        entry = _entry(key)
        if self.card.videos:
            self.check_video(path, entry)
        if entry in self.card.videos:
            operation = self.card.operation_of(entry)
        else:
            place = self.matched(path, "", self.root, key) if self.pattern else key
            operation = self.named(place, path)
        return Video(self.ids[key], operation, path, self.card.fps)

    def _frames(self, folder: Path, pictures: Path, layout: QuestionLayout, answers: Answers) -> _Frames:
        """Frame number -> its pairs. Of each fault of a video the first is told, and how many there are."""
        try:
            images = numbered_images(pictures)
        except SurgdinoError as error:
            self.problems.append(Problem.of(error))
            return {}
        pattern = re.compile(re.escape(layout.name).replace(r"\#", r"(\d{1,15})"), re.IGNORECASE)
        faults: dict[str, list[SurgdinoError]] = {}
        frames, alone = _Frames(), list[Path]()
        texts = [path for path in entries(folder) if path.suffix.lower() == ".txt"]
        numbers: dict[int, Path] = {}
        for path in texts:
            if (match := pattern.fullmatch(path.stem)) and numbers.setdefault(int(match[1]), path) != path:
                told, fix = f"{numbers[int(match[1])].name} too", "keep one of them"
                self.problem("error", "two files for one frame", path, expected="one", found=told, fix=fix)
        if texts and not numbers:
            fix = "name the files as the release does"
            self.problem("error", "no file of a frame", texts[0], expected=f"{layout.name}.txt", fix=fix)
        for number, path in numbers.items():
            if number % layout.every:
                continue
            if number not in images:
                alone.append(path)
                continue
            rows = []
            try:
                for pair in read_pairs(path):
                    answer = answers.read(pair, path)
                    if answer is None:
                        self.left_out[pair.answer] += 1
                    else:
                        rows.append(self.table.add(pair, answer))
            except SurgdinoError as error:
                faults.setdefault(error.what, []).append(error)
            if rows:
                frames[number] = rows
        for what, errors in faults.items():
            more = f" (and in {len(errors) - 1} more files)" if len(errors) > 1 else ""
            self.problems.append(Problem.of(errors[0].but(what=what + more), "copy it again from the release"))
        if alone:
            what, fix = f"{len(alone)} files of questions without a picture", "copy the pictures, or remove these files"
            self.problem("error", what, alone[0], expected=f"a picture of the same number in {pictures}", fix=fix)
        return frames


def _entry(key: str) -> Entry:
    return int(key) if key.isdecimal() else key
