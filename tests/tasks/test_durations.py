"""How long a video shows each of its classes."""

from __future__ import annotations

import numpy as np

from surgdino.tasks.durations import durations, print_durations


def test_a_frame_stands_for_the_time_up_to_the_next_one():
    times = np.array([0.0, 1, 2, 5, 6])
    present = np.array([[0, 1, 0], [1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 0, 0]], bool)
    # Class 0: 1 s, 3 s and, of the last frame, the median of 1 s; in two stretches from 1 s on.
    assert durations(times, present) == [(1, 2.0, 1, 0.0), (0, 5.0, 2, 1.0)]


def test_the_table_names_what_is_never_there_and_fits(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    present = np.zeros((120, 2), bool)
    present[30:90, 0] = True
    print_durations("phase", np.arange(120.0), present, ["Preparation", "Clipping"])
    said = capsys.readouterr().out
    row = next(line for line in said.splitlines() if "Preparation" in line)
    assert row.split() == ["Preparation", "1", "min", "0", "s", "50.0", "1", "30", "s"]
    assert "2 min 0 s in all; shares in %; never: Clipping" in said


def test_a_single_picture_has_no_duration(capsys):
    print_durations("phase", np.array([0.0]), np.ones((1, 1), bool), ["a"])
    assert capsys.readouterr().out == ""
