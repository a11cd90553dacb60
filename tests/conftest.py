"""What many tests share: one thread, fp32, the folder of real data where there is one, a small synthetic Cholec80."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import pytest


@pytest.fixture(scope="session", autouse=True)
def fp32_unless_asked() -> Iterator[None]:
    """`hardware.precision=auto` means fp32 on every CPU here, also where it would find bf16: tests compare numbers.
    A test that means bf16 sets `hardware.precision=bf16`."""
    from tests.engine.gloo import no_bf16_on_cpu

    with pytest.MonkeyPatch.context() as patched:
        no_bf16_on_cpu(patched)
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real surgical data that SURGDINO_REAL_DATA names; tests that need it skip without it."""
    folder = os.environ.get("SURGDINO_REAL_DATA")
    if not folder:
        pytest.skip("SURGDINO_REAL_DATA is not set: no real surgical data on this machine")
    path = Path(folder).resolve()
    assert path.is_dir(), f"SURGDINO_REAL_DATA={folder} is not a folder"
    return path


@pytest.fixture(scope="session")
def synthetic_cholec80(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Cholec80-layout set: four H.264 videos with their phase and tool annotations. Read-only for tests."""
    from surgdino.datasets.synthetic.cholec80 import write_cholec80

    root = tmp_path_factory.mktemp("cholec80")
    write_cholec80(root, videos=4, seconds=12, size=(240, 160), seed=0, public_ids=True)
    return root


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a test marked `quick("a", "b")`, the cases whose id has neither word are `slow`."""
    for item in items:
        if " at 0x" in item.name:  # differs in each process, so that none of the tests could be shared out
            raise pytest.UsageError(f"{item.nodeid}: an address is no name; give `ids`")
        quick = item.get_closest_marker("quick")
        if quick and not any(word in item.name.partition("[")[2] for word in quick.args):
            item.add_marker(pytest.mark.slow)
