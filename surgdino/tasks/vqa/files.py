"""Questions and answers as files: a table (CSV) a video, or the layouts of the public sets on either side.

The layouts: a text file of `question|answer` lines a frame, in a folder a video; SurgVU's JSON, a question and answers
a clip, of which a prediction is one text.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from surgdino.csv_files import as_meant, csv_rows, write_csv
from surgdino.datasets.adapters.surgvu import read_case
from surgdino.datasets.card import Card
from surgdino.datasets.files import MOST_DIGITS, plain_name, read_text, walk
from surgdino.datasets.questions import Answers, Pair, folder_pattern, question_key, read_pairs
from surgdino.errors import SurgdinoError, nearest, shown
from surgdino.paths import file_of, write_text
from surgdino.records import read_record
from surgdino.tasks.scoring.folders import Folders, match_frames
from surgdino.tasks.scoring.video_files import video_files
from surgdino.tasks.vqa.replies import WHOLE, Replies, Truth

_COLUMNS = ("frame", "question", "answer")
_SENTENCE = "sentence"
_ANY = ""  # the question of a prediction that does not say which


@dataclass(frozen=True)
class _Row:
    """A pair, of which frame, and where it stands."""

    frame: int
    pair: Pair
    file: Path


def write_replies(folder: Path, video: str, replies: Replies, truth: Truth | None = None) -> Path:
    """Write `<video>.csv`: a row a question: what was replied, how sure, and what the question alone is answered."""
    said = any(one != other for one, other in zip(replies.sentences, replies.answers, strict=True))
    alone = replies.alone or ([""] * len(replies), [])
    columns: dict[str, Sequence[object]] = {
        "frame": ["" if frame == WHOLE else frame for frame in replies.frames.tolist()],
        "question": replies.questions,
        "answer": replies.answers,
        "confidence": [f"{value:.4f}" for value in replies.confidence.tolist()],
        "question_only": alone[0],
        **({_SENTENCE: replies.sentences, f"question_only_{_SENTENCE}": alone[1]} if said else {}),
        **({"truth": truth.answers} if truth is not None else {}),
    }
    return write_csv(file_of(folder, video, ".csv"), list(columns), zip(*columns.values(), strict=True))


def write_layout(folder: Path, video: str, replies: Replies) -> Path:
    """Write the replies as the sets keep answers: `<video>.json` of a clip, else `<video>-answers/<frame>.txt`."""
    if len(replies) and replies.frames[0] == WHOLE:
        said = [*replies.sentences]
        return write_text(file_of(folder, video, ".json"), json.dumps(said[0] if len(said) == 1 else said) + "\n")
    place = file_of(folder, video, "-answers")
    lines: dict[int, list[str]] = {}
    for frame, question, answer in zip(replies.frames.tolist(), replies.questions, replies.answers, strict=True):
        lines.setdefault(frame, []).append(f"{question}|{answer}\n")
    for frame, rows in lines.items():
        write_text(place / f"{frame:06d}.txt", "".join(rows))
    return place


def read_and_match(folders: Folders) -> tuple[dict[str, Truth], dict[str, Replies]]:
    """The truth's pairs by video, and what the predictions reply to each.

    A question that a frame is asked twice takes the replies in their order, or the only one.

    Raises:
        SurgdinoError: files that cannot be read, and questions or videos that one side lacks.
    """
    layout = folders.card.questions if folders.card else None
    listed = Answers(layout) if layout else None
    every = math.lcm(folders.every, layout.every if layout else 1)
    truth = {
        video: kept
        for video, rows in _by_video(folders.truth, folders).items()
        if (kept := [row for row in rows if row.frame % every == 0 or row.frame == WHOLE])
    }
    if not truth:
        expected = f"frames that {every} divides"
        raise SurgdinoError("no question to score", file=folders.truth, expected=expected, fix="check every=")
    predicted = _by_video(folders.predictions, folders)
    _refuse_videos(truth, predicted, folders)
    ways = {
        question_key(said): row.pair.answer for rows in truth.values() for row in rows for said in row.pair.sentences
    }
    truths, replies = {}, {}
    for video, rows in sorted(truth.items()):
        if video not in predicted:
            continue
        answers = [listed.read(row.pair, row.file) if listed else row.pair.answer for row in rows]
        scored = [(row, answer) for row, answer in zip(rows, answers, strict=True) if answer is not None]
        if not scored:
            continue
        asked = [row for row, _ in scored]
        found = _matched(asked, rows, predicted[video], folders)
        frames, questions = np.array([row.frame for row in asked]), [row.pair.question for row in asked]
        references = [row.pair.sentences or (answer,) for row, answer in scored]
        truths[video] = Truth(frames, questions, [answer for _, answer in scored], references)
        sentences = [(*row.pair.sentences, row.pair.answer)[0] for row in found]
        replied = [_named(row, ways) for row in found]
        replies[video] = Replies(frames, questions, replied, sentences)
    return truths, replies


def _named(row: _Row, ways: Mapping[str, str]) -> str:
    """The answer of a reply: of a sentence that names no question, the one that the truth says so."""
    said = row.pair.answer
    return said if row.pair.question != _ANY else ways.get(question_key(said), said)


def _refuse_videos(truth: Mapping[str, object], predicted: Mapping[str, Sequence[_Row]], folders: Folders) -> None:
    missing, extra = ([v for v in one if v not in other] for one, other in ((truth, predicted), (predicted, truth)))
    if folders.refuses(len(missing), len(truth)):
        what, fix = f"{len(missing)} of {len(truth)} videos have no prediction", "predict them, or use missing=ignore"
        expected, found = missing[0], ", ".join(sorted(predicted)[:5])
        raise SurgdinoError(what, file=folders.predictions, expected=expected, found=found, fix=fix)
    if extra and not folders.ignore_extra:
        what, fix = f"{len(extra)} predicted videos are not in the truth", "take them out, or use extra=ignore"
        expected = ", ".join(sorted(truth)[:5])
        raise SurgdinoError(what, file=predicted[extra[0]][0].file, expected=expected, found=extra[0], fix=fix)


def _matched(asked: Sequence[_Row], known: Sequence[_Row], predicted: Sequence[_Row], folders: Folders) -> list[_Row]:
    """The reply to each question; `known` are also those that are not scored."""
    sides = (np.unique([row.frame for row in rows if row.frame != WHOLE]) for rows in (asked, predicted))
    frames, replied = (side.astype(np.int64) for side in sides)
    if frames.size and replied.size:
        match_frames(frames, replied, predicted[0].file, ignore_extra=True)
    replies: dict[tuple[int, str], list[_Row]] = {}
    for row in predicted:
        replies.setdefault((row.frame, question_key(row.pair.question)), []).append(row)
    taken: dict[tuple[int, str], int] = {}
    found = []
    for row in asked:
        key = row.frame, question_key(row.pair.question)
        place = taken[key] = taken.get(key, -1) + 1
        given = replies.get(key) or (replies.get((WHOLE, _ANY)) if row.frame == WHOLE else None)
        if given is None:
            what = "a question has no reply"
            where = "the clip" if row.frame == WHOLE else f"frame {row.frame}"
            there = [question for frame, question in replies if frame == row.frame]
            fix, wanted = nearest(key[1], there) if there else "predict it too", shown(row.pair.question, 80)
            raise SurgdinoError(what, file=predicted[0].file, place=where, expected=wanted, fix=fix)
        found.append(given[min(place, len(given) - 1)])
    asked_of = Counter((row.frame, question_key(row.pair.question)) for row in known)
    if more := [rows for key, rows in replies.items() if key in asked_of and len(rows) > asked_of[key]]:
        row, count = more[0][-1], asked_of[more[0][-1].frame, question_key(more[0][-1].pair.question)]
        what, line, fix = "a question has more replies than it is asked", f"line {row.pair.line}", "keep one of them"
        raise SurgdinoError(what, file=row.file, place=line, expected=count, found=len(more[0]), fix=fix)
    extra = [rows[0] for key, rows in replies.items() if key not in asked_of and key != (WHOLE, _ANY)]
    if extra and not folders.ignore_extra:
        what, fix = f"{len(extra)} replies to questions that nobody asks", "take them out, or use extra=ignore"
        question = shown(extra[0].pair.question, 80)
        raise SurgdinoError(what, file=extra[0].file, place=f"frame {extra[0].frame}", found=question, fix=fix)
    return found


def _by_video(folder: Path, folders: Folders) -> dict[str, list[_Row]]:
    """Video -> its rows, from tables, or text files, or JSON: whichever the folder has, in this order."""
    if not folder.is_dir():
        what = "not a folder" if folder.exists() else "the folder does not exist"
        raise SurgdinoError(what, file=folder, expected="a folder of tables or label files", fix="check the path")
    files = [path for _, paths in walk(folder) for path in paths]
    of = {suffix: [path for path in files if path.suffix.lower() == suffix] for suffix in (".csv", ".txt", ".json")}
    found: dict[str, list[_Row]] = {}
    if of[".csv"]:
        found = {video: [*_table(path)] for video, path in video_files(folder, ".csv").items()}
    elif of[".txt"]:
        found = _texts(of[".txt"], folder, folders.card)
    elif of[".json"]:
        found = _cases(of[".json"])
    if found := {video: rows for video, rows in found.items() if rows}:
        return found
    what, expected = "no answers in this folder", ".csv, .txt or .json files"
    raise SurgdinoError(what, file=folder, expected=expected, fix="check the path")


def _table(path: Path) -> Iterator[_Row]:
    lines = csv_rows(read_text(path, spreadsheet=True), path)
    if not lines:
        raise SurgdinoError("the file is empty", file=path, expected=",".join(_COLUMNS))
    header, *rows = lines
    names = [cell.strip().casefold() for cell in header]
    if any(name not in names for name in _COLUMNS):
        what, found = "wrong header", ",".join(header)[:60]
        raise SurgdinoError(what, file=path, place="row 1", expected=",".join(_COLUMNS), found=found)
    if not any(map(any, rows)):
        raise SurgdinoError("no rows under the header", file=path, expected="a row a question")
    columns = [names.index(name) for name in _COLUMNS]
    said = names.index(_SENTENCE) if _SENTENCE in names else None
    for number, row in enumerate(rows, start=2):
        if not any(row):
            continue
        place = f"row {number}"
        if len(row) != len(header):
            raise SurgdinoError("wrong number of columns", file=path, place=place, expected=len(header), found=len(row))
        frame, question, answer = (as_meant(row[column].strip()) for column in columns)
        if not (frame == "" or (frame.isascii() and frame.isdecimal() and len(frame) <= MOST_DIGITS)):
            expected = "a whole number from 0, or nothing for the whole video"
            raise SurgdinoError("not a frame number", file=path, place=place, expected=expected, found=repr(frame[:40]))
        if not question or not answer:
            what = "a row without a question" if not question else "a row without an answer"
            raise SurgdinoError(what, file=path, place=place, expected="a text", found="nothing")
        sentences = (as_meant(row[said].strip()),) if said is not None and row[said].strip() else ()
        yield _Row(int(frame) if frame else WHOLE, Pair(question, answer, number, sentences), path)


def _texts(files: Sequence[Path], folder: Path, card: Card | None) -> dict[str, list[_Row]]:
    """Text files by their folders: those of the card's layout, else each by what tells it from the others."""
    names = {path.parent: plain_name(path.parent.relative_to(folder).as_posix()) for path in files}
    known: dict[Path, str] = {}
    if card and card.questions:
        pattern = folder_pattern(card.questions.files, numbered=bool(card.videos))
        known = {place: match["video"] for place, name in names.items() if (match := pattern.fullmatch(name))}
    distinct = {tuple(name.split("/")) for name in names.values()}
    videos = known or {place: _told_apart(name.split("/"), distinct) for place, name in names.items()}
    found: dict[str, dict[int, Path]] = {}
    for path in files:
        digits = re.findall(r"\d+", path.stem)
        if path.parent not in videos or not digits or len(digits[-1]) > MOST_DIGITS:
            continue  # a list, a README
        frames = found.setdefault(videos[path.parent], {})
        if frames.setdefault(int(digits[-1]), path) != path:
            what, fix = "two files for one frame", "keep one of them"
            raise SurgdinoError(what, file=path, expected="one", found=frames[int(digits[-1])].name, fix=fix)
    if not found:
        raise SurgdinoError("no file of a frame", file=folder, expected="names such as frame000_QA.txt")
    return {
        video: [_Row(frame, pair, path) for frame, path in sorted(frames.items()) for pair in read_pairs(path)]
        for video, frames in found.items()
    }


def _told_apart(place: Sequence[str], distinct: set[tuple[str, ...]]) -> str:
    """The folders in a path that others do not have; of a single path the last with a digit (`seq_1`)."""
    common = set(place).intersection(*distinct) if len(distinct) > 1 else set()
    own = [part for part in place if part not in common]
    if len(distinct) == 1:
        own = [part for part in place if re.search(r"\d", part)][-1:] or [*place[-1:]]
    return "/".join(own).removesuffix("-answers")


def _cases(files: Sequence[Path]) -> dict[str, list[_Row]]:
    """SurgVU's: `caseN/caseN_question.json` and `caseN/caseN.json`, or predictions `caseN.json`, a text each."""
    found: dict[str, list[_Row]] = {}
    for path in files:
        if path.stem.endswith("_question"):
            continue
        pair = read_case(path.parent) if path.parent.name == path.stem else None
        if pair is None:
            said = read_record(str, path)
            if not said.strip():
                raise SurgdinoError("an empty text", file=path, expected="an answer")
            pair = Pair(_ANY, said.strip(), 1, (said.strip(),))
        found[plain_name(path.stem)] = [_Row(WHOLE, pair, path)]
    return found
