"""Files of arrays that others wrote are mapped or told in a line: none is waited for, run, or given more memory."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from surgdino.array_files import map_array
from surgdino.errors import SurgdinoError
from surgdino.evaluations.parts.kept import _read
from surgdino.tasks.features.files import FeatureFile


def header(shape: str, path: Path) -> None:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + bytes(64))


def archive(path: Path) -> None:
    with path.open("wb") as stream:
        np.savez(stream, np.zeros((3, 2)))


STRANGE = {
    "empty": Path.touch,
    "a named pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "a single number": lambda path: np.save(path, np.float32(1)),
    "objects": lambda path: np.save(path, np.array([{}], object), allow_pickle=True),
    "an archive": archive,
    "a shape of terabytes": partial(header, "(1000000000000, 64)"),
    "a shape beyond 64 bits": partial(header, "(10000000000000000000000, 64)"),
    "a negative shape": partial(header, "(-5, 64)"),
    "code as a shape": partial(header, "__import__('os').abort()"),
    "brackets": partial(header, "(" * 60),
    "a header of megabytes": lambda path: path.write_bytes(b"\x93NUMPY\x02\x00\xff\xff\x1f\x00" + b"(" * (1 << 21)),
}


@pytest.mark.parametrize("make", STRANGE.values(), ids=STRANGE)
def test_what_is_no_array_is_told_in_a_line_and_computed_again(tmp_path, make):
    path = tmp_path / "a.npy"
    make(path)
    with pytest.raises(SurgdinoError, match=r"a\.npy"):
        map_array(path)
    assert not FeatureFile(path, (3, 2), np.dtype(np.float32)).is_whole()
    assert _read(path, 3) is None


def test_what_is_one_is_read_and_another_shape_is_told(tmp_path):
    rows = np.arange(6, dtype=np.float32).reshape(3, 2)
    np.save(tmp_path / "a.npy", rows)
    assert np.array_equal(map_array(tmp_path / "a.npy"), rows)
    assert np.array_equal(_read(tmp_path / "a.npy", 3), rows)
    assert FeatureFile(tmp_path / "a.npy", (3, 2), np.dtype(np.float32)).is_whole()
    with pytest.raises(SurgdinoError, match=r"expected float32 \[4, 2\], found float32 \[3, 2\]"):
        FeatureFile(tmp_path / "a.npy", (4, 2), np.dtype(np.float32)).open()
