"""YAML from disk or from other people: what it may cost to read is limited, and it is data alone."""

from __future__ import annotations

import os
from itertools import pairwise

import pytest

from surgdino.config import read_yaml
from surgdino.errors import SurgdinoError
from surgdino.yaml_files import SIZE_LIMIT, read_settings

_LEVELS = "abcdefghij"
_BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n" for before, name in pairwise(_LEVELS)
)
BAD = {
    "cut": (b"train: {lr: 1", "not valid YAML"),
    "list": (b"[1, 2]", "keys with values"),
    "number": (b"5", "keys with values"),
    "empty": (b"", "keys with values"),
    "latin1": ("name: \u00dcbung".encode("latin-1"), "not UTF-8"),
    "binary": (bytes(range(256)), "not UTF-8"),
    "control": (b"a: \x00", "not valid YAML"),
    "python": (b"a: !!python/object/apply:os.system [touch EXECUTED]", "not valid YAML"),
    "bomb": (_BOMB.encode(), "too many values"),
    "itself": (b"a: &a [*a]", "an alias to itself"),
    "deep": (b"a: " + b"[" * 5000 + b"]" * 5000, "too deeply nested"),
    "digits": (b"a: " + b"9" * 5000, "not valid YAML"),
    "key": (b"? [1, 2]\n: 3", "not valid YAML"),
    "large": (b"#" * (SIZE_LIMIT + 1), "too large"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_settings_is_one_line_that_names_the_file(name, tmp_path):
    content, said = BAD[name]
    (tmp_path / "config.yaml").write_bytes(content)
    for read in (read_settings, read_yaml) if content else (read_settings,):
        with pytest.raises(SurgdinoError, match=rf"config\.yaml.*{said}|config\.yaml: not settings") as caught:
            read(tmp_path / "config.yaml")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "EXECUTED").exists()


def test_a_named_pipe_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "config.yaml")
    with pytest.raises(SurgdinoError, match="named pipe"):
        read_settings(tmp_path / "config.yaml")


def test_aliases_and_dates_are_read(tmp_path):
    (tmp_path / "config.yaml").write_text("a: &x [1, 2]\nb: *x\n3: 2026-11-25\nlr: 1.0e-05\n")
    values = {"a": [1, 2], "b": [1, 2], "3": "2026-11-25", "lr": 1e-5}
    assert read_settings(tmp_path / "config.yaml") == values
