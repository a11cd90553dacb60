"""Samples sit nearest to an even grid in time, without drift, without duplicates, always at least one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgdino.frames.video.decode import sample_numbers


def test_25_fps_at_1_fps_is_every_25th_frame():
    assert sample_numbers(np.arange(43326) / 25, 1.0).tolist() == list(range(0, 43326, 25))


@pytest.mark.parametrize("native", [24000 / 1001, 30000 / 1001, 60000 / 1001, 50])
def test_an_hour_does_not_drift(native):
    times = np.arange(round(3600 * native)) / native
    numbers = sample_numbers(times, 1.0)
    assert len(numbers) == 3600
    assert np.abs(times[numbers] - np.arange(3600)).max() <= 0.5 / native + 1e-9


def test_time_stamps_rounded_to_milliseconds_give_the_same_frames():
    times = np.arange(5000) / 25
    assert np.array_equal(sample_numbers(np.round(times, 3), 3), sample_numbers(times, 3))


def test_of_two_equally_near_frames_the_earlier_is_taken():
    assert sample_numbers(np.arange(26) / 25, 2).tolist() == [0, 12, 25]


def test_a_gap_gives_no_duplicates():
    assert sample_numbers(np.array([0.0, 0.5, 1.0, 9.6, 10.0]), 1).tolist() == [0, 2, 3, 4]


def test_a_video_shorter_than_the_step_gives_its_first_frame():
    assert sample_numbers(np.arange(10) / 25, 0.5).tolist() == [0]
    assert sample_numbers(np.zeros(1), 1).tolist() == [0]


def test_none_takes_everything():
    assert sample_numbers(np.arange(7) / 25, None).tolist() == list(range(7))


@pytest.mark.parametrize("fps", [0, -1, float("nan")])
def test_a_rate_that_is_none_is_refused(fps):
    with pytest.raises(ValueError, match="positive"):
        sample_numbers(np.arange(5) / 25, fps)


@given(
    st.lists(st.floats(0.001, 5), min_size=1, max_size=60),
    st.floats(0.05, 40),
)
def test_any_video_gives_ascending_numbers_that_exist(steps, fps):
    times = np.concatenate([[0.0], np.cumsum(steps)])
    numbers = sample_numbers(times, fps)
    assert len(numbers) >= 1
    assert numbers[0] == 0
    assert numbers[-1] < len(times)
    assert (np.diff(numbers) > 0).all()


@given(st.lists(st.floats(0.001, 300), min_size=1, max_size=40), st.floats(0.05, 40))
def test_long_gaps_change_nothing_but_the_memory(steps, fps):
    times = np.concatenate([[0.0], np.cumsum(steps)])
    grid = np.arange(int((times[-1] + 1e-6) * fps) + 1) / fps
    after = np.clip(np.searchsorted(times, grid), 1, len(times) - 1)
    nearest = np.where(times[after] - grid < grid - times[after - 1] - 1e-6, after, after - 1)
    assert sample_numbers(times, fps).tolist() == np.unique(nearest).tolist()


def test_a_gap_of_fifty_years_costs_nothing():
    assert sample_numbers(np.array([0, 0.5, 1.0, 1.7e9, 1.7e9 + 1]), 1e3).tolist() == [0, 1, 2, 3, 4]
