"""The training loop of a stage: warm-up and cosine, validation, early stopping, exact resume."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from surgdino import distributed
from surgdino.engine.methods.parts.views import seed_step
from surgdino.engine.optim import apply_gradients
from surgdino.engine.parallel.across import Across
from surgdino.engine.progress import Progress
from surgdino.engine.saving.state import differences, load_state, save_state
from surgdino.engine.schedules import warmup_cosine
from surgdino.engine.stop import stop_signals
from surgdino.errors import SurgdinoError
from surgdino.tasks.training.batches import Batch, Sampling
from surgdino.tasks.training.log import StageLog
from surgdino.tasks.training.settings import StageTraining
from surgdino.tasks.training.stage import Stage

# A change of these does not make a run another one.
FREE = ("checkpoint_every", "log_every")


@dataclass(frozen=True)
class Surroundings:
    """Where a stage is trained.

    Attributes:
        folder: of the run.
        device, autocast: where and how wide the networks compute.
        begun_with: what else a run must not have begun with otherwise, such as the hash of its data.
        drawn: whether to draw a progress bar.
    """

    folder: Path
    device: torch.device
    autocast: Callable[[], Any]
    begun_with: Mapping[str, Any] = field(default_factory=dict)
    drawn: bool = True


@dataclass
class StageResult:
    """How a stage went.

    Attributes:
        status: `finished` now, `stopped` by a signal with its state saved, or `already finished` before this call.
        step: steps done; of `steps` that were asked for.
        ended_early: no better validation came for as long as `train.patience` waits.
        best_step: the step whose weights the model has now; the last where nothing was validated.
        score_name, score: of that step on the validation part; None where nothing was validated.
        last: the weights of the last step, by name.
        samples_per_second: of this call.
    """

    stage: str
    status: Literal["finished", "stopped", "already finished"]
    step: int
    steps: int
    ended_early: bool
    best_step: int
    score_name: str | None
    score: float | None
    last: dict[str, Tensor] = field(repr=False)
    samples_per_second: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """For results.json."""
        keys = ("stage", "step", "steps", "ended_early", "best_step", "score_name", "score")
        return {key: getattr(self, key) for key in keys}


@dataclass
class _Best:
    """The best validation so far, and how many came after it."""

    score: float
    name: str
    step: int
    weights: dict[str, Tensor]
    since: int = 0


@dataclass
class _Run:
    """A stage in training: `step` steps are done."""

    stage: Stage
    training: StageTraining
    around: Surroundings
    across: Across
    model: nn.Module
    optimizer: torch.optim.Optimizer
    log: StageLog
    steps: int
    step: int = 0
    saved: int = -1
    best: _Best | None = None

    @property
    def ended_early(self) -> bool:
        return self.best is not None and 0 < self.training.patience <= self.best.since

    @property
    def finished(self) -> bool:
        return self.step >= self.steps or self.ended_early


def fit(stage: Stage, training: StageTraining, around: Surroundings) -> StageResult:
    """Train a stage from where the run folder stands; afterwards its model has the best weights.

    Raises:
        SurgdinoError: settings that cannot be, a run that began with others, a full disk, no finite gradient for many
            steps; what was saved before stands.
    """
    progress = Progress(drawn=around.drawn, silent=not distributed.is_main(), title=stage.name)
    run = _begin(stage, training, around, progress.say)
    if run.finished:
        return _conclude(run, "already finished")
    with stop_signals() as stop, progress.of(run.step, run.steps):
        for batch, waited in stop.until(_batches(run), run.across.any):
            _train_step(run, batch, waited)
            progress.show(run.step, run.log)
            if run.step % training.validation_steps(len(stage.source)) == 0 or run.step == run.steps:
                _validate(run)
            if run.finished:
                break
            if run.step % training.checkpoint_every == 0:
                _save(run)
    _save(run)
    return _conclude(run, "finished" if run.finished else "stopped")


def _begin(stage: Stage, training: StageTraining, around: Surroundings, say: Callable[[str], None]) -> _Run:
    across = Across()
    if not len(stage.source):
        raise SurgdinoError(f"stage {stage.name} has nothing to learn from", fix="check data.split")
    if training.batch_size % across.world:
        raise SurgdinoError(
            "the batch cannot be shared out evenly",
            place="train.batch_size",
            expected=f"a multiple of the {across.world} processes",
            found=training.batch_size,
        )
    steps = training.total_steps(len(stage.source))
    stage.model.to(around.device)
    state = load_state(_folder(around, stage), say)
    if state is not None:
        _check_settings(state["begun_with"], _begun_with(stage, training, around), around.folder)
        stage.model.load_state_dict(state["model"])
    model: nn.Module = stage.model
    if across.world > 1:
        model = DistributedDataParallel(model, find_unused_parameters=True)
    log = StageLog(
        around.folder,
        stage.name,
        every=training.log_every,
        last_step=steps,
        batch=training.batch_size,
        across=across,
    )
    optimizer = torch.optim.AdamW(stage.groups, lr=training.lr, fused=True)
    run = _Run(stage, training, around, across, model, optimizer, log, steps)
    if state is not None:
        optimizer.load_state_dict(state["optimizer"])
        log.load_state_dict(state["log"], state["step"], around.device)
        run.step = run.saved = state["step"]
        run.best = None if state["best"] is None else _Best(**state["best"])
    return run


def _batches(run: _Run) -> Iterator[tuple[Batch, float]]:
    """Batches on the CPU, each with the seconds that were spent waiting for it."""
    sampling = Sampling(run.training.batch_size, run.training.seed, run.across.rank, run.across.world)
    source = iter(run.stage.source.batches(sampling, run.step, run.steps))
    while True:
        began = time.perf_counter()
        batch = next(source, None)
        if batch is None:
            return
        yield batch, time.perf_counter() - began


def _train_step(run: _Run, batch: Batch, waited: float) -> None:
    began = time.perf_counter()
    lr = set_rates(run.optimizer, run.step, run.steps, run.training)
    seed_step(run.training.seed, run.step, run.across.rank)
    run.model.train()
    batch = {name: tensor.to(run.around.device, non_blocking=True) for name, tensor in batch.items()}
    with run.around.autocast():
        terms = run.stage.loss(run.model, batch)
    terms["loss"].backward()
    update = apply_gradients(run.optimizer, run.training.clip or None)
    run.step += 1
    run.log.record(run.step, terms, update, lr, (time.perf_counter() - began + waited, waited))


def set_rates(optimizer: torch.optim.Optimizer, step: int, steps: int, training: StageTraining) -> float:
    """Write the rates and the weight decay of 0-based `step` into every group; returns the rate of the head."""
    lr = warmup_cosine(step, steps, training.lr, training.min_lr, round(training.warmup * steps))
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
        group["weight_decay"] = training.weight_decay if group["decays"] else 0.0
    return lr


def _validate(run: _Run) -> None:
    """Judge the model in the main process, and let all know whether it is the best so far."""
    validate = run.stage.validate
    if validate is None:
        return
    numbers: dict[str, float] = {}

    def score() -> float:
        run.stage.model.eval()
        with torch.no_grad():
            numbers.update(validate(run.stage.model))
        return next(iter(numbers.values()))

    value = distributed.from_main(score)
    is_best = value == value and (run.best is None or value > run.best.score)
    if is_best:
        name = next(iter(numbers), "score")
        run.best = _Best(value, name, run.step, _weights(run.stage.model))
    elif run.best is not None:
        run.best.since += 1
    if numbers:
        run.log.validated(run.step, numbers, is_best)


def _save(run: _Run) -> None:
    if run.saved == run.step:
        return
    log = run.log.state_dict()
    if distributed.is_main():
        state = {
            "begun_with": _begun_with(run.stage, run.training, run.around),
            "model": run.stage.model.state_dict(),
            "optimizer": run.optimizer.state_dict(),
            "log": log,
            "best": None if run.best is None else dict(vars(run.best)),
        }
        save_state(_folder(run.around, run.stage), run.step, state)
    run.saved = run.step


def _conclude(run: _Run, status: Literal["finished", "stopped", "already finished"]) -> StageResult:
    last = _weights(run.stage.model)
    if status != "stopped" and run.best is not None:
        run.stage.model.load_state_dict(run.best.weights)
    run.stage.model.eval()
    run.optimizer.zero_grad(set_to_none=True)
    return StageResult(
        stage=run.stage.name,
        status=status,
        step=run.step,
        steps=run.steps,
        ended_early=run.ended_early and run.step < run.steps,
        best_step=run.best.step if run.best else run.step,
        score_name=run.best.name if run.best else None,
        score=run.best.score if run.best else None,
        last=last,
        samples_per_second=run.log.images_per_second(),
    )


def _weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy on the CPU."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()}


def _folder(around: Surroundings, stage: Stage) -> Path:
    return around.folder / "state" / stage.name


def _begun_with(stage: Stage, training: StageTraining, around: Surroundings) -> dict[str, Any]:
    train = {key: value for key, value in asdict(training).items() if key not in FREE}
    train["crop_scale"] = list(training.crop_scale)  # as it comes back from the file
    return {"train": train, "samples": len(stage.source), **around.begun_with}


def _check_settings(saved: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    for key, before, after in differences(dict(saved), dict(now)):
        raise SurgdinoError(
            f"this run was begun with another {key}",
            file=folder,
            expected=before,
            found=after,
            fix="use what it began with, or another run.dir",
        )
