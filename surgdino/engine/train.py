"""The training loop."""

from __future__ import annotations

from surgdino.console import bar
from surgdino.engine.log import summary
from surgdino.engine.measuring import measure
from surgdino.engine.opening import open_session
from surgdino.engine.saving.save import save
from surgdino.engine.settings import TrainPlan, TrainResult
from surgdino.engine.step import train_step
from surgdino.engine.stop import stop_signals


def train(plan: TrainPlan) -> TrainResult:
    """Train from where the run folder stands to the last step, or to the first SIGTERM or Ctrl-C.

    Raises:
        SurgdinoError: unusable settings, a resumed run that began with others, a full disk, or no finite gradient for
            many steps; what was saved before stands.
    """
    session = open_session(plan)
    if session.step >= session.steps:
        return session.result("already finished")
    with stop_signals() as stop, session.monitor, bar("training", session.steps, shown=plan.progress) as progress:
        progress.update(session.step)
        measure(session)
        for batch in stop.until(session.batches(), session.across.any):
            train_step(session, batch)
            progress.update(session.step, text=summary(session.monitor.last, session.monitor.images_per_second()))
            measure(session)
            if session.step % plan.train.checkpoint_every == 0:
                save(session)
        save(session)
    return session.result("finished" if session.step >= session.steps else "stopped")
