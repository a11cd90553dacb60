"""Sets with label files of their own go the whole way: steps are learned, and every kind of labels is benchmarked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from surgdino.cli.main import main
from surgdino.datasets.card import card_names, load_card
from surgdino.datasets.synthetic.workflow import write_workflow
from tests.tasks.sets import FP32, SMALL

pytestmark = pytest.mark.slow
LAYOUTS = [name for name in card_names() if load_card(name).adapter == "workflow"]


def small(name: str, root: Path, *more: str) -> list[str]:
    write_workflow(root / name, name, videos=4, seconds=2, public_ids=True)
    return [f"dataset={name}", f"data.root={root / name}", f"data.store={root / 'store'}", *SMALL, *FP32, *more]


def test_steps_are_learned_on_a_published_fold(tmp_path):
    train = ("train.batch_size=8", "train.steps=2", "train.log_every=1", "task.temporal=auto")
    words = small("multibypass140", tmp_path, "data.split=fold1", *train, f"run.dir={tmp_path / 'run'}")
    assert main(["finetune", "task=phase", "task.labels=step", *words]) == 0
    files = sorted((tmp_path / "run/predictions").glob("*.txt"))
    assert [file.stem for file in files] == ["BBP01", "SBP01"]
    names = {row.split("\t")[1] for file in files for row in file.read_text().splitlines()[1:]}
    assert names <= {*load_card("multibypass140").steps}
    assert all(file.read_text().startswith("Frame\tStep\n") for file in files)


def test_all_are_pretrained_on_and_benchmarked_with_every_kind_of_labels(tmp_path):
    first, *others = LAYOUTS
    words = small(first, tmp_path, "train.steps=1", f"run.dir={tmp_path / 'backbone'}")
    words.remove("image_size=32")
    also = [f"{{dataset: {name}, root: {tmp_path / name}}}" for name in others]
    for name in others:
        small(name, tmp_path)
    assert main(["pretrain", "recipe=demo", *words, f"data.also=[{', '.join(also)}]"]) == 0
    kinds = ["phase", "step", "tools", "action"]
    entry = {"evaluation": "classification", "classifier": "knn", "tokens": "class", "shares": [1], "seeds": 1}
    suite = {"datasets": dict.fromkeys(LAYOUTS), "evaluations": {"k-NN": {**entry, "labels": kinds}}}
    (tmp_path / "suite.yaml").write_text(json.dumps(suite))
    data = [f"data.{name}={tmp_path / name}" for name in LAYOUTS]
    frames = [word for word in (*SMALL, *FP32) if not word.startswith(("model=", "image_size="))]
    more = [*data, *frames, f"data.store={tmp_path / 'store'}", "leakage=allow", f"run.dir={tmp_path / 'run'}"]
    backbones = f"backbones=[{tmp_path / 'backbone'}]"
    assert main(["benchmark", f"suite={tmp_path / 'suite.yaml'}", backbones, *more]) == 0
    rows = json.loads((tmp_path / "run/results.json").read_text())["rows"]
    found = {(row["dataset"], row["labels"]) for row in rows}
    names = {"phase": "phases", "step": "steps", "tools": "tools", "action": "actions"}
    assert found == {(n, kind) for n in LAYOUTS for kind in kinds if getattr(load_card(n), names[kind])}
