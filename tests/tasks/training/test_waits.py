"""A step of a fine-tuning never has the host wait for a GPU, but once where it writes a line; a test waits for what it
writes alone. Shown on a fake CUDA device."""

from __future__ import annotations

import json
import subprocess
import sys

from surgdino import discovery
from surgdino.tasks import task_names
from tests import ROOT
from tests.engine.test_waits import on_the_fake_device

TEMPORAL = ",".join(discovery.names("surgdino.tasks.phase.temporal"))
CASES = [f"{task} {words}" for task in task_names() for words in ("backbone=frozen", "backbone=full")]
CASES += [f"segmentation task.head={head}" for head in discovery.names("surgdino.tasks.segmentation.heads")]
CASES += [
    f"phase task.temporal=auto task.candidates=[{TEMPORAL}]",
    "tools backbone=lora augment=surgical task.tokens=attentive",
    "triplet backbone=last4 task.head=query",
    "segmentation task.window=32 task.classes=exclusive",
    "instances backbone=full task.head=centre",
]
PAIRED = "instances backbone=full"  # queries and objects are paired on the host


@on_the_fake_device
def test_no_step_waits_and_a_line_is_fetched_at_once():
    """All cases in one process, of its own: the fake device's library has to be loaded before torch."""
    command = [sys.executable, "-m", "tests.engine.fake_cuda.tasks", *CASES]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["case"] for row in rows] == CASES
    for row in rows:
        paired = [("sync", 1)] if row["case"] == PAIRED else []
        assert row["stages"], row["case"]
        for name, moments in row["stages"].items():
            found = {moment: [(kind, times) for kind, _, _, times in waits] for moment, waits in moments.items()}
            expected = {"unlogged": paired, "logged": [("fetch", 1), *paired], "save": [("fetch", 1)]}
            assert {moment: found[moment] for moment in expected} == expected, (row["case"], name, moments)
        most = 8  # batches or pictures, and what is asked once
        blocking = [wait for wait in row["test"] if wait[0] not in ("fetch", "sync", "read") or wait[3] > most]
        assert not blocking, (row["case"], blocking)
