"""Numbers in sentences."""

from __future__ import annotations

import pytest

from surgdino.wording import counted, duration, size


@pytest.mark.parametrize(("count", "words"), [(0, "0 frames"), (1, "1 frame"), (2, "2 frames"), (1200, "1,200 frames")])
def test_one_is_singular_and_any_other_number_is_not(count, words):
    assert counted(count, "frame") == words


def test_a_plural_of_its_own():
    assert counted(1, "process", "processes") == "1 process"
    assert counted(3, "process", "processes") == "3 processes"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (250, "4 min 10 s"), (11520, "3 h 12 min")]
)
def test_durations(seconds, words):
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("amount", "words"),
    [(1, "1 byte"), (12, "12 bytes"), (1500, "2 kB"), (2.61e6, "2.6 MB"), (7.4e8, "740 MB"), (1.23e13, "12.3 TB")],
)
def test_sizes(amount, words):
    assert size(amount) == words
