"""The disc is found where it is, bars are bars, full frames stay full, dark and foreign frames are flagged."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from surgdino.frames.content import Content, content_mask, detect_content, fit_near, frame_flags
from surgdino.frames.video.decode import probe, read_frames

HEIGHT, WIDTH = 240, 427


def tissue(seed=0, height=HEIGHT, width=WIDTH):
    """uint8 [height, width, 3] with the colours of tissue, in soft patches."""
    generator = np.random.default_rng(seed)
    patches = cv2.resize(generator.uniform(0.5, 1, (6, 9)), (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(patches[..., None] * np.array([190, 90, 75]), 0, 255).astype(np.uint8)


def in_disc(image, cx, cy, radius, surround=(0, 0, 0)):
    y, x = np.ogrid[: image.shape[0], : image.shape[1]]
    outside = (x - cx) ** 2 + (y - cy) ** 2 > radius**2
    return np.where(outside[..., None], np.array(surround, np.uint8), image)


def noisy(image, seed=0):
    noise = np.random.default_rng(seed).normal(0, 2, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("cx", "cy", "radius"),
    [(213, 120, 118), (190, 110, 140), (213, 130, 200), (150, 120, 100), (213, 120, 216)],
    ids=["whole", "cut above and below", "wide", "small and left", "corners only"],
)
@pytest.mark.parametrize("surround", [(0, 0, 0), (12, 0, 0), (14, 14, 14)], ids=["black", "reddish", "grey"])
def test_the_disc_is_found_to_a_pixel_or_two(cx, cy, radius, surround):
    frames = [noisy(in_disc(tissue(i), cx, cy, radius, surround), i) for i in range(5)]
    content = detect_content(frames)
    assert content.kind == "disc"
    assert abs(content.cx - cx) < 2
    assert abs(content.cy - cy) < 2
    assert abs(content.radius - radius) < 2.5


def test_overlay_text_in_the_surround_does_not_move_the_disc():
    frames = []
    for i in range(5):
        frame = in_disc(tissue(i), 213, 120, 125)
        cv2.putText(frame, "2024-03-01 OP 3", (2, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1)
        frames.append(noisy(frame, i))
    content = detect_content(frames)
    assert content.kind == "disc"
    assert abs(content.radius - 125) < 2.5


def test_black_frames_and_frames_without_a_disc_do_not_spoil_it():
    frames = [in_disc(tissue(i), 213, 120, 125) for i in range(4)]
    frames += [np.zeros_like(frames[0])] * 4 + [tissue(9)] * 3
    content = detect_content(frames)
    assert content.kind == "disc"
    assert abs(content.radius - 125) < 2.5


def test_dark_tissue_at_the_rim_does_not_pull_the_disc_in():
    frames = []
    for i in range(5):
        frame = tissue(i)
        cv2.circle(frame, (310, 120 + 10 * i), 45, (6, 2, 2), -1)
        frames.append(in_disc(frame, 213, 120, 125))
    content = detect_content(frames)
    assert abs(content.cx - 213) < 2
    assert abs(content.radius - 125) < 2.5


def test_a_frame_of_its_own_disc_is_followed_and_a_foreign_circle_is_not():
    common = Content.disc(213, 120, 125, HEIGHT, WIDTH)
    moved = fit_near(in_disc(tissue(), 221, 117, 122), common)
    assert abs(moved.cx - 221) < 2
    assert abs(moved.radius - 122) < 2.5
    assert fit_near(in_disc(tissue(), 213, 120, 70), common) == common
    assert fit_near(tissue(), common) == common


@pytest.mark.parametrize("level", [255, 60, 0])
def test_a_frame_without_a_surround_is_full(level):
    frames = [np.full((HEIGHT, WIDTH, 3), level, np.uint8)] if level != 60 else [tissue(i) for i in range(5)]
    assert detect_content(frames) == Content.full(HEIGHT, WIDTH)


def test_natural_darkness_in_a_corner_is_not_a_disc():
    ramp = np.clip(np.linspace(0, 1.3, WIDTH), 0, 1)[None, :, None]
    frames = [(tissue(i) * ramp).astype(np.uint8) for i in range(5)]
    assert detect_content(frames).kind != "disc"


@pytest.mark.parametrize("box", [(50, 0, 380, HEIGHT), (0, 30, WIDTH, 210), (40, 20, 400, 220)])
def test_black_bars_leave_a_rectangle(box):
    x0, y0, x1, y1 = box
    frames = []
    for i in range(4):
        frame = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        frame[y0:y1, x0:x1] = tissue(i)[y0:y1, x0:x1]
        frames.append(noisy(frame, i))
    content = detect_content(frames)
    assert content.kind == "rectangle"
    assert np.abs(np.array(content.box) - box).max() <= 3
    inside = np.array([frame[content.box[1] : content.box[3], content.box[0] : content.box[2]] for frame in frames])
    assert (inside.max(axis=3) < 20).mean() < 0.01


@pytest.mark.parametrize("size", [(48, 64), (1080, 1920)])
def test_any_size_of_frame(size):
    height, width = size
    frame = in_disc(tissue(0, height, width), width / 2, height / 2, height * 0.55)
    content = detect_content([frame])
    assert content.kind == "disc"
    assert abs(content.radius / height - 0.55) < 0.03


def test_cropping_and_scaling_moves_the_disc_with_the_picture():
    image = in_disc(np.full((HEIGHT, WIDTH, 3), 200, np.uint8), 200, 115, 130)
    content = Content.disc(200, 115, 130, HEIGHT, WIDTH)
    x0, y0, x1, y1 = content.box
    small = cv2.resize(image[y0:y1, x0:x1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    moved = content.crop_and_scale(content.box, *small.shape[:2])
    agree = content_mask(moved, *small.shape[:2]) == (small.max(axis=2) > 100)
    assert agree.mean() > 0.99


def test_flags_tell_black_and_out_of_body_from_tissue():
    full = Content.full(HEIGHT, WIDTH)
    drape = np.full((HEIGHT, WIDTH, 3), (30, 110, 120), np.uint8)
    wall = np.full((HEIGHT, WIDTH, 3), (200, 205, 210), np.uint8)
    trocar = wall.copy()
    cv2.circle(trocar, (213, 120), 40, (120, 30, 25), -1)
    assert frame_flags(np.zeros((HEIGHT, WIDTH, 3), np.uint8), full) == {"black"}
    assert frame_flags(noisy(np.full((HEIGHT, WIDTH, 3), 6, np.uint8)), full) == {"black"}
    assert frame_flags(drape, full) == frame_flags(wall, full) == {"out_of_body"}
    assert frame_flags(tissue(), full) == frame_flags(trocar, full) == set()
    disc = Content.disc(213, 120, 110, HEIGHT, WIDTH)
    assert frame_flags(in_disc(tissue(), 213, 120, 110), disc) == set()
    assert frame_flags(in_disc(drape, 213, 120, 110), disc) == {"out_of_body"}


def real_frames(path, count=12):
    info = probe(path)
    return [f.image for f in read_frames(path, info.numbers[:: max(1, info.frame_count // count)], info=info)]


@pytest.mark.slow
@pytest.mark.quick("video26")
@pytest.mark.real
@pytest.mark.parametrize("video", ["video05", "video18", "video25", "video26", "video43"])
def test_the_disc_of_real_videos_leaves_black_outside_and_none_inside(real_data, video):
    frames = real_frames(real_data / "cholec80" / "videos" / f"{video}.mp4")
    content = detect_content(frames)
    assert content.kind == "disc"
    mask = content_mask(content, *frames[0].shape[:2])
    rim = mask & ~content_mask(Content.disc(content.cx, content.cy, content.radius - 12, *mask.shape), *mask.shape)
    outside = ~content_mask(Content.disc(content.cx, content.cy, content.radius + 6, *mask.shape), *mask.shape)
    bright = np.array([frame.max(axis=2) > 20 for frame in frames])
    assert bright[:, outside].mean() < 0.01, "the disc is too small"
    assert bright.any(axis=0)[rim].mean() > 0.9, "the disc is too large"
    assert not any(frame_flags(frame, content) for frame in frames)


@pytest.mark.real
def test_frames_that_were_released_as_images_have_their_disc_too(real_data):
    for folder in sorted((real_data / "cholect50" / "videos").iterdir()):
        assert detect_content(real_frames(folder)).kind == "disc", folder.name
