"""Errors are one line and survive the way between processes; writes are whole or not there at all."""

from __future__ import annotations

import errno
import pickle

import pytest

from surgdino.errors import SurgdinoError, from_os_error, nearest
from surgdino.paths import atomic_write


def test_an_error_is_one_line_with_all_its_parts():
    error = SurgdinoError("row is broken\nbadly", file="a b.txt", place="row 3", expected=7, found="x", fix="mend it")
    assert str(error) == "a b.txt, row 3: row is broken badly; expected 7, found x. Mend it."


def test_an_error_survives_pickling():
    error = SurgdinoError("bad", file="f", place=1, expected=2, found=3, fix="do")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_nearest_names_the_close_word_or_lists_them():
    assert nearest("stesp", ["steps", "seed"]) == "did you mean 'steps'?"
    assert nearest("zzz", ["steps", "seed"]) == "valid are: seed, steps"


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    target = tmp_path / "state.bin"
    target.write_text("old")

    def interrupted() -> None:
        with atomic_write(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError("killed here")

    with pytest.raises(RuntimeError):
        interrupted()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_is_said_plainly_and_keeps_the_old_file(tmp_path):
    target = tmp_path / "state.bin"
    target.write_text("old")

    def full() -> None:
        with atomic_write(target):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(SurgdinoError, match="disk is full"):
        full()
    assert target.read_text() == "old"


@pytest.mark.parametrize(
    ("number", "said"), [(errno.EACCES, "no permission"), (errno.ENOENT, "does not exist"), (errno.EIO, "refused")]
)
def test_what_the_system_refuses_is_one_line(number, said):
    told = str(from_os_error(OSError(number, "because"), "/data/x"))
    assert said in told
    assert "/data/x" in told


def test_a_written_file_has_the_rights_that_the_user_gives_new_files(tmp_path):
    target = tmp_path / "weights.bin"
    with atomic_write(target) as temporary:
        temporary.touch(mode=0o600)
    (tmp_path / "plain").touch()
    assert target.stat().st_mode == (tmp_path / "plain").stat().st_mode
