"""Videos that several tests of the store build from."""

from __future__ import annotations

import shutil

import pytest

from tests.frames.faults import manifest_of
from tests.frames.numbered_video import write_video


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    first = write_video(root / "video0.mp4", 100)
    others = [shutil.copy(first, root / f"video{i}.mp4") for i in range(1, 6)]
    return manifest_of(root, [first, *others])
