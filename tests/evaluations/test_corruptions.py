"""Corruptions: the same to the bit everywhere, worse with each severity, and nothing learnt from them."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import cv2
import numpy as np
import pytest

from surgdino.errors import SurgdinoError
from surgdino.evaluations.parts.corruptions import SEVERITIES, corruption_named, corruption_names

PROGRAM = """
import hashlib, sys
import numpy as np
from surgdino.evaluations.parts.corruptions import corruption_named, corruption_names
image = np.random.default_rng(0).integers(0, 256, (96, 120, 3), np.uint8)
for name in corruption_names()[::-1]:
    for severity in (5, 1, 3):
        made = corruption_named(name)(image, severity / 5)
        print(name, severity, hashlib.sha256(made.tobytes()).hexdigest())
"""


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (96, 120, 3), np.uint8)


@pytest.mark.parametrize("name", corruption_names())
def test_a_severity_is_the_same_to_the_bit_and_leaves_the_frame_alone(name):
    image = picture()
    before = image.copy()
    once, again = (corruption_named(name)(image, 3 / SEVERITIES) for _ in range(2))
    corruption_named(name)(picture(1), 1.0)
    assert once.dtype == np.uint8
    assert once.shape == image.shape
    assert np.array_equal(once, again)
    assert np.array_equal(once, corruption_named(name)(image, 3 / SEVERITIES))
    assert np.array_equal(image, before)
    assert not np.array_equal(once, image)


@pytest.mark.parametrize("name", corruption_names())
def test_a_higher_severity_changes_more(name):
    # Soft patches in the colours of tissue.
    patches = np.random.default_rng(0).integers((90, 20, 20), (250, 110, 110), (16, 20, 3)).astype(np.uint8)
    tissue = cv2.resize(patches, (160, 128), interpolation=cv2.INTER_CUBIC)
    changes = [np.abs(corruption_named(name)(tissue, s / 5).astype(int) - tissue).mean() for s in (1, 3, 5)]
    assert changes == sorted(changes)
    assert changes[2] > changes[0]


@pytest.mark.slow
def test_another_process_makes_the_same_pixels():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) == 3 * len(corruption_names())
    for name, severity, digest in lines:
        made = corruption_named(name)(picture(), int(severity) / 5)
        assert hashlib.sha256(made.tobytes()).hexdigest() == digest, name


def test_interlacing_by_hand():
    image = np.arange(256 * 40 * 3, dtype=np.uint32).reshape(256, 40, 3).astype(np.uint8)
    made = corruption_named("interlacing")(image, 0.5)
    assert np.array_equal(made[::2], image[::2])
    assert np.array_equal(made[1::2, 4:], image[1::2, :-4])


def test_an_unknown_corruption_names_the_nearest():
    with pytest.raises(SurgdinoError, match=r"there is no corruption 'smok'\. Did you mean 'smoke'"):
        corruption_named("smok")
