"""What a report shows of a video in time: a file beside the predictions, so that the page needs no recording."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from surgdino.paths import file_of, write_text
from surgdino.records import read_record
from surgdino.report.timeline import segments, shown_spans

ENDING, PREDICTION = "-timeline.json", "Prediction"
_FIX = "run the command again to write it"
_SURE = 300  # values of how sure a model was: more than a page has room for


@dataclass(frozen=True)
class Band:
    """A row of a timeline.

    Attributes:
        name: `Truth`, `Prediction`, or an instrument.
        kind: `classes`, `wrong`, or `present` for what is there or not.
        spans: (class id, first second, last second); ids of `present` and `wrong` are 0.
    """

    name: str
    kind: str
    spans: tuple[tuple[int, float, float], ...]


@dataclass(frozen=True)
class OperationTimeline:
    """A video in time.

    Attributes:
        video: what it is called.
        start, end: in seconds of the source.
        classes: names in the order of their ids.
        bands: from the top.
        sure: probabilities of what was predicted, evenly from start to end; empty where there are none.
        accuracy: share of the labelled frames that are right; None where none is labelled.
    """

    video: str
    start: float
    end: float
    classes: tuple[str, ...]
    bands: tuple[Band, ...]
    sure: tuple[float, ...] = ()
    accuracy: float | None = None
    instruments: tuple[Band, ...] = field(default=())

    def durations(self) -> dict[str, float]:
        """Class -> seconds that were predicted to show it, of those that were, in the order of their ids."""
        [prediction] = (band for band in self.bands if band.name == PREDICTION)
        seconds = dict.fromkeys(sorted({label for label, _, _ in prediction.spans}), 0.0)
        for label, first, last in prediction.spans:
            seconds[label] += last - first
        return {self.classes[label]: each for label, each in seconds.items()}


def timeline_of(
    video: str,
    times: np.ndarray,
    classes: Sequence[str],
    prediction: np.ndarray,
    confidence: np.ndarray,
    truth: np.ndarray | None = None,
    present: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
) -> OperationTimeline:
    """Of n frames that each have one class.

    Args:
        times: float64 [n], ascending seconds.
        prediction, truth: int [n], class ids; -1 where nothing is labelled.
        confidence: float [n], the probability of what was predicted.
        present: instrument -> times float64 [m] at which it is known whether it is there, and bool [m], whether it is.
    """
    start, end = shown_spans(times)

    def band(name: str, kind: str, labels: np.ndarray) -> Band:
        return Band(name, kind, _rounded(segments(labels, start, end)))

    bands, accuracy = [band(PREDICTION, "classes", prediction)], None
    if truth is not None and (known := truth >= 0).any():
        accuracy = float((truth == prediction)[known].mean())
        wrong = np.where(known & (truth != prediction), 0, -1)
        bands = [band("Truth", "classes", truth), *bands, band("Wrong", "wrong", wrong)]
    instruments = tuple(
        Band(name, "present", _rounded(segments(np.where(there, 0, -1), *shown_spans(seconds))))
        for name, (seconds, there) in (present or {}).items()
        if there.any()
    )
    at = np.unique(np.linspace(0, len(times) - 1, min(_SURE, len(times))).astype(int))
    sure = tuple(round(float(value), 3) for value in confidence[at])
    ends = (round(float(start[0]), 3), round(float(end[-1]), 3))
    return OperationTimeline(video, *ends, tuple(classes), tuple(bands), sure, accuracy, instruments)


def write_timeline(folder: Path, timeline: OperationTimeline) -> Path:
    """Write `<video>-timeline.json`.

    Raises:
        SurgdinoError: the file system refused.
    """
    text = json.dumps(asdict(timeline), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return write_text(file_of(folder, timeline.video, ENDING), text + "\n")


def read_timeline(path: Path) -> OperationTimeline:
    """One of them.

    Raises:
        SurgdinoError: damaged; names the field.
    """
    return read_record(OperationTimeline, path, _FIX)


def read_timelines(folder: Path, most: int) -> list[OperationTimeline]:
    """The first of those of a run, or of a predicted video, by name; errors as `read_timeline`."""
    files = [*(folder / "predictions").rglob(f"*{ENDING}")] or [*folder.glob(f"*{ENDING}")]
    return [read_timeline(file) for file in sorted(files)[:most]]


def _rounded(spans: Sequence[tuple[int, float, float]]) -> tuple[tuple[int, float, float], ...]:
    return tuple((label, round(first, 3), round(last, 3)) for label, first, last in spans)
