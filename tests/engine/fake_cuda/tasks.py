"""Fine-tune toy backbones on the fake device, and print what made the host wait.

    python -m tests.engine.fake_cuda.tasks "phase backbone=full" "segmentation task.head=linear"

A case is a task and words of the command; each prints a line of JSON: `{"case": ..., "stages": {stage: {"logged":
[[kind, line, what, times], ...], "unlogged": [...], "save": [...]}}, "test": [...]}`, of a step that writes a line, of
one that does not, of saving, and of the whole test, four pictures at a time.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from tests.engine.fake_cuda.device import FakeCuda  # before anything that imports torch

# isort: split
from torch import nn

import surgdino
from surgdino.cli.main import main as surgdino_main
from surgdino.engine.hardware import Hardware
from surgdino.tasks.training import fit
from surgdino.tasks.training.fit import StageResult
from surgdino.tasks.training.stage import Stage, StageTraining
from surgdino.verbs import finetune
from tests.engine.fake_cuda.run import seen
from tests.tasks.sets import set_of, words_of

ON_GPU = ("hardware=cuda", "hardware.precision=bf16", "augment.on=gpu", "log.to=[]")


def main(cases: list[str]) -> None:
    """Print the waits of every case."""
    warnings.filterwarnings("ignore", message="Accessing the data pointer of FakeTensor")
    with FakeCuda(Path(surgdino.__file__).parent) as device, tempfile.TemporaryDirectory() as folder:
        for number, case in enumerate(cases):
            task, *words = case.split()
            root = Path(folder) / task / "data"
            if not root.exists():
                set_of(task).write(root)
            command = words_of(task, root, Path(folder) / str(number), *ON_GPU, *words)
            print(json.dumps({"case": case, **waits_of(device, command)}), flush=True)


def waits_of(device: FakeCuda, words: list[str]) -> dict[str, Any]:
    """Of every stage that the command trains, and of its test."""
    stages: dict[str, Any] = {}
    tested: list[list[Any]] = []

    def watched(stage: Stage, training: StageTraining, folder: Path, *, hardware: Hardware, **_: Any) -> StageResult:
        short = replace(training, steps=9, log_every=2, epochs=1)
        found, run = dict[str, Any](), fit._Run(stage, short, folder, hardware, {}, None)
        with run.writer:
            for (batch, waited), step in zip(run.batches(), ("first", "logged", "unlogged"), strict=False):
                device.waits.clear()
                fit._train_step(run, batch, waited)
                found[step] = seen(device)
            run.validate()
            device.waits.clear()
            run.save()
            found["save"] = seen(device)
        stages[stage.name] = found
        return run.result("finished")

    def test(run: finetune.Run, head: nn.Module, _: list[StageResult]) -> None:
        context = replace(run.context.alone(), batch_images=4)
        context.features.batch_size = 4
        device.waits.clear()
        run.task.evaluate(context, head.eval(), context.parts["test"], run.folder)
        tested.extend(seen(device))

    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        stack.enter_context(mock.patch.object(finetune, "fit", watched))
        stack.enter_context(mock.patch.object(finetune, "save"))
        stack.enter_context(mock.patch.object(finetune, "conclude", test))
        assert surgdino_main(words) == 0
    return {"stages": stages, "test": tested}


if __name__ == "__main__":
    main(sys.argv[1:])
