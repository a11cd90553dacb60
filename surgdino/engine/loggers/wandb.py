"""Weights & Biases: offline in the run folder (`wandb sync` sends it later), unless WANDB_MODE=online is set.

Its own looking around (host, user, program, git, packages, console, system load) is switched off.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from typing import Any

from surgdino.engine.logger import LoggedRun, Logger

_MODES = ("online", "disabled")  # of WANDB_MODE, that are followed
_QUIET = {"console": "off", "silent": True, "host": "surgdino", "username": "surgdino", "program": "surgdino"}
_OFF = (  # what a version of the package does not know is left out
    *("disable_git", "disable_code", "disable_job_creation"),
    *("x_disable_meta", "x_disable_stats", "x_disable_machine_info"),
)


class WeightsAndBiases(Logger):
    """One run of theirs, which a resumed one continues; each stage has its own axis of steps."""

    NEEDS = ("wandb",)

    def open(self, run: LoggedRun) -> None:
        """Begin the run, or continue it."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read when it is imported
        import wandb

        known = wandb.Settings.model_fields
        settings = {key: value for key, value in {**_QUIET, **dict.fromkeys(_OFF, True)}.items() if key in known}
        settings |= {key: False for key in ("save_code", "x_save_requirements") if key in known}
        mode, wanted = "offline", os.environ.get("WANDB_MODE", "")
        identity, _ = run.kept("run_id", lambda: secrets.token_hex(4))
        self._run: Any = wandb.init(
            project=run.project,
            name=run.name,
            id=identity,
            resume="allow",
            mode=wanted if wanted in _MODES else mode,  # type: ignore[arg-type]
            dir=str(run.folder.parent),  # it makes a folder `wandb` there
            config=dict(run.settings),
            allow_val_change=True,
            reinit="create_new",
            settings=wandb.Settings(**settings),
        )
        self._named, self._step = run.named, run.named("step")
        self._run.define_metric(self._step)
        self._run.define_metric(run.named("*"), step_metric=self._step)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """A row of its history."""
        self._run.log({self._step: step, **{self._named(name): value for name, value in values.items()}})

    def close(self) -> None:
        """Finish, so that all is on the disk, or sent."""
        self._run.finish()
