"""The heavy campaigns, small: docs/engine.md has the figures of the full ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CAMPAIGNS = Path(__file__).resolve().parent


@pytest.mark.slow
@pytest.mark.parametrize("of", ["pretrain", "finetune"])
def test_killed_runs_resume_to_the_same_weights(of):
    command = [sys.executable, str(CAMPAIGNS / "kill_training.py"), "--kills", "4", "--of", of]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 of 4 killed runs resumed" in done.stdout


@pytest.mark.slow
def test_a_sample_of_hostile_inputs_is_right_or_refused():
    command = [sys.executable, str(CAMPAIGNS / "hostile_inputs.py"), "--every", "40"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| **all** |" in done.stdout
