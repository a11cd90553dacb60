"""Masks drawn towards earlier frames: what flickers is calmed, what moves is followed, and the past alone counts."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F

from surgdino.tasks.segmentation.carry import Smoother

GRID = 8


class Scene:
    """Frames in which a square of one kind of patch moves over another, one patch to the right a frame."""

    def __init__(self, frames: int, seconds: float = 0.2) -> None:
        self.count = frames
        self.frames = SimpleNamespace(times=seconds * np.arange(frames), video_of=np.zeros(frames, np.int64))

    def there(self, row: int) -> np.ndarray:
        shown = np.zeros((GRID, GRID), np.float32)
        shown[2:5, row : row + 3] = 1
        return shown

    def patches(self, row: int) -> torch.Tensor:
        kinds = torch.eye(2)[torch.from_numpy(self.there(row)).long()]
        return F.normalize(kinds, dim=-1)

    def smoothed(self, said: list[np.ndarray], monkeypatch) -> list[np.ndarray]:
        monkeypatch.setattr(Smoother, "_patches", lambda _, row: self.patches(row))
        smoother = Smoother(SimpleNamespace(grid=GRID), self.frames)
        return [smoother(row, np.kron(each, np.ones((4, 4), np.float32))[None])[0] for row, each in enumerate(said)]


def test_a_frame_in_which_an_object_is_lost_is_drawn_towards_those_before_it(monkeypatch):
    scene = Scene(4)
    said = [0.1 + 0.8 * scene.there(row) for row in range(4)]
    said[3] = np.full_like(said[3], 0.1)  # nothing is seen
    found = scene.smoothed(said, monkeypatch)
    np.testing.assert_allclose(found[0], np.kron(said[0], np.ones((4, 4))), atol=1e-6)
    there, middle = scene.there(3) > 0, found[3][2::4, 2::4]
    assert middle[there].min() > 0.4  # half of 0.9 and half of 0.1, where it moved to; less at its edge
    assert middle[~there].mean() < 0.12


def test_the_future_counts_for_nothing_and_neither_does_what_is_long_past(monkeypatch):
    scene = Scene(3)
    said = [np.random.default_rng(row).random((GRID, GRID)).astype(np.float32) for row in range(3)]
    whole = scene.smoothed(said, monkeypatch)
    other = scene.smoothed([*said[:2], 1 - said[2]], monkeypatch)
    assert all((a == b).all() for a, b in zip(whole[:2], other[:2], strict=True))
    apart = Scene(3, seconds=5.0).smoothed(said, monkeypatch)
    for each, own in zip(apart, said, strict=True):
        np.testing.assert_allclose(each, np.kron(own, np.ones((4, 4))), atol=1e-6)
