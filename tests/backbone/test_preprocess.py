"""Pictures as people hold them become the same normalised batch, whichever way they come."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from surgdino.backbone.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess, normalize
from surgdino.errors import SurgdinoError

RNG = np.random.default_rng(0)


def test_normalising_is_the_textbook_formula() -> None:
    images = torch.from_numpy(RNG.integers(0, 256, (2, 3, 4, 4), dtype=np.uint8))
    mean, std = (torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    expected = (images.double() / 255 - mean) / std
    torch.testing.assert_close(normalize(images, IMAGENET_MEAN, IMAGENET_STD).double(), expected, atol=1e-6, rtol=0)
    assert normalize(images, IMAGENET_MEAN, IMAGENET_STD, torch.bfloat16).dtype == torch.bfloat16


def test_every_kind_of_input_gives_the_same_batch() -> None:
    array = RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8)
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    preprocess = Preprocess(image_size=32)
    expected = preprocess(array)
    assert expected.shape == (1, 3, 32, 32)
    assert expected.dtype == torch.float32
    for same in (Image.fromarray(array), [array], array[None], tensor, tensor[None], [Image.fromarray(array)]):
        torch.testing.assert_close(preprocess(same), expected)
    assert preprocess([array, array[:20], array[:, :10]]).shape == (3, 3, 32, 32)


def test_a_picture_of_the_right_size_is_not_resampled() -> None:
    array = RNG.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    plain = Preprocess(image_size=32, mean=(0, 0, 0), std=(1, 1, 1))(array)
    np.testing.assert_allclose(plain[0].permute(1, 2, 0).numpy() * 255, array, atol=1e-4)


def test_strong_reduction_does_not_alias() -> None:
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 255  # finer than the result can show: only their average may remain
    small = Preprocess(image_size=32, mean=(0, 0, 0), std=(1, 1, 1))(stripes)
    assert (small - 0.5).abs().max() < 0.01


@pytest.mark.parametrize(
    "wrong", [np.zeros((8, 8, 3), np.float32), np.zeros((8, 8), np.uint8), torch.zeros(1, 3, 8, 8), [], "frame.jpg"]
)
def test_anything_else_is_refused_in_one_line(wrong) -> None:
    with pytest.raises(SurgdinoError, match="images"):
        Preprocess(image_size=8)(wrong)
