"""augment.on=gpu: the device paints what a worker would have painted, with the same draws, in the same order."""

from __future__ import annotations

import copy
import pickle
import random
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from surgdino.config import shipped, shipped_settings
from surgdino.crops.augment import turbulence
from surgdino.crops.augment.build import transforms
from surgdino.crops.loader import Batch, make_loader
from surgdino.crops.settings import CropSettings
from tests.crops.test_loader import FakeStore, assert_equal

BATCHED = sorted(name for name, kind in transforms().items() if kind.has_batch_form())
CPU = torch.device("cpu")
DRAWS = 8


def tissue(size: int, seed: int) -> np.ndarray:
    """uint8 [size, size, 3]: reddish, shaded, with coarse and fine texture."""
    rng = random.Random(seed)
    coarse, fine = (
        turbulence.cut(bank, turbulence.window(size, size, 0.3, rng), size, size)
        for bank in (turbulence.fields(), turbulence.flecks())
    )
    texture = cv2.addWeighted(coarse, 0.6, fine, 0.4, 0).astype(np.float32)
    shade = np.linspace(0.5, 1.3, size, dtype=np.float32)[None, :, None]
    return np.clip((150 + 0.4 * texture[:, :, None]) * np.array([0.75, 0.45, 0.35]) * shade, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module", params=[96, 160])
def pictures(request: pytest.FixtureRequest) -> np.ndarray:
    return np.stack([tissue(request.param, seed) for seed in range(DRAWS)])


def both(name: str, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float [n, S, S, 3]: painted one by one, and as a batch on the device, from the same numbers."""
    transform, size = transforms()[name](), pictures.shape[1]
    drawn = [transform.draw(seed / (DRAWS - 1), random.Random(seed), size, size) for seed in range(DRAWS)]
    one = np.stack([transform.paint(picture, numbers) for picture, numbers in zip(pictures, drawn, strict=True)])
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2).float().contiguous()
    batch = transform.paint_batch(images, torch.tensor(drawn, dtype=torch.float32)).round().clamp(0, 255)
    return one.astype(np.float64), batch.permute(0, 2, 3, 1).double().numpy()


def spectrum(images: np.ndarray) -> np.ndarray:
    """Mean amplitude in eight rings of the Fourier transform of the luma."""
    amplitude = np.abs(np.fft.fftshift(np.fft.fft2(images.mean(3)), axes=(1, 2))).mean(0)
    half = amplitude.shape[0] // 2
    y, x = np.mgrid[: 2 * half, : 2 * half] - half
    ring = np.minimum(np.hypot(y, x) * 8 // half, 7).astype(int)
    return np.array([amplitude[: 2 * half, : 2 * half][ring == k].mean() for k in range(8)])


@pytest.mark.parametrize("name", BATCHED)
def test_the_device_form_paints_the_same_pixels_with_the_same_statistics(name: str, pictures: np.ndarray) -> None:
    one, batch = both(name, pictures)
    off = np.abs(one - batch)
    assert off.mean() < 0.3
    assert (off > 2).mean() < 0.02, "a threshold may fall a level further on"
    for statistic in (np.mean, np.std):
        assert np.allclose(statistic(one, axis=(1, 2)), statistic(batch, axis=(1, 2)), atol=0.4)
    quantiles = np.linspace(0.01, 0.99, 15)
    assert np.abs(np.quantile(one, quantiles, axis=(1, 2)) - np.quantile(batch, quantiles, axis=(1, 2))).mean() < 0.3
    assert np.allclose(spectrum(one), spectrum(batch), rtol=0.03, atol=10), "OpenCV rounds in between"


def test_all_but_compression_has_a_form_for_the_device() -> None:
    assert set(transforms()) - set(BATCHED) == {"compression"}


SMALL = shipped(CropSettings, "crops", global_size=64, local_size=32, local_count=3)


def batches(on: str, workers: int = 0, crops: CropSettings = SMALL, **words: object) -> list[Batch]:
    # `strong`: every transform of the set is likely, so that chains are long and order matters.
    augment = copy.deepcopy(shipped_settings("augment", str(words.pop("augment", "surgical")))) | {"on": on}
    for settings in augment["transforms"].values():
        settings["p"] = 0.6
    given = {"batch_size": 8, "seed": 3, "start_step": 0, "steps": 2, "patch_size": 8, **words}
    masks = {"mask_probability": 0.5, "mask_ratio": (0.1, 0.5)}
    return list(make_loader(FakeStore(), crops, augment, workers=workers, **given, **masks))


@pytest.mark.parametrize("augment", ["surgical", "natural", "supervised", "none"])
@pytest.mark.parametrize("pair_seconds", [None, 2.0])
def test_a_batch_painted_on_the_device_is_the_workers_own(augment: str, pair_seconds: float | None) -> None:
    crops = replace(SMALL, pair_seconds=pair_seconds)
    for here, there in zip(*(batches(on, crops=crops, augment=augment) for on in ("cpu", "gpu")), strict=True):
        assert here.effects is None
        done = there.painted(CPU)
        assert done.effects is None
        assert torch.equal(here.masks, done.masks)
        for name in ("global_crops", "local_crops"):
            off = (getattr(here, name).float() - getattr(done, name).float()).abs()
            assert off.mean() < 1.0
            assert off.flatten(1).mean(1).max() < 12, "every crop has its own effects, in their order"
        assert_equal(there.painted(CPU), done)  # the batch itself stays as it came


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_what_is_left_to_the_device_is_the_same_for_any_number_of_workers_and_processes() -> None:
    alone = batches("gpu")
    for one, other in zip(alone, batches("gpu", workers=2), strict=True):
        assert_equal(one.painted(CPU), other.painted(CPU))
    shares = [batches("gpu", rank=rank, world=2) for rank in range(2)]
    for step, whole in enumerate(alone):
        parts = [share[step].painted(CPU).global_crops.unflatten(0, (2, -1)) for share in shares]
        assert torch.equal(torch.cat(parts, dim=1).flatten(0, 1), whole.painted(CPU).global_crops)
    assert_equal(batches("gpu", start_step=1)[0].painted(CPU), alone[1].painted(CPU))


def test_it_pickles_as_spawned_workers_need() -> None:
    [batch, _] = batches("gpu")
    again = pickle.loads(pickle.dumps(batch))
    assert again.effects.counts == batch.effects.counts
    assert torch.equal(again.effects.numbers, batch.effects.numbers)


def test_many_crops_are_painted_in_pieces_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    [batch, _] = batches("gpu")
    whole = batch.painted(CPU)
    monkeypatch.setattr("surgdino.crops.augment.deferred._PIXELS", 3 * 64 * 64)
    assert_equal(batch.painted(CPU), whole)
