"""What the training loop is given and what it gives back: plain data, written by the run room."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from surgdino.errors import SurgdinoError

if TYPE_CHECKING:
    from surgdino.backbone.vit import Backbone
    from surgdino.crops.multicrop import CropSettings
    from surgdino.engine.measuring import ProbeHistory, Probing
    from surgdino.frames.store import FrameStore


@dataclass(frozen=True)
class TrainSettings:
    """The `train` section of the configuration, key for key.

    Attributes:
        steps: optimiser steps; None derives them from `epochs`.
        epochs: passes over the frames of the store, used where `steps` is None.
        batch_size: images a step over all processes, each giving two global views and the local ones.
        lr: peak learning rate of the last block and the head, as it is (no hidden scaling by the batch size).
        min_lr: learning rate at the last step, where the cosine ends.
        warmup_steps: linear warm-up of the backbone's learning rate; None takes a tenth of all steps.
        head_warmup_steps: steps at the start during which only the head learns and the backbone stays as it came.
        layer_decay: factor on the learning rate from one block to the one below it.
        weight_decay, weight_decay_end: cosine from the first to the second.
        clip: largest global norm of the gradient; 0 or None leaves it alone.
        patch_embed_lr: further factor on the learning rate of the patch embedding.
        momentum, momentum_end: of the EMA teacher, cosine; None takes the method's own.
        checkpoint_every, log_every: in steps.
        ship: whose weights become `checkpoint/backbone.safetensors`.
        ship_alpha: their share in it, in (0, 1]; the rest are the initial weights, see `engine.saving.shipping`.
        accumulate: micro-batches into which each process cuts its share of a batch: less memory, the same objective.
        drop_path: stochastic depth of the student; the run room hands it to `build_backbone`.
        frozen_blocks: the embeddings and so many of the first blocks never change; 0 freezes nothing.
        pull: strength of the pull towards the initial weights, see `surgdino.engine.retention`.
        low_rank: rank of the adapters that learn in the place of the blocks' linear layers; 0: no adapters.
    """

    steps: int | None = None
    epochs: float = 10
    batch_size: int = 64
    seed: int = 0
    lr: float = 5e-4
    min_lr: float = 1e-6
    warmup_steps: int | None = None
    head_warmup_steps: int = 20
    layer_decay: float = 0.9
    weight_decay: float = 0.04
    weight_decay_end: float = 0.4
    clip: float | None = 3.0
    patch_embed_lr: float = 0.2
    momentum: float | None = None
    momentum_end: float | None = None
    checkpoint_every: int = 200
    log_every: int = 10
    ship: Literal["teacher", "student"] = "teacher"
    ship_alpha: float = 1.0
    accumulate: int = 1
    drop_path: float = 0.1
    frozen_blocks: int = 0
    pull: float = 0.0
    low_rank: int = 0

    def __post_init__(self) -> None:
        for key in ("batch_size", "accumulate", "checkpoint_every", "log_every"):
            _require(getattr(self, key) >= 1, f"train.{key}", "at least 1", getattr(self, key))
        _require(self.steps is None or self.steps >= 1, "train.steps", "at least 1, or null", self.steps)
        _require(self.steps is not None or self.epochs > 0, "train.epochs", "more than 0", self.epochs)
        _require(self.ship in ("teacher", "student"), "train.ship", "teacher or student", self.ship)
        _require(0 < self.ship_alpha <= 1, "train.ship_alpha", "in (0, 1]", self.ship_alpha)
        for key in ("frozen_blocks", "pull", "low_rank"):
            _require(getattr(self, key) >= 0, f"train.{key}", "0 or more", getattr(self, key))
        _require(self.lr * self.pull < 1, "train.pull", "below 1 / train.lr", self.pull)
        _require(0 < self.layer_decay <= 1, "train.layer_decay", "in (0, 1]", self.layer_decay)

    def total_steps(self, images: int) -> int:
        """Optimiser steps of the whole run over a store of `images` frames."""
        return self.steps if self.steps is not None else max(1, int(self.epochs * images / self.batch_size))


@dataclass(frozen=True)
class HardwareSettings:
    """The `hardware` section: what may change how fast a run is, never what it computes (but for rounding).

    Attributes:
        device: `auto` takes CUDA where there is one.
        precision: of the networks' matrix products; the objective is fp32 always. `auto` takes bf16 where the machine
            computes in it natively.
        loader_workers: processes that cut crops; `auto` leaves one core to the loop.
        threads: of torch on the CPU; `auto` leaves torch's choice.
        activation_checkpointing: recompute the backbone's activations in the backward pass, to save memory.
        shard: every process keeps only its part of weights, gradients and moments (FSDP2); nothing in a single process.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    loader_workers: int | Literal["auto"] = "auto"
    threads: int | Literal["auto"] = "auto"
    activation_checkpointing: bool = False
    shard: bool = False


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
        model_json: what the run room knows for `checkpoint/model.json` (dataset, operations seen, licence note, initial
            weights); the engine adds method, steps and seed.
        probe: what the backbone is measured on, and when; None: never.
        progress: draw a progress bar.
    """

    backbone: Backbone
    model: Mapping[str, Any]
    method: Mapping[str, Any]
    store: FrameStore
    augment: Mapping[str, Any]
    crops: CropSettings
    train: TrainSettings
    hardware: HardwareSettings
    folder: Path
    data_hash: str = ""
    model_json: Mapping[str, Any] = field(default_factory=dict)
    probe: Probing | None = None
    progress: bool = True


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
        images_per_second: over this call's steps, waiting for data included.
        warnings: what the monitor said in words, in order, each once.
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

    @property
    def probe_start(self) -> dict[str, float]:
        """The first measurement as plain numbers; empty where there is none."""
        return self.probes.start.as_dict() if self.probes.start else {}

    @property
    def probe_end(self) -> dict[str, float]:
        """The latest measurement as plain numbers; empty where there is none."""
        return self.probes.last.as_dict() if self.probes.last else {}


def _require(holds: bool, key: str, expected: str, found: object) -> None:
    if not holds:
        raise SurgdinoError("unusable setting", place=key, expected=expected, found=found, fix=f"change {key}")
