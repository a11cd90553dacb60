"""SurgVU 2025, category 2: a clip a folder, with a question (`caseN_question.json`) and answers (`caseN.json`)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from surgdino.datasets.adapter import Adapter
from surgdino.datasets.files import entries, is_image, is_video, plain_name, walk
from surgdino.datasets.manifest import Labels, Manifest, Problem, SegmentLabels, Video
from surgdino.datasets.questions import QUESTION, Pair, PairTable, pair_array
from surgdino.errors import SurgdinoError
from surgdino.records import read_record

_CASE = re.compile(r"case0*(\d{1,9})", re.IGNORECASE)
_Text = Annotated[str, Field(min_length=1, max_length=1000)]
_Texts = Annotated[tuple[_Text, ...], Field(min_length=1, max_length=100)]
_COPY = "copy it again from the release"


class SurgVU(Adapter):
    """The class of a clip is its first answer, in the fewest words; the others are ways to say it."""

    def read(self) -> Manifest:
        folders = [folder for folder, _ in walk(self.root) if _CASE.fullmatch(plain_name(folder.name))]
        cases = self.keyed(folders, lambda folder: f"case{int(_CASE.fullmatch(plain_name(folder.name))[1])}")  # type: ignore[index]
        table, videos, rows = PairTable(), list[Video](), dict[str, tuple[int, str, int]]()
        for name in sorted(cases, key=lambda name: (len(name), name)):
            folder = cases[name]
            source = next(_sources(folder), None)
            if source is None:
                self.problem("error", "a case without frames", folder, expected=f"frames/ or {name}.mp4", fix=_COPY)
                continue
            self.check_video(source, int(name[4:]))
            videos.append(Video(name, self.card.operation.format(number=name[4:]), source, self.card.fps))
            try:
                pair = read_case(folder)
            except SurgdinoError as error:
                self.problems.append(Problem.of(error, _COPY))
                continue
            if pair is None:
                fix = "copy its files, or leave it out of the split"
                self.problem("warning", "a case without a question or answers", folder, fix=fix)
            else:
                rows[name] = table.add(pair, pair.answer)
        classes = tuple(sorted(table.answers))
        places = {answer: place for place, answer in enumerate(classes)}
        values = {
            name: SegmentLabels(np.zeros(1), np.full(1, np.inf), pair_array([[row]], places, 1), by_frame=True)
            for name, row in rows.items()
        }
        return self.manifest(videos, [Labels(QUESTION, classes, values, table.asked({}, whole=True))])


def read_case(folder: Path) -> Pair | None:
    """The question and the answers of a case; None where it lacks one of the two files.

    Raises:
        SurgdinoError: a file that is not JSON, no text, no list of texts, or empty.
    """
    question, answers = folder / f"{folder.name}_question.json", folder / f"{folder.name}.json"
    if not (question.is_file() and answers.is_file()):
        return None
    asked, said = _stripped(read_record(_Text, question), question), _stripped(read_record(_Texts, answers), answers)
    return Pair(asked, said[0], 1, tuple(said))


def _stripped(value: Any, path: Path) -> Any:
    """Texts without spaces around."""
    if not isinstance(value, str):
        return tuple(_stripped(each, path) for each in value)
    if not value.strip():
        raise SurgdinoError("an empty text", file=path, expected="words", fix=_COPY)
    return value.strip()


def _sources(folder: Path) -> Iterator[Path]:
    """Its film, else its folder of pictures, else itself."""
    inside = entries(folder)
    yield from (path for path in inside if is_video(path))
    for place in (folder / "frames", *(path for path in inside if path.is_dir()), folder):
        if any(is_image(path) for path in entries(place)):
            yield place
