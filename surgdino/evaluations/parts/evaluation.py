"""`class Evaluation`: what `surgdino benchmark` asks of an evaluation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from surgdino import discovery
from surgdino.config import typed
from surgdino.evaluations import PACKAGE
from surgdino.evaluations.parts.given import Given
from surgdino.evaluations.parts.outcome import Outcome
from surgdino.tasks.features.cache import FeatureCache

S = TypeVar("S")  # the settings


class Reading(NamedTuple):
    """Kept features, at the size of the cache's input; class and mean tokens of the last block come with all others.

    Attributes:
        patches, classes: blocks whose patch tokens and whose class tokens are read.
    """

    features: FeatureCache
    patches: tuple[int, ...] = ()
    classes: tuple[int, ...] = ()


class Evaluation(ABC, Generic[S]):
    """Something that is measured of frozen features. A new one is a file `evaluations/NAME.py` with one subclass.

    Attributes:
        Settings: the dataclass of its entry in a suite, which gives every value.
        compares: whether it reads the first backbone's features beside those that it is about.
        tabled: whether it reads what `data.table` says of operations.
        settings: of this one.
    """

    Settings: type[S]
    compares: ClassVar[bool] = False
    tabled: ClassVar[bool] = False

    def __init__(self, settings: S) -> None:
        self.settings = settings

    @abstractmethod
    def labels(self) -> tuple[str | None, ...]:
        """The kinds of labels it can use, keys of `Manifest.labels`, each by itself; None for frames without labels."""

    def reads(self, features: FeatureCache) -> list[Reading]:
        """Which of a backbone's kept features it reads: class tokens, where this is not overridden. Those of all
        evaluations are computed together; nothing here for one that computes its own.
        """
        return [Reading(features)]

    @abstractmethod
    def outcomes(self, given: Given) -> Iterator[Outcome]:
        """What it finds; `given.frames` have one of the kinds of `labels`. Nothing, where these frames have nothing to
        find; that is listed, and is no failure.

        Raises:
            SurgdinoError: the data do not have what it needs, such as a second operation to learn from.
        """


def open_evaluation(name: str, section: Mapping[str, Any], place: str) -> Evaluation[Any]:
    """The evaluation of that name with its settings checked.

    Args:
        place: of the settings, for messages.

    Raises:
        SurgdinoError: no such evaluation (the nearest is named), or settings that it does not take.
    """
    kind: type[Evaluation[Any]] = discovery.defined(
        discovery.load(PACKAGE, name, "evaluation"),
        Evaluation,  # type: ignore[type-abstract]
    )
    return kind(typed(kind.Settings, section, place))
