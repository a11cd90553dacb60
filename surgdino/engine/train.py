"""The training loop."""

from __future__ import annotations

from surgdino import distributed
from surgdino.crops.loader import Batch
from surgdino.engine.measuring import measure
from surgdino.engine.optim import apply_gradients, set_rates
from surgdino.engine.passes import learn, micro_batches, pools, teach
from surgdino.engine.plan import TrainPlan, TrainResult
from surgdino.engine.progress import Progress
from surgdino.engine.saving.save import save
from surgdino.engine.schedules import rates_at
from surgdino.engine.session import Session, batches, open_session, result_of
from surgdino.engine.stop import stop_signals
from surgdino.engine.teacher import update_teacher


def train(plan: TrainPlan) -> TrainResult:
    """Train from where the run folder stands to the last step, or to the first SIGTERM or Ctrl-C.

    Raises:
        SurgdinoError: settings that cannot be, a resumed run that began with others, a full disk, or no finite gradient
            for many steps; what was saved before stands.
    """
    progress = Progress(drawn=plan.progress, silent=not distributed.is_main())
    session = open_session(plan, progress.say)
    if session.step >= session.steps:
        return result_of(session, "already finished")
    with stop_signals() as stop, session.monitor, progress.of(session.step, session.steps):
        measure(session)
        for batch in stop.until(batches(session), session.across.any):
            train_step(session, batch)
            progress.show(session.step, session.monitor)
            measure(session)
            if session.step % plan.train.checkpoint_every == 0:
                save(session)
        save(session)
    return result_of(session, "finished" if session.step >= session.steps else "stopped")


def train_step(session: Session, batch: Batch) -> None:
    """One optimiser step on this process's share of a batch: targets, gradients, student, teacher, log."""
    train = session.plan.train
    rates = rates_at(session.step, session.steps, train, session.momentum)
    views = micro_batches(session, batch)
    targets, features = teach(session, views)
    session.retention.let_learn(rates.backbone_learns)
    terms = learn(session, views, targets, pools(session, views, targets))
    set_rates(session.optimizer, rates)
    update = apply_gradients(session.optimizer, train.clip)
    session.retention.pull_back(session.optimizer, update.skipped)
    update_teacher(session.teacher, session.student, rates.momentum)
    session.step += 1
    session.monitor.record(session.step, terms, update, rates, features)
