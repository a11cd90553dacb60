"""Anyone's predictions against a truth, both folders of files: what is scored, and which files and frames belong
together; what does not fit is reported with the likeliest reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from surgdino.config import Fps, Location, Names, Positive, PositiveInt
from surgdino.datasets.card import Card, Entry, number_in
from surgdino.errors import SurgdinoError
from surgdino.metrics.scores import ScoreRequest
from surgdino.tasks.scoring.video_files import FIRST_ROW


@dataclass(frozen=True)
class Folders:
    """What to score, and how: configs/score.yaml, which explains the keys."""

    truth: Location
    predictions: Location
    protocol: str | None
    classes: Names | None
    fps: Fps | None
    tolerance_seconds: Positive
    every: PositiveInt
    missing: Literal["refuse", "ignore"]
    extra: Literal["refuse", "ignore"]
    hd95: bool
    out: Location | None
    details: bool = True
    task: dict[str, Any] | None = None
    dataset: dict[str, Any] | None = None

    @cached_property
    def card(self) -> Card | None:
        """Of the dataset, whose class names and operations are used; None where the files are all there is."""
        return None if self.dataset is None else Card.from_dict(self.dataset)

    @property
    def ignore_extra(self) -> bool:
        """Whether predicted frames and videos that the truth lacks are left out instead of refused."""
        return self.extra == "ignore"

    def refuses(self, missing: int, truths: int) -> bool:
        """Whether so many of the truths may not go without a prediction; all of them never may."""
        return missing > 0 and (self.missing == "refuse" or missing == truths)

    def operation_of(self, video: str) -> str:
        """The operation of a video: the card's where it knows the video's name or number, else the video itself."""
        name = video.rpartition("/")[2]
        if self.card is None:
            return video
        entries: list[Entry | None] = [name, number_in(name)]
        known = next((entry for entry in entries if entry is not None and entry in self.card.videos), None)
        return video if known is None else self.card.operation_of(known)

    def request(
        self, truths: Mapping[str, Any], predictions: Mapping[str, Any], classes: Sequence[str]
    ) -> ScoreRequest:
        """What to ask the panel of what was read."""
        return ScoreRequest(
            truths,
            predictions,
            classes,
            operations={video: self.operation_of(video) for video in truths},
            protocol=self.protocol,
            tolerance_seconds=self.tolerance_seconds,
        )

    def inside(self, names: Sequence[str]) -> Path:
        """The folder of the truth, or the one in it where a dataset's whole folder was given (`labels/`)."""
        return next((self.truth / name for name in names if (self.truth / name).is_dir()), self.truth)

    def sampled(self, frames: np.ndarray, file: Path) -> np.ndarray:
        """Bool [n]: the truth's frames that are scored.

        Raises:
            SurgdinoError: none is.
        """
        kept = frames % self.every == 0
        if not kept.any():
            expected = f"frames that {self.every} divides"
            raise SurgdinoError("no frame to score", file=file, expected=expected, found="none", fix="check every=")
        return kept


def paired_files(
    truths: dict[str, Path], predictions: dict[str, Path], folders: Folders
) -> list[tuple[str, Path, Path]]:
    """(video, truth's file, prediction's file), by video.

    Raises:
        SurgdinoError: videos that one side lacks.
    """
    missing = [video for video in truths if video not in predictions]
    extra = [video for video in predictions if video not in truths]
    if folders.refuses(len(missing), len(truths)):
        raise SurgdinoError(
            f"{len(missing)} of {len(truths)} videos have no prediction",
            file=folders.predictions,
            expected=f"a file for {missing[0]}",
            found=", ".join(sorted(predictions)[:5]),
            fix="predict it too, or score with missing=ignore",
        )
    if extra and not folders.ignore_extra:
        raise SurgdinoError(
            f"{len(extra)} predicted videos are not in the truth",
            file=predictions[extra[0]],
            expected=", ".join(sorted(truths)[:5]),
            found=extra[0],
            fix="take them out, or score with extra=ignore",
        )
    return [(video, truths[video], predictions[video]) for video in sorted(truths) if video in predictions]


def match_frames(truth: np.ndarray, prediction: np.ndarray, file: Path, *, ignore_extra: bool = False) -> np.ndarray:
    """The rows of the prediction that belong to the truth's frames, in their order.

    Args:
        truth, prediction: int [n], [m], ascending frame numbers.
        file: the prediction's, for messages.
        ignore_extra: predicted frames that the truth lacks are left out instead of refused.

    Returns:
        int64 [n].

    Raises:
        SurgdinoError: all frames are shifted by the same number (counted from 1), frames are missing or too many.
    """
    _refuse_shift(truth, prediction, file)
    missing = np.setdiff1d(truth, prediction)
    if missing.size:
        raise SurgdinoError(
            f"{missing.size} of the truth's {truth.size} frames have no prediction",
            file=file,
            expected=f"frame {missing[0]}",
            found=_shown(prediction),
            fix=_why_missing(truth, prediction),
        )
    extra = np.flatnonzero(~np.isin(prediction, truth))
    if extra.size and not ignore_extra:
        raise SurgdinoError(
            f"{extra.size} predicted frames are not in the truth",
            file=file,
            place=f"row {extra[0] + FIRST_ROW}",
            expected=_shown(truth),
            found=f"frame {prediction[extra[0]]}",
            fix="take them out, or score with extra=ignore",
        )
    return np.searchsorted(prediction, truth)


def _refuse_shift(truth: np.ndarray, prediction: np.ndarray, file: Path) -> None:
    """Frames counted from 1 by one side: every label would be off by one, and no count would tell."""
    if not np.isin(prediction, truth).all():
        for shift in (1, -1, *((prediction[:1] - truth[:1]).tolist() if len(truth) == len(prediction) else ())):
            moved = prediction - shift
            if not np.isin(moved, truth).all() or len(moved) < len(truth):
                continue
            reason = ": they are counted from 1" if shift == 1 else ""
            raise SurgdinoError(
                f"all frames are shifted by {shift}{reason}",
                file=file,
                place=f"row {FIRST_ROW}",
                expected=f"frame {truth[0]}",
                found=int(prediction[0]),
                fix="number the frames as the truth does",
            )


def _why_missing(truth: np.ndarray, prediction: np.ndarray) -> str:
    steps = np.unique(np.diff(prediction))
    truth_steps = np.unique(np.diff(truth))
    if np.isin(prediction, truth).all() and len(steps) == 1 and steps[0] > 1 and prediction[0] == 0:
        return f"predict them too, or score every {steps[0]}th frame of the truth with every={steps[0]}"
    if len(steps) == len(truth_steps) == 1 and steps[0] < truth_steps[0]:
        return "number the rows by the dataset's frames: these seem to be counted by row"
    return "predict them too"


def _shown(frames: np.ndarray) -> str:
    return f"{frames.size} frames from {frames[0]} to {frames[-1]}"
