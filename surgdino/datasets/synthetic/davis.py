"""A small set in DAVIS 2017's own layout, generated: coloured discs that move over tissue, masks as palette PNGs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from surgdino.datasets.synthetic.cholec80 import mark_generated
from surgdino.datasets.synthetic.scene import Scene
from surgdino.paths import write_text

# Of the objects in the pictures, and of ids in the masks as DAVIS has them.
_COLOURS = ((40, 90, 230), (60, 220, 70), (240, 240, 240), (20, 20, 30))
_PALETTE = (0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0, 0, 0, 128)


def write_davis(
    root: str | Path,
    objects: Sequence[int] = (1, 2),
    frames: int = 6,
    size: tuple[int, int] = (160, 96),
    seed: int = 0,
    *,
    every: int = 1,
) -> dict[str, np.ndarray]:
    """Write `JPEGImages/480p`, `Annotations/480p` and `ImageSets/2017/val.txt` under `root`; 480p whatever the size.

    Args:
        objects: how many each sequence shows, at most 4.
        frames: of each.
        size: (width, height).
        every: frames from one mask to the next, as in sets that are not labelled in full.

    Returns:
        Sequence (`disc-1`, ...) -> uint8 [frames, height, width], ids of the objects, also where no mask is written.
    """
    root, truths = Path(root), dict[str, np.ndarray]()
    mark_generated(root)
    for number, count in enumerate(objects, start=1):
        name, rng = f"disc-{number}", np.random.default_rng([seed, number])
        scene, truths[name] = Scene(rng, *size), np.zeros((frames, *size[::-1]), np.uint8)
        places = rng.uniform(0.25, 0.75, (count, 2)) * size
        steps = rng.uniform(-0.02, 0.02, (count, 2)) * size
        folders = [root / kind / "480p" / name for kind in ("JPEGImages", "Annotations")]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        for frame, truth in enumerate(truths[name]):
            picture = scene.tissue(0, frame / 24).copy()
            for which, (place, step) in enumerate(zip(places, steps, strict=True)):
                x, y = (round(float(value)) for value in place + frame * step)
                cv2.circle(picture, (x, y), size[1] // 6, _COLOURS[which], -1)
                cv2.circle(truth, (x, y), size[1] // 6, which + 1, -1)
            Image.fromarray(picture).save(folders[0] / f"{frame:05d}.jpg", quality=95)
            if frame % every == 0:
                mask = Image.fromarray(truth)
                mask.putpalette(_PALETTE)
                mask.save(folders[1] / f"{frame:05d}.png")
    write_text(root / "ImageSets/2017/val.txt", "\n".join(truths) + "\n")
    return truths
