"""Which frames the backbone is measured on: few, evenly spread over the operations, some with a frame just after."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from surgdino.frames.store import FrameStore

# Two frames this many seconds apart show the same moment; a partner is looked for at about two.
NEAR_SECONDS, PARTNER_SECONDS = 5.0, 2.0
# One frame in four is another's partner: enough pairs to compare, and little room taken from different moments.
_PARTNERS = 4


@dataclass(frozen=True)
class ProbeFrames:
    """The chosen frames, in the store's order.

    Attributes:
        rows: int64 [n], their positions in the store.
        videos, operations: str [n].
        times: float64 [n], seconds from the first frame of the video.
        tested: bool [n]; the others only teach the probes that need labels.
        near: seconds within which two frames of a video count as the same moment.
    """

    rows: np.ndarray
    videos: np.ndarray
    operations: np.ndarray
    times: np.ndarray
    tested: np.ndarray
    near: float = NEAR_SECONDS

    def __len__(self) -> int:
        return len(self.rows)

    def only_tested(self) -> ProbeFrames:
        """The tested frames alone."""
        kept = self.tested
        return ProbeFrames(
            self.rows[kept], self.videos[kept], self.operations[kept], self.times[kept], kept[kept], self.near
        )

    def of(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Operation -> those of `rows` (places in this set) that show it, sorted by the operation's name."""
        return {str(name): rows[self.operations[rows] == name] for name in np.unique(self.operations[rows])}


def choose_frames(
    store: FrameStore, count: int, tested: Collection[str] | None = None, labelled: np.ndarray | None = None
) -> ProbeFrames:
    """At most `count` frames: every operation the same share, spread evenly over its time.

    Where some operations are not tested, the two kinds get half of the frames each, and what one kind cannot take goes
    to the other. An operation with labels gives its labelled frames first.

    Args:
        count: more than the store has takes all.
        tested: operations; None takes every one.
        labelled: bool [len(store)], frames that have a label of any kind.
    """
    places = range(len(store))
    videos = np.array([store.video_id(i) for i in places], dtype=str)
    operations = np.array([store.operation(i) for i in places], dtype=str)
    times = np.array([store.time(i) for i in places], dtype=np.float64)
    labelled = np.zeros(len(store), bool) if labelled is None else labelled
    names = list(dict.fromkeys(operations.tolist()))
    kinds = [[n for n in names if tested is None or n in tested], [n for n in names if tested and n not in tested]]
    near = max(NEAR_SECONDS, 1.5 * _step(videos, times))
    chosen: list[np.ndarray] = []
    budget = max(count - count // 2, count - int(np.isin(operations, kinds[1]).sum()))
    for kind in kinds:
        members = {name: np.flatnonzero(operations == name) for name in _spread(kind, budget)}
        shares = _shares([len(rows) for rows in members.values()], budget)
        for rows, share in zip(members.values(), shares, strict=True):
            chosen.append(_of_operation(rows, share, videos, times, labelled, near))
        budget = count - sum(map(len, chosen))
    rows = np.unique(np.concatenate(chosen)) if chosen else np.empty(0, np.int64)
    is_tested = np.isin(operations[rows], kinds[0])
    return ProbeFrames(rows, videos[rows], operations[rows], times[rows], is_tested, near)


def even(items: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of the items, evenly spaced, the first and the last among them."""
    return items if count >= len(items) else items[np.linspace(0, len(items) - 1, count).round().astype(int)]


def _of_operation(
    rows: np.ndarray, share: int, videos: np.ndarray, times: np.ndarray, labelled: np.ndarray, near: float
) -> np.ndarray:
    """`share` of an operation's frames; those that have labels, if any has, with some partners of whatever kind."""
    pool = rows[labelled[rows]] if labelled[rows].any() else rows
    if share >= len(pool):
        return pool
    anchors = even(pool, max(share - share // _PARTNERS, 1))
    partners = []
    for anchor in anchors[:: _PARTNERS - 1]:
        after = times[rows] - times[anchor]
        close = (videos[rows] == videos[anchor]) & (after > 0) & (after <= near)
        if close.any():
            partners.append(rows[np.argmin(np.where(close, np.abs(after - PARTNER_SECONDS), np.inf))])
    return np.concatenate([anchors, np.array(partners[: share // _PARTNERS], dtype=np.int64)])


def _spread(names: Sequence[str], count: int) -> list[str]:
    return even(np.array(names, dtype=object), count).tolist() if names else []


def _shares(sizes: Sequence[int], count: int) -> list[int]:
    """`count` dealt out evenly; what a small one cannot take goes to the larger ones."""
    shares = [0] * len(sizes)
    for dealt, place in enumerate(np.argsort(sizes, kind="stable")):
        shares[place] = min(sizes[place], count // (len(sizes) - dealt))
        count -= shares[place]
    return shares


def _step(videos: np.ndarray, times: np.ndarray) -> float:
    """The median distance in time of neighbouring frames; 0 where every video has but one."""
    steps = np.diff(times)[videos[1:] == videos[:-1]]
    return float(np.median(steps)) if len(steps) else 0.0
