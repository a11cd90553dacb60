"""Instruments of the synthetic set: when each is in the picture, and how it is drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

TOOLS = ("Grasper", "Bipolar", "Hook", "Scissors", "Clipper", "Irrigator", "SpecimenBag")

# Which instruments a phase uses, and how likely: (tool, probability).
PHASE_TOOLS = (
    (("Grasper", 0.9),),
    (("Grasper", 1.0), ("Hook", 1.0)),
    (("Grasper", 1.0), ("Clipper", 1.0), ("Scissors", 0.7)),
    (("Grasper", 1.0), ("Hook", 0.9), ("Bipolar", 0.5)),
    (("Grasper", 0.9), ("SpecimenBag", 1.0)),
    (("Grasper", 0.5), ("Bipolar", 0.6), ("Irrigator", 0.9)),
    (("Grasper", 0.8), ("SpecimenBag", 0.8)),
)

# Side of the trocar in degrees (0 = right, 90 = below), colours of shaft and tip, thickness in radii of the disc.
_FORMS = {
    "Grasper": (188, (116, 116, 118), (176, 176, 178), 0.115),
    "Bipolar": (24, (70, 86, 120), (150, 160, 182), 0.105),
    "Hook": (-28, (64, 62, 66), (232, 230, 224), 0.130),
    "Scissors": (38, (96, 96, 98), (190, 190, 192), 0.110),
    "Clipper": (6, (128, 126, 120), (206, 182, 112), 0.150),
    "Irrigator": (-50, (150, 152, 156), (70, 72, 76), 0.120),
    "SpecimenBag": (62, (120, 120, 122), (226, 228, 222), 0.100),
}
_ENTRY = 1.55  # the trocar's distance from the disc's centre, in radii: outside of the picture
_SUBPIXEL = 4  # bits of cv2's fixed-point coordinates, so that slow movements do not jump by whole pixels


@dataclass(frozen=True)
class Use:
    """One instrument in the picture from `start` to `end` (seconds), with its own wander."""

    tool: str
    start: float
    end: float
    angle: float
    reach: tuple[float, float]
    wander: float

    def depth(self, seconds: float) -> float:
        """How far it is inserted: 0 at the trocar, 1 at its target; moves in and out over half a second."""
        ramp = min(0.5, (self.end - self.start) / 3)
        return max(0.0, min(1.0, (seconds - self.start) / ramp, (self.end - seconds) / ramp))

    def tip(self, seconds: float, centre: tuple[float, float], radius: float) -> tuple[float, float] | None:
        """Where its tip is in pixels, or None before it comes and after it has gone."""
        depth = self.depth(seconds)
        if depth <= 0:
            return None
        wander = (math.sin(1.1 * seconds + self.wander), math.sin(1.7 * seconds + 2 * self.wander))
        entry = (_ENTRY * math.cos(self.angle), _ENTRY * math.sin(self.angle))
        x, y = (e + depth * (r + 0.1 * w - e) for e, r, w in zip(entry, self.reach, wander, strict=True))
        return centre[0] + radius * x, centre[1] + radius * y


def plan_uses(rng: np.random.Generator, spans: list[tuple[int, float, float]]) -> list[Use]:
    """Instruments for a sequence of phases, each span being (phase id, start, end) in seconds."""
    uses = []
    for phase, start, end in spans:
        length = end - start
        for tool, probability in PHASE_TOOLS[phase]:
            if rng.random() > probability:
                continue
            first = start + length * rng.uniform(0, 0.25)
            last = end - length * rng.uniform(0, 0.2)
            side, *_ = _FORMS[tool]
            angle = np.deg2rad(side + rng.uniform(-10, 10))
            reach = (0.22 * np.cos(angle) + rng.uniform(-0.1, 0.1), 0.22 * np.sin(angle) + rng.uniform(-0.1, 0.1))
            uses.append(Use(tool, first, last, float(angle), reach, float(rng.uniform(0, 6))))
    return uses


def is_visible(
    tip: tuple[float, float] | None, size: tuple[int, int], centre: tuple[float, float], radius: float
) -> bool:
    """Whether a tip lies inside the frame and well inside the disc, as an annotator would see it."""
    if tip is None:
        return False
    inside = math.dist(tip, centre) < 0.95 * radius
    return inside and 0 <= tip[0] < size[0] and 0 <= tip[1] < size[1]


def draw(image: np.ndarray, use: Use, tip: tuple[float, float], centre: tuple[float, float], radius: float) -> None:
    """Paint an instrument into uint8 [H, W, 3] RGB, in place: a shaded shaft and the tool's own tip."""
    _, shaft, metal, thickness = _FORMS[use.tool]
    trocar = np.array(centre) + radius * 1.8 * np.array((np.cos(use.angle), np.sin(use.angle)))
    end = np.array(tip)
    along = (end - trocar) / np.linalg.norm(end - trocar)
    across = np.array((-along[1], along[0]))
    width = thickness * radius
    if use.tool == "SpecimenBag":
        _draw_bag(image, end, along, across, 3.0 * width, metal)
    neck = end - 1.9 * width * along
    # A cylinder: strips that grow brighter towards the lit side.
    for share, level in ((1.0, 0.45), (0.82, 0.75), (0.62, 1.0), (0.36, 1.3), (0.14, 1.65)):
        middle = -0.18 * (1 - share) * width * across
        half = 0.5 * share * width * across
        # Nearer to the camera at the trocar, hence thicker there.
        _fill(
            image,
            (trocar + 1.6 * half + middle, trocar - 1.6 * half + middle, neck - half + middle, neck + half + middle),
            [level * value for value in shaft],
        )
    _draw_tip(image, use.tool, neck, end, along, across, width, metal)


def _draw_tip(image, tool, neck, end, along, across, width, metal) -> None:
    dark = [0.55 * value for value in metal]
    if tool in ("Hook", "Irrigator"):
        taper = 0.22 if tool == "Hook" else 0.42
        shoulder = 0.48 * width * across
        _fill(
            image, (neck + shoulder, neck - shoulder, end - taper * width * across, end + taper * width * across), metal
        )
        _fill(image, (neck - shoulder, neck - 0.2 * shoulder, end, end - taper * width * across), dark)
        if tool == "Hook":
            wire = end + 0.55 * width * along
            _fill(
                image, (end + 0.1 * width * across, end - 0.1 * width * across, wire, wire + 0.2 * width * across), dark
            )
            _fill(image, (wire, wire - 0.2 * width * along, wire + 0.5 * width * across), dark)
        return
    # Jaws: two blades that open from the neck; the clip applier's are broad, the scissors' thin and wide open.
    opening = {"Scissors": 0.55, "Grasper": 0.35, "Bipolar": 0.25, "Clipper": 0.45, "SpecimenBag": 0.15}[tool]
    for side, colour in ((1, metal), (-1, dark)):
        edge = side * across * width
        _fill(
            image,
            (neck, neck + 0.5 * edge, end + (opening + 0.12) * edge, end + opening * edge - 0.2 * width * along),
            colour,
        )


def _draw_bag(image, end, along, across, size, colour) -> None:
    """A pale, translucent pouch around the tip."""
    turns = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    ring = (
        end
        + 0.6 * size * along
        + size
        * (np.cos(turns)[:, None] * along + (0.8 + 0.12 * np.cos(5 * turns))[:, None] * np.sin(turns)[:, None] * across)
    )
    x0, y0 = np.maximum(ring.min(0).astype(int) - 1, 0)
    x1, y1 = np.minimum(ring.max(0).astype(int) + 2, (image.shape[1], image.shape[0]))
    if x1 <= x0 or y1 <= y0:
        return
    under = image[y0:y1, x0:x1].copy()
    _fill(image, ring, colour)
    patch = image[y0:y1, x0:x1]
    cv2.addWeighted(patch, 0.72, under, 0.28, 0, dst=under)
    patch[...] = under
    points = (ring * 2**_SUBPIXEL).astype(np.int32)
    cv2.polylines(image, [points], True, [0.6 * value for value in colour], 1, cv2.LINE_AA, _SUBPIXEL)


def _fill(image: np.ndarray, corners, colour) -> None:
    points = (np.asarray(corners) * 2**_SUBPIXEL).astype(np.int32)
    cv2.fillPoly(image, [points], [min(255.0, float(value)) for value in colour], cv2.LINE_AA, _SUBPIXEL)
