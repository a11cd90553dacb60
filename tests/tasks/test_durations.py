"""How long a video shows each of its classes."""

from __future__ import annotations

import numpy as np

from surgdino.tasks.durations import durations, print_durations


def test_a_frame_stands_for_the_time_up_to_the_next_one_but_not_over_a_gap():
    present = np.array([[0, 1, 0], [1, 1, 0], [1, 0, 0], [1, 0, 0], [0, 0, 0], [1, 0, 0]], bool)
    # Class 0: 1 s, 3 s, 1 s and, of the last frame, the median of 1 s; in two stretches from 1 s on.
    assert durations(np.array([0.0, 1, 2, 5, 6, 7]), present) == [(1, 2.0, 1, 0.0), (0, 6.0, 2, 1.0)]
    # The third frame is followed by a gap: 1 s of it counts, and what comes after is a stretch of its own.
    assert durations(np.array([0.0, 1, 2, 50, 51, 52]), present) == [(1, 2.0, 1, 0.0), (0, 4.0, 3, 1.0)]
    # Times that no sum gives exactly leave no gap between neighbours.
    times = np.arange(1000) / 29.97 + 0.1
    assert durations(times, np.ones((1000, 1), bool))[0][2] == 1


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
