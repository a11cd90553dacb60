"""Action-triplet metrics by the protocol of Nwoye & Padoy 2022 (arXiv 2204.05235), re-implemented.

AP of each class, NaN where it has no positive. `video-wise`, the recommended one: mean over the videos where it is
defined, then over classes. `global`: all frames pooled. `challenge`: the six null triplets (an instrument that does
nothing) are dropped after AP, and only IVT is scored. Components (I, V, T, IV, IT) are the maximum over the triplets
that share them, in truth and scores alike, unless a model's own heads are given, which the protocol's name then says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from surgdino.errors import SurgdinoError, nearest
from surgdino.metrics.arrays import score_matrices
from surgdino.metrics.average_precision import Videos

COMPONENTS = ("I", "V", "T", "IV", "IT", "IVT")
# protocol -> (frames pooled?, null triplets dropped and IVT alone?)
PROTOCOLS: dict[str, tuple[bool, bool]] = {
    "triplet/video-wise": (False, False),
    "triplet/global": (True, False),
    "triplet/challenge-video-wise": (False, True),
    "triplet/challenge-global": (True, True),
}
DEFAULT = "triplet/video-wise"


@dataclass(frozen=True)
class TripletMap:
    """Which component each triplet holds.

    Attributes:
        ids: component (I, V, T, IV, IT) -> int64 [n], the component's id of each triplet.
        null: bool [n], triplets of the null verb.
    """

    ids: dict[str, np.ndarray]
    null: np.ndarray

    def __len__(self) -> int:
        return len(self.null)

    def classes(self, component: str) -> np.ndarray:
        """The sorted ids of a component that some triplet holds: the columns of its scores."""
        return np.arange(len(self)) if component == "IVT" else np.unique(self.ids[component])


def triplet_map(table: np.ndarray, *, null_verb: int) -> TripletMap:
    """From the rows of `label_mapping.txt`: int [n, 6] with columns IVT, I, V, T, IV, IT, row i being triplet i.

    Raises:
        SurgdinoError: another shape, rows out of order, or pair ids that contradict the instrument, verb and target.
    """
    table = np.asarray(table)
    if table.ndim != 2 or table.shape[1] != 6 or not len(table) or not np.issubdtype(table.dtype, np.integer):
        found = f"{table.dtype} {list(table.shape)}"
        raise SurgdinoError("the triplet mapping has another shape", expected="integers [n, 6]", found=found)
    misplaced = np.flatnonzero(table[:, 0] != np.arange(len(table)))
    if misplaced.size:
        row = misplaced[0]
        raise SurgdinoError(
            "the triplet mapping is out of order", place=f"row {row}", expected=row, found=table[row, 0]
        )
    ids = dict(zip(COMPONENTS, table[:, 1:].T.astype(np.int64), strict=False))
    for pair in ("IV", "IT"):
        members = np.stack([ids[pair[0]], ids[pair[1]]], 1)
        count = len(np.unique(members, axis=0))
        if not count == len(np.unique(ids[pair])) == len(np.unique(np.column_stack([members, ids[pair]]), axis=0)):
            raise SurgdinoError(
                f"the {pair} ids contradict {pair[0]} and {pair[1]}", expected="one id a pair", found="another count"
            )
    return TripletMap(ids, ids["V"] == null_verb)


def component_maximum(values: np.ndarray, component: str, mapping: TripletMap) -> np.ndarray:
    """[n, triplets] -> [n, classes of the component]: the maximum over the triplets that share each class."""
    if component == "IVT":
        return values
    order = np.argsort(mapping.ids[component], kind="stable")
    starts = np.unique(mapping.ids[component][order], return_index=True)[1]
    return np.maximum.reduceat(values[:, order], starts, axis=1)


def protocol_parts(protocol: str) -> tuple[bool, bool]:
    """(frames pooled?, challenge?) of a known protocol."""
    if protocol not in PROTOCOLS:
        raise SurgdinoError(f"unknown triplet protocol {protocol!r}", fix=nearest(protocol, PROTOCOLS))
    return PROTOCOLS[protocol]


def component_videos(
    truths: Mapping[str, np.ndarray],
    scores: Mapping[str, np.ndarray],
    mapping: TripletMap,
    component: str,
    heads: Mapping[str, Mapping[str, np.ndarray]] | None = None,
) -> Videos:
    """(video, truth bool [n, c], scores [n, c]) of one component, from the triplets or from its own head."""
    unknown = [name for name in heads or {} if name not in COMPONENTS[:-1]]
    if unknown:
        raise SurgdinoError(f"unknown component {unknown[0]!r}", expected=", ".join(COMPONENTS[:-1]), found=unknown[0])
    videos = score_matrices(truths, scores, len(mapping))
    true = {video: component_maximum(truth, component, mapping) for video, truth, _ in videos}
    if heads and component in heads:
        return score_matrices(true, heads[component], len(mapping.classes(component)))
    return [(video, true[video], component_maximum(score, component, mapping)) for video, _, score in videos]


def top_k_hits(videos: Videos, ks: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Of each video, how many positives are among their frame's k highest scores, [V, len(ks)], and positives [V].

    Equal scores keep the order of the classes.
    """
    hits, positives = np.zeros((len(videos), len(ks))), np.zeros(len(videos))
    for place, (_, truth, score) in enumerate(videos):
        ranked = np.take_along_axis(truth, np.argsort(-score, axis=1, kind="stable"), 1)
        hits[place] = [ranked[:, :k].sum() for k in ks]
        positives[place] = truth.sum()
    return hits, positives
