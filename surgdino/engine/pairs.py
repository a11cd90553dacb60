"""crops.pair=neighbours: each frame's nearest others of the same operation, as the teacher sees them now.

As LemonFM's second view from a nearest neighbour in feature space (visurg-ai, CVPR 2026). A table is made every
`crops.pair_every` steps from the teacher of that step, in pieces that do not depend on the number of processes or
workers; it is part of the saved state, so that a resumed run draws the same partners.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from surgdino.backbone.preprocess import normalize
from surgdino.crops.loader import Batch
from surgdino.crops.workers import load
from surgdino.engine.hardware import loader_workers
from surgdino.engine.session import Session
from surgdino.frames.store import FrameStore

_PIECE = 64  # frames that go through the network together
_ROWS = 1024  # of an operation, compared with all of it at once


@dataclass
class Pictures:
    """Reads whole frames at the size of global crops; runs in the workers."""

    store: FrameStore
    side: int

    def __call__(self, frames: range) -> Tensor:
        """uint8 [n, 3, S, S]."""
        size = (self.side, self.side)
        shown = [cv2.resize(self.store.read(i), size, interpolation=cv2.INTER_AREA) for i in frames]
        return torch.from_numpy(np.stack(shown)).permute(0, 3, 1, 2).contiguous()


def batches(session: Session) -> Iterator[Batch]:
    """`Session.batches`, begun anew with each new table of neighbours; for all processes."""
    crops = session.plan.crops
    if crops.pair == "time":
        yield from session.batches()
    while crops.pair == "neighbours" and session.step < session.phase.stop:
        due = session.step // crops.pair_every * crops.pair_every
        if session.neighbours is None or session.neighbours["step"] != due:
            session.neighbours = {"step": due, "rows": nearest(session)}
        yield from session.batches(min(due + crops.pair_every, session.phase.stop))


@torch.no_grad()
def nearest(session: Session) -> Tensor:
    """int32 [n, crops.pair_count], the nearest first; -1 where an operation has fewer.

    Frames of the same video within `crops.pair_seconds` do not count, where that is set.
    """
    store, crops = session.plan.store, session.plan.crops
    features = _class_tokens(session)
    operations = np.array([store.operation(i) for i in range(len(store))])
    rows = torch.full((len(store), crops.pair_count), -1, dtype=torch.int32)
    for operation in dict.fromkeys(operations.tolist()):
        members = np.flatnonzero(operations == operation)
        own = features[torch.from_numpy(members).to(features.device)]
        count = min(crops.pair_count, len(members) - 1)
        for start in range(0, len(members) if count else 0, _ROWS):
            some = members[start : start + _ROWS]
            cosines = own[start : start + _ROWS] @ own.mT
            cosines.masked_fill_(torch.from_numpy(_too_near(session, some, members)).to(cosines.device), -2.0)
            found = cosines.topk(count)
            places = found.indices.cpu().numpy()
            kept = np.where(found.values.cpu().numpy() > -2.0, members[places], -1)
            rows[some, :count] = torch.from_numpy(kept.astype(np.int32))
    return rows


def _too_near(session: Session, some: np.ndarray, members: np.ndarray) -> np.ndarray:
    """bool [len(some), len(members)]: the frame itself, and those near to it in time."""
    seconds = session.plan.crops.pair_seconds
    if seconds is None:
        return some[:, None] == members
    near = [session.plan.store.near(int(i), seconds) for i in some]
    return np.stack([(members >= each.start) & (members < each.stop) for each in near])


def _class_tokens(session: Session) -> Tensor:
    """Unit class tokens float32 [n, D] of all frames by the teacher, each process computing every W-th piece."""
    plan, processes = session.plan, session.processes
    count = len(plan.store)
    pieces = [range(start, min(start + _PIECE, count)) for start in range(0, count, _PIECE)]
    rounds = -(-len(pieces) // processes.world)  # all take part in each, as sharded networks have to
    own = [pieces[min(k * processes.world + processes.rank, len(pieces) - 1)] for k in range(rounds)]
    side, model = plan.crops.side, plan.model
    work = load(Pictures(plan.store, side), own, loader_workers(plan.hardware), result_bytes=3 * _PIECE * side**2)
    tokens = []
    for pictures in work:
        images = normalize(pictures.to(session.device), model["mean"], model["std"])
        with session.hardware.autocast():
            cls = F.normalize(session.teacher.class_tokens(images).float(), dim=-1)
        tokens.append(F.pad(cls, (0, 0, 0, _PIECE - len(cls))))
    gathered = processes.gather_views(torch.stack(tokens)[None].flatten(1, 2))[0]  # process by process
    by_piece = gathered.unflatten(0, (processes.world, rounds, _PIECE)).transpose(0, 1).flatten(0, 1)
    return torch.cat([by_piece[k, : len(piece)] for k, piece in enumerate(pieces)])
