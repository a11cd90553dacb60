"""A mistake is answered before torch is imported, which takes seconds: every verb, each kind of mistake."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from surgdino import discovery
from surgdino.cli.early import CONFIGS
from surgdino.cli.verbs import CONFIGURED, OF_RUNS
from surgdino.config import shipped_settings

# Verb -> words of a command that is right so far, and more words with what the answer to them says.
MISTAKES: dict[str, tuple[list[str], dict[str, str]]] = {
    "pretrain": (
        ["data.root={data}", "dataset=cholec80"],
        {
            "data.root=/nowhere": "/nowhere: the folder does not exist; expected the folder of dataset=cholec80",
            "data.root={empty}": "this is not Cholec80's layout",
            "data.split=40-41": "no split '40-41'. Did you mean '40-40'?",
            "data.exclude=[video77]": "data.exclude names 'video77'",
            "model.weights=/nowhere": "/nowhere, model.weights: does not exist",
            "train.stesp=1": "'train.steps'",
            "train.steps=many": "train.steps cannot be used; expected a whole number",
            "hardware.device=tpu": "auto or cpu or cuda",
            "crops.global_size=1": "crops.global_size cannot be used; expected at least 8",
            "probe.every=never": "probe.every cannot be used",
            "phases=[{{steps:many}}]": "phases[0].steps cannot be used; expected a whole number",
            "phases=[{{steps:3,model.x:1}}]": "phases[0]: a phase cannot change model.x",
            "model=vit_tony": "there is no model=vit_tony",
        },
    ),
    "finetune": (
        ["data.root={data}", "dataset=cholec80", "data.split=40-40"],
        {
            "data.root=/nowhere": "the folder does not exist",
            "data.split=null": "data.split is not set; expected one of 40-40",
            "checkpoint=/nowhere": "/nowhere, checkpoint: does not exist",
            "checkpoint={empty}": "no checkpoint here; expected backbone.safetensors",
            "backbone=first4": "backbone cannot be used; expected frozen or last4",
            "train.lr=fast": "train.lr cannot be used",
            "task=phrase": "there is no task=phrase. Did you mean 'phase'?",
            "train.epcohs=2": "'train.epochs'",
        },
    ),
    "evaluate": (
        ["checkpoint={run}"],
        {
            "checkpoint=/nowhere": "/nowhere, checkpoint: does not exist",
            "checkpoint={empty}": "no checkpoint here",
            "part=tset": "part cannot be used; expected test or val or train",
            "averging=flips": "'averaging'",
        },
    ),
    "predict": (
        ["{video}", "checkpoint={run}"],
        {
            "checkpoint=/nowhere": "/nowhere, checkpoint: does not exist",
            "truth=/nowhere": "/nowhere, truth: does not exist",
            "image_fps=slow": "image_fps cannot be used",
            "averaging=mean": "averaging cannot be used; expected none or flips",
            "otu=x": "'out'",
        },
    ),
    "benchmark": (
        ["backbones=[{run}]", "data.cholec80={data}"],
        {
            "backbones=[/nowhere]": "/nowhere, backbones: does not exist",
            "data.cholec80=/nowhere": "/nowhere: the folder does not exist",
            "data.workers=some": "data.workers cannot be used",
            "suite=surgicol": "there is no suite=surgicol. Did you mean 'surgical'?",
            "suit=surgical": "'suite'",
        },
    ),
    "curate": (
        ["data.root={data}", "dataset=cholec80"],
        {
            "data.root=/nowhere": "the folder does not exist",
            "keep=all": "keep cannot be used",
            "balance.into=piles": "balance.into cannot be used",
            "kepe=3": "'keep'",
        },
    ),
    "merge": (
        ["{run}", "{run}", "out={empty}/merged"],
        {
            "alpha=half": "alpha cannot be used",
            "data.root=/nowhere": "the folder does not exist",
            "alhpa=1": "'alpha'",
        },
    ),
    "export": (
        ["{run}", "out={empty}/exported", "format=timm"],
        {
            "format=onyx": "there is no format=onyx. Did you mean 'onnx'?",
            "fromat=timm": "'format'",
            "out=": "out cannot",
        },
    ),
    "verify": (
        ["data.root={data}", "dataset=cholec80"],
        {
            "data.root=/nowhere": "the folder does not exist",
            "data.fps=fast": "data.fps cannot be used",
            "data.decoder=ffmpeg": "pyav or decord",
            "data.rooot=x": "'data.root'",
        },
    ),
    "show": (
        ["augment"],
        {
            "data.root=/nowhere": "the folder does not exist",
            "data.curation=/nowhere": "/nowhere, data.curation: does not exist",
            "show.frames=100": "show.frames cannot be used; expected at most 16",
            "show.farmes=1": "'show.frames'",
        },
    ),
    "bench": (
        ["step"],
        {
            "data.root=/nowhere": "the folder does not exist",
            "bench.seconds=few": "bench.seconds cannot be used",
            "bench.second=3": "'bench.seconds'",
        },
    ),
    "score": (
        ["task=phase", "truth={data}", "predictions={data}"],
        {
            "truth=/nowhere": "/nowhere, truth: does not exist",
            "missing=skip": "missing cannot be used; expected refuse or ignore",
            "trtuh=x": "'truth'",
        },
    ),
    "report": (["{run}"], {"/nowhere": "expected one run folder, found 2", "otu=x": "'out'"}),
    "share": (["{run}"], {"otu=x": "'out'", "out=": "out cannot be used"}),
    "compare": (["{run}", "/nowhere"], {"out=x.html": "/nowhere: not a run folder", "otu=x": "'out'"}),
}
# Whatever is chosen by name: a value that no key takes, the last of its YAML file.
for group, verb in {"method": "pretrain", "guide": "pretrain", "augment": "pretrain", "task": "finetune"}.items():
    for name in discovery.files(f"configs/{group}"):
        values, place = shipped_settings(group, name), f"guide.{name}" if group == "guide" else group
        key = next((key for key, value in values.items() if value == "???"), list(values)[-1])
        MISTAKES[verb][1][f"{group}={name} ++{place}.{key}={{{{nan: 0}}}}"] = f"{place}.{key}"
QUICK = ("method=dinov2", "guide=time", "task=vqa", "augment=surgical")
_PROGRAM = """
import contextlib, io, json, sys
from surgdino.cli.main import main
answers = []
for words in json.load(sys.stdin):
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = main(words)
    answers.append((code, said.getvalue(), "torch" in sys.modules))
json.dump(answers, sys.__stdout__)
"""


@pytest.fixture(scope="module")
def places(tmp_path_factory, synthetic_cholec80) -> dict[str, str]:
    """What stands in the braces above."""
    base = tmp_path_factory.mktemp("early")
    (base / "empty").mkdir()
    (base / "run" / "checkpoint").mkdir(parents=True)
    (base / "run" / "config.yaml").write_text("{}")
    (base / "run" / "checkpoint" / "backbone.safetensors").write_bytes(b"")
    video = next((synthetic_cholec80 / "videos").glob("*.mp4"))
    return {"data": synthetic_cholec80, "empty": base / "empty", "run": base / "run", "video": video}


def commands() -> list:
    """All of them; of each verb the first two belong to the quick tests, and a method, a guide and a task."""
    quick, slow = (), (pytest.mark.slow,)
    return [
        pytest.param(verb, mistake, marks=quick if place < 2 or mistake.startswith(QUICK) else slow)
        for verb, (_, mistakes) in MISTAKES.items()
        for place, mistake in enumerate(mistakes)
    ]


def words_of(verb: str, mistake: str, places: dict[str, str]) -> list[str]:
    words = [*MISTAKES[verb][0], *mistake.split(" ", 1)]
    return [verb, *(word.format(**places) for word in words)]


@pytest.fixture(scope="module")
def answers(request, places) -> dict[tuple[str, str], tuple[int, str, bool]]:
    """The commands of the tests that run, one after another in one process, which shows at which torch came in."""
    items = [item for item in request.session.items if item.fspath == request.node.fspath and "mistake" in item.name]
    asked = [(item.callspec.params["verb"], item.callspec.params["mistake"]) for item in items]
    words = json.dumps([words_of(*each, places) for each in asked])
    done = subprocess.run([sys.executable, "-c", _PROGRAM], input=words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return dict(zip(asked, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize(("verb", "mistake"), commands())
def test_a_mistake_is_answered_in_one_line_before_torch_is_imported(verb, mistake, answers, places):
    code, said, torch = answers[verb, mistake]
    assert code == 2, said
    assert MISTAKES[verb][1][mistake].format(**places) in said
    assert said.count("\n") == 1, said
    assert not torch, "torch was imported"


def test_every_verb_is_asked():
    assert {*CONFIGURED, *OF_RUNS} == MISTAKES.keys()
    assert set(CONFIGURED) == CONFIGS.keys()


def seconds_of(words: list[str], code: int) -> float:
    """Processor seconds of a program, the least of two runs."""
    import resource

    found = []
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert subprocess.run(words, capture_output=True, text=True, timeout=100).returncode == code
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(found)


@pytest.fixture(scope="module")
def importing_torch() -> float:
    return seconds_of([sys.executable, "-c", "import torch"], 0)


@pytest.mark.slow
@pytest.mark.parametrize("verb", MISTAKES)
def test_the_answer_takes_less_than_a_second_or_than_importing_torch_on_a_busy_machine(verb, places, importing_torch):
    mistake = next(iter(MISTAKES[verb][1]))
    seconds = seconds_of([sys.executable, "-m", "surgdino.cli", *words_of(verb, mistake, places)], 2)
    assert seconds < max(1, importing_torch), f"{seconds:.2f} s; torch alone {importing_torch:.2f} s"
