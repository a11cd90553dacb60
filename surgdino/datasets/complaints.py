"""Problems that several adapters find, said in the same words."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from surgdino.datasets.card import Card
from surgdino.datasets.manifest import Problem
from surgdino.datasets.numbers import Entry, compact
from surgdino.errors import SurgdinoError


def unexpected(path: Path, expected: str) -> Problem:
    """A file that does not belong where it lies."""
    fix = "it is left alone; move it elsewhere if it got here by mistake"
    return Problem("warning", "an unexpected file", path, expected=expected, fix=fix)


def twice(path: Path, first: Path) -> Problem:
    """Two files that claim to be the same video's."""
    return Problem("error", "two files for one video", path, found=f"{first.name} too", fix="keep one of them")


def empty_video(path: Path) -> list[Problem]:
    """A video file of no bytes, which is what a copy leaves behind when the disk was full."""
    if not path.is_file() or path.stat().st_size:
        return []
    fix = "copy it again; pretraining sets it aside"
    return [Problem("error", "the file is empty", path, expected="a video", found="0 bytes", fix=fix)]


def foreign(path: Path, video: Entry, card: Card) -> list[Problem]:
    """A video whose number or name the dataset does not have."""
    if not card.videos or video in card.videos:
        return []
    expected = f"numbers {compact(card.videos)}"
    return [Problem("warning", f"not a video of {card.name}", path, expected=expected, found=video)]


def missing(present: Collection[Entry], card: Card, folder: Path) -> list[Problem]:
    """The dataset's videos that are not in the folder, as one warning."""
    absent = [video for video in card.videos if video not in present]
    if not absent:
        return []
    message = f"{len(absent)} of {len(card.videos)} videos are not here: {compact(absent)}"
    return [Problem("warning", message, folder, fix="fine for pretraining; published splits need them all")]


def as_problem(error: SurgdinoError, fix: str) -> Problem:
    """An error that was raised by something that reads, as one problem among others."""
    return Problem("error", error.what, error.file, error.place, error.expected, error.found, error.fix or fix)
