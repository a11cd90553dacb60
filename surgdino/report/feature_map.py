"""Frames as points in the plane: near ones look alike to a backbone. Inline SVG whose points say what they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from surgdino.report.colours import SOFT

_ENOUGH = 30  # points that t-SNE is of use for
_SIDE, _EDGE, _ABOVE, _SIZE = 320, 12, 22, 4.2  # of a map in its own units


def directions(features: np.ndarray) -> np.ndarray:
    """Each row brought to length 1; one of zeros stays."""
    return features / (np.linalg.norm(features, axis=1, keepdims=True) + 1e-12)


def flat(features: np.ndarray, seed: int = 0) -> tuple[str, np.ndarray]:
    """How, and where in the plane: t-SNE (van der Maaten and Hinton 2008) by cosine, begun with principal components,
    or these alone where there are few points.

    Args:
        features: [n, D].

    Returns:
        `t-SNE` or `PCA`, and float64 [n, 2]; the same for the same features and seed.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    unit = directions(features)
    if len(unit) < _ENOUGH:
        found = PCA(min(2, *unit.shape), svd_solver="full").fit_transform(unit)
        return "PCA", np.pad(found, ((0, 0), (0, 2 - found.shape[1]))).astype(np.float64)
    perplexity = min(30.0, (len(unit) - 1) / 4)
    found = TSNE(2, perplexity=perplexity, metric="cosine", init="pca", random_state=seed, n_jobs=1).fit_transform(unit)
    return "t-SNE", found.astype(np.float64)


def turned_towards(points: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The map [n, 2] turned, mirrored and moved, not bent, so that its points come nearest to those of another map
    (orthogonal Procrustes, Schoenemann 1966)."""
    own, other = points - points.mean(0), reference - reference.mean(0)
    left, _, right = np.linalg.svd(own.T @ other)
    return own @ left @ right


def sign(place: int, colour: str, x: float, y: float, size: float = _SIZE, title: str = "") -> str:
    """A point as an SVG element: one of four shapes, by its place, so that neighbours in a legend never rest on colour
    alone."""
    inside = f"<title>{escape(title)}</title>" if title else ""
    style = f'fill="{colour}"'
    if place % 4 == 0:
        return f'<circle {style} cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}">{inside}</circle>'
    if place % 4 == 1:
        path = f"M{x - size:.1f} {y - size:.1f}h{2 * size:.1f}v{2 * size:.1f}h{-2 * size:.1f}z"
    elif place % 4 == 2:
        path = f"M{x:.1f} {y - 1.2 * size:.1f}l{1.2 * size:.1f} {2.2 * size:.1f}h{-2.4 * size:.1f}z"
    else:
        path = f"M{x:.1f} {y - 1.3 * size:.1f}l{1.3 * size:.1f} {1.3 * size:.1f}l{-1.3 * size:.1f} {1.3 * size:.1f}"
        path += f"l{-1.3 * size:.1f} {-1.3 * size:.1f}z"
    return f'<path {style} d="{path}">{inside}</path>'


def map_svg(
    title: str, points: np.ndarray, names: Sequence[str], colours: Mapping[str, str], titles: Sequence[str]
) -> str:
    """A map.

    Args:
        points: [n, 2].
        names: of each point, the group that it is coloured and shaped by; one that `colours` lacks is small and grey.
        colours: group -> `#rrggbb`, in the order of the legend.
        titles: of each point, shown on hover.
    """
    low, high = points.min(0), points.max(0)
    inner, extent = _SIDE - 2 * _EDGE, np.maximum(high - low, 1e-9)
    scale = min(inner / extent[0], inner / extent[1])
    height = max(round(extent[1] * scale), inner // 2) + 2 * _EDGE
    middle = (low + high) / 2
    x = _SIDE / 2 + (points[:, 0] - middle[0]) * scale
    y = height / 2 - (points[:, 1] - middle[1]) * scale
    shapes = {name: place for place, name in enumerate(colours)}
    # Those without a group first, beneath the others.
    order = sorted(range(len(points)), key=lambda i: (names[i] in shapes, i))
    drawn = [
        sign(shapes[names[i]], colours[names[i]], x[i], y[i] + _ABOVE, title=titles[i])
        if names[i] in shapes
        else sign(0, SOFT, x[i], y[i] + _ABOVE, _SIZE / 2, titles[i])
        for i in order
    ]
    about = f"{title}: {len(points)} frames as points"
    edge = f'<rect class="edge" x=".5" y="{_ABOVE}.5" width="{_SIDE - 1}" height="{height - 1}" rx="6"/>'
    head = f'<svg role="img" aria-label="{escape(about)}" viewBox="0 0 {_SIDE} {height + _ABOVE}">'
    return f'{head}<text x="0" y="14">{escape(title)}</text>{edge}{"".join(drawn)}</svg>'


def legend(colours: Mapping[str, str], rest: str = "") -> list[tuple[str, str]]:
    """A sign and a name for each group, and what the small grey points are."""
    entries = [(sign(place, colour, 8, 8, 5), name) for place, (name, colour) in enumerate(colours.items())]
    entries += [(sign(0, SOFT, 8, 8, 2.5), rest)] if rest else []
    return [(f'<svg viewBox="0 0 16 16" aria-hidden="true">{drawn}</svg>', name) for drawn, name in entries]
