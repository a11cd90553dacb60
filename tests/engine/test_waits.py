"""A training step never has the host wait for a GPU, but once where it writes a line; shown on a fake CUDA device."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch

from surgdino import discovery
from surgdino.engine.probing.measures import probes
from tests import ROOT

METHODS = discovery.names("surgdino.engine.methods")
ALL = [f"{name}/{change}" for name in METHODS for change in ("plain", "all", "guided")]
ONCE = ("rotary", "stretched", "painted", "probed", "averaged", "anchored")
ALL += [*(f"simdinov2/{change}" for change in ONCE), "dinov2/half"]


def on_the_fake_device(test: Callable[..., None]) -> Callable[..., None]:
    """Marks of a test for which the fake device is compiled."""
    has_cuda, reason = torch.version.cuda is not None, "this torch has CUDA: its own profiler shows the waits"
    test = pytest.mark.skipif(has_cuda, reason=reason)(pytest.mark.slow(test))
    no_compiler = "no C++ compiler to build tests/engine/fake_cuda/guard.cpp with"
    return pytest.mark.skipif(shutil.which("c++") is None, reason=no_compiler)(test)


@on_the_fake_device
@pytest.mark.parametrize("cases", [["simdinov2/plain"], ALL], ids=["one", "all"])
def test_no_step_waits_and_a_line_is_fetched_at_once(cases):
    """All cases in one process, of its own: the fake device's library has to be loaded before torch."""
    command = [sys.executable, "-m", "tests.engine.fake_cuda.run", *cases]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["case"] for row in rows] == cases
    waits = {row["case"]: row["unlogged"] for row in rows if row["unlogged"]}
    assert not waits, "\n".join(f"{case}: {wait}" for case, found in waits.items() for wait in found)
    for row in rows:
        for moment in ("logged", "save"):  # each fetches the window's sums
            assert [(kind, times) for kind, _, _, times in row[moment]] == [("fetch", 1)], (row["case"], row[moment])
        # What each probe has found, and class tokens. Mean and deviation of pictures are made once a run; averaged
        # weights are made on the host.
        asked = [
            wait for wait in row["probe"] if not wait[1].startswith(("surgdino/backbone/", "surgdino/engine/saving"))
        ]
        assert {kind for kind, *_ in asked} <= {"fetch", "sync"}, (row["case"], asked)
        assert sum(times for *_, times in asked) <= 2 + len(probes()), (row["case"], asked)
