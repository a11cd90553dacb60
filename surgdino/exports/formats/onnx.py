"""Graphs for onnxruntime and whatever else reads ONNX."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from surgdino.exports.format import Format, Program, one_after_another, shapes_of
from surgdino.exports.formats.torch_export import traced
from surgdino.exports.graph import Graph, Subject

OPSET = 18


class Onnx(Format):
    """A `.onnx` for each graph: pictures of the usual size, any number of them; checked by onnxruntime on the CPU."""

    NEEDS = ("onnx", "onnxscript", "onnxruntime")
    LIBRARY, HEADS = "onnx", True

    def write(self, subject: Subject, folder: Path) -> None:
        """The graphs with their weights; `metadata_props` say what they are."""
        for graph in subject.graphs:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the exporter's own, on what it will do differently one day
                written = _written(graph)
            written.model.metadata_props.update(subject.facts())
            written.save(folder / f"{graph.name}.onnx", external_data=False)

    def read(self, subject: Subject, folder: Path) -> Mapping[str, Program]:
        """By onnxruntime alone."""
        return {graph.name: _called(folder / f"{graph.name}.onnx", graph) for graph in subject.graphs}

    def use(self, subject: Subject, folder: str) -> str:
        """See `Format`."""

        def of(graph: Graph, outputs: str, given: str) -> list[str]:
            opened = f'onnxruntime.InferenceSession("{folder}/{graph.name}.onnx")'
            call = f'{graph.name}.run(None, {{"{graph.takes}": {given}}})'
            lone = "," * (len(graph.outputs) == 1)
            return [f"{graph.name} = {opened}", f"{outputs}{lone} = {call}  # {shapes_of(graph)}"]

        return "\n".join(["import onnxruntime", "", *one_after_another(subject.graphs, of)])


def _written(graph: Graph) -> Any:
    with torch.no_grad():
        return torch.onnx.export(
            traced(graph),
            input_names=[graph.takes],
            output_names=list(graph.outputs),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )


def _called(file: Path, graph: Graph) -> Program:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])

    def run(given: Tensor) -> tuple[Tensor, ...]:
        return tuple(map(torch.from_numpy, session.run(None, {graph.takes: given.numpy()})))

    return run
