"""Which frames a classifier gets right and wrong, for the pictures of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from surgdino.metrics.scores import FrameScores, yes_no

Arrays = Mapping[str, np.ndarray]  # video id -> an array with a row a frame
_NAMED = 4  # classes in a caption


def one_class(truths: Arrays, probabilities: Arrays, numbers: Arrays, classes: Sequence[str]) -> FrameScores:
    """Of frames that have one class each: the probability of the true one.

    Args:
        truths: int [n] ids; a frame with an id outside the classes is left out.
        probabilities: [n, C].
        numbers: int [n], of the frames.
    """
    rows = []
    for video, truth in truths.items():
        for number, true, found in zip(numbers[video].tolist(), truth.tolist(), probabilities[video], strict=True):
            if 0 <= true < len(classes):
                top = int(found.argmax())
                said = f"is {classes[true]}, predicted {classes[top]} {found[top]:.2f}"
                rows.append((video, number, float(found[true]), said, yes_no(top == true)))
    return FrameScores("probability of the truth", rows)


def several_classes(truths: Arrays, probabilities: Arrays, numbers: Arrays, classes: Sequence[str]) -> FrameScores:
    """Of frames that may show several: the mean over classes of what the truth's answer was given, present or absent.

    Args:
        truths: 0/1 [n, C]; a frame with any other value is left out.
    """
    rows = []
    for video, truth in truths.items():
        for number, true, found in zip(numbers[video].tolist(), truth, probabilities[video], strict=True):
            if ((true == 0) | (true == 1)).all():
                value = float(np.where(true == 1, found, 1 - found).mean())
                said = f"shows {_named(true == 1, classes)}, predicted {_named(found > 0.5, classes)}"
                rows.append((video, number, value, said, yes_no(bool(((found > 0.5) == true).all()))))
    return FrameScores("mean probability of the truth", rows)


def ranked(truths: Arrays, scores: Arrays, numbers: Arrays, classes: Sequence[str]) -> FrameScores:
    """Of frames that may show several, by scores that are no probabilities: the average precision within the frame.

    Args:
        truths: 0/1 [n, C]; a frame that shows none is left out.
    """
    rows = []
    for video, truth in truths.items():
        for number, true, found in zip(numbers[video].tolist(), truth == 1, scores[video], strict=True):
            if true.any():
                order = np.argsort(-found, kind="stable")
                places = np.flatnonzero(true[order])
                value = float((np.arange(1, len(places) + 1) / (places + 1)).mean())
                said = f"shows {_named(true, classes)}, highest {classes[order[0]]}"
                rows.append((video, number, value, said, yes_no(bool(true[order[0]]))))
    return FrameScores("average precision within the frame", rows)


def _named(chosen: np.ndarray, classes: Sequence[str]) -> str:
    names = [classes[place] for place in np.flatnonzero(chosen).tolist()]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return (" and ".join(names[:_NAMED]) + more) or "none"
