"""The training loop of a stage: warm-up and cosine, validation, early stopping, exact resume."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
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
from surgdino.engine.writer import Writer
from surgdino.errors import SurgdinoError
from surgdino.tasks.training.batches import HostBatch
from surgdino.tasks.training.log import StageLog
from surgdino.tasks.training.stage import Stage, StageTraining
from surgdino.transfers import host_copy

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
    with stop_signals() as stop, bar(stage.name, run.steps) as progress, run.log, run.writer:
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
        run.writer.wait()
    stop.check()
    return run.result("finished" if run.finished else "stopped")


@dataclass
class _Best:
    """The best validation so far, and how many came after it.

    Attributes:
        weights: gives them, on the host, once they are there.
    """

    score: float
    name: str
    step: int
    weights: Callable[[], dict[str, Tensor]]
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
        self.writer = Writer()
        self.step, self.saved = 0, -1
        self.best: _Best | None = None
        if state is not None:
            with restoring(folder):
                self._resume(state)

    def _resume(self, state: Mapping[str, Any]) -> None:
        """Go on from a state whose weights are loaded."""
        load_optimizer(self.optimizer, state["optimizer"])
        self.log.load_state_dict(state["log"], state["step"], self.hardware.device)
        if self.loss_scale is not None and state.get("loss_scale"):  # a run may begin in another precision
            self.loss_scale.load_state_dict(state["loss_scale"])
        self.step = self.saved = state["step"]
        if (best := state["best"]) is not None:
            self.best = _Best(**{**best, "weights": partial(best.__getitem__, "weights")})

    @property
    def ended_early(self) -> bool:
        return self.best is not None and 0 < self.training.patience <= self.best.since

    @property
    def finished(self) -> bool:
        return self.step >= self.steps or self.ended_early

    def batches(self) -> Iterator[tuple[HostBatch, float]]:
        """Batches on the host, each with the seconds spent waiting for it."""
        pinned, places = self.hardware.device.type == "cuda", self.stage.places
        source = iter(self.stage.data.batches(self.sampler, pinned))
        while True:
            began = time.perf_counter()
            batch = next(source, None)
            if batch is None:
                return
            if places is not None:
                more = HostBatch(places(batch.tensors))
                batch.tensors |= (more.pin_memory() if pinned else more).tensors
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

        with self.log.stopped("validation"):
            self.writer.wait()  # whatever starts processes here finds no thread in the middle of something
            value = distributed.from_main(score)
        is_best = value == value and (self.best is None or value > self.best.score)
        if is_best:
            self.best = _Best(value, next(iter(numbers), "score"), self.step, host_copy(self.stage.model.state_dict()))
        elif self.best is not None:
            self.best.since += 1
        if numbers:
            self.log.validated(self.step, numbers, is_best)

    def save(self) -> None:
        """Copy the state that a continued run needs, unless this step's is there, and let it be written beside the
        training.

        Raises:
            SurgdinoError: what was saved before could not be written.
        """
        if self.saved == self.step:
            return
        with self.log.stopped("save"):
            self.writer.wait()  # at most one state in memory beside the networks
            state = {
                "begun_with": self.begun_with,
                "model": self.stage.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "loss_scale": None if self.loss_scale is None else self.loss_scale.state_dict(),
                "log": self.log.state_dict(),
            }
            copied = host_copy(state, keep=distributed.is_main())
            if distributed.is_main():
                best = None if self.best is None else dict(vars(self.best))
                self.writer.submit(partial(_write, self.folder, self.step, copied, best))
        self.saved = self.step

    def result(self, status: Status) -> StageResult:
        """Give the model its best weights, where the stage is finished, and say how it went."""
        model, best = self.stage.model, self.best
        last = host_copy(model.state_dict())()
        if status != "stopped" and best is not None:
            model.load_state_dict(best.weights())
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


def _train_step(run: _Run, batch: HostBatch, waited: float) -> None:
    began = time.perf_counter()
    lr = set_rates(run.optimizer, run.step, run.steps, run.training)
    seed_step(run.training.seed, run.step, run.processes.rank)
    run.model.train()
    scale, place = run.loss_scale, f"stage {run.stage.name}, step {run.step + 1}"
    share = f"{run.training.batch_size // run.processes.world} samples at a time"
    with within_memory(run.hardware.device, place=place, asked=share, fix=_SMALLER):
        on_device = batch.on(run.hardware.device)
        with run.hardware.autocast():
            terms = run.stage.loss(run.model, on_device)
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


def _write(folder: Path, step: int, copied: Callable[[], dict[str, Any]], best: dict[str, Any] | None) -> None:
    """Beside the training, which changes neither the copies nor the best weights."""
    save_state(folder, step, {**copied(), "best": None if best is None else {**best, "weights": best["weights"]()}})


def _check_begun_with(saved: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    for key, before, after in differences(dict(saved), dict(now)):
        raise SurgdinoError(
            f"this run was begun with another {key}",
            file=folder,
            expected=before,
            found=after,
            fix="use what it began with, or another run.dir",
        )
