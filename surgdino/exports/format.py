"""What a format is: it writes a model into a folder and reads it again with the other program alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from surgdino import discovery
from surgdino.exports.graph import Graph, Subject

PACKAGE = "surgdino.exports.formats"

Program = Callable[[Tensor], tuple[Tensor, ...]]  # the outputs of a graph, in its order


class Format(ABC):
    """A way to write a model.

    Attributes:
        NEEDS: packages beside ours, which `pip install 'surgdino[NAME]'` brings.
        LIBRARY: what reads it, as the hub calls it.
        HEADS: whether it takes the head of a task with the backbone.
        OTHER_SIZES: whether it takes pictures of another size than the usual one.
    """

    NEEDS: tuple[str, ...] = ()
    LIBRARY: str
    HEADS = False
    OTHER_SIZES = False

    @abstractmethod
    def write(self, subject: Subject, folder: Path) -> None:
        """Write the files into an empty folder.

        Raises:
            SurgdinoError: the other program has no such model.
        """

    @abstractmethod
    def read(self, subject: Subject, folder: Path) -> Mapping[str, Program]:
        """What the other program makes of them, by the names of the graphs."""

    @abstractmethod
    def use(self, subject: Subject, folder: str) -> str:
        """Python, for the card: from `images`, the input of the first graph, to what comes out."""


def open_format(name: str) -> Format:
    """The format of this name.

    Raises:
        SurgdinoError: there is none, or a package that it needs is not installed.
    """
    module = discovery.load(PACKAGE, name, "format")
    found: Format = discovery.defined(module, Format)()  # type: ignore[type-abstract]
    discovery.require_packages(found.NEEDS, f"format={name}", name, "use format=timm or format=torch_export")
    return found


def one_after_another(graphs: Sequence[Graph], lines: Callable[[Graph, str, str], Sequence[str]]) -> list[str]:
    """Python that opens and calls each program, the first with `images`, another with the first output before it.

    Args:
        lines: (graph, its outputs as the left side of an assignment, what it is given) -> the lines of one.
    """
    found, given = list[str](), "images"
    for graph in graphs:
        names = list(graph.outputs)
        found += lines(graph, ", ".join(names), given)
        given = names[0]
    return found


def shapes_of(graph: Graph) -> str:
    """What a graph takes and gives, in a line of a comment."""
    given = "; ".join(f"{name} {said}" for name, said in graph.outputs.items())
    return f"{graph.takes}: float32 {graph.taking} -> {given}"
