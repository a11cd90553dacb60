"""Small sets of pictures with masks, generated: in DSAD's own layout, and as `images/` and `masks/`.

An organ is a smooth patch in a colour of its own on the synthetic tissue, so that a few pictures suffice to learn it.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from surgdino.datasets.card import load_card
from surgdino.datasets.synthetic.scene import Scene

# In DSAD's multilabel folder an organ that is not visible has no mask file.
_VISIBLE = 0.6


def write_dsad(
    root: str | Path,
    organs: Sequence[str] = ("liver", "stomach"),
    surgeries: Sequence[int] = (1, 4, 3, 2),
    images: int = 4,
    size: tuple[int, int] = (160, 96),
    seed: int = 0,
    *,
    multilabel: bool = True,
    raters: Sequence[str] = (),
) -> None:
    """Write `<organ>/<surgery>/imageNN.png` and `maskNN.png`, and `multilabel/`, under `root`.

    Args:
        organs: those that get a folder.
        surgeries: their numbers.
        images: pictures a surgery and organ.
        size: (width, height).
        multilabel: write that folder too: stomach's pictures again, with the masks of all organs of the card's
            `multilabel` that are visible.
        raters: folders such as `anno_1` or `merged`, with a rater's masks, a little larger than the released ones.
    """
    root, card = Path(root), load_card("dsad")
    for organ in (*organs, *(("multilabel",) if multilabel else ())):
        shown = "stomach" if organ == "multilabel" else organ
        for surgery in surgeries:
            rng = np.random.default_rng([seed, surgery, card.mask_classes.index(shown)])
            scene = Scene(rng, *size)
            folder = root / organ / f"{surgery:02d}"
            for number in range(images):
                image, masks = _picture(rng, scene, number, card.mask_classes, shown)
                _write(folder / f"image{number:02d}.png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
                if organ == "multilabel":
                    for name in card.multilabel:
                        if masks[name].any():
                            _write(folder / f"mask{number:02d}_{name}.png", masks[name])
                    continue
                _write(folder / f"mask{number:02d}.png", masks[organ])
                for rater in raters:
                    _write(
                        folder / rater / f"mask{number:02d}.png", cv2.dilate(masks[organ], np.ones((3, 3), np.uint8))
                    )


def write_pairs(
    root: str | Path, images: int = 20, size: tuple[int, int] = (64, 64), seed: int = 0, *, suffix: str = ".jpg"
) -> None:
    """Write `images/` and `masks/`, by the same names; JPEG masks have grey edges, as they have in the wild."""
    root = Path(root)
    rng = np.random.default_rng(seed)
    scenes = [Scene(rng, *size) for _ in range(min(images, 4))]
    for number in range(images):
        image, masks = _picture(rng, scenes[number % 4], number, ("polyp",), "polyp")
        _write(root / "images" / f"case{number:03d}{suffix}", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        _write(root / "masks" / f"case{number:03d}{suffix}", masks["polyp"])


def _picture(
    rng: np.random.Generator, scene: Scene, number: int, classes: Sequence[str], always: str
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """uint8 [H, W, 3] RGB, and class -> uint8 [H, W] of 0 or 255; `always` is visible, others mostly are."""
    image = scene.tissue(number % 7, float(number)).copy()
    height, width = image.shape[:2]
    masks = {name: np.zeros((height, width), np.uint8) for name in classes}
    covered = np.zeros((height, width), np.uint8)
    for name in sorted(classes, key=lambda name: name != always):
        centre = (int(rng.uniform(0.25, 0.75) * width), int(rng.uniform(0.25, 0.75) * height))
        axes = (int(rng.uniform(0.1, 0.25) * width), int(rng.uniform(0.1, 0.25) * height))
        angle = float(rng.uniform(0, 180))
        if name != always and rng.random() > _VISIBLE:
            continue
        cv2.ellipse(masks[name], centre, axes, angle, 0, 360, 255, -1)
        masks[name][covered > 0] = 0
        covered |= masks[name]
        colour = np.array(colorsys.hsv_to_rgb(classes.index(name) / len(classes) + 0.12, 0.7, 0.9)) * 255
        inside = masks[name] > 0
        image[inside] = (0.35 * image[inside] + 0.65 * colour).astype(np.uint8)
    return scene.finish(image, 0.0, float(number)), masks


def _write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)
