"""A session: everything that is alive between the first step and the last."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from surgdino.backbone.vit import Backbone
from surgdino.crops.loader import Batch, make_loader
from surgdino.engine.hardware import Hardware, loader_workers
from surgdino.engine.loss_scale import LossScale
from surgdino.engine.method import Method, Targets, Terms
from surgdino.engine.methods.parts.views import Views
from surgdino.engine.monitor import Monitor
from surgdino.engine.parallel import Copies
from surgdino.engine.plan import Phase, TrainPlan, TrainResult
from surgdino.engine.probing.report import ProbeHistory
from surgdino.engine.processes import Pool, ProcessGroup
from surgdino.engine.retention import Retention
from surgdino.engine.writer import Writer


@dataclass
class Session:
    """A run in progress: `step` steps are done; it was last saved and measured at `saved` and `measured`.

    Attributes:
        computed_on: `hardware` in words.
        loss_scale: of fp16, else None.
        phase: of `plan.stages`, the one whose settings `plan` has.
        wrapped: the student, or what exchanges its gradients between copies.
        initial: the backbone's weights at step 0, timm's names, where what is shipped holds a share of them.
        neighbours: `rows` as `surgdino.engine.pairs` made them at `step`; None where frames have none.
        anchor: a frozen backbone, whole in each process; None where `train.gram` is 0.
    """

    plan: TrainPlan
    hardware: Hardware
    computed_on: str
    student: Method[Targets]
    teacher: Method[Targets]
    wrapped: Method[Targets] | Copies
    processes: ProcessGroup
    optimizer: torch.optim.Optimizer
    loss_scale: LossScale | None
    retention: Retention
    initial: dict[str, Tensor]
    monitor: Monitor
    steps: int
    phase: Phase
    step: int = 0
    saved: int = -1
    measured: int = -1
    resumed_from: int | None = None
    probes: ProbeHistory = field(default_factory=ProbeHistory)
    neighbours: dict[str, Any] | None = None
    anchor: Backbone | None = None
    writer: Writer = field(default_factory=Writer)

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.hardware.device

    @property
    def networks(self) -> dict[str, Method[Targets]]:
        """Both by name."""
        return {"student": self.student, "teacher": self.teacher}

    @property
    def momentum(self) -> tuple[float, float]:
        """The teacher's, at the start and at the end: the run's own where set, else the method's."""
        train, method = self.plan.train, self.student.settings
        start = method.momentum if train.momentum is None else train.momentum
        return start, method.momentum_end if train.momentum_end is None else train.momentum_end

    def loss(self, views: Views, targets: Targets, pool: Pool) -> tuple[Tensor, Terms]:
        """The student's `Method.loss`, through what wraps its `forward` for several processes."""
        return self.wrapped(views, targets, pool)

    def batches(self, last: int | None = None) -> Iterator[Batch]:
        """The batches from the present step to the phase's end (or to `last`), time spent waiting for them counted."""
        plan, phase = self.plan, self.phase
        loader = make_loader(
            plan.store,
            plan.crops,
            plan.augment,
            batch_size=plan.train.batch_size,
            seed=plan.train.seed,
            workers=loader_workers(plan.hardware),
            start_step=self.step,
            steps=phase.stop if last is None else last,
            offset=phase.seen - phase.start * plan.train.batch_size,
            weights=plan.weights,
            patch_size=self.student.backbone.patch_size,
            mask_probability=self.student.mask_probability,
            mask_ratio=self.student.mask_ratio,
            rank=self.processes.rank,
            world=self.processes.world,
            pin_memory=self.device.type == "cuda",
            facts=plan.facts if plan.guides else {},
            clean=plan.train.gram_scale if plan.train.gram else 0,
            neighbours=None if self.neighbours is None else self.neighbours["rows"].numpy(),
        )
        source = iter(loader)
        while True:
            with self.monitor.waiting():
                batch = next(source, None)
            if batch is None:
                return
            yield batch

    def result(self, status: Literal["finished", "stopped", "already finished"]) -> TrainResult:
        """What the caller gets."""
        monitor, plan = self.monitor, self.plan
        return TrainResult(
            status=status,
            step=self.step,
            steps=self.steps,
            resumed_from=self.resumed_from,
            skipped=monitor.skipped,
            first=monitor.first,
            last=monitor.last,
            probes=self.probes,
            collapse=self.student.collapse(plan.train.batch_size),
            images_per_second=monitor.images_per_second(),
            warnings=monitor.warnings,
            checkpoint=plan.folder / "checkpoint",
            metrics=monitor.file,
        )
