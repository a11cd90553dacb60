"""`hardware.fit`: the largest micro-batch that the device's memory holds, found by trying."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from surgdino import console
from surgdino.crops.loader import Batch
from surgdino.engine.memory import peak_and_size, used_by_others
from surgdino.engine.processes import ProcessGroup
from surgdino.engine.session import Session
from surgdino.engine.step import anchored, compute_gradients, compute_targets, micro_batches, pools
from surgdino.errors import SurgdinoError, is_out_of_memory

_HEADROOM = 0.08  # of the memory: masks vary from step to step, and an allocator leaves gaps


@dataclass(frozen=True)
class Alike(ProcessGroup):
    """Stands for all processes of a run while one of them tries alone: as if the others had the same images."""

    def sum(self, tensor: Tensor) -> Tensor:
        """Of W equal ones."""
        return tensor.detach() * self.world

    def gather_views(self, tensor: Tensor) -> Tensor:
        """W times the same."""
        return torch.cat([tensor.detach()] * self.world, dim=1)

    def max(self, value: float) -> float:
        """Its own."""
        return value


def fit(session: Session) -> None:
    """Set `train.accumulate` to the first divisor of this process's share of the batch whose passes fit.

    It tries from the setting's own value on, forward and backward with the backbone learning, on a real batch of the
    largest crops. Weights, moments, the teacher and everything random stay as they are. All processes take the largest
    number that one needs.

    Raises:
        SurgdinoError: not even one image at a time fits; or the networks are sharded, which cannot try alone.
    """
    plan = session.plan
    if plan.hardware.shard and session.processes.world > 1:
        fix = "choose train.accumulate yourself, or leave hardware.shard out"
        raise SurgdinoError("sharded networks cannot be tried", place="hardware.fit", fix=fix)
    share = plan.train.batch_size // session.processes.world
    counts = [k for k in range(plan.train.accumulate, share + 1) if share % k == 0]
    largest = replace(session, plan=replace(plan, crops=plan.crops.largest))
    source = cast(Generator[Batch], largest.batches())
    batch = next(source)
    source.close()
    chosen = next((k for k in counts if _fits(session, batch, k)), 0)
    chosen, failed = int(session.processes.max(chosen)), session.processes.any(chosen == 0)
    peak, size = peak_and_size(session.device)
    if failed:
        raise SurgdinoError(
            "the device's memory is too small for one image at a time",
            place="hardware.fit",
            found=f"{size / 2**30:.1f} GiB, {used_by_others(session.device) / 2**30:.1f} by other programs",
            fix="use hardware.activation_checkpointing=true, a smaller model or smaller crops",
        )
    session.plan = replace(plan, train=replace(plan.train, accumulate=chosen))
    used = f"; {peak / 2**30:.1f} of {size / 2**30:.1f} GiB at most" if session.device.type == "cuda" else ""
    console.field("fit", f"train.accumulate={chosen}: {share // chosen} images at a time{used}")
    _forget(session)


def _fits(session: Session, batch: Batch, count: int) -> bool:
    """Whether the passes of a step leave room for the optimiser's moments."""
    _forget(session)
    alone = replace(
        session,
        plan=replace(session.plan, train=replace(session.plan.train, accumulate=count)),
        wrapped=session.student,
        processes=Alike(session.processes.rank, session.processes.world),
    )
    session.retention.set_trainable(True)
    cards = [session.device] if session.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(cards):
            views = anchored(alone, micro_batches(alone, batch))
            targets = compute_targets(alone, views)
            compute_gradients(alone, views, targets, pools(alone, views, targets))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    if not cards:
        return True
    learned = [p for group in session.optimizer.param_groups for p in group["params"] if p.grad is not None]
    moments = sum(8 * p.numel() for p in learned if p not in session.optimizer.state)
    peak, size = peak_and_size(session.device)
    return peak + moments <= (1 - _HEADROOM) * (size - used_by_others(session.device))


def _forget(session: Session) -> None:
    """Let go of what a trial took."""
    session.optimizer.zero_grad(set_to_none=True)
    if session.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(session.device)
