"""Label files as JSON with spans of time, `{"phases": [{start, end, label_name, label_id}, ...]}`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from surgdino.datasets.class_names import class_finder
from surgdino.datasets.manifest import Problem, SegmentLabels
from surgdino.datasets.workflow import SECONDS, LabelFiles
from surgdino.errors import SurgdinoError
from surgdino.records import checked

_COPY = "copy the file again from the release"


@dataclass(frozen=True)
class _Span:
    start: float
    end: float
    label_id: int
    label_name: str | None = None


def read_spans(
    content: Any, path: Path, files: LabelFiles, classes: Sequence[str]
) -> tuple[SegmentLabels | None, list[Problem]]:
    """The labels of one kind, and the first problem of each sort; spans with a fault are left out.

    Args:
        content: of the file.
        path: the file, for messages.

    Raises:
        SurgdinoError: another form of JSON.
    """
    key, problems, find = str(files.spans), dict[str, Problem](), class_finder(classes)
    if not isinstance(content, dict) or key not in content:
        found = ", ".join(map(str, content))[:80] if isinstance(content, dict) else "no object"
        raise SurgdinoError(f"no list {key}", file=path, expected=f"{key} with start, end, label_id", found=found)

    def tell(what: str, number: int, expected: object, found: object) -> None:
        problems.setdefault(what, Problem("error", what, path, f"{key}[{number}]", expected, found, _COPY))

    try:
        spans = checked(list[_Span], content[key], path, _COPY, more=True)
    except SurgdinoError as error:
        raise error.but(place=key) from error
    rows: list[tuple[float, float, int, int]] = []
    for number, span in enumerate(spans):
        if span.label_id in files.unlabelled:
            continue
        place = span.label_id - files.first_id
        named = place if span.label_name is None else find(span.label_name)
        if not 0 <= place < len(classes):
            last = files.first_id + len(classes) - 1
            tell(f"a {files.kind} of no class", number, f"{files.first_id} to {last}", span.label_id)
        elif named != place:
            what = f"the name of a {files.kind} is not the one of its id"
            tell(what, number, f"{classes[place]} for {span.label_id}", repr(span.label_name))
        elif not 0 <= span.start < span.end:
            expected = "a start from 0 and an end after it"
            tell("a span that ends before it starts", number, expected, f"{span.start:g} to {span.end:g}")
        else:
            rows.append((span.start, span.end, place, number))
    rows.sort()
    for (_, end, _, before), (start, _, _, number) in pairwise(rows):
        if start < end:
            tell(
                f"two {files.kind} spans overlap",
                number,
                f"a start of {end:g} or later, where {key}[{before}] ends",
                f"{start:g}",
            )
    if not rows:
        return None, list(problems.values())
    scale = SECONDS.get(files.unit, 1.0)
    starts, ends = (np.array([row[column] for row in rows]) * scale for column in (0, 1))
    ends = np.minimum(ends, np.append(starts[1:], np.inf))
    ids = np.array([row[2] for row in rows], np.int16)
    kept = ends > starts  # of two that start together the first is left with nothing
    labels = SegmentLabels(starts[kept], ends[kept], ids[kept], by_frame=files.unit == "frame")
    return labels, list(problems.values())
