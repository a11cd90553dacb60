"""The stages of a curation, one after another; each leaves out some of the frames that are still in, and says why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from surgdino import console
from surgdino.curation import retrieval
from surgdino.curation.balance import choose, even_weights
from surgdino.curation.clusters import Level, clustered, hierarchy, levels_for
from surgdino.curation.copies import Stretch, copied, stretches
from surgdino.curation.duplicates import Calibration, along_time, calibrate, nearest_of
from surgdino.curation.groups import across
from surgdino.curation.pieces import HERE, Searchers
from surgdino.curation.semdedup import semdedup
from surgdino.curation.settings import BalanceSettings, DuplicateSettings, RetrievalSettings
from surgdino.curation.table import RESEMBLES
from surgdino.errors import SurgdinoError
from surgdino.frames.prints import Prints

COPY, TWICE, SHARED, UNLIKE, SURPLUS = (
    "a copy of another recording",
    "comes twice in its operation",
    "comes twice",
    "not like what is wanted",
    "more of the same",
)
_FIXES = {  # where a stage leaves none; the others are reasons of frames that are unusable
    COPY: "check whether the videos differ, or set duplicates.copies=false",
    RESEMBLES: "raise duplicates.against, or test on operations that are not learnt from",
    UNLIKE: "raise retrieval.neighbours, or lower retrieval.least",
}
_HIGHEST = 1 - 1e-4  # of a threshold: frames that are equal have a cosine of 1 but for rounding


@dataclass
class Frames:
    """n frames while they are curated.

    Attributes:
        embeddings: unit vectors [n, D].
        times: float64 [n], seconds.
        video_of, operation_of: int64 [n].
        reason: object [n]; "" while a frame is in.
        group: int64 [n], the frame that stands for each.
        levels: of clusters, the finest first.
        similarity: float32 [n], to what is wanted; NaN where nothing is.
        to_tested: float32 [n], the largest cosine with a frame that will be tested on; None where none was given.
        weight: float64 [n].
        thresholds: name of a stage -> the cosine that it used.
        copies: recordings that show what another one shows.
    """

    embeddings: np.ndarray
    times: np.ndarray
    video_of: np.ndarray
    operation_of: np.ndarray
    seed: int
    searchers: Searchers = HERE
    reason: np.ndarray = field(init=False)
    calibration: Calibration = field(init=False)
    group: np.ndarray = field(init=False)
    levels: list[Level] = field(default_factory=list)
    similarity: np.ndarray = field(init=False)
    to_tested: np.ndarray | None = None
    weight: np.ndarray = field(init=False)
    thresholds: dict[str, float] = field(default_factory=dict)
    copies: list[Stretch] = field(default_factory=list)

    def __post_init__(self) -> None:
        n = len(self.times)
        self.reason, self.group = np.full(n, "", object), np.arange(n)
        self.similarity, self.weight = np.full(n, np.nan, np.float32), np.ones(n)
        self.calibration = calibrate(self.embeddings, self.times, self.video_of, self.operation_of, self.seed)

    @property
    def left(self) -> np.ndarray:
        """int64, ascending: the frames that are still in."""
        return np.flatnonzero(self.reason == "")

    def leave_out(self, rows: np.ndarray, reason: str) -> None:
        """Leave frames out.

        Raises:
            SurgdinoError: none is left.
        """
        self.reason[rows] = reason
        if not len(self.left):
            found = f"{len(rows):,} left out for this of {len(self.reason):,}"
            fix = _FIXES.get(reason, "loosen this limit under unusable, or set it to null")
            raise SurgdinoError("no frame is left", place=reason, found=found, fix=fix)

    def threshold(self, name: str, given: float | None, quantile: float | None) -> float | None:
        """The cosine of a stage: as given, else that quantile of the frames a second apart; None: leave the stage out.

        Raises:
            SurgdinoError: no two frames are a second apart.
        """
        if given is None and quantile is None:
            return None
        found = self.calibration.quantile("1 s", quantile) if given is None and quantile is not None else given
        if found is None or np.isnan(found):
            fix = f"give duplicates.{name}, a cosine such as 0.95"
            raise SurgdinoError("no frames a second apart to take a threshold from", fix=fix)
        self.thresholds[name] = min(float(found), _HIGHEST)
        return self.thresholds[name]


def drop_unusable(frames: Frames, reasons: np.ndarray) -> None:
    """Leave out the frames that `reasons`, object [n], has a reason for."""
    for reason in sorted({*reasons} - {""}):
        frames.leave_out(np.flatnonzero(reasons == reason), reason)


def drop_copies(frames: Frames, videos: Sequence[Prints]) -> None:
    """Leave out what another recording shows already, by the prints of each video."""
    frames.copies = stretches(videos)
    stands_for = copied(frames.copies, frames.times, frames.video_of)
    frames.group[:] = stands_for
    rows = frames.left
    frames.leave_out(rows[stands_for[rows] != rows], COPY)


def deduplicate(frames: Frames, settings: DuplicateSettings) -> None:
    """Within operations along time, then across; the first frame of a group stays."""
    if (threshold := frames.threshold("along", settings.along, settings.along_quantile)) is not None:
        rows = frames.left
        stands_for = along_time(frames.embeddings, rows, frames.operation_of, threshold)
        frames.group[rows] = stands_for
        frames.group = frames.group[frames.group]
        frames.leave_out(rows[stands_for != rows], TWICE)
    if (threshold := frames.threshold("across", settings.across, settings.across_quantile)) is None:
        return
    rows = frames.left
    if settings.across_by == "semdedup":
        level = _flat(frames, rows, None)
        frames.leave_out(semdedup(frames.embeddings, rows, level, threshold, settings.order, frames.seed), SHARED)
        return
    groups = across(frames.embeddings, rows, threshold, frames.seed, searchers=frames.searchers)
    _, first, of = np.unique(groups, return_index=True, return_inverse=True)
    frames.group[rows] = rows[first[of]]
    frames.group = frames.group[frames.group]  # of those that an earlier one stands for
    frames.leave_out(rows[frames.group[rows] != rows], SHARED)


def keep_apart(frames: Frames, tested: np.ndarray, same: np.ndarray, settings: DuplicateSettings) -> None:
    """Leave out whatever resembles the frames that will be tested on; whole groups of it.

    Args:
        tested: unit vectors [t, D].
        same: bool [n], the frames of the same operations, which go whatever they show.
    """
    near = same
    if (threshold := frames.threshold("against", settings.against, settings.against_quantile)) is not None:
        frames.to_tested = nearest_of(frames.embeddings, tested, frames.seed, frames.searchers)
        near = same | (frames.to_tested >= threshold)
    touched = np.isin(frames.group, np.unique(frames.group[near]))
    rows = frames.left
    frames.leave_out(rows[touched[rows]], RESEMBLES)


def retrieve(frames: Frames, wanted: np.ndarray, settings: RetrievalSettings, balance: BalanceSettings) -> None:
    """Keep what is near the wanted frames, unit vectors [q, D]; warn where nothing is."""
    frames.similarity = nearest_of(frames.embeddings, wanted, frames.seed, frames.searchers)
    rows = frames.left
    if settings.by == "sample":
        how = settings.neighbours, frames.seed, frames.searchers
        kept = retrieval.by_sample(frames.embeddings, rows, wanted, *how)
    else:
        level = _flat(frames, rows, balance.levels)
        kept = retrieval.by_cluster(level, rows, wanted, settings.least, settings.frames, frames.seed)
    best = float(np.median(np.sort(frames.similarity[rows])[-len(wanted) :]))
    if best < (usual := frames.calibration.quantile("another operation", 0.5)):
        found = f"the nearest frames have a cosine of {best:.3f}, any two of different operations here {usual:.3f}"
        console.warn(f"like: nothing here is like what is wanted: {found}")
    frames.leave_out(np.setdiff1d(rows, kept), UNLIKE)


def rebalance(frames: Frames, settings: BalanceSettings, keep: int | None) -> None:
    """Cluster what is left, and choose `keep` of it, or weight it, so that clusters count alike."""
    rows = frames.left
    if keep is not None and keep > len(rows):
        console.warn(f"keep={keep} is more than the {len(rows):,} frames that are left: all of them are kept")
    frames.levels = _levels(frames, rows, settings)
    if settings.into == "none":
        return
    paths = [level.of[rows] for level in reversed(frames.levels)]
    if settings.operations == "first":
        paths.insert(0, frames.operation_of[rows])
    elif settings.operations == "last":
        paths.append(frames.operation_of[rows])
    if settings.into == "weights":
        frames.weight[rows] = even_weights(paths or [np.zeros(len(rows), np.int64)])
    elif keep is not None and keep < len(rows):
        kept = choose(paths or [np.zeros(len(rows), np.int64)], keep, frames.seed)
        frames.leave_out(np.delete(rows, kept), SURPLUS)


def _levels(frames: Frames, rows: np.ndarray, settings: BalanceSettings) -> list[Level]:
    if settings.by == "uniform":
        return []
    if settings.by == "flat":
        return [_flat(frames, rows, settings.levels)]
    sizes = settings.levels or levels_for(len(rows))
    return hierarchy(frames.embeddings, sizes, frames.seed, settings.resamplings, rows)


def _flat(frames: Frames, rows: np.ndarray, levels: tuple[int, ...] | None) -> Level:
    return clustered(frames.embeddings, (levels or levels_for(len(rows)))[0], frames.seed, rows)
