"""The first and the last lines of a verb: what runs, at once and before torch is imported; what one would do next with
its result, and how long it took."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from surgdino import __version__, console
from surgdino.backbone.model_json import WEIGHTS
from surgdino.exit_code import ExitCode
from surgdino.wording import duration

_LABELS = {"phase": "phases", "triplet": "triplets", "tools": "tools", "segmentation": "mask_classes"}  # of a card
_CHOSEN = ("task", "dataset", "model", "method", "suite", "checkpoint")  # said of a command, where it has them


def run(verb: str, words: Sequence[object], values: Mapping[str, Any], main: Callable[[], int]) -> int:
    """Say what runs, run it, and say what comes next; its exit code.

    Args:
        words: what stands before the settings.
        values: the composed configuration; empty for verbs without one.
        main: imports the verb's module and calls it.
    """
    begun = time.monotonic()
    said = [shlex.quote(str(word)) for word in words]
    for key in _CHOSEN:
        found = values.get(key)
        name = found.get("name") if isinstance(found, Mapping) else found
        if name:
            said.append(f"{key}={', '.join(map(str, name)) if isinstance(name, list | tuple) else name}")
    console.say(" ".join([f"surgdino {__version__} {verb}", *said]), "dim")
    sys.stdout.flush()  # what is read through a pipe waits for its buffer otherwise
    code = main()
    if command := after(verb, code if isinstance(code, ExitCode) else ExitCode(code), values):
        console.command("next", command)
    console.field("time", duration(time.monotonic() - begun))
    return code


def after(verb: str, code: ExitCode, values: Mapping[str, Any]) -> str:
    """The command that one would write next; empty where there is none."""
    if code.stopped:
        return f"{_command(sys.argv[1:])} (goes on from here)"
    if verb == "verify" and code == 0 and values["data"]["root"]:
        return f"surgdino pretrain {_where(values)} model.weights=FILE"
    if code or code.folder is None:
        return ""
    run = shlex.quote(str(code.folder))
    if verb == "pretrain":
        return _after_pretraining(run, values)
    if verb == "curate":
        return f"surgdino pretrain {_where(values)} data.curation={run} model.weights=FILE"
    if verb == "predict":
        return _after_prediction(values["checkpoint"])
    checkpoint = shlex.quote(str(values.get("checkpoint") or ""))
    return {
        "finetune": f"surgdino predict VIDEO checkpoint={run}",
        "evaluate": f"surgdino predict VIDEO checkpoint={checkpoint}",
        "benchmark": f"surgdino share {run} out={run}-shared",
        "merge": f"surgdino export {run} format=timm out={run}-timm",
    }.get(verb, "")


def _after_pretraining(run: str, values: Mapping[str, Any]) -> str:
    """A task, where the data have its labels and operations to test on were left out; otherwise the way into timm."""
    card, data = values["dataset"], values["data"]
    task = next((task for task, classes in _LABELS.items() if card.get(classes)), "phase")
    tests = [
        name.partition("/")[2] for name in data.get("exclude") or () if name.startswith(f"test-of:{card['name']}/")
    ]
    split = data["split"] if isinstance(data["split"], str) and data["part"] else next(iter(tests), None)
    if split:
        return f"surgdino finetune task={task} {_where(values)} data.split={split} checkpoint={run}"
    return f"surgdino export {run} format=timm out={run}-timm"


def _after_prediction(checkpoint: str | Sequence[str]) -> str:
    """How good the run is on operations to test on; of several runs the first."""
    first = Path(checkpoint if isinstance(checkpoint, str) else checkpoint[0]).expanduser()
    places = (first, *sorted(first.glob("*")))
    run = next((each for each in places for name in ("", "checkpoint") if (each / name / WEIGHTS).is_file()), None)
    return f"surgdino evaluate checkpoint={shlex.quote(str(run))}" if run else ""


def _where(values: Mapping[str, Any]) -> str:
    return f"dataset={values['dataset']['name']} data.root={shlex.quote(str(values['data']['root']))}"


def _command(words: Sequence[str]) -> str:
    return shlex.join(["surgdino", *words])
