"""Multi-crop against torchvision's DINOv2 pipeline, on the same stored frames, in one process on one core.

    python benchmarks/crops.py                                  a generated set
    python benchmarks/crops.py --root /data/cholec80            real videos in Cholec80's layout

Both read the store's JPEGs and end with uint8 [2, 3, 224, 224] and [8, 3, 96, 96]. The contenders take turns, round by
round, and a figure is images per second of CPU time, so that a busy machine disturbs the ratio as little as it can.
Goal: the natural recipe, which does what torchvision's does, 8 times as fast.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from surgdino.backbone.timm_import import make_torchvision_importable
from surgdino.config import shipped, shipped_settings
from surgdino.crops.multicrop import MultiCrop
from surgdino.crops.settings import CropSettings
from surgdino.datasets.card import load_card
from surgdino.datasets.open import open_dataset
from surgdino.datasets.synthetic.cholec80 import write_cholec80
from surgdino.frames.store import FrameStore, StoreSettings, build_store

make_torchvision_importable()
from torchvision import transforms as tv  # noqa: E402 - only after the guard

BASELINE = "torchvision"
RECIPES = ("none", "natural", "surgical")
ON_GPU = " on=gpu"  # what its workers do then: effects are drawn, but for compression not painted
Views = tuple[np.ndarray, np.ndarray]


def torchvision_multicrop(settings: CropSettings) -> Callable[[Image.Image], Views]:
    """DINOv2's three pipelines, in torchvision's own transforms, on PIL images as its users run them."""
    colour = [
        tv.RandomApply([tv.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
        tv.RandomGrayscale(p=0.2),
    ]

    def view(size: int, scale: tuple[float, float], blur: float, solarise: float) -> tv.Compose:
        crop = tv.RandomResizedCrop(size, scale, interpolation=tv.InterpolationMode.BICUBIC)
        blurred = tv.RandomApply([tv.GaussianBlur(9, (0.1, 2.0))], p=blur)
        last = [tv.RandomSolarize(128, p=solarise)] if solarise else []
        return tv.Compose([crop, tv.RandomHorizontalFlip(), *colour, blurred, *last, tv.PILToTensor()])

    first = view(settings.global_size, settings.global_scale, 1.0, 0.0)
    second = view(settings.global_size, settings.global_scale, 0.1, 0.2)
    local = view(settings.local_size, settings.local_scale, 0.5, 0.0)

    def crops(image: Image.Image) -> Views:
        small = [local(image) for _ in range(settings.local_count)]
        return torch.stack([first(image), second(image)]).numpy(), torch.stack(small).numpy()

    return crops


def contenders(store: FrameStore, settings: CropSettings) -> dict[str, Callable[[int], Views | None]]:
    """Name -> stored frame's index -> its crops."""
    packed = [packed_again(store.read(i)) for i in range(len(store))]  # spares the baseline the store's own reading
    baseline = torchvision_multicrop(settings)

    def theirs(index: int) -> Views:
        return baseline(Image.open(io.BytesIO(packed[index])).convert("RGB"))

    def ours(recipe: str, on: str) -> Callable[[int], Views]:
        multicrop = MultiCrop(settings, {**shipped_settings("augment", recipe), "on": on})
        return lambda index: multicrop(store.read(index), store.content(index), index)

    def decoded(index: int) -> None:
        store.read(index)

    here = {recipe: ours(recipe, "cpu") for recipe in RECIPES}
    there = {recipe + ON_GPU: ours(recipe, "gpu") for recipe in RECIPES if recipe != "none"}
    return {BASELINE: theirs, "decoding": decoded, **here, **there}


def packed_again(image: np.ndarray) -> bytes:
    """The JPEG file of a stored frame."""
    return cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def measure(cut: Callable[[int], object], indices: list[int]) -> float:
    """Images per second of CPU time."""
    started = time.process_time()
    for index in indices:
        cut(index)
    return len(indices) / (time.process_time() - started)


def compare(store: FrameStore, settings: CropSettings, rounds: int, images: int) -> dict[str, list[float]]:
    """Name -> one figure a round; the contenders take turns."""
    cutters = contenders(store, settings)
    rng = np.random.default_rng(0)
    figures: dict[str, list[float]] = {name: [] for name in cutters}
    for cut in cutters.values():
        measure(cut, [int(rng.integers(len(store))) for _ in range(8)])  # the noise fields, the readers
    for _ in range(rounds):
        indices = [int(i) for i in rng.integers(len(store), size=images)]
        for name, cut in cutters.items():
            # The baseline is slow: a tenth of the images is as long a measurement.
            figures[name].append(measure(cut, indices[: max(8, images // 8)] if name == BASELINE else indices))
    return figures


def report(figures: dict[str, list[float]], store: FrameStore) -> None:
    """A line each: images/s and core (median over rounds), and the median of the rounds' ratios to torchvision."""
    height, width = store.read(0).shape[:2]
    print(f"{len(store)} stored frames of {width} x {height}, 2 x 224 + 8 x 96, one core")
    base = figures[BASELINE]
    for name, values in figures.items():
        ratio = statistics.median(v / b for v, b in zip(values, base, strict=True))
        print(f"  {name:<15} {statistics.median(values):7.0f} images/s  {ratio:5.1f} x torchvision")
    natural, surgical = (statistics.median(figures[name]) for name in ("natural", "surgical"))
    print(f"  the surgical set runs at {surgical / natural:.2f} of the natural recipe's speed")


def main() -> None:
    """Build the store where there is none, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="videos in Cholec80's layout; without it a set is generated")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=120, help="images a round")
    words = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as folder:
        root = words.root or Path(folder) / "cholec80"
        if words.root is None:
            write_cholec80(root, videos=2, seconds=24, size=(854, 480), seed=0)
        store = build_store(open_dataset(load_card("cholec80"), root), Path(folder) / "store", StoreSettings.of())
        report(compare(store, shipped(CropSettings, "crops"), words.rounds, words.images), store)


if __name__ == "__main__":
    main()
