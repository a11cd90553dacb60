"""Every augmentation that is discovered: seeded, visible, honest about its settings."""

from __future__ import annotations

import copy
import inspect
import random
import socket
import subprocess
import sys
from dataclasses import asdict

import albumentations as A
import cv2
import numpy as np
import pytest

from surgdino.config import shipped_settings
from surgdino.crops.augment import turbulence
from surgdino.crops.augment.build import build_augment, transforms
from surgdino.crops.augment.settings import EFFECTS, VIEWS
from surgdino.discovery import files
from surgdino.errors import SurgdinoError

SETS = list(files("configs/augment"))
SURGICAL = {
    "tower_drift",
    "smoke",
    "blood",
    "highlights",
    "lens_fog",
    "defocus",
    "low_light",
    "vignette",
    "sensor_noise",
    "compression",
    "solarise",
}


@pytest.fixture(scope="module")
def tissue() -> np.ndarray:
    """uint8 [96, 128, 3]: reddish, shaded, with coarse and fine texture, so that every augmentation finds something."""
    rng = random.Random(1)
    coarse, fine = (
        turbulence.cut(bank, turbulence.window(96, 128, 0.3, rng), 96, 128)
        for bank in (turbulence.fields(), turbulence.flecks())
    )
    texture = cv2.addWeighted(coarse, 0.6, fine, 0.4, 0).astype(np.float32)
    shade = np.linspace(0.5, 1.0, 128, dtype=np.float32)[None, :, None]
    colour = np.array([0.75, 0.45, 0.35], np.float32)
    return np.clip((150 + 0.4 * texture[:, :, None]) * colour * shade, 0, 255).astype(np.uint8)


def applied(name: str, image: np.ndarray, strength: float, seed: int = 0) -> np.ndarray:
    return transforms()[name]().effect(image, strength, random.Random(seed))


def change(name: str, image: np.ndarray, strength: float, seeds: int = 12) -> float:
    """Mean absolute difference in grey levels over several draws."""
    return float(np.mean([cv2.absdiff(image, applied(name, image, strength, seed)).mean() for seed in range(seeds)]))


def test_the_settings_of_each_are_its_arguments() -> None:
    assert EFFECTS.keys() == transforms().keys()
    for name, kind in EFFECTS.items():
        arguments = {each.name: each.default for each in inspect.signature(transforms()[name]).parameters.values()}
        assert asdict(kind()) == arguments


def test_the_surgical_ones_are_all_there() -> None:
    assert set(transforms()) >= SURGICAL


@pytest.mark.parametrize("name", sorted(transforms()))
def test_shape_and_type_stay_and_the_input_is_not_touched(name: str, tissue: np.ndarray) -> None:
    before = tissue.copy()
    for size in (tissue, tissue[:33, :47], cv2.resize(tissue, (224, 224))):
        for strength in (0.0, 0.5, 1.0):
            out = applied(name, np.ascontiguousarray(size), strength)
            assert out.shape == size.shape
            assert out.dtype == np.uint8
    assert np.array_equal(tissue, before)


@pytest.mark.parametrize("name", sorted(transforms()))
def test_the_same_seed_gives_the_same_pixels_and_another_seed_others(name: str, tissue: np.ndarray) -> None:
    transform = transforms()[name]()
    first, second = (transform.sample(tissue, random.Random(5)) for _ in range(2))
    assert np.array_equal(first, second)
    others = [transform.sample(tissue, random.Random(seed)) for seed in range(6, 14)]
    assert any(not np.array_equal(first, other) for other in others)


@pytest.mark.parametrize("name", sorted(transforms()))
def test_more_strength_changes_more(name: str, tissue: np.ndarray) -> None:
    # On a bright picture: solarisation inverts what is brighter than half.
    image = cv2.convertScaleAbs(tissue, alpha=1.6)
    assert change(name, image, 1.0) > 1.2 * change(name, image, 0.25)
    assert change(name, image, 1.0) > 1.0


@pytest.mark.parametrize("name", sorted(transforms()))
def test_each_works_inside_an_albumentations_compose(name: str, tissue: np.ndarray) -> None:
    compose = A.Compose([transforms()[name](p=1.0)], seed=3)
    again = A.Compose([transforms()[name](p=1.0)], seed=3)
    assert np.array_equal(compose(image=tissue)["image"], again(image=tissue)["image"])


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("view", VIEWS)
def test_every_set_builds_for_every_view_and_is_seeded(name: str, view: str, tissue: np.ndarray) -> None:
    augment = build_augment(shipped_settings("augment", name), view)
    first, second = (augment(tissue, random.Random(9)) for _ in range(2))
    assert np.array_equal(first, second)
    assert first.shape == tissue.shape


@pytest.mark.parametrize("name", SETS)
def test_no_set_turns_frames_upside_down_and_each_opens_with_a_comment(name: str) -> None:
    assert shipped_settings("augment", name)["vertical_flip"] == 0.0
    assert files("configs/augment")[name].read_text(encoding="utf-8").startswith("# ")


def test_only_the_second_global_view_is_solarised() -> None:
    chains = {
        view: [t.name for t in build_augment(shipped_settings("augment", "natural"), view).chain] for view in VIEWS
    }
    assert "solarise" in chains["global_2"]
    assert "solarise" not in chains["global_1"] + chains["local"]


def test_hue_stays_where_tissues_can_be_told_apart(tissue: np.ndarray) -> None:
    """Tower drift at full strength keeps red tissue red: the order of its channels does not change."""
    for seed in range(40):
        red, green, blue = applied("tower_drift", tissue, 1.0, seed).reshape(-1, 3).mean(axis=0)
        assert red > green
        assert red > blue


def test_smoke_and_fog_lose_contrast_and_colour(tissue: np.ndarray) -> None:
    for name in ("smoke", "lens_fog"):
        veiled = applied(name, tissue, 1.0)
        assert saturation(veiled) < 0.8 * saturation(tissue)


def test_blood_reddens_tissue_and_leaves_grey_instruments_clean(tissue: np.ndarray) -> None:
    grey = np.full_like(tissue, 140)
    half = np.where(np.arange(128)[None, :, None] < 64, tissue, grey)
    out = applied("blood", half, 1.0)
    assert saturation(out[:, :64]) > saturation(half[:, :64])
    assert np.array_equal(out[:, 70:], half[:, 70:])


def test_low_light_darkens_and_highlights_saturate(tissue: np.ndarray) -> None:
    assert applied("low_light", tissue, 1.0).mean() < 0.5 * tissue.mean()
    assert (applied("highlights", tissue, 1.0).min(axis=2) > 240).mean() > 0.005
    assert (tissue.min(axis=2) > 240).mean() == 0


def saturation(image: np.ndarray) -> float:
    return float(cv2.cvtColor(image, cv2.COLOR_RGB2HSV)[:, :, 1].mean())


def test_colour_jitter_agrees_with_the_chain_of_torchvision_operations(tissue: np.ndarray) -> None:
    """Brightness, then saturation, then contrast, one after the other as torchvision defines them, hue left alone."""
    jitter = transforms()["colour_jitter"](hue=0.0, p=1.0)
    drawn = random.Random(4)
    brightness, contrast, saturate = (1 + w * (2 * drawn.random() - 1) for w in (0.4, 0.4, 0.2))
    luma = np.array([0.299, 0.587, 0.114])
    image = tissue.astype(np.float64) * brightness
    image = saturate * image + (1 - saturate) * (image @ luma)[..., None]
    image = contrast * image + (1 - contrast) * (image @ luma).mean()
    assert np.abs(jitter.effect(tissue, 1.0, random.Random(4)) - np.clip(image, 0, 255)).max() <= 1.0


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda c: c["transforms"].update(smok={"p": 0.1}), "Did you mean 'smoke'"),
        (
            lambda c: c["transforms"]["smoke"].update(strenght=[0, 1]),
            "Did you mean 'augment.transforms.smoke.strength'",
        ),
        (
            lambda c: c["transforms"]["smoke"].update(p=1.5),
            "augment.transforms.smoke.p cannot be used; expected at most 1",
        ),
        (
            lambda c: c["transforms"]["smoke"].update(p="often"),
            "augment.transforms.smoke.p cannot be used; expected a number",
        ),
        (
            lambda c: c["transforms"]["smoke"].update(strength=[0.9, 0.1]),
            "augment.transforms.smoke.strength cannot be used; expected a list of 2 values",
        ),
        (
            lambda c: c["transforms"]["smoke"].update(strength=0.5),
            "augment.transforms.smoke.strength cannot be used; expected a list of 2 values",
        ),
        (lambda c: c["transforms"]["smoke"].update(p={"global": 0.1}), "Did you mean 'global_"),
        (
            lambda c: c["transforms"]["smoke"].update(p={"local": 0.1}),
            "a view is missing; expected global_1, global_2, local, found local",
        ),
        (lambda c: c["transforms"].update(smoke=0.5), "augment.transforms.smoke"),
        (lambda c: c["transforms"]["colour_jitter"].update(hue="red"), "augment.transforms.colour_jitter.hue"),
        (lambda c: c.update(vertical_flip=2), "augment.vertical_flip cannot be used; expected at most 1"),
        (lambda c: c.update(horizontal_flp=0.5), "Did you mean 'augment.horizontal_flip'"),
    ],
)
def test_a_mistyped_setting_is_named_on_one_line(edit, says: str) -> None:
    cfg = copy.deepcopy(shipped_settings("augment", "surgical"))
    cfg["transforms"]["colour_jitter"] = {"p": 0.5}
    edit(cfg)
    with pytest.raises(SurgdinoError) as caught:
        build_augment(cfg, "local")
    assert says in caught.value.line()
    assert "\n" not in caught.value.line()


def test_an_unknown_set_names_the_nearest() -> None:
    with pytest.raises(SurgdinoError, match="Did you mean 'surgical'"):
        shipped_settings("augment", "surgcal")


def test_null_leaves_a_transform_out(tissue: np.ndarray) -> None:
    cfg = copy.deepcopy(shipped_settings("augment", "surgical"))
    cfg["transforms"]["smoke"] = None
    assert "smoke" not in [t.name for t in build_augment(cfg, "global_1").chain]


@pytest.mark.slow
def test_importing_the_augmentations_opens_no_socket() -> None:
    assert socket.socket is not None
    code = (
        "import socket\n"
        "def refuse(*a, **k): raise SystemExit('a socket was opened')\n"
        "socket.socket.connect = refuse; socket.create_connection = refuse; socket.getaddrinfo = refuse\n"
        "from surgdino.crops.augment.build import transforms; assert transforms()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
