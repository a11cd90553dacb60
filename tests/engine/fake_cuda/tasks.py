"""Fine-tune toy backbones on the fake device, and print what made the host wait.

    python -m tests.engine.fake_cuda.tasks "phase backbone=full" "segmentation task.head=linear"

A case is a task and words of the command; each prints a line of JSON: `{"case": ..., "stages": {stage: {"logged":
[[kind, line, what, times], ...], "unlogged": [...], "save": [...]}}, "features": [...]}`, of a step that writes a line,
of one that does not, of saving, and of a batch of features, of several, of a backbone that stays as it was.
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
import surgdino
from surgdino.cli.main import main as surgdino_main
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
    written = set[str]()
    with FakeCuda(Path(surgdino.__file__).parent) as device, tempfile.TemporaryDirectory() as folder:
        for number, case in enumerate(cases):
            task, *words = case.split()
            root = Path(folder) / task / "data"
            if task not in written:
                set_of(task).write(root)
                written.add(task)
            print(json.dumps({"case": case, **waits_of(device, words_of(task, root, Path(folder) / f"{number}", *ON_GPU, *words))}), flush=True)


def waits_of(device: FakeCuda, words: list[str]) -> dict[str, Any]:
    """Of every stage that the command trains."""
    stages: dict[str, Any] = {}

    def watched(stage: Stage, training: StageTraining, folder: Path, **more: Any) -> StageResult:
        found, run = {}, fit._Run(stage, replace(training, steps=9, log_every=2, epochs=1), folder, more["hardware"], {}, None)
        with run.writer:
            for (batch, waited), step in zip(run.batches(), ("first", "logged", "unlogged"), strict=False):
                device.waits.clear()
                fit._train_step(run, batch, waited)
                found[step] = seen(device)
            run.validate()  # nothing is told of its waits: that it runs says that it mixes no devices
            device.waits.clear()
            run.save()
            found["save"] = seen(device)
        stages[stage.name] = found
        return run.result("finished")

    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        stack.enter_context(mock.patch.object(finetune, "fit", watched))
        for name in ("save", "conclude"):
            stack.enter_context(mock.patch.object(finetune, name))
        assert surgdino_main(words) == 0
    return {"stages": stages}


if __name__ == "__main__":
    main(sys.argv[1:])
