"""Which frames the backbone is measured on (few, evenly over the operations, some in pairs), and their labels."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from surgdino.datasets.depth import DEPTH
from surgdino.datasets.manifest import Labels
from surgdino.datasets.masks import FrameMasks, VideoMasks, read_masks
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
        tested: bool [n]; the others only train the probes that need labels.
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
    steps = np.diff(times)[videos[1:] == videos[:-1]]
    near = max(NEAR_SECONDS, 1.5 * float(np.median(steps)) if len(steps) else 0.0)
    chosen: list[np.ndarray] = []
    budget = max(count - count // 2, count - int(np.isin(operations, kinds[1]).sum()))
    for kind in kinds:
        members = {name: np.flatnonzero(operations == name) for name in even(np.array(kind, dtype=object), budget)}
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


def _shares(sizes: Sequence[int], count: int) -> list[int]:
    """`count` divided evenly; what a small one cannot take goes to the larger ones."""
    shares = [0] * len(sizes)
    for done, place in enumerate(np.argsort(sizes, kind="stable")):
        shares[place] = min(sizes[place], count // (len(sizes) - done))
        count -= shares[place]
    return shares


@dataclass(frozen=True)
class TaskLabels:
    """A task whose labels are of whole frames.

    Attributes:
        task: as in `Manifest.labels`.
        classes: their names in the order of their ids.
        present: bool [n], frames that have a label.
        values: class ids int64 [n], or 0/1 uint8 [n, classes]; meaningless where not present.
    """

    task: str
    classes: tuple[str, ...]
    present: np.ndarray
    values: np.ndarray

    @property
    def exclusive(self) -> bool:
        """Whether a frame has one class (phase), rather than any number of them (tools)."""
        return self.values.ndim == 1


@dataclass
class MaskLabels:
    """Masks of some of the frames, read when first asked for.

    Attributes:
        classes: in the order of the channels.
        rows: int64 [m], places of the frames that have masks, in the probe's set.
        masks: [m], their files.
        boxes: [m], (x0, y0, x1, y1) of the picture's part that was stored, in its pixels.
    """

    classes: tuple[str, ...]
    rows: np.ndarray
    masks: list[FrameMasks]
    boxes: list[tuple[int, int, int, int]]
    _cover: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def cover(self, grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Which patches a class covers by more than half, and of which classes anything is known.

        Args:
            grid: (rows, columns) of the patches.

        Returns:
            bool [m, classes, rows, columns] and bool [m, classes].
        """
        if grid not in self._cover:
            read = [self._of(place, grid) for place in range(len(self.rows))]
            self._cover[grid] = np.stack([cover for cover, _ in read]), np.stack([known for _, known in read])
        return self._cover[grid]

    def _of(self, place: int, grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        masks, known = read_masks(self.masks[place], self.classes)
        x0, y0, x1, y1 = self.boxes[place]
        stored = masks[:, y0:y1, x0:x1].astype(np.float32)
        shrunk = [cv2.resize(mask, grid[::-1], interpolation=cv2.INTER_AREA) for mask in stored]
        return np.stack(shrunk) > 0.5, known


def labelled_frames(store: FrameStore, labels: Mapping[str, Labels]) -> np.ndarray:
    """bool [len(store)]: frames that have a label of any task."""
    every = np.arange(len(store))
    found = np.zeros(len(store), bool)
    for of_task in labels.values():
        for rows, numbers, times, values in _by_video(store, every, of_task):
            known = np.isin(numbers, values.numbers) if isinstance(values, VideoMasks) else values.at(numbers, times)[0]
            found[rows] |= known
    return found


def frame_labels(store: FrameStore, rows: np.ndarray, labels: Mapping[str, Labels]) -> list[TaskLabels]:
    """Every task whose labels are of whole frames and that at least one of the frames at `rows` has a label of."""
    found = []
    for task, of_task in labels.items():
        present, values = np.zeros(len(rows), bool), None
        for places, numbers, times, of_video in _by_video(store, rows, of_task):
            if isinstance(of_video, VideoMasks) or of_task.asked:
                continue
            known, read = of_video.at(numbers, times)
            if values is None:
                values = np.zeros((len(rows), *read.shape[1:]), np.int64 if read.ndim == 1 else np.uint8)
            present[places], values[places] = known, read
        if values is not None and present.any():
            found.append(TaskLabels(task, of_task.classes, present, values))
    return found


def mask_labels(store: FrameStore, rows: np.ndarray, labels: Mapping[str, Labels]) -> MaskLabels | None:
    """The masks of the frames at `rows`, or None where none has any."""
    for of_task in (labels[task] for task in labels if task != DEPTH):
        found: list[tuple[int, FrameMasks, tuple[int, int, int, int]]] = []
        for places, numbers, _, of_video in _by_video(store, rows, of_task):
            if not isinstance(of_video, VideoMasks):
                continue
            box = _box(store, store.video_id(int(rows[places[0]])))
            found += [(int(p), of_video[int(n)], box) for p, n in zip(places, numbers, strict=True) if n in of_video]
        if found:
            places, masks, boxes = zip(*found, strict=True)
            return MaskLabels(of_task.classes, np.array(places), list(masks), list(boxes))
    return None


def _by_video(store: FrameStore, rows: np.ndarray, labels: Labels):
    """(places in `rows`, frame numbers, times, labels) of each video that has labels."""
    videos = np.array([store.video_id(int(i)) for i in rows], dtype=str)
    for video in dict.fromkeys(videos.tolist()):
        if video in labels.values:
            places = np.flatnonzero(videos == video)
            numbers = np.array([store.number(int(i)) for i in rows[places]], dtype=np.int64)
            times = np.array([store.time(int(i)) for i in rows[places]])
            yield places, numbers, times, labels.values[video]


def _box(store: FrameStore, video: str) -> tuple[int, int, int, int]:
    header = next(stored.shard.header for stored in store.videos if stored.id == video)
    x0, y0, x1, y1 = header["content"]["source_box"]
    return x0, y0, x1, y1
