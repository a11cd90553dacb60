"""SIGKILL a toy run at random moments, saving included, and see that every one resumes to the very same weights.

    OMP_NUM_THREADS=1 python tests/campaigns/kill_training.py --kills 100
    OMP_NUM_THREADS=1 python tests/campaigns/kill_training.py --kills 100 --of finetune

Every trial is a fresh run: a child process trains and is killed, either after a random time or in the midst of a random
call that writes (fsync, rename, torch.save, safetensors), most of which a thread makes beside the training; another
child runs the same plan to its end. All of its final tensors
(student, teacher, optimiser moments; of a fine-tuning those of its two stages and of its checkpoints, and its numbers)
must equal those of a run that nobody disturbed, bit for bit.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from safetensors.torch import load_file

from surgdino.backbone import checkpoint
from surgdino.backbone.checkpoint import load
from surgdino.cli.main import main as main_of
from surgdino.engine.state_files import load_state
from surgdino.engine.train import train
from tests.engine.test_training import final_tensors, plan_in
from tests.tasks.sets import set_of, words_of

STEPS = 12
WRITES = ((os, "fsync"), (os, "replace"), (torch, "save"), (checkpoint, "save_file"))


@dataclass(frozen=True)
class Kind:
    """What is killed.

    Attributes:
        train: in a run folder, to the end.
        digest: one hash over all that a finished run has.
        writes: calls that write, of which the deadly one is drawn.
    """

    train: Callable[[Path], object]
    digest: Callable[[Path], str]
    writes: int


def run_child(kind: Kind, folder: Path, before: Callable[[], None] = lambda: None) -> int:
    """Start a child that trains in `folder`; its process id."""
    child = os.fork()
    if child:
        return child
    try:
        # The run's own lines would drown the campaign's.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        before()
        kind.train(folder)
        os._exit(0)
    except BaseException as error:
        print(f"child: {error!r}", file=sys.stderr)
        os._exit(1)


def die_in_write(number: int, seen: Path) -> None:
    """Make this process kill itself in its `number`-th call that writes: before an odd one, after an even one.

    Args:
        seen: a file that is made where the call is of another thread than the main one.
    """
    count = iter(range(1, 1_000_000))

    def deadly(call: Callable) -> Callable:
        def wrapped(*arguments, **keywords):
            here = next(count) == number
            if here and threading.current_thread() is not threading.main_thread():
                seen.touch()
            if here and number % 2:
                os.kill(os.getpid(), signal.SIGKILL)
            value = call(*arguments, **keywords)
            if here:
                os.kill(os.getpid(), signal.SIGKILL)
            return value

        return wrapped

    for module, name in WRITES:
        setattr(module, name, deadly(getattr(module, name)))


def pretrain(folder: Path) -> None:
    """A toy pretraining."""
    train(plan_in(folder, steps=STEPS, checkpoint_every=2))


def of_pretraining(folder: Path) -> str:
    """Every tensor of the newest state and of the checkpoint that users get."""
    return digest(final_tensors(folder) | {f"shipped.{k}": v for k, v in load(folder).state_dict().items()})


def finetune(folder: Path) -> None:
    """Two stages of a toy: a classifier with its backbone on pictures, then a temporal model."""
    words = (f"train.steps={STEPS}", "train.checkpoint_every=2", "train.validate_every=5", "train.warmup=0.1")
    more = ("backbone=full", "augment.on=gpu", "log.to=[]", "run.names=plain")
    assert main_of(words_of("phase", folder.parent / "data", folder, *words, *more)) == 0


def of_finetuning(folder: Path) -> str:
    """Every tensor of the newest states of both stages, of `last` and `checkpoint`, and the numbers."""
    tensors = dict[str, torch.Tensor]()
    for stage in sorted({file.parent for file in (folder / "state").glob("*/[0-9]*.pt")}):
        state = load_state(stage, print)
        moments = {f"{k}.{n}": v for k, each in state["optimizer"]["state"].items() for n, v in each.items()}
        for part, named in {"model": state["model"], "best": state["best"]["weights"], "moments": moments}.items():
            tensors |= {f"{stage.name}.{part}.{name}": value for name, value in named.items()}
    for file in sorted(folder.glob("*/*.safetensors")):
        tensors |= {f"{file.parent.name}.{file.stem}.{k}": v for k, v in load_file(file).items()}
    return digest(tensors, json.dumps(json.loads((folder / "results.json").read_text())["scores"]))


def digest(tensors: dict[str, torch.Tensor], said: str = "") -> str:
    """One hash over them."""
    hashed = hashlib.sha256(said.encode())
    for name in sorted(tensors):
        hashed.update(name.encode() + tensors[name].contiguous().numpy().tobytes())
    return hashed.hexdigest()


KINDS = {"pretrain": Kind(pretrain, of_pretraining, 6 * STEPS), "finetune": Kind(finetune, of_finetuning, 150)}


def trial(kind: Kind, folder: Path, rng: random.Random, seconds: float, in_write: bool) -> tuple[str, bool, bool]:
    """Kill one run and resume it: the digest of its end, whether the kill left a half-written file, and whether it came
    in a call of the writing thread."""
    seen = folder.with_suffix(".thread")
    if in_write:
        number = rng.randrange(1, kind.writes)
        os.waitpid(run_child(kind, folder, lambda: die_in_write(number, seen)), 0)
    else:
        child = run_child(kind, folder)
        time.sleep(rng.uniform(0, seconds))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    half_written = any(folder.rglob("*.tmp"))
    _, status = os.waitpid(run_child(kind, folder), 0)
    return (kind.digest(folder) if status == 0 else f"exit status {status}"), half_written, seen.exists()


def main() -> int:
    """Run the campaign; 0 where every trial ended as the undisturbed run did."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--of", choices=KINDS, default="pretrain")
    options = parser.parse_args()
    kind = KINDS[options.of]
    rng, root = random.Random(options.seed), Path(tempfile.mkdtemp(prefix="kill-training-"))
    if options.of == "finetune":
        set_of("phase").write(root / "data")
        os.waitpid(run_child(kind, root / "first"), 0)  # builds the store
    started = time.monotonic()
    _, status = os.waitpid(run_child(kind, root / "undisturbed"), 0)
    assert status == 0, "the undisturbed run failed"
    seconds, expected = time.monotonic() - started, kind.digest(root / "undisturbed")
    good = caught_saving = caught_thread = 0
    for number in range(options.kills):
        found, half_written, in_thread = trial(kind, root / f"{number}", rng, seconds, in_write=bool(number % 2))
        good, caught_saving = good + (found == expected), caught_saving + half_written
        caught_thread += in_thread
        if found != expected:
            print(f"trial {number}: {found} is not {expected}; kept in {root / str(number)}")
        else:
            shutil.rmtree(root / f"{number}")
    print(
        f"{good} of {options.kills} killed runs resumed to the same weights; {caught_saving} left a half-written file, "
        f"{caught_thread} died in a call of the writing thread"
    )
    return 0 if good == options.kills else 1


if __name__ == "__main__":
    sys.exit(main())
