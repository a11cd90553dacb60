"""What lies at the top of the repository."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = {".ci", ".github", "benchmarks", "configs", "datasets", "docs", "recipes", "surgdino", "tests"}


def test_no_folder_that_a_run_or_a_test_left_was_committed():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode or not listed.stdout:
        pytest.skip("not a git repository")
    assert {line.partition("/")[0] for line in listed.stdout.splitlines() if "/" in line} == FOLDERS
