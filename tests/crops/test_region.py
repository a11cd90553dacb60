"""Crops lie inside the endoscope's disc, at every scale, without drawing in vain."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surgdino.config import shipped
from surgdino.crops.region import Box, largest_inscribed, sample_box
from surgdino.crops.settings import CropSettings
from surgdino.frames.content import Content, detect_content

HEIGHT, WIDTH = 256, 340
DISCS = {
    "whole": Content.disc(170, 128, 120, HEIGHT, WIDTH),
    "cut off above and below": Content.disc(170, 128, 165, HEIGHT, WIDTH),
    "cut off below": Content.disc(150, 190, 150, HEIGHT, WIDTH),
    "cut off at a corner": Content.disc(280, 220, 140, HEIGHT, WIDTH),
    "larger than the frame": Content.disc(170, 128, 400, HEIGHT, WIDTH),
}


def corners_inside(content: Content, box: tuple[int, int, int, int], slack: float = 1.0) -> bool:
    """All four corner pixels of a box within `slack` pixels of the disc."""
    x0, y0, x1, y1 = box
    corners = [(x, y) for x in (x0, x1 - 1) for y in (y0, y1 - 1)]
    return all(math.hypot(x - content.cx, y - content.cy) <= content.radius + slack for x, y in corners)


@pytest.mark.slow
@pytest.mark.parametrize("content", DISCS.values(), ids=DISCS)
@pytest.mark.parametrize("aspect", [3 / 4, 1, 4 / 3])
def test_the_largest_box_is_inside_and_cannot_grow(content: Content, aspect: float) -> None:
    def best_by_search(aspect: float) -> float:
        """Height of the largest box over all centres on a half-pixel grid, by bisection at each."""
        best = 0.0
        x0, y0, x1, y1 = content.box
        for y in np.arange(y0, y1, 4):
            for x in np.arange(x0, x1, 4):
                low, high = best, float(HEIGHT)
                while high - low > 0.5:
                    h = (low + high) / 2
                    dx, dy = abs(x - content.cx - 0.5) + aspect * h / 2, abs(y - content.cy - 0.5) + h / 2
                    framed = (
                        x0 <= x - aspect * h / 2 and x + aspect * h / 2 <= x1 and y0 <= y - h / 2 and y + h / 2 <= y1
                    )
                    low, high = (h, high) if framed and math.hypot(dx, dy) <= content.radius else (low, h)
                best = max(best, low)
        return best

    box_width, box_height = largest_inscribed(content, HEIGHT, WIDTH, aspect)
    assert box_width == pytest.approx(aspect * box_height)
    assert box_height == pytest.approx(best_by_search(aspect), abs=6)


@given(
    seed=st.integers(0, 2**32),
    disc=st.sampled_from(sorted(DISCS)),
    low=st.floats(0.02, 1.0),
    high=st.floats(0.02, 1.0),
)
@settings(max_examples=200, deadline=None)
def test_every_box_lies_in_the_disc_and_has_the_area_asked_for(seed: int, disc: str, low: float, high: float) -> None:
    content, scale = DISCS[disc], (min(low, high), max(low, high))
    box = sample_box(content, HEIGHT, WIDTH, scale, (3 / 4, 4 / 3), random.Random(seed))
    x0, y0, x1, y1 = box
    assert 0 <= x0 < x1 <= WIDTH
    assert 0 <= y0 < y1 <= HEIGHT
    assert corners_inside(content, box)
    box_width, box_height = largest_inscribed(content, HEIGHT, WIDTH, (x1 - x0) / (y1 - y0))
    share = (x1 - x0) * (y1 - y0) / (box_width * box_height)
    assert scale[0] * 0.85 - 0.01 <= share <= scale[1] * 1.15 + 0.01  # rounded to pixels, in aspect too


def test_small_crops_reach_all_of_the_disc() -> None:
    content, rng = DISCS["whole"], random.Random(0)
    seen = np.zeros((HEIGHT, WIDTH), bool)
    for _ in range(3000):
        x0, y0, x1, y1 = sample_box(content, HEIGHT, WIDTH, (0.05, 0.4), (3 / 4, 4 / 3), rng)
        seen[y0:y1, x0:x1] = True
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    disc = np.hypot(x - content.cx, y - content.cy) <= content.radius
    assert seen[disc].mean() > 0.95  # all but the sharp corners between a box and the rim


@pytest.mark.parametrize("content", [Content.full(HEIGHT, WIDTH), Content("rectangle", (40, 0, 300, HEIGHT))])
def test_frames_without_a_disc_are_used_to_the_rim(content: Content) -> None:
    x0, y0, x1, y1 = content.box
    rng = random.Random(0)
    boxes = np.array([sample_box(content, HEIGHT, WIDTH, (0.3, 1.0), (3 / 4, 4 / 3), rng) for _ in range(400)])
    assert boxes[:, 0].min() == x0
    assert boxes[:, 1].min() == y0
    assert boxes[:, 2].max() == x1
    assert boxes[:, 3].max() == y1


def test_a_tiny_frame_still_gives_a_box_of_at_least_a_pixel() -> None:
    for seed in range(50):
        x0, y0, x1, y1 = sample_box(Content.disc(2, 2, 2, 5, 5), 5, 5, (0.01, 0.02), (0.75, 1.33), random.Random(seed))
        assert x1 > x0
        assert y1 > y0


@pytest.mark.slow
@pytest.mark.real
def test_real_frames_less_than_three_per_cent_black_border(real_data: Path) -> None:
    """The border is what hardly ever lights up in a video: taken from the pixels, not from the disc that we fitted.

    Ordinary crops are torchvision's RandomResizedCrop on the whole frame, at the same scales.
    """
    frame_share, inside, ordinary = [], [], []
    for path in sorted((real_data / "cholec80" / "videos").glob("*.mp4")):
        frames = key_frames(path)
        border = np.quantile(np.max(frames, axis=3), 0.9, axis=0) < 20
        content = detect_content(frames)
        frame_share.append(border.mean())
        inside.append(share_black(border, lambda scale, rng, c=content: sample_box(c, *FRAME, scale, RATIO, rng)))
        ordinary.append(share_black(border, lambda scale, rng: ordinary_box(*FRAME, scale, RATIO, rng)))
    print(
        f"black border: {np.mean(frame_share):.1%} of the frames (up to {max(frame_share):.1%}), "
        f"{np.mean(ordinary):.1%} of ordinary crops (up to {max(ordinary):.1%}), {np.mean(inside):.2%} of ours"
    )
    assert max(inside) < 0.03
    assert np.mean(ordinary) > 10 * np.mean(inside)
    assert max(ordinary) > 0.08


FRAME = (480, 854)
RATIO = (3 / 4, 4 / 3)


def share_black(border: np.ndarray, box: Callable[[tuple[float, float], random.Random], Box]) -> float:
    """Share of border pixels in the crops of 200 frames, each crop counted with the pixels it is resized to."""
    rng, settings = random.Random(0), shipped(CropSettings, "crops")
    black = pixels = 0.0
    for scale, size, count in (
        (settings.global_scale, settings.global_size, 2),
        (settings.local_scale, settings.local_size, settings.local_count),
    ):
        for _ in range(200 * count):
            x0, y0, x1, y1 = box(scale, rng)
            black += size**2 * border[y0:y1, x0:x1].mean()
            pixels += size**2
    return black / pixels


def ordinary_box(
    height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float], rng: random.Random
) -> Box:
    """torchvision's RandomResizedCrop: a share of the frame's area, ten tries, else the largest central crop."""
    for _ in range(10):
        area, aspect = height * width * rng.uniform(*scale), math.exp(rng.uniform(*map(math.log, ratio)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if w <= width and h <= height:
            x, y = rng.randint(0, width - w), rng.randint(0, height - h)
            return x, y, x + w, y + h
    w, h = min(width, round(height * ratio[1])), min(height, round(width / ratio[0]))
    return (width - w) // 2, (height - h) // 2, (width + w) // 2, (height + h) // 2


def key_frames(path: Path) -> list[np.ndarray]:
    """A video's key frames, RGB: spread over it, and cheap to decode."""
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.skip_frame = "NONKEY"
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
