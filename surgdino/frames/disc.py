"""Fitting the endoscope's disc in one frame: the circle that divides the lit picture from the dark surround."""

from __future__ import annotations

import cv2
import numpy as np

# The fit works on a small copy: sharp enough for a pixel or two at full size, and a millisecond a frame.
_WORKING_SIDE = 320
# The surround is dark (0 to 14 of 255 on real video, sometimes tinted), and flat; the picture is brighter by this much.
_SURROUND_LIMIT, _LIT_MARGIN = 40.0, 9.0
_INLIER_PIXELS = 1.5
_MIN_INLIERS, _MIN_INLIER_SHARE = 30, 0.45
_MAX_LIT_OUTSIDE, _MIN_OUTSIDE = 0.04, 0.01
_MAX_GAP_DEGREES = 215.0
_HYPOTHESES, _SCORED = 120, 150


def surround_level(brightness: np.ndarray) -> float:
    """Brightness (of uint8 [H, W]) of the darkest of the four corners, where a surround shows."""
    height, width = brightness.shape
    rows, columns = max(2, height // 24), max(2, width // 48)
    halves = brightness[:rows], brightness[-rows:]
    return min(float(np.median(corner)) for half in halves for corner in (half[:, :columns], half[:, -columns:]))


def brightness(image: np.ndarray) -> np.ndarray:
    """The brightest channel of each pixel, uint8 [H, W]: a tinted surround stays dark, dark red tissue does not."""
    red, green, blue = cv2.split(image)
    return cv2.max(cv2.max(red, green), blue)


def lit_mask(image: np.ndarray) -> tuple[np.ndarray, int] | None:
    """Pixels brighter than the surround, on a small copy.

    Args:
        image: uint8 [H, W, 3].

    Returns:
        uint8 [h, w] of 0 and 1, and the whole number of pixels that one of them stands for, per side; None where the
        corners are too bright for a surround, or hardly anything is lit.
    """
    factor = max(1, min(round(max(image.shape[:2]) / _WORKING_SIDE), *image.shape[:2]))
    height, width = (side // factor for side in image.shape[:2])
    # OpenCV averages areas fast only by a whole factor; the remainder is a pixel or two of surround.
    whole = image[: height * factor, : width * factor]
    small = brightness(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA))
    level = surround_level(small)
    if level > _SURROUND_LIMIT:
        return None
    _, lit = cv2.threshold(small, level + _LIT_MARGIN, 1, cv2.THRESH_BINARY)
    return (lit, factor) if cv2.countNonZero(lit) > 0.02 * lit.size else None


def fit_disc(image: np.ndarray) -> tuple[float, float, float] | None:
    """Fit the disc's circle in one frame.

    The lit region's convex hull bridges dark tissue at the rim; RANSAC leaves out the rest of it, and overlay text.

    Args:
        image: uint8 [H, W, 3].

    Returns:
        (cx, cy, radius) in pixels, pixel centres at integers, or None where the frame shows no clear disc.
    """
    found = lit_mask(image)
    if found is None:
        return None
    lit, factor = found
    rim = _rim(lit)
    if len(rim) < _MIN_INLIERS:
        return None
    circle = _ransac(rim, max(lit.shape))
    if circle is None or not _plausible(circle, rim, lit):
        return None
    cx, cy, radius = circle
    return (cx + 0.5) * factor - 0.5, (cy + 0.5) * factor - 0.5, radius * factor


def _rim(lit: np.ndarray) -> np.ndarray:
    """Points float [n, 2] (x, y) on the border of the main lit region's hull, without those on the frame's edge."""
    height, width = lit.shape
    # Opening cuts off overlay text that touches the rim, and single bright pixels.
    opened = cv2.morphologyEx(lit, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    regions, _ = cv2.findContours(opened, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    if not regions:
        return np.empty((0, 2))
    hull = cv2.convexHull(max(regions, key=cv2.contourArea))
    filled = cv2.fillConvexPoly(np.zeros_like(lit), hull, 1)
    outlines, _ = cv2.findContours(filled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    points = max(outlines, key=len)[:, 0].astype(np.float64)
    x, y = points.T
    return points[(x > 2) & (x < width - 3) & (y > 2) & (y < height - 3)]


def _ransac(points: np.ndarray, side: int) -> tuple[float, float, float] | None:
    generator = np.random.default_rng(0)  # the same frame must always give the same disc
    triples = points[generator.integers(0, len(points), size=(_HYPOTHESES, 3))]
    circles = _through(triples)
    circles = circles[(circles[:, 2] > 0.15 * side) & (circles[:, 2] < 1.2 * side)]
    if not len(circles):
        return None
    some = points[:: 1 + len(points) // _SCORED]
    distance = np.abs(np.hypot(some[:, 0] - circles[:, :1], some[:, 1] - circles[:, 1:2]) - circles[:, 2:])
    best = circles[(distance < _INLIER_PIXELS).sum(axis=1).argmax()]
    for _ in range(3):
        inliers = points[_distance(best, points) < _INLIER_PIXELS]
        if len(inliers) < _MIN_INLIERS:
            return None
        best = _least_squares(inliers)
    return float(best[0]), float(best[1]), float(best[2])


def _through(triples: np.ndarray) -> np.ndarray:
    """Circles [n, 3] through point triples [n, 3, 2]; degenerate triples are dropped."""
    a, b, c = triples[:, 0], triples[:, 1] - triples[:, 0], triples[:, 2] - triples[:, 0]
    determinant = 2 * (b[:, 0] * c[:, 1] - b[:, 1] * c[:, 0])
    keep = np.abs(determinant) > 1e-3
    a, b, c, determinant = a[keep], b[keep], c[keep], determinant[keep]
    bb, cc = (b**2).sum(axis=1), (c**2).sum(axis=1)
    ux = (c[:, 1] * bb - b[:, 1] * cc) / determinant
    uy = (b[:, 0] * cc - c[:, 0] * bb) / determinant
    return np.stack([a[:, 0] + ux, a[:, 1] + uy, np.hypot(ux, uy)], axis=1)


def _least_squares(points: np.ndarray) -> np.ndarray:
    """The algebraic circle fit: x^2 + y^2 = 2 cx x + 2 cy y + (r^2 - cx^2 - cy^2), linear in its unknowns."""
    system = np.column_stack([2 * points, np.ones(len(points))])
    cx, cy, rest = np.linalg.lstsq(system, (points**2).sum(axis=1), rcond=None)[0]
    return np.array([cx, cy, np.sqrt(max(rest + cx**2 + cy**2, 0.0))])


def _distance(circle: np.ndarray, points: np.ndarray) -> np.ndarray:
    return np.abs(np.hypot(points[:, 0] - circle[0], points[:, 1] - circle[1]) - circle[2])


def _plausible(circle: tuple[float, float, float], rim: np.ndarray, lit: np.ndarray) -> bool:
    cx, cy, radius = circle
    inliers = rim[_distance(np.array(circle), rim) < _INLIER_PIXELS]
    if len(inliers) < max(_MIN_INLIERS, _MIN_INLIER_SHARE * len(rim)):
        return False
    angles = np.sort(np.degrees(np.arctan2(inliers[:, 1] - cy, inliers[:, 0] - cx)))
    if max(np.diff(angles, append=angles[0] + 360)) > _MAX_GAP_DEGREES:
        return False  # one arc alone does not fix a circle
    y, x = np.ogrid[: lit.shape[0], : lit.shape[1]]
    outside = ((x - cx) ** 2 + (y - cy) ** 2 > (radius + 2) ** 2).astype(np.uint8)
    surround, stray = cv2.countNonZero(outside), cv2.countNonZero(outside & lit)
    return surround > _MIN_OUTSIDE * lit.size and stray < _MAX_LIT_OUTSIDE * surround
