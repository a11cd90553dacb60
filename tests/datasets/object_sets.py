"""Small sets of pictures with single objects, generated: in COCO's form, or as LabelMe writes them.

A grasper is a bright blue rectangle and a hook a red ellipse on dark tissue: a few pictures suffice to learn them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

CLASSES = ("grasper", "hook")
_COLOURS = ((220, 80, 30), (40, 40, 230))  # BGR
_BARE = 6  # every so many pictures show nothing


def write_objects(
    root: str | Path,
    images: int = 24,
    size: tuple[int, int] = (64, 48),
    seed: int = 0,
    *,
    masks: bool = True,
    layout: Literal["coco", "labelme"] = "coco",
) -> dict[str, list[tuple[str, np.ndarray]]]:
    """Write `images/` with `annotations.json`, or with a JSON beside each picture.

    Args:
        masks: whether objects have outlines beside their boxes.

    Returns:
        Picture's name -> (class, mask bool [H, W]) of each object.
    """
    root, rng, truth = Path(root), np.random.default_rng(seed), dict[str, list[tuple[str, np.ndarray]]]()
    (root / "images").mkdir(parents=True, exist_ok=True)
    width, height = size
    rows: dict[str, list] = {"images": [], "annotations": []}
    rows["categories"] = [{"id": 10 * (place + 1), "name": name} for place, name in enumerate(CLASSES)]
    for number in range(images):
        name = f"case{number:03d}.png"
        picture = rng.integers(20, 60, (height, width, 3)).astype(np.uint8)
        shapes = []
        truth[name] = []
        shown = int(rng.integers(1, 4)) if number % _BARE != _BARE - 1 else 0
        for kind in (kind for kind in range(2) if shown >> kind & 1):
            sides = rng.integers(12, 22, 2)
            left = int(rng.integers(0, width // 2 - sides[0])) + kind * (width // 2)
            top = int(rng.integers(0, height - sides[1]))
            right, low = left + sides[0], top + sides[1]
            points = np.array([[left, top], [right, top], [right, low], [left, low]])
            if kind:
                middle, radii = (left + sides[0] // 2, top + sides[1] // 2), (int(sides[0] // 2), int(sides[1] // 2))
                points = cv2.ellipse2Poly([int(n) for n in middle], radii, 0, 0, 360, 15)
            mask = np.zeros((height, width), np.uint8)
            cv2.fillPoly(mask, [points], 1)
            mask[:, points[:, 0].max() :] = 0
            mask[points[:, 1].max() :] = 0
            picture[mask > 0] = _COLOURS[kind]
            truth[name].append((CLASSES[kind], mask > 0))
            shapes.append((kind, points.tolist()))
            first, last = points.min(0), points.max(0)
            rows["annotations"].append(
                {
                    "id": len(rows["annotations"]),
                    "image_id": 100 + number,
                    "category_id": 10 * (kind + 1),
                    "bbox": [float(n) for n in (*first, *(last - first))],
                    "area": float(mask.sum()),
                    "iscrowd": 0,
                    **({"segmentation": [[float(n) for point in points.tolist() for n in point]]} if masks else {}),
                }
            )
        cv2.imwrite(str(root / "images" / name), picture)
        rows["images"].append({"id": 100 + number, "file_name": name, "width": width, "height": height})
        if layout == "labelme":
            outlines = [
                {"label": CLASSES[k], "points": p, "shape_type": "polygon", "group_id": None} for k, p in shapes
            ]
            content = {"imagePath": name, "imageWidth": width, "imageHeight": height, "shapes": outlines}
            (root / "images" / f"case{number:03d}.json").write_text(json.dumps(content))
    if layout == "coco":
        (root / "annotations.json").write_text(json.dumps(rows))
    return truth
