"""How a card says where a dataset's label files lie and what stands in them: its `workflow`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from surgdino.config import NonNegativeInt
from surgdino.errors import SurgdinoError

LabelKind = Literal["phase", "step", "tools", "action"]
SECONDS = {"second": 1.0, "millisecond": 1e-3}  # of one unit
_Name = Annotated[str, Field(pattern=r"^[^#/]*#[^#/]*$")]  # of a file
_Path = Annotated[str, Field(pattern=r"^[^#]*#[^#/]*$")]  # its last folders with it
_Column = NonNegativeInt | str


@dataclass(frozen=True)
class LabelFiles:
    """One kind of labels, in a file a video; a table, or JSON with a list of spans.

    Attributes:
        kind: of the labels.
        file: its name, `#` being the video's number or name.
        unit: what times count.
        when: the table's column of times, by place from 0 or by name.
        columns: those of the labels: ids of classes, or names of classes (phase, step).
        flags: each column says with 1 or 0 whether a class is there, in the order of the classes.
        first: the number of the first frame or second.
        first_id: of the first class.
        none: ids that say that nothing is there (tools, action).
        unlabelled: ids of rows or spans that say nothing.
        spans: the list, in JSON, of `{start, end, label_name, label_id}`; instead of `when` and `columns`.
        absent: videos that the release has no such file of.
    """

    kind: LabelKind
    file: _Name
    unit: Literal["frame", "second", "millisecond"]
    when: _Column = 0
    columns: tuple[_Column, ...] = (1,)
    flags: bool = False
    first: Literal[0, 1] = 0
    first_id: NonNegativeInt = 0
    none: tuple[int, ...] = ()
    unlabelled: tuple[int, ...] = ()
    spans: str | None = None
    absent: tuple[NonNegativeInt | str, ...] = ()


@dataclass(frozen=True)
class PickledFolds:
    """A published cross-validation: pickles of `{video: [{when, phase, step}, ...]}`, one a fold and part.

    Attributes:
        train, val, test: the end of a file's path, `#` being the fold, counted from 0.
        when: the key of a row's second.
        phase, step: the keys of its class ids.
    """

    train: _Path
    val: _Path
    test: _Path
    when: str
    phase: str
    step: str


@dataclass(frozen=True)
class WorkflowLayout:
    """The `workflow` of a card.

    Attributes:
        video: the name of a video's file without suffix, or of its folder of pictures, one a second; `#` as in
            `LabelFiles.file`.
        labels: what is labelled.
        first_picture: the number of a folder's first picture.
        folds: where the release has them as pickles.
    """

    video: _Name
    labels: Annotated[tuple[LabelFiles, ...], Field(min_length=1)]
    first_picture: NonNegativeInt = 1
    folds: PickledFolds | None = None

    def __post_init__(self) -> None:
        for files in self.labels:
            if len(files.columns) > 1 and files.kind in ("phase", "step"):
                what, expected = "dataset.workflow.labels cannot be used", f"one column for {files.kind}"
                raise SurgdinoError(what, expected=expected, found=str(files.columns))


def pattern_of(name: str, number: str) -> re.Pattern[str]:
    """What matches a file's name with `#` in it; its one group is what stands there.

    Args:
        number: what may stand there, as a regular expression.
    """
    before, _, after = name.partition("#")
    return re.compile(f"{re.escape(before)}({number}){re.escape(after)}", re.IGNORECASE)
