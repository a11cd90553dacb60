"""What a curation is shown by: how alike frames are, how even its clusters and what they show, a map, copies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.decomposition import PCA

from surgdino.curation.clusters import entropy, medoids
from surgdino.curation.duplicates import Calibration
from surgdino.curation.embeddings import at
from surgdino.curation.stages import Frames

_MAPPED = 3000  # points of the map
_BINS = 80  # of a histogram
_LEAST = 0.002  # share of the pairs that may lie below the histogram


def facts_of(frames: Frames, videos: Sequence[str]) -> dict[str, Any]:
    """For the table's metadata.

    Args:
        videos: what is shown of each video's name.
    """
    return {
        "thresholds": frames.thresholds,
        "calibration": {
            name: [float(q) for q in np.quantile(found, (0.05, 0.5, 0.95))] if len(found) else None
            for name, found in frames.calibration.cosines.items()
        },
        "likeness": _likeness(frames.calibration),
        "entropy": entropies(frames),
        "medoids": medoids(frames.embeddings, frames.levels[-1]).tolist() if frames.levels else [],
        "map": _flat_map(frames.embeddings, frames.seed),
        "copies": [
            {"copy": videos[each.copy], "of": videos[each.original], "from": each.start, "to": each.stop}
            for each in frames.copies
        ],
    }


def entropies(frames: Frames) -> list[tuple[int, float, float]]:
    """(clusters, before, after) of each level, the finest first: entropy over its clusters as a share of the largest
    possible, of all frames and of what is drawn."""
    drawn = np.where(frames.reason == "", frames.weight, 0.0)
    sizes = [(level.of, len(level.centroids)) for level in frames.levels]
    return [(k, entropy(of, k), entropy(of, k, drawn)) for of, k in sizes]


def _likeness(calibration: Calibration) -> dict[str, Any]:
    """Histograms of the cosines: `edges` of the bins, and name -> the share of the pairs in each."""
    found = {name: cosines for name, cosines in calibration.cosines.items() if len(cosines)}
    lowest = min((float(np.quantile(cosines, _LEAST)) for cosines in found.values()), default=0.0)
    edges = np.linspace(min(lowest, 0.99), 1, _BINS + 1)
    shares = {name: np.histogram(np.clip(each, edges[0], 1), edges)[0] / len(each) for name, each in found.items()}
    return {"edges": edges.round(5).tolist(), "shares": {name: each.round(5).tolist() for name, each in shares.items()}}


def _flat_map(embeddings: np.ndarray, seed: int) -> dict[str, Any]:
    """Where some frames lie in two dimensions: by UMAP where umap-learn is installed, else by principal components."""
    rows = np.unique(np.linspace(0, len(embeddings) - 1, min(_MAPPED, len(embeddings))).astype(np.int64))
    if len(rows) < 3:
        return {}
    features = at(embeddings, rows)
    by, points = "PCA", PCA(2, random_state=seed).fit_transform(features)
    try:
        from umap import UMAP
    except ImportError:
        pass
    else:
        by = "UMAP"
        points = UMAP(metric="cosine", init=points, random_state=seed, n_jobs=1).fit_transform(features)
    return {"by": by, "rows": rows.tolist(), "xy": np.round(points.astype(float), 4).tolist()}
