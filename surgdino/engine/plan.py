"""What the training loop is given and what it returns: plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from surgdino.backbone.vit import Backbone
from surgdino.crops.settings import CropSettings
from surgdino.engine.logger import RunLog
from surgdino.engine.probing.probe_set import Probing
from surgdino.engine.probing.report import ProbeHistory
from surgdino.engine.settings import HardwareSettings, PretrainSettings
from surgdino.frames.store import FrameStore


@dataclass(frozen=True)
class Phase:
    """Steps `start` to `stop` - 1 of a run, and the sections that hold for them.

    Attributes:
        seen: images drawn before its first step.
    """

    start: int
    stop: int
    seen: int
    crops: CropSettings
    train: PretrainSettings
    augment: Mapping[str, Any]
    guides: Mapping[str, Mapping[str, Any]]

    @property
    def steps(self) -> int:
        """How many."""
        return self.stop - self.start


@dataclass(frozen=True)
class TrainPlan:
    """Everything a run needs.

    Attributes:
        backbone: the student's, with its weights loaded, on the CPU.
        model: the `model` section: `name`, `patch_size`, `mean`, `std`, ...
        method: the `method` section; its `name` is the file in `surgdino/engine/methods/`.
        store: the frames to learn from.
        augment: the `augment` section, handed to the crops unread.
        folder: the run folder; `metrics.jsonl`, `tensorboard/`, `checkpoint/` and `state/` are made in it.
        data_hash: `Manifest.fingerprint()`; a run resumes only on the data it began with.
        model_json: what the caller knows for `checkpoint/model.json` (dataset, operations seen, licence note, initial
            weights); the engine adds method, steps and seed.
        weights: float [len(store)], how often each frame is drawn; None: each once an epoch.
        probe: what the backbone is measured on, and when; None: never.
        progress: draw a progress bar.
        hide: what is written of names, from what they are; see `surgdino.runs.names`.
        guides: the `guide` section; each entry's `name` is the file in `surgdino/engine/guides/`.
        facts: name -> [len(store)], what the guides read of each frame.
        log: who gets the numbers of metrics.jsonl too.
        phases: of a run that has several; `crops`, `train`, `augment` and `guides` are then those of one of them.
    """

    backbone: Backbone
    model: Mapping[str, Any]
    method: Mapping[str, Any]
    store: FrameStore
    augment: Mapping[str, Any]
    crops: CropSettings
    train: PretrainSettings
    hardware: HardwareSettings
    folder: Path
    data_hash: str = ""
    model_json: Mapping[str, Any] = field(default_factory=dict)
    probe: Probing | None = None
    weights: np.ndarray | None = None
    progress: bool = True
    hide: Callable[[Any], Any] = lambda names: names
    guides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    facts: Mapping[str, np.ndarray] = field(default_factory=dict)
    phases: tuple[Phase, ...] = ()
    log: RunLog = field(default_factory=RunLog)

    @property
    def stages(self) -> tuple[Phase, ...]:
        """The phases: a run without any is one."""
        steps = self.train.total_steps(len(self.store))
        return self.phases or (Phase(0, steps, 0, self.crops, self.train, self.augment, self.guides),)

    def phase_at(self, step: int) -> Phase:
        """The one that 0-based `step` belongs to; the last one at the end of the run."""
        return next((phase for phase in self.stages if step < phase.stop), self.stages[-1])

    def during(self, phase: Phase) -> TrainPlan:
        """The plan as it is in one of its phases."""
        return replace(self, crops=phase.crops, train=phase.train, augment=phase.augment, guides=phase.guides)


@dataclass
class TrainResult:
    """How a run went.

    Attributes:
        status: `finished` now; `stopped` by a signal with its state saved; `already finished` before this call.
        step: optimiser steps done in all; `steps` of them were asked for.
        resumed_from: the step at which this call took over, None where it began at 0.
        skipped: steps left out because their gradient was not finite.
        first, last: loss terms (`loss`, `comp`, `expa`, `patch`), mean over the first and the last logged window.
        probes: what was measured of the backbone, in the main process.
        collapse: what the loss terms would be if every image looked the same, for this method and batch.
        images_per_second: over all time of this call's last phase: waiting for data, measuring and saving included.
        warnings: what the monitor warned of, in order, each once.
        checkpoint, metrics: where they lie.
    """

    status: Literal["finished", "stopped", "already finished"]
    step: int
    steps: int
    resumed_from: int | None
    skipped: int
    first: dict[str, float]
    last: dict[str, float]
    probes: ProbeHistory
    collapse: dict[str, float]
    images_per_second: float
    warnings: list[str]
    checkpoint: Path
    metrics: Path
