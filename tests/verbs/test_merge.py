"""`surgdino merge`: an average of weights that says what it was made of, what it has seen, and what chose it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import surgdino
from surgdino.backbone.vit import build_backbone
from surgdino.cli.main import main
from surgdino.config import shipped_settings
from surgdino.engine.averaging import Trial, best, between, mean_of, sweep
from surgdino.errors import SurgdinoError

HELD_OUT = "camma/4"


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return toy_weights(tmp_path_factory.mktemp("weights") / "toy.safetensors", seed=1)


def toy_weights(file: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    save_file(build_backbone(shipped_settings("model", "vit_toy")).vit.state_dict(), str(file))
    return file


@pytest.fixture(scope="module")
def run(synthetic_cholec80, weights, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("adapted")
    words = ["recipe=demo", f"data.root={synthetic_cholec80}", f"data.store={folder / 'store'}", "data.fps=2"]
    small = ["train.steps=4", "train.batch_size=8", "crops.local_count=2", "method.head_hidden=64"]
    probe = ["train.head_warmup_steps=1", "probe.every=2", "probe.frames=32", f"probe.hold_out=[{HELD_OUT}]"]
    more = [f"model.weights={weights}", f"run.dir={folder / 'run'}", "hardware.loader_workers=0"]
    assert main(["pretrain", *words, *small, *probe, *more]) == 0
    return folder / "run"


def merge(*words: str | Path) -> int:
    return main(["merge", *map(str, words), "hardware.device=cpu"])


def state(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "backbone.safetensors")


def info(folder: Path) -> dict:
    return json.loads((folder / "model.json").read_text())


def assert_average(found: dict, initial: dict, adapted: dict, alpha: float) -> None:
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, (1 - alpha) * initial[name] + alpha * adapted[name])


@pytest.mark.slow
def test_a_quarter_of_the_adapted_weights(run, weights, tmp_path):
    assert merge(weights, run, f"out={tmp_path / 'merged'}", "alpha=0.25") == 0
    initial, adapted = load_file(weights), state(run / "checkpoint")
    assert_average(state(tmp_path / "merged"), initial, adapted, 0.25)
    told, before = info(tmp_path / "merged"), info(run / "checkpoint")
    for key in ("timm", "mean", "std", "image_size", "dataset", "dataset_licence", "datasets", "method"):
        assert told[key] == before[key], key
    assert told["operations"] == ["camma/1", "camma/2", "camma/3"]
    assert told["chosen_on"] == [HELD_OUT], "which chose the run's best state"
    assert told["merged"]["alpha"] == 0.25
    assert told["merged"]["initial"]["sha256"] == before["initial_weights"]["sha256"]
    assert [row["steps"] for row in told["merged"]["adapted"]] == [4]
    assert surgdino.load(tmp_path / "merged")(torch.rand(1, 3, 32, 32)).cls.shape == (1, 64)


@pytest.mark.slow
def test_several_adapted_backbones_are_averaged_first(run, weights, tmp_path):
    """The second began from the first, and has seen one operation more."""
    second = tmp_path / "second"
    shutil.copytree(run / "best", second)
    shuffled = {name: tensor + 0.1 for name, tensor in state(second).items()}
    facts = {**info(second), "operations": ["camma/1", "camma/9"], "chosen_on": []}
    save_file(shuffled, str(second / "backbone.safetensors"), metadata={"surgdino": json.dumps(facts)})
    assert merge(weights, run, second, f"out={tmp_path / 'merged'}", "alpha=0.5") == 0
    mean = mean_of([state(run / "checkpoint"), shuffled])
    assert_average(state(tmp_path / "merged"), load_file(weights), mean, 0.5)
    told = info(tmp_path / "merged")
    assert told["operations"] == ["camma/1", "camma/2", "camma/3", "camma/9"]
    assert len(told["merged"]["adapted"]) == 2
    assert {op for row in told["seen"] if row["how"] == "trained on" for op in row["operations"]} == set(
        told["operations"]
    )


@pytest.mark.slow
def test_a_sweep_keeps_what_scores_best_and_says_which_operations_chose(run, weights, tmp_path, capsys):
    assert merge(weights, run, f"out={tmp_path / 'merged'}", "sweep=1,0.5") == 0
    told = info(tmp_path / "merged")
    rows = told["merged"]["sweep"]
    assert [row["alpha"] for row in rows] == [0.0, 0.5, 1.0]
    assert rows[0]["cka_cls"] == pytest.approx(1, abs=1e-6), "drift is counted from the initial weights"
    assert rows[1]["cka_cls"] > rows[2]["cka_cls"]
    chosen = max(rows, key=lambda row: row["score"])["alpha"]
    assert told["merged"]["alpha"] == chosen
    assert_average(state(tmp_path / "merged"), load_file(weights), state(run / "checkpoint"), chosen)
    assert told["chosen_on"] == [HELD_OUT]
    assert told["seen"][-1] | {"split": None} == {
        "by": "merge",
        "how": "chosen on",
        "dataset": "cholec80",
        "split": None,
        "part": None,
        "operations": [HELD_OUT],
    }
    printed = capsys.readouterr().out
    assert "Share of the adapted weights" in printed
    assert "may favour the adapted weights" not in printed


@pytest.mark.slow
def test_a_sweep_on_other_frames_warns_where_they_were_trained_on(run, weights, synthetic_cholec80, tmp_path, capsys):
    where = ("dataset=cholec80", f"data.root={synthetic_cholec80}", f"data.store={run.parent / 'store'}", "data.fps=2")
    words = (f"out={tmp_path / 'merged'}", "sweep=1", "probe.hold_out=2", "probe.frames=24")
    assert merge(weights, run, *where, *words) == 0
    told = info(tmp_path / "merged")
    assert told["chosen_on"] == ["camma/1", "camma/4"]
    assert "may favour the adapted weights. 1 of 2 tested operations had been seen before" in capsys.readouterr().out


@pytest.mark.slow
def test_an_initial_file_that_the_run_did_not_begin_from_is_told(run, tmp_path, capsys):
    stranger = toy_weights(tmp_path / "stranger.safetensors", seed=9)
    assert merge(stranger, run, f"out={tmp_path / 'merged'}") == 0
    assert "did not begin from" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["WEIGHTS"], "surgdino merge INITIAL ADAPTED out=FOLDER"),
        ([], "surgdino merge INITIAL ADAPTED out=FOLDER"),
        (["WEIGHTS", "RUN", "alpha=2"], "at most 1"),
        (["WEIGHTS", "RUN", "sweep=0,x"], "sweep is not a list of shares"),
        (["WEIGHTS", "RUN", "sweep=0,1.5"], "0 to 1"),
        (["WEIGHTS", "RUN", "alhpa=0.5"], "alpha"),
        (["WEIGHTS", "CHECKPOINT", "sweep=0,1"], "data.root"),
        (["WEIGHTS", "WEIGHTS"], "does not say what it is"),
        (["LARGER", "RUN"], "another architecture"),
        (["WEIGHTS", "RUN", "out=RUN/checkpoint"], "there is a checkpoint already"),
    ],
)
def test_what_cannot_be_is_one_line(run, weights, tmp_path, capsys, words, said):
    larger = tmp_path / "larger.safetensors"
    settings = shipped_settings("model", "vit_toy")
    deeper = {**settings, "timm_kwargs": {**settings["timm_kwargs"], "depth": 3}}
    save_file(build_backbone(deeper).vit.state_dict(), str(larger))
    shutil.copytree(run / "checkpoint", tmp_path / "alone")
    places = {"WEIGHTS": weights, "RUN": run, "CHECKPOINT": tmp_path / "alone", "LARGER": larger}
    full = [word.replace("RUN", str(run)) if word.startswith("out=") else str(places.get(word, word)) for word in words]
    if not any(word.startswith("out=") for word in words):
        full.append(f"out={tmp_path / 'merged'}")
    before = (run / "checkpoint" / "backbone.safetensors").read_bytes()
    assert merge(*full) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert not (tmp_path / "merged").exists()
    assert (run / "checkpoint" / "backbone.safetensors").read_bytes() == before


# The average itself


def test_the_ends_are_the_very_values():
    generator = torch.Generator().manual_seed(0)
    one, other = ({"w": torch.randn(50, generator=generator)} for _ in range(2))
    assert torch.equal(between(one, other, 0.0)["w"], one["w"])
    assert torch.equal(between(one, other, 1.0)["w"], other["w"])
    assert torch.equal(mean_of([one])["w"], one["w"])
    assert torch.equal(mean_of([one, other])["w"], between(one, other, 0.5)["w"])


def test_any_measure_may_choose_and_it_is_given_the_averages_in_order():
    backbone = build_backbone(shipped_settings("model", "vit_toy"))
    state = {name: tensor.clone() for name, tensor in backbone.vit.state_dict().items()}
    moved = {name: tensor + 1 for name, tensor in state.items()}
    met = []

    def measure(given) -> dict[str, float]:
        met.append((given.vit.cls_token - state["cls_token"]).mean().item())
        return {"score": -abs(met[-1] - 0.7)}

    trials = list(sweep(backbone, state, moved, (0.0, 0.5, 0.75, 1.0), measure))
    assert met == pytest.approx([0, 0.5, 0.75, 1], abs=1e-6)
    assert best(trials).alpha == 0.75


def test_of_equal_scores_the_one_nearer_to_the_initial_weights_and_nan_never():
    scores = [(0.0, 0.4), (0.5, 0.6), (0.75, 0.6), (1.0, float("nan"))]
    assert best([Trial(alpha, {"score": score}) for alpha, score in scores]).alpha == 0.5
    with pytest.raises(SurgdinoError, match="nothing to choose by"):
        best([Trial(0.0, {"score": float("nan")})])
