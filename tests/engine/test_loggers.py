"""`log.to`: each logger takes the numbers of a run and continues it; what they are told names nobody and no place."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from surgdino import discovery
from surgdino.config import typed
from surgdino.engine import logger
from surgdino.engine.logger import PACKAGE, LoggedRun, Logger, RunLog, open_logger
from surgdino.engine.settings import LogSettings
from surgdino.errors import SurgdinoError
from surgdino.runs.logged import logged_settings

SETTINGS = {"train.lr": 1e-3, "method.name": "simdinov2"}


def module(monkeypatch, name: str, **content: Any) -> ModuleType:
    made = ModuleType(name)
    made.__spec__ = ModuleSpec(name, None)
    vars(made).update(content)
    monkeypatch.setitem(sys.modules, name, made)
    return made


@pytest.mark.parametrize("name", discovery.names(PACKAGE))
def test_a_logger_takes_a_run_and_continues_it(name, tmp_path, recwarn):
    """With the real packages, where they are installed."""
    kind = discovery.defined(discovery.load(PACKAGE, name, "log.to"), Logger)
    if missing := [package for package in kind.NEEDS if find_spec(package) is None]:
        pytest.skip(f"{', '.join(missing)} is not installed")
    for first in (1, 3):
        log = RunLog((name,), "project", "run", SETTINGS)
        log.open(tmp_path, stage="frame", resumed_from=first - 1)
        for step in (first, first + 1):
            log.write(step, {"loss": 1 / step, "stage": "frame", "warning": "words", "best": True})
        assert list(log._opened) == [name]  # nothing failed
        log.close()
    assert any(path.is_file() for path in (tmp_path / name).rglob("*"))


class FakeWandb:
    """What we ask of wandb, kept."""

    def __init__(self, monkeypatch) -> None:
        self.begun: list[dict[str, Any]] = []
        self.rows: list[dict[str, float]] = []
        run = SimpleNamespace(
            define_metric=lambda *names, **more: None, log=self.rows.append, finish=lambda: self.rows.append({"end": 0})
        )

        class Settings:
            model_fields = dict.fromkeys(("disable_git", "console", "host", "x_disable_meta", "x_save_requirements"))

            def __init__(self, **values: Any) -> None:
                self.values = values

        def init(**arguments: Any) -> Any:
            self.begun.append(arguments)
            return run

        module(monkeypatch, "wandb", Settings=Settings, init=init)


@pytest.mark.parametrize(
    ("wanted", "mode"), [(None, "offline"), ("online", "online"), ("disabled", "disabled"), ("shared", "offline")]
)
def test_wandb_stays_offline_unless_the_user_says_so(wanted, mode, monkeypatch, tmp_path):
    fake = FakeWandb(monkeypatch)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    if wanted:
        monkeypatch.setenv("WANDB_MODE", wanted)
    for _ in range(2):
        log = RunLog(("wandb",), "project", "run", SETTINGS)
        log.open(tmp_path, stage="frame")
        log.write(3, {"loss": 0.5})
        log.close()
    first, second = fake.begun
    assert (first["mode"], first["dir"], first["config"]) == (mode, str(tmp_path), SETTINGS)
    assert first["id"] == second["id"]
    told = first["settings"].values
    assert told == {"disable_git": True, "console": "off", "host": "surgdino", "x_disable_meta": True} | {
        "x_save_requirements": False
    }
    assert fake.rows[:2] == [{"frame/step": 3, "frame/loss": 0.5}, {"end": 0}]


@pytest.mark.parametrize("server", [None, "http://127.0.0.1:1"])
def test_mlflow_writes_into_the_run_folder_unless_a_server_is_named(server, monkeypatch, tmp_path):
    calls: list[tuple[Any, ...]] = []

    class Client:
        def __init__(self, tracking_uri: str) -> None:
            calls.append(("at", tracking_uri))

        def __getattr__(self, name: str) -> Any:
            return lambda *given, **named: calls.append((name, *given, *named.values()))

        def get_experiment_by_name(self, name: str) -> Any:
            return SimpleNamespace(experiment_id="7")

        def create_run(self, experiment: str, run_name: str) -> Any:
            calls.append(("create_run", experiment, run_name))
            return SimpleNamespace(info=SimpleNamespace(run_id="abc"))

    module(monkeypatch, "sqlalchemy")
    module(monkeypatch, "mlflow")
    module(monkeypatch, "mlflow.entities", Param=lambda *values: values, Metric=lambda *values: values)
    module(monkeypatch, "mlflow.tracking", MlflowClient=Client)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    for _ in range(2):
        log = RunLog(("mlflow",), "project", "run", {f"key{k}": k for k in range(150)})
        log.open(tmp_path)
        log.write(3, {"loss": 0.5})
        log.close()
    own = f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}"
    assert [call[1] for call in calls if call[0] == "at"] == [server or own] * 2
    assert [call for call in calls if call[0] == "create_run"] == [("create_run", "7", "run")]
    batches = [call[2] for call in calls if call[0] == "log_batch"]
    assert [len(batch) for batch in batches] == [100, 50, 1, 1]
    (key, value, _, step), *_ = batches[-1]
    assert (key, value, step) == ("loss", 0.5, 3)
    assert [call for call in calls if call[0] == "set_terminated"] == [("set_terminated", "abc")] * 2


def test_a_missing_package_and_a_wrong_name_are_said_before_anything_begins(monkeypatch):
    monkeypatch.setattr(discovery, "find_spec", lambda name: None if name == "wandb" else find_spec(name))
    with pytest.raises(SurgdinoError) as raised:
        typed(LogSettings, {"to": ["wandb"], "project": "p", "name": None}, "log")
    assert raised.value.line() == (
        "log.to=wandb needs a package that is not installed; found no wandb. Install it: pip install "
        "'surgdino[wandb]', or leave it out of log.to."
    )
    with pytest.raises(SurgdinoError, match=r"there is no log\.to=tensorbord\. Did you mean 'tensorboard'"):
        open_logger("tensorbord")


def test_a_logger_that_fails_costs_its_curves_alone(monkeypatch, tmp_path, capsys):
    written: list[int] = []

    class Fails(Logger):
        def open(self, run: LoggedRun) -> None: ...

        def write(self, step: int, values: Any) -> None:
            written.append(step)
            raise OSError("no route to host")

        def close(self) -> None: ...

    monkeypatch.setattr(logger, "open_logger", lambda name: Fails())
    log = RunLog(("there",))
    log.open(tmp_path)
    log.write(1, {"loss": 1.0})
    log.write(2, {"loss": 1.0})
    log.close()
    assert written == [1]
    assert "log.to=there is left out from here on: OSError: no route to host" in capsys.readouterr().out


def test_what_is_told_of_a_run_names_nobody_and_no_place():
    config = {
        "dataset": {"name": "folder", "title": "Ward 3", "phases": ["A"]},
        "data": {"root": "/srv/ward", "split": {"test": ["Miller"]}, "exclude": ["Miller"], "fps": 1.0, "labels": "x"},
        "model": {"name": "vit", "weights": "/w.pth", "mean": [0.5, 0.5]},
        "checkpoint": "runs/ours",
        "train": {"lr": 1e-3, "clip": None, "tune": "all"},
        "run": {"dir": "/runs/miller", "names": "plain"},
        "probe": {"hold_out": ["Miller"], "every": 10},
        "task": {"note": "see /srv/ward", "head": "linear"},
    }
    assert logged_settings(config) == {
        "dataset": "folder",
        "data.fps": 1.0,
        "model.name": "vit",
        "model.mean": "0.5, 0.5",
        "train.lr": 1e-3,
        "train.clip": None,
        "train.tune": "all",
        "run.names": "plain",
        "probe.every": 10,
        "task.head": "linear",
    }
