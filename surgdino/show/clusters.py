"""What the clusters of a curation show: a strip of frames for each of the largest."""

from __future__ import annotations

import numpy as np

from surgdino.errors import SurgdinoError
from surgdino.frames.store import FrameStore
from surgdino.report.sheet import Sheet
from surgdino.show.curated import Curated
from surgdino.show.frames import ShowConfig

_EACH, _MORE = 8, 3  # frames of a cluster; clusters for each of show.frames


def draw(config: ShowConfig, store: FrameStore) -> Sheet:
    """The largest clusters of the coarsest level, each with frames drawn at random."""
    curated = Curated.of(config, store)
    if not curated.curation.levels:
        raise SurgdinoError("this curation has no clusters", fix="run surgdino curate with balance.by=hierarchy")
    there = np.flatnonzero(curated.place >= 0)
    of = curated.curation.levels[-1][there]
    counts, rng = np.bincount(of), np.random.default_rng(config.show.seed)
    strips = []
    for cluster in np.argsort(-counts, kind="stable")[: _MORE * config.show.frames].tolist():
        rows = there[of == cluster]
        if len(rows):
            some = np.sort(rng.permutation(rows)[:_EACH])
            kept = curated.curation.keep[rows].sum()
            strips.append((f"cluster {cluster}: {len(rows):,} frames, {kept:,} kept", some.tolist()))
    return curated.sheet("Clusters", f"the largest {len(strips)} of {len(counts)}, frames at random", strips)
