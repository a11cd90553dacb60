"""Which frames a curation counts as the same: the one that is kept, and those it stands for."""

from __future__ import annotations

import numpy as np

from surgdino.errors import SurgdinoError
from surgdino.frames.store import FrameStore
from surgdino.report.sheet import Sheet
from surgdino.show.curated import Curated
from surgdino.show.frames import ShowConfig

_EACH, _MORE = 7, 3  # frames of a group; groups for each of show.frames


def draw(config: ShowConfig, store: FrameStore) -> Sheet:
    """Groups drawn at random: the frame that is kept first, then some of those that are left out for it."""
    curated = Curated.of(config, store)
    curation, there = curated.curation, curated.place >= 0
    out = np.flatnonzero(there & (curation.group != np.arange(len(curation))) & there[curation.group])
    if not len(out):
        raise SurgdinoError("this curation has no duplicates", fix="see its report for what it left out")
    rng = np.random.default_rng(config.show.seed)
    strips = []
    for group in rng.permutation(np.unique(curation.group[out]))[: _MORE * config.show.frames].tolist():
        rows = out[curation.group[out] == group]
        some = np.sort(rng.permutation(rows)[:_EACH]).tolist()
        reasons = ", ".join(sorted({reason for reason in curation.reason[rows].tolist() if reason}))
        video = curation.videos[curation.video_of[group]]
        strips.append((f"{video} {curation.time[group]:.0f} s stands for {len(rows)}: {reasons}", [group, *some]))
    return curated.sheet("Duplicates", "left: the frame that stands for the others; right: some of these", strips)
