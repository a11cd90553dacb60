"""SIGKILL a toy run at random moments, saving included, and see that every one resumes to the very same weights.

    OMP_NUM_THREADS=1 python tests/campaigns/kill_training.py --kills 100

Every trial is a fresh run: a child process trains and is killed, either after a random time or in the midst of a random
call that writes (fsync, rename, torch.save, safetensors), most of which a thread makes beside the training; another
child runs the same plan to its end. All of its final tensors
(student, teacher, optimiser moments) must equal those of a run that nobody disturbed, bit for bit.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from surgdino.backbone import checkpoint
from surgdino.backbone.checkpoint import load
from surgdino.engine.train import train
from tests.engine.test_training import final_tensors, plan_in

STEPS = 12
WRITES = ((os, "fsync"), (os, "replace"), (torch, "save"), (checkpoint, "save_file"))


def run_child(folder: Path, before: Callable[[], None] = lambda: None) -> int:
    """Start a child that trains in `folder`; its process id."""
    child = os.fork()
    if child:
        return child
    try:
        # The run's own lines would drown the campaign's.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        before()
        train(plan_in(folder, steps=STEPS, checkpoint_every=2))
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


def digest(folder: Path) -> str:
    """One hash over every tensor of the newest state and of the checkpoint that users get."""
    tensors = final_tensors(folder) | {f"shipped.{k}": v for k, v in load(folder).state_dict().items()}
    hashed = hashlib.sha256()
    for name in sorted(tensors):
        hashed.update(name.encode() + tensors[name].contiguous().numpy().tobytes())
    return hashed.hexdigest()


def trial(folder: Path, rng: random.Random, seconds: float, in_write: bool) -> tuple[str, bool, bool]:
    """Kill one run and resume it: the digest of its end, whether the kill left a half-written file, and whether it came
    in a call of the writing thread."""
    seen = folder.with_suffix(".thread")
    if in_write:
        number = rng.randrange(1, 6 * STEPS)
        os.waitpid(run_child(folder, lambda: die_in_write(number, seen)), 0)
    else:
        child = run_child(folder)
        time.sleep(rng.uniform(0, seconds))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    half_written = any(folder.rglob("*.tmp"))
    _, status = os.waitpid(run_child(folder), 0)
    return (digest(folder) if status == 0 else f"exit status {status}"), half_written, seen.exists()


def main() -> int:
    """Run the campaign; 0 where every trial ended as the undisturbed run did."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, root = random.Random(options.seed), Path(tempfile.mkdtemp(prefix="kill-training-"))
    started = time.monotonic()
    _, status = os.waitpid(run_child(root / "undisturbed"), 0)
    seconds, expected = time.monotonic() - started, digest(root / "undisturbed")
    assert status == 0, "the undisturbed run failed"
    good = caught_saving = caught_thread = 0
    for number in range(options.kills):
        found, half_written, in_thread = trial(root / f"{number}", rng, seconds, in_write=bool(number % 2))
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
