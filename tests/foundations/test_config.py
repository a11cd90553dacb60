"""Every default, card and recipe composes; checked values are what their dataclass says they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from omegaconf import OmegaConf

from surgdino.cli.compose import compose
from surgdino.cli.main import CONFIGURED
from surgdino.config import Names, PositiveInt, plain, shipped, typed
from surgdino.discovery import files
from surgdino.engine.optim import rates_at
from surgdino.engine.settings import PretrainSettings
from surgdino.errors import SurgdinoError
from surgdino.paths import share
from surgdino.verbs.list import describe

GROUPS = {
    "model": "configs/model",
    "method": "configs/method",
    "augment": "configs/augment",
    "hardware": "configs/hardware",
    "dataset": "datasets",
}
NAMES = {group: list(files(folder)) for group, folder in GROUPS.items()}
RECIPES = list(files("recipes"))
# One composition tries a choice of every group: the k-th of each, and the first again where a group has fewer.
ROUNDS = [
    {group: names[k % len(names)] for group, names in NAMES.items()} for k in range(max(map(len, NAMES.values())))
]


def composed(verb: str, *overrides: str) -> dict:
    cfg = compose(verb, overrides)
    for key in OmegaConf.missing_keys(cfg):
        OmegaConf.update(cfg, key, f"/{key}")
    return plain(cfg)


@pytest.mark.parametrize("verb", CONFIGURED)
def test_every_verb_composes(verb):
    assert "hydra" not in composed(verb), "settings of ours alone"


@pytest.mark.slow
@pytest.mark.parametrize("choices", ROUNDS, ids=lambda choices: " ".join(choices.values()))
def test_every_choice_composes_under_its_own_name(choices):
    cfg = composed("pretrain", *(f"{group}={name}" for group, name in choices.items()))
    for group in ("model", "method", "dataset"):
        assert cfg[group]["name"] == choices[group]


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_composes(recipe):
    cfg = composed("pretrain", f"recipe={recipe}")
    typed(PretrainSettings, cfg["train"], "train")
    sizes = [cfg["crops"][name] for name in ("global_size", "local_size")]
    assert [size % cfg["model"]["patch_size"] for size in sizes] == [0, 0]


STRONG = [name for name in RECIPES if name.startswith("dinov")]


@pytest.mark.quick("small")
@pytest.mark.parametrize("recipe", STRONG)
def test_a_strong_start_learns_head_first_then_up_a_ramp_and_then_at_one_rate(recipe):
    cfg = composed("pretrain", f"recipe={recipe}", "train.lr=8e-5")
    assert recipe.partition("_")[0] in describe(files("configs/model")[cfg["model"]["name"]]).lower()
    train = typed(PretrainSettings, cfg["train"], "train")
    momentum = train.momentum, train.momentum_end
    rates = [rates_at(step, 4000, train, momentum) for step in (0, 499, 500, 749, 999, 2000, 3999)]
    assert [each.backbone_lr for each in rates] == pytest.approx([0, 0, 1.6e-7, 4e-5, 8e-5, 8e-5, 8e-5])
    assert [each.head_lr for each in rates[1:]] == pytest.approx([8e-5] * 6)
    assert {(each.weight_decay, each.momentum) for each in rates} == {(0.04, 0.994)}
    assert train.freeze_tokens == ("class", "mask", "position")


def test_a_recipe_yields_to_the_command_line():
    cfg = composed("pretrain", "recipe=cholec80", "model=vit_toy", "train.batch_size=7")
    assert cfg["dataset"]["name"] == "cholec80"
    assert cfg["model"]["name"] == "vit_toy"
    assert cfg["train"]["batch_size"] == 7


@pytest.mark.parametrize("path", sorted(share("recipes").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_recipe_opens_with_its_command(path):
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any("surgdino " in line for line in head), "a recipe's head gives the command that runs it"


@dataclass(frozen=True)
class Inner:
    name: str
    limits: tuple[int, ...] = ()


@dataclass(frozen=True)
class Sample:
    count: int
    rate: float = 0.5
    size: tuple[float, float] = (0.0, 1.0)
    names: Names = ()
    mode: Literal["a", "b"] = "a"
    limit: int | None = None
    workers: int | Literal["auto"] = "auto"
    folder: Path = field(default_factory=Path)
    inner: tuple[Inner, ...] = ()
    held: PositiveInt | tuple[int | str, ...] | None = None


def test_values_arrive_in_the_types_of_their_fields():
    got = typed(
        Sample, {"count": 3, "rate": 1, "size": [0, 2], "names": ["x", "y", "z"], "folder": "a/b", "workers": 2}, "s"
    )
    assert got == Sample(3, 1.0, (0.0, 2.0), ("x", "y", "z"), "a", None, 2, Path("a/b"))
    assert isinstance(got.rate, float)


def test_entries_of_a_list_are_checked_like_sections():
    got = typed(Sample, {"count": 1, "inner": [{"name": "x"}, {"name": "y", "limits": [1, 2]}]}, "s")
    assert got.inner == (Inner("x"), Inner("y", (1, 2)))


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({}, "s.count is not set"),
        ({"count": "3"}, "a whole number"),
        ({"count": True}, "a whole number"),
        ({"count": 1.5}, "a whole number"),
        ({"count": 1, "rate": "fast"}, "a number"),
        ({"count": 1, "size": [1]}, "2 values"),
        ({"count": 1, "mode": "c"}, "a or b"),
        ({"count": 1, "limit": "x"}, "a whole number or null"),
        ({"count": 1, "cuont": 2}, "s.count"),
        ({"count": 1, "inner": {"name": "x"}}, "each entry {name: ..., limits: ...}"),
        ({"count": 1, "inner": [3]}, r"s.inner\[0\] .* {name: ..., limits: ...}"),
        ({"count": 1, "inner": [{"name": "x"}, {"nam": "y"}]}, r"s.inner\[1\].nam\..*s.inner\[1\].name"),
        ({"count": 1, "inner": [{"name": "x", "limits": [1, "y"]}]}, r"s.inner\[0\].limits\[1\]"),
        ({"count": 1, "rate": True}, "a number, found True"),
        ({"count": 1, "held": 0}, r"s.held .* at least 1, found 0"),
        ({"count": 1, "names": 3}, "a list, each entry a text"),
    ],
)
def test_a_value_that_does_not_fit_names_its_key_and_what_was_expected(section, said):
    with pytest.raises(SurgdinoError, match=said) as caught:
        typed(Sample, section, "s")
    assert "\n" not in str(caught.value)


def test_a_single_text_is_a_list_of_one():
    assert typed(Sample, {"count": 1, "names": "x"}, "s").names == ("x",)


@dataclass(frozen=True)
class Hardware:
    device: str
    precision: str
    threads: int | Literal["auto"]
    loader_workers: int | Literal["auto"]
    activation_checkpointing: bool
    fit: bool
    shard: bool
    compile: bool | Literal["auto"]


def test_shipped_settings_are_those_of_the_yaml_file_with_changes():
    assert shipped(Hardware, "hardware/cpu", threads=2) == Hardware(
        "cpu", "auto", 2, "auto", False, False, False, "auto"
    )
    with pytest.raises(SurgdinoError, match=r"hardware\.threads .* a whole number or auto"):
        shipped(Hardware, "hardware/cpu", threads="many")
    with pytest.raises(SurgdinoError, match="'cpu'"):
        shipped(Hardware, "hardware/cpus")
