"""The verbs from Python: the keys and the errors of the command line, typed results, nothing printed unasked."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

import surgdino
from surgdino.api import calls
from surgdino.api.calls import Verb, _command
from surgdino.cli.main import VERBS, main
from surgdino.cli.words import parsable, word_of
from surgdino.errors import SurgdinoError

PRINT = {"list", "weights", "doctor", "demo", "bench", "completion"}  # they have nothing to give but what they print
OURS = {name: each for name, each in vars(calls).items() if isinstance(each, Verb)}


def test_every_verb_that_has_a_result_is_a_function():
    assert set(OURS) == set(VERBS) - PRINT
    assert set(OURS) < set(surgdino.__all__) <= set(dir(surgdino))
    for name in surgdino.__all__:
        assert getattr(surgdino, name)
    import_module("surgdino.report.page")  # in a package of a verb's name

    assert all(callable(getattr(surgdino, name)) for name in OURS)


def test_the_package_is_imported_in_an_instant():
    heavy = "import sys, surgdino; print(*{'torch', 'numpy', 'hydra', 'rich', 'pydantic'} & {*sys.modules})"
    found = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""


VALUES = (
    *(None, True, False, 1, 1e-5, 0.1, math.inf, "5", "true", "null", "1e-3", "a b", " a", "a,b", "[a]", "{a: 1}"),
    *(r"(\d+)_'x'\\", "a\\", "a'b", "a\\'b", "", "ü/ö", "/a/b=c", "a\nb", "$x", "#x", '"q"', "'q'"),
    *(["a", None, "5", [1, 2.5]], {"train": "rest", "test": ["OP 17", "3"]}, {"a b": 1, "c:d": "e"}),
)


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_arrives_as_it_is(value):
    assert OverridesParser.create().parse_override(parsable(word_of("key", value))).value() == value


def test_numbers_of_numpy_paths_and_tuples_are_values_too():
    words = [word_of("key", each) for each in (np.float32(0.5), np.int64(3), Path("/a b"), (1, 2), range(2))]
    assert words == ["key=0.5", "key=3", word_of("key", "/a b"), "key=[1, 2]", "key=[0, 1]"]
    with pytest.raises(SurgdinoError, match=r"train\.lr cannot be used; expected None, a boolean, .* found object"):
        surgdino.pretrain({"train.lr": object()})


def test_words_mappings_and_keywords_are_joined_and_the_later_one_counts():
    given = ["recipe=demo", {"data.root": "/a", "train": {"steps": 3}}, {"data.split": {"train": "rest", "test": [1]}}]
    assert _command("pretrain", [*given, {"train": {"steps": 5}}]) == [
        *("recipe=demo", "data.root=/a", "train.steps=3", "data.split={train: rest, test: [1]}", "train.steps=5"),
    ]
    assert _command("pretrain", [{"guide": "time"}, {"guide": {"time": {"weight": 0.5}}}])[1] == "guide.time.weight=0.5"


WRONG = {
    "choice": ("pretrain", ["recipe=cholec81"], {"recipe": "cholec81"}),
    "key": ("finetune", ["data.rot=/x"], {"data": {"rot": "/x"}}),
    "value": ("pretrain", ["dataset=folder", "data.root=/x", "train.steps=a b"], None),
    "missing": ("pretrain", ["dataset=folder"], {"dataset": "folder"}),
    "no run": ("report", ["/no/run"], None),
    "no video": ("predict", ["/no/video.mp4", "checkpoint=/no/run"], None),
    "setting": ("compare", ["a", "b", "ouut=x.html"], None),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_in_the_same_line(case, capsys):
    verb, words, settings = WRONG[case]
    assert main([verb, *words]) == 2
    line = capsys.readouterr().err
    for given, named in ([words, {}], [[], settings or {}]) if settings else ([words, {}],):
        with pytest.raises(SurgdinoError) as raised:
            getattr(surgdino, verb)(*given, **named)
        assert f"surgdino: {raised.value}\n" == line
    assert capsys.readouterr() == ("", "")


def test_options_are_for_the_shell():
    with pytest.raises(SurgdinoError, match="unknown option '--help'"):
        surgdino.pretrain("--help")
    assert "data.root" in surgdino.pretrain.help("all")


@pytest.mark.slow
def test_verify_gives_its_findings_and_prints_nothing(synthetic_cholec80, capsys):
    argv = list(sys.argv)
    found = surgdino.verify(dataset="cholec80", data={"root": synthetic_cholec80})
    assert (found.ok, found.errors, len(found.manifest.videos)) == (True, [], 4)
    assert capsys.readouterr() == ("", "")
    assert sys.argv == argv
    loud = surgdino.verify("dataset=cholec80", {"data.root": synthetic_cholec80}, quiet=False)
    assert loud.manifest.fingerprint() == found.manifest.fingerprint()
    assert "no errors"


def test_verify_of_a_broken_folder_is_not_ok(tmp_path, capsys):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "video01.mp4").write_bytes(b"bad")
    found = surgdino.verify(dataset="cholec80", **{"data.root": tmp_path})
    assert not found.ok
    assert "video01.mp4" in found.errors[0].error().line()
    assert capsys.readouterr() == ("", "")


DEMO = {"recipe": "demo", "train": {"steps": 2, "log_every": 1}, "hardware": {"loader_workers": 0}}


@pytest.fixture(scope="module")
def pretrained(synthetic_cholec80, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    data = {"root": synthetic_cholec80, "store": folder / "store", "exclude": ["video04"]}
    return surgdino.pretrain(DEMO, data=data, run={"dir": folder / "run"})


@pytest.mark.slow
def test_pretraining_says_where_and_how_it_went(pretrained, synthetic_cholec80, capsys):
    assert (pretrained.status, pretrained.step, pretrained.steps) == ("finished", 2, 2)
    assert {"loss"} <= pretrained.first.keys() & pretrained.last.keys()
    assert pretrained.report.is_file()
    assert pretrained.metrics[-1]["step"] == 2
    assert surgdino.load(pretrained.checkpoint).info["steps"] == 2
    command = (pretrained.folder / "environment.json").read_text()
    assert "surgdino pretrain recipe=demo" in command
    assert list((pretrained.folder / "tensorboard").iterdir())
    again = surgdino.pretrain(
        DEMO,
        data={"root": synthetic_cholec80, "store": pretrained.folder.parent / "store", "exclude": ["video04"]},
        run={"dir": pretrained.folder},
    )
    assert again.status == "already finished"
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
def test_fine_tuning_and_testing_give_the_figures_of_their_files(pretrained, synthetic_cholec80, tmp_path):
    data = {"root": synthetic_cholec80, "store": pretrained.folder.parent / "store"}
    split = {"train": [1, 2], "val": [3], "test": [4]}
    run = surgdino.finetune(
        *("task=tools", "dataset=cholec80", "hardware.loader_workers=0"),
        checkpoint=pretrained.folder,
        data={**data, "split": split},
        train={"steps": 3, "batch_size": 8},
        run={"dir": tmp_path / "tools"},
        log={"to": ["tensorboard"]},
    )
    assert run.status == "finished"
    assert list((run.folder / "tensorboard" / "frame").glob("events.*.surgdino.*"))
    assert run.headline is not None
    assert run.headline in run.figures
    assert run.figure(run.headline.name) is run.headline
    assert list(run.headline.per_operation) == ["camma/4"]
    assert len(run.per_operation) == len((run.folder / "per_operation.csv").read_text().splitlines()) - 1
    with pytest.raises(SurgdinoError, match="Did you mean"):
        run.figure(run.headline.name + "x")
    again = surgdino.evaluate(checkpoint=run.folder)
    assert again.figures == run.figures
    assert again.folder == run.folder / "evaluation" / "cholec80-test"
    predicted = surgdino.predict(
        synthetic_cholec80 / "videos" / "video04.mp4", checkpoint=run.folder, out=tmp_path / "predicted"
    )
    assert [each.name for each in predicted.videos] == ["video04"]
    assert all(path.exists() for path in predicted.videos[0].written.values())
    page = surgdino.compare(pretrained.folder, run.folder, out=tmp_path / "both.html")
    assert page.report == tmp_path / "both.html"
    assert page.verdict
    assert surgdino.report(run.folder, **{"report.frames": False}).report == run.folder / "report.html"
    shared = surgdino.share(run.folder, out=tmp_path / "shared")
    assert "state" in shared.left_out
    exported = surgdino.export(pretrained.folder, format="timm", out=tmp_path / "timm")
    assert exported.folder == tmp_path / "timm"
    assert exported.difference < 1e-4


@pytest.mark.slow
def test_ctrl_c_saves_and_the_same_call_goes_on(synthetic_cholec80, tmp_path, monkeypatch):
    from surgdino.engine import monitor

    recorded = monitor.Monitor.record

    def stops(self, step, *more):
        recorded(self, step, *more)
        if step == 1:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(monitor.Monitor, "record", stops)
    settings = {**DEMO, "data": {"root": synthetic_cholec80, "store": tmp_path / "store"}, "run.dir": tmp_path / "run"}
    stopped = surgdino.pretrain(settings)
    assert (stopped.status, stopped.step) == ("stopped", 1)
    monkeypatch.undo()
    assert surgdino.pretrain(settings).step == 2


def test_scores_of_files_are_figures_without_a_folder_and_read_as_in_the_terminal(tmp_path):
    for folder in ("truth", "theirs"):
        (tmp_path / folder).mkdir()
        rows = "".join(f"{25 * k}\t{'Preparation' if k < 3 else 'GallbladderRetraction'}\n" for k in range(6))
        (tmp_path / folder / "video01-phase.txt").write_text("Frame\tPhase\n" + rows)
    found = surgdino.score(task="phase", dataset="cholec80", truth=tmp_path / "truth", predictions=tmp_path / "theirs")
    assert found.headline.value == 1.0
    assert str(found.headline) == "accuracy 100.0 %, phase/script, 1 operation"
    assert found.folder is None
