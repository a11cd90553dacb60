"""Copies of recordings are found by prints and time, frame by frame."""

from __future__ import annotations

import numpy as np
import pytest

from surgdino.curation.copies import copied, stretches
from surgdino.frames.prints import Prints


def filmed(seconds: int, seed: int) -> np.ndarray:
    """uint8 [n, 9, 32]: a scene that changes slowly, so that neighbours are alike."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2, (9, 256))
    rows = []
    for _ in range(seconds):
        flip = rng.random((9, 256)) < 0.08
        bits = np.where(flip, 1 - bits, bits)
        bits[:, 255] = 0
        rows.append(np.packbits(bits, axis=1))
    return np.array(rows, np.uint8)


def encoded_again(bits: np.ndarray, seed: int) -> np.ndarray:
    wrong = np.random.default_rng(seed).random((*bits.shape, 8)) < 0.03
    return bits ^ np.packbits(wrong, axis=-1)[..., 0]


def prints(bits: np.ndarray, start: float = 0.0) -> Prints:
    return Prints(start + np.arange(len(bits), dtype=float), bits)


@pytest.fixture(scope="module")
def first() -> np.ndarray:
    return filmed(60, 1)


def test_a_whole_copy_an_excerpt_and_a_border(first):
    other = filmed(60, 2)
    excerpt = encoded_again(first[20:50], 4)
    cropped = excerpt.copy()
    cropped[:, 0], cropped[:, 4] = filmed(30, 9)[:, 0], excerpt[:, 0]  # its print with margins is the original's whole
    videos = [prints(first), prints(other), prints(encoded_again(first, 3)), prints(excerpt), prints(cropped)]
    found = stretches(videos)
    assert {(each.copy, each.original) for each in found} >= {(2, 0), (3, 0), (4, 0)}
    assert not any(1 in (each.copy, each.original) for each in found)
    video_of = np.repeat(np.arange(5), [60, 60, 60, 30, 30])
    times = np.concatenate([video.times for video in videos])
    stands_for = copied(found, times, video_of)
    assert np.array_equal(stands_for[:120], np.arange(120))
    assert np.array_equal(stands_for[120:180], np.arange(60))
    assert np.array_equal(stands_for[180:210], np.arange(20, 50))
    assert (stands_for[210:] == np.arange(20, 50)).mean() > 0.9


def test_frames_between_the_prints_and_another_rate_go_along(first):
    found = stretches([prints(first), prints(encoded_again(first[10:40], 5))])
    times = np.concatenate([np.arange(0, 60, 0.5), np.arange(0, 30, 0.5)])
    stands_for = copied(found, times, np.repeat([0, 1], [120, 60]))
    assert np.array_equal(stands_for[120:180], np.arange(20, 80))


def test_two_excerpts_joined_in_another_order(first):
    found = stretches([prints(first), prints(np.concatenate([first[30:50], first[:20]]))])
    stands_for = copied(found, np.concatenate([np.arange(60.0), np.arange(40.0)]), np.repeat([0, 1], [60, 40]))
    assert np.array_equal(stands_for[60:], np.concatenate([np.arange(30, 50), np.arange(20)]))


def test_operations_that_share_a_moment_are_no_copies(first):
    other = filmed(60, 6)
    other[7:9] = first[30:32]
    assert stretches([prints(first), prints(other)]) == []
    assert stretches([prints(first[:0]), prints(first[:0])]) == []
