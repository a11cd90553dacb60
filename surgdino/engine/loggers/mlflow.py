"""MLflow: a database in the run folder (`mlflow ui --backend-store-uri sqlite:///RUN/mlflow/mlflow.db`), unless
MLFLOW_TRACKING_URI names a server. Its client is asked alone, which adds no user, file or revision of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from surgdino.engine.logger import LoggedRun, Logger

_AT_ONCE = 100  # values that it takes in a call
_LONGEST = 500  # characters of a setting


class MLflow(Logger):
    """One run of theirs, which a resumed one continues."""

    NEEDS = ("mlflow", "sqlalchemy")

    def open(self, run: LoggedRun) -> None:
        """Begin the run, or continue it."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when it is imported
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        run.folder.mkdir(parents=True, exist_ok=True)
        folder, server = run.folder.absolute(), os.environ.get("MLFLOW_TRACKING_URI")
        self._client: Any = MlflowClient(tracking_uri=server or f"sqlite:///{folder / 'mlflow.db'}")

        def begin() -> str:
            found = self._client.get_experiment_by_name(run.project)
            files = None if server else (folder / "artifacts").as_uri()  # there are none; else a folder of the shell's
            experiment = found.experiment_id if found else self._client.create_experiment(run.project, files)
            return str(self._client.create_run(experiment, run_name=run.name).info.run_id)

        self._id, continued = run.kept("run_id", begin)
        if continued:
            self._client.update_run(self._id, status="RUNNING")
        else:
            self._log(params=[Param(key, str(value)[:_LONGEST]) for key, value in run.settings.items()])
        self._named = run.named

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """A value a metric."""
        from mlflow.entities import Metric

        now = time.time_ns() // 1_000_000
        self._log(metrics=[Metric(self._named(name), value, now, step) for name, value in values.items()])

    def _log(self, **kinds: Sequence[Any]) -> None:
        for kind, values in kinds.items():
            for start in range(0, len(values), _AT_ONCE):
                self._client.log_batch(self._id, **{kind: values[start : start + _AT_ONCE]})

    def close(self) -> None:
        """Say that it has ended."""
        self._client.set_terminated(self._id)
