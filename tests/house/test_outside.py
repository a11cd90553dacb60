"""What comes from outside: names are made harmless, JSON is read within limits, texts cannot steer a terminal."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field

from surgdino.errors import SurgdinoError, shown
from surgdino.paths import inside, read_bytes, regular, safe_name
from surgdino.records import checked, parse_json, read_json, read_record

HARMFUL = [
    "../../x",
    "/etc/passwd",
    "a/b",
    "..",
    ".",
    "",
    "...mp4",
    "-rf",
    "a\x00b",
    "a\nb",
    "C:\\x",
    "x" * 400,
    "\udcff",
    "con*",
    "🙂/",
]


@pytest.mark.parametrize("text", HARMFUL)
def test_a_harmful_text_becomes_one_visible_name_inside_the_folder(text, tmp_path):
    name = safe_name(text)
    assert inside(tmp_path, name).parent == tmp_path
    (tmp_path / name).write_text("")
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    assert not name.startswith((".", "-"))


@pytest.mark.parametrize("text", ["VID68", "abdominal wall", "op 1 (2)", "Ösophagus", "a.b-c_d"])
def test_a_harmless_text_stays(text):
    assert safe_name(text) == text


def test_different_texts_have_different_names():
    texts = [*HARMFUL, "a_b", "a?b", "unnamed", "x" * 401]
    assert len({safe_name(text) for text in texts}) == len(texts)


@pytest.mark.parametrize("name", ["../x", "/x", "link/x", ".", ""])
def test_a_path_that_leads_outside_is_refused(name, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link").symlink_to(tmp_path)
    with pytest.raises(SurgdinoError, match="outside"):
        inside(tmp_path / "folder", name)


def test_what_is_no_file_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
    for path, kind in {
        tmp_path / "pipe": "pipe",
        tmp_path / "socket": "socket",
        tmp_path: "folder",
        Path(os.devnull): "device",
    }.items():
        with pytest.raises(SurgdinoError, match=kind):
            read_bytes(path, 10)
    for missing in (tmp_path / "none", tmp_path / "nu\x00ll", tmp_path / ("x" * 300)):
        with pytest.raises(SurgdinoError):
            regular(missing)


def test_a_file_larger_than_its_limit_is_not_taken(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    assert read_bytes(tmp_path / "a", 5) == b"12345"
    with pytest.raises(SurgdinoError, match="at most 4 bytes, found 5"):
        read_bytes(tmp_path / "a", 4)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"a": NaN}',
        "[1e999]",
        "-Infinity",
        "[" * 100 + "]" * 100,
        "[" * 100_000,
        "\udcff".encode("utf-8", "surrogateescape"),
        b"\xff\xfe{\x00",
    ],
)
def test_json_that_cannot_be_meant_is_one_line(text, tmp_path):
    (tmp_path / "x.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SurgdinoError, match=r"x\.json") as refused:
        read_json(tmp_path / "x.json")
    assert "\n" not in str(refused.value)


@dataclass(frozen=True)
class Record:
    width: Annotated[int, Field(ge=1, le=10)]
    names: tuple[str, ...]
    shares: dict[str, float]
    note: str | None = None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"width": "3", "names": [], "shares": {}}', "width .* a whole number"),
        ('{"width": true, "names": [], "shares": {}}', "width"),
        ('{"width": 11, "names": [], "shares": {}}', "width .* at most 10"),
        ('{"width": 1, "names": [1], "shares": {}}', r"names\[0\] .* a text"),
        ('{"width": 1, "names": [], "shares": {"a": "b"}}', r"shares\.a .* a number"),
        ('{"width": 1, "names": []}', "shares is not set"),
        ('{"width": 1, "names": [], "shares": {}, "more": 1}', "unknown setting more"),
        ("[]", "not what it should hold"),
        ("3", "not what it should hold"),
    ],
)
def test_a_field_of_another_kind_is_named_with_its_file(text, words, tmp_path):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(SurgdinoError, match=rf"x\.json: {words}"):
        read_record(Record, tmp_path / "x.json")


def test_keys_of_a_later_version_may_be_left_out(tmp_path):
    values = parse_json('{"width": 1, "names": ["a"], "shares": {"a": 1}, "later": 1}', tmp_path)
    assert checked(Record, values, tmp_path, more=True) == Record(1, ("a",), {"a": 1.0})


def test_what_steers_a_terminal_is_made_visible():
    assert shown("a\x1b[31mb\nc\udcff\u202e") == r"a\x1b[31mb\nc\xff\u202e"
    assert "\x1b" not in str(SurgdinoError("damaged", file="a\x1b]0;x\x07.mp4"))
    assert len(shown("x" * 10_000, 80)) < 100
