"""Programs that torch runs without timm or surgdino: `torch.export.load("FOLDER/NAME.pt2")`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from surgdino.exports.format import Format, Program, one_after_another, shapes_of
from surgdino.exports.graph import Graph, Subject

_MOST = 4096  # rows of a batch; a video may have far more frames
_MOST_FRAMES = 1 << 20


class TorchExport(Format):
    """A `.pt2` for each graph: pictures of the usual size, any number of them."""

    LIBRARY, HEADS = "torch", True

    def write(self, subject: Subject, folder: Path) -> None:
        """The traced programs, with what they are beside the weights."""
        for graph in subject.graphs:
            torch.export.save(traced(graph), folder / f"{graph.name}.pt2", extra_files=subject.facts())

    def read(self, subject: Subject, folder: Path) -> Mapping[str, Program]:
        """By torch alone."""
        return {graph.name: _called(folder / f"{graph.name}.pt2") for graph in subject.graphs}

    def use(self, subject: Subject, folder: str) -> str:
        """See `Format`."""

        def of(graph: Graph, outputs: str, given: str) -> list[str]:
            opened = f'torch.export.load("{folder}/{graph.name}.pt2").module()'
            lone = "," * (len(graph.outputs) == 1)
            return [f"{graph.name} = {opened}", f"{outputs}{lone} = {graph.name}({given})  # {shapes_of(graph)}"]

        return "\n".join(["import torch", "", *one_after_another(subject.graphs, of)])


def traced(graph: Graph) -> torch.export.ExportedProgram:
    """The program of a graph, whose first dimension is free."""
    rows = torch.export.Dim("rows", min=graph.least, max=_MOST if graph.takes == "images" else _MOST_FRAMES)
    return as_program(graph, lambda example: torch.export.export(graph.module, (example,), dynamic_shapes=({0: rows},)))


def as_program(graph: Graph, make: Callable[[Tensor], Any]) -> Any:
    """What `make` makes of an example of the input, without gradients and without kernels for one batch size."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad():
            return make(torch.zeros(max(graph.least, 2) + 3 * (graph.takes != "images"), *graph.row))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _called(file: Path) -> Program:
    program = torch.export.load(file).module()
    return lambda given: tuple(program(given))
