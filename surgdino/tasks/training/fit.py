"""The training loop of a stage: warm-up and cosine, validation, early stopping, exact resume."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from surgdino import distributed
from surgdino.console import bar, warn
from surgdino.crops.sampler import FrameSampler
from surgdino.engine.hardware import Hardware
from surgdino.engine.log import summary
from surgdino.engine.logger import RunLog
from surgdino.engine.loss_scale import LossScale
from surgdino.engine.memory import OutOfMemoryError, within_memory
from surgdino.engine.methods.parts.views import seed_step
from surgdino.engine.optim import apply_gradients, warmup_cosine
from surgdino.engine.processes import ProcessGroup
from surgdino.engine.same_run import differences
from surgdino.engine.saving import load_optimizer, restoring
from surgdino.engine.state_files import load_state, save_state
from surgdino.engine.stop import stop_signals
from surgdino.errors import SurgdinoError
from surgdino.tasks.training.batches import Batch
from surgdino.tasks.training.log import StageLog
from surgdino.tasks.training.stage import Stage, StageTraining

Status = Literal["finished", "stopped", "already finished"]

_SMALLER = (
    "use hardware.activation_checkpointing=true or more processes, and the same command continues; or begin anew with "
    "a smaller train.batch_size, a smaller image_size or backbone=frozen"
)
# A continued run may change these.
FREE = ("checkpoint_every", "log_every")


@dataclass
class StageResult:
    """How a stage went.

    Attributes:
        status: `finished` now, `stopped` by a signal with its state saved, or `already finished` before this call.
        step: steps done, of `steps` that were asked for.
        ended_early: no better validation came in `train.patience` of them.
        best_step: the step whose weights the model has now; the last where nothing was validated.
        score_name, score: of that step on the validation part; None where nothing was validated.
        last: the weights of the last step, by name.
    """

    stage: str
    status: Status
    step: int
    steps: int
    ended_early: bool
    best_step: int
    score_name: str | None
    score: float | None
    last: dict[str, Tensor] = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        """For results.json."""
        keys = ("stage", "step", "steps", "ended_early", "best_step", "score_name", "score")
        return {key: getattr(self, key) for key in keys}


def fit(
    stage: Stage,
    training: StageTraining,
    folder: Path,
    *,
    hardware: Hardware,
    begun_with: Mapping[str, Any] | None = None,
    log: RunLog | None = None,
) -> StageResult:
    """Train a stage from where the run folder stands; afterwards its model has its best weights.

    Args:
        folder: of the run.
        hardware: what the networks compute on.
        begun_with: what a continued run must agree in beside its settings, such as the hash of its data.
        log: who gets the numbers of metrics.jsonl too.

    Raises:
        SurgdinoError: unusable settings, a run that began with others, a full disk, no finite gradient for many steps;
            what was saved before stands.
    """
    run = _Run(stage, training, folder, hardware, begun_with or {}, log)
    if run.finished:
        return run.result("already finished")
    with stop_signals() as stop, bar(stage.name, run.steps) as progress, run.log:
        progress.update(run.step)
        for batch, waited in stop.until(run.batches(), run.processes.any):
            try:
                _train_step(run, batch, waited)
            except OutOfMemoryError as fault:
                stop.for_memory(fault, alone=run.processes.world == 1)
                run.optimizer.zero_grad(set_to_none=True)
                break
            progress.update(run.step, text=summary(run.log.last, run.log.images_per_second()))
            if run.step % training.validation_steps(len(stage.data)) == 0 or run.step == run.steps:
                run.validate()
            if run.finished:
                break
            if run.step % training.checkpoint_every == 0:
                run.save()
    run.save()
    stop.check()
    return run.result("finished" if run.finished else "stopped")


@dataclass
class _Best:
    """The best validation so far, and how many came after it."""

    score: float
    name: str
    step: int
    weights: dict[str, Tensor]
    since: int = 0


class _Run:
    """A stage in training: `step` of `steps` are done."""

    def __init__(
        self,
        stage: Stage,
        training: StageTraining,
        folder: Path,
        hardware: Hardware,
        begun_with: Mapping[str, Any],
        log: RunLog | None,
    ) -> None:
        """Begin, or continue from the newest state in the folder."""
        samples = len(stage.data)
        if not samples:
            raise SurgdinoError(f"stage {stage.name} has nothing to learn from", fix="check data.split")
        train = {key: value for key, value in asdict(training).items() if key not in FREE}
        train["crop_scale"] = list(training.crop_scale)  # as the file gives it back
        self.begun_with = {"train": train, "samples": samples, **begun_with}
        self.stage, self.training, self.hardware = stage, training, hardware
        self.folder, self.processes, self.steps = (
            folder / "state" / stage.name,
            ProcessGroup(),
            training.total_steps(samples),
        )
        stage.model.to(hardware.device)
        state = load_state(self.folder, warn, ("begun_with", "model", "optimizer", "log", "best"))
        if state is not None:
            with restoring(folder):
                _check_begun_with(state["begun_with"], self.begun_with, folder)
                if state["best"] is not None:  # needed at the end, tried now
                    stage.model.load_state_dict(state["best"]["weights"])
                stage.model.load_state_dict(state["model"])
        self.sampler = FrameSampler(
            length=samples,
            batch_size=training.batch_size,
            seed=training.seed,
            start_step=state["step"] if state else 0,
            steps=self.steps,
            rank=self.processes.rank,
            world=self.processes.world,
            weights=stage.data.weights,
        )
        self.model: nn.Module = stage.model
        if self.processes.world > 1:
            self.model = DistributedDataParallel(stage.model, find_unused_parameters=True)
        self.optimizer = torch.optim.AdamW(stage.groups, lr=training.lr, fused=True)
        self.loss_scale = LossScale.of(hardware.dtype, hardware.device)
        every, batch = training.log_every, training.batch_size
        self.log = StageLog(
            folder, stage.name, every=every, last_step=self.steps, batch=batch, processes=self.processes, log=log
        )
        self.step, self.saved = 0, -1
        self.best: _Best | None = None
        if state is not None:
            with restoring(folder):
                load_optimizer(self.optimizer, state["optimizer"])
                self.log.load_state_dict(state["log"], state["step"], hardware.device)
                if self.loss_scale is not None and state.get("loss_scale"):  # a run may begin in another precision
                    self.loss_scale.load_state_dict(state["loss_scale"])
                self.step = self.saved = state["step"]
                self.best = None if state["best"] is None else _Best(**state["best"])

    @property
    def ended_early(self) -> bool:
        return self.best is not None and 0 < self.training.patience <= self.best.since

    @property
    def finished(self) -> bool:
        return self.step >= self.steps or self.ended_early

    def batches(self) -> Iterator[tuple[Batch, float]]:
        """Batches on the CPU, each with the seconds spent waiting for it."""
        source = iter(self.stage.data.batches(self.sampler))
        while True:
            began = time.perf_counter()
            batch = next(source, None)
            if batch is None:
                return
            yield batch, time.perf_counter() - began

    def validate(self) -> None:
        """Judge the model in the main process, and let all know whether it is the best so far."""
        validate = self.stage.validate
        if validate is None:
            return
        numbers: dict[str, float] = {}

        def score() -> float:
            self.stage.model.eval()
            place = f"stage {self.stage.name}, step {self.step}"
            memory = within_memory(self.hardware.device, place=place, asked="the validation part", fix=_SMALLER)
            with memory, torch.no_grad():
                numbers.update(validate(self.stage.model))
            return next(iter(numbers.values()))

        value = distributed.from_main(score)
        is_best = value == value and (self.best is None or value > self.best.score)
        if is_best:
            self.best = _Best(value, next(iter(numbers), "score"), self.step, _weights(self.stage.model))
        elif self.best is not None:
            self.best.since += 1
        if numbers:
            self.log.validated(self.step, numbers, is_best)

    def save(self) -> None:
        """Write the state that a continued run needs, unless this step's is there."""
        if self.saved == self.step:
            return
        log = self.log.state_dict()
        if distributed.is_main():
            state = {
                "begun_with": self.begun_with,
                "model": self.stage.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "loss_scale": None if self.loss_scale is None else self.loss_scale.state_dict(),
                "log": log,
                "best": None if self.best is None else dict(vars(self.best)),
            }
            save_state(self.folder, self.step, state)
        self.saved = self.step

    def result(self, status: Status) -> StageResult:
        """Give the model its best weights, where the stage is finished, and say how it went."""
        model, best = self.stage.model, self.best
        last = _weights(model)
        if status != "stopped" and best is not None:
            model.load_state_dict(best.weights)
        model.eval()
        self.optimizer.zero_grad(set_to_none=True)
        return StageResult(
            stage=self.stage.name,
            status=status,
            step=self.step,
            steps=self.steps,
            ended_early=self.ended_early and self.step < self.steps,
            best_step=best.step if best else self.step,
            score_name=best.name if best else None,
            score=best.score if best else None,
            last=last,
        )


def _train_step(run: _Run, batch: Batch, waited: float) -> None:
    began = time.perf_counter()
    lr = set_rates(run.optimizer, run.step, run.steps, run.training)
    seed_step(run.training.seed, run.step, run.processes.rank)
    run.model.train()
    scale, place = run.loss_scale, f"stage {run.stage.name}, step {run.step + 1}"
    share = f"{run.training.batch_size // run.processes.world} samples at a time"
    with within_memory(run.hardware.device, place=place, asked=share, fix=_SMALLER):
        batch = {name: tensor.to(run.hardware.device, non_blocking=True) for name, tensor in batch.items()}
        with run.hardware.autocast():
            terms = run.stage.loss(run.model, batch)
        loss = terms["loss"]
        (loss if scale is None else scale.scaled(loss)).backward()
    with within_memory(run.hardware.device, SurgdinoError, place=place, asked="the moments", fix=_SMALLER):
        update = apply_gradients(run.optimizer, run.training.clip or None, scale)
    run.step += 1
    run.log.record(run.step, terms, update, lr, (time.perf_counter() - began + waited, waited))


def set_rates(optimizer: torch.optim.Optimizer, step: int, steps: int, training: StageTraining) -> float:
    """Write the rates and the weight decay of 0-based `step` into every group; returns the rate of the head."""
    lr = warmup_cosine(step, steps, training.lr, training.min_lr, round(training.warmup * steps))
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
        group["weight_decay"] = training.weight_decay if group["decays"] else 0.0
    return lr


def _weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy on the CPU."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()}


def _check_begun_with(saved: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    for key, before, after in differences(dict(saved), dict(now)):
        raise SurgdinoError(
            f"this run was begun with another {key}",
            file=folder,
            expected=before,
            found=after,
            fix="use what it began with, or another run.dir",
        )
