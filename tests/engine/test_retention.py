"""What limits forgetting does what it says, and a run with it is stopped, resumed and shared out like any other."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from surgdino.backbone.checkpoint import load
from surgdino.backbone.low_rank import LAYERS, add_low_rank, fold, has_low_rank, merged
from surgdino.backbone.timm_import import timm
from surgdino.backbone.vit import Backbone, build_backbone
from surgdino.config import shipped
from surgdino.engine.retention import Retention
from surgdino.engine.settings import Learning, PretrainSettings
from surgdino.engine.train import open_session, train
from surgdino.engine.tuning import is_trainable, prepare
from surgdino.errors import SurgdinoError
from tests.engine.gloo import in_processes
from tests.engine.test_processes import assert_same_run, run
from tests.engine.test_training import TOY, final_tensors, plan_in, stop_after

SETTINGS = {
    "frozen": {"frozen_blocks": 1},
    "pulled": {"pull": 50.0, "freeze_tokens": ("class", "mask", "position")},
    "low rank": {"low_rank": 4},
    "all": {"frozen_blocks": 1, "pull": 50.0, "low_rank": 4, "ship_alpha": 0.5},
}
retained = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
# Starting processes takes ten times as long as what they do: whole weights that are pulled, and all of it at once.
spread = pytest.mark.parametrize("settings", [SETTINGS[name] for name in ("pulled", "all")], ids=("pulled", "all"))


def initial() -> dict[str, torch.Tensor]:
    """The toy's weights as every plan of these tests begins with them."""
    torch.manual_seed(0)
    return {f"backbone.{k}": v for k, v in build_backbone(TOY, drop_path=0.2).state_dict().items()}


def part(folder: Path, network: str) -> dict[str, torch.Tensor]:
    prefix = f"{network}."
    return {k.removeprefix(prefix): v for k, v in final_tensors(folder).items() if k.startswith(prefix)}


def changed(folder: Path, network: str) -> set[str]:
    before, after = initial(), part(folder, network)
    return {name for name, tensor in before.items() if not torch.equal(after[name], tensor)}


@pytest.mark.parametrize("network", ["student", "teacher"])
def test_frozen_blocks_and_the_embeddings_stay_bit_for_bit_and_all_else_learns(tmp_path, network):
    train(plan_in(tmp_path, frozen_blocks=1, probe=None))
    stayed = initial().keys() - changed(tmp_path, network)
    assert stayed == {
        name for name in initial() if name.startswith(("backbone.vit.patch_embed", "backbone.vit.blocks.0."))
    } | {"backbone.vit.pos_embed", "backbone.vit.cls_token"}


@pytest.mark.parametrize("network", ["student", "teacher"])
def test_beside_adapters_only_norms_and_the_mask_token_learn(tmp_path, network):
    train(plan_in(tmp_path, low_rank=4, probe=None))
    assert changed(tmp_path, network) == {n for n in initial() if "norm" in n} | {"backbone.mask_token"}
    adapters = {k: v for k, v in part(tmp_path, network).items() if "low_rank" in k}
    assert len(adapters) == 2 * TOY["timm_kwargs"]["depth"] * len(LAYERS)
    assert all(bool(v.any()) for v in adapters.values())


@pytest.mark.slow
def test_the_pull_holds_weights_near_their_beginning_the_stronger_the_nearer(tmp_path):
    apart = []
    for pull in (0.0, 50.0, 900.0):
        train(plan_in(tmp_path / str(pull), pull=pull, lr=1e-3, probe=None))
        before, after = initial(), part(tmp_path / str(pull), "student")
        moved = [name for name in before if "mask_token" not in name]
        apart.append(sum((after[name] - before[name]).square().sum().item() for name in moved) ** 0.5)
    assert apart[1] < 0.95 * apart[0]
    assert apart[2] < 0.5 * apart[1]


@pytest.mark.parametrize("skipped", [0.0, 1.0])
def test_the_pull_is_its_formula_and_none_where_a_step_was_skipped(skipped):
    backbone = build_backbone(TOY, drop_path=0.0)
    start = {name: p.detach().clone() for name, p in backbone.named_parameters()}
    retention = Retention.of(backbone, shipped(PretrainSettings, "pretrain", "train", pull=20.0))
    groups = [{"params": [p], "lr": 1e-2 / (i + 1)} for i, p in enumerate(backbone.parameters())]
    optimizer = torch.optim.SGD(groups)
    with torch.no_grad():
        for p in backbone.parameters():
            p.add_(torch.randn_like(p))
    before = {name: p.detach().clone() for name, p in backbone.named_parameters()}
    retention.pull_back(optimizer, torch.tensor(skipped))
    for (name, p), group in zip(backbone.named_parameters(), optimizer.param_groups, strict=True):
        share = 0.0 if skipped or name == "mask_token" else 20.0 * group["lr"]
        torch.testing.assert_close(p.detach(), before[name] - share * (before[name] - start[name]))


# Adapters

ARCHITECTURES = ["vit_tiny_patch16_224", "vit_small_patch14_reg4_dinov2", "vit_small_patch16_dinov3"]


def small(architecture: str) -> Backbone:
    kwargs = {"embed_dim": 64, "depth": 3, "num_heads": 2, "patch_size": 8, "img_size": 32}
    torch.manual_seed(0)
    backbone = build_backbone({"timm": architecture, "timm_kwargs": kwargs}, drop_path=0.0).eval()
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if "gamma" in name:  # fresh layer scales would hide what blocks compute
                parameter.fill_(1.0)
    return backbone


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_fresh_adapters_change_nothing_and_trained_ones_what_their_merged_weights_would(architecture):
    plain, adapted = small(architecture), small(architecture)
    add_low_rank(adapted, 4, first_block=1)
    assert has_low_rank(adapted)
    assert not has_low_rank(adapted.vit.blocks[0])
    images, masks = torch.rand(2, 3, 32, 32), torch.rand(2, 16) < 0.5
    with torch.no_grad():
        fresh = plain(images, masks)
        for one, other in zip(fresh, adapted(images, masks), strict=True):
            assert torch.equal(one, other)
        for name, parameter in adapted.named_parameters():
            if "low_rank_up" in name:
                parameter.normal_(std=0.05)
        plain.load_state_dict(merged(adapted.state_dict()))
        for one, other, untrained in zip(plain(images, masks), adapted(images, masks), fresh, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
            assert (one - untrained).abs().mean() > 0.1


def test_what_is_shipped_is_plain_weights_of_a_correction_of_that_rank(tmp_path):
    train(plan_in(tmp_path, low_rank=4, ship="student", lr=5e-3, probe=None))
    weights, before = load_file(tmp_path / "checkpoint" / "backbone.safetensors"), initial()
    vit = timm.create_model(TOY["timm"], num_classes=0, **TOY["timm_kwargs"])
    vit.load_state_dict(weights, strict=True)
    student = build_backbone(TOY, drop_path=0.0)
    add_low_rank(student, 4)
    trained = {k: v for k, v in part(tmp_path, "student").items() if k.startswith("backbone.")}
    student.load_state_dict({k.removeprefix("backbone."): v for k, v in trained.items()})
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(load(tmp_path)(images).cls, student.eval()(images).cls, rtol=1e-4, atol=1e-4)
    for name in (f"blocks.{k}.{layer}.weight" for k in range(2) for layer in LAYERS):
        correction = weights[name] - before[f"backbone.vit.{name}"]
        assert torch.linalg.matrix_rank(correction, rtol=1e-3) == 4
    assert load(tmp_path).info["retention"] == {"frozen_blocks": 0, "pull": 0.0, "low_rank": 4, "gram": 0.0}


@pytest.mark.slow
@pytest.mark.parametrize("ship", ["student", "teacher"])
@pytest.mark.parametrize("settings", [{}, {"low_rank": 4}], ids=["whole", "low rank"])
def test_a_share_of_the_initial_weights_is_shipped_and_the_run_itself_is_the_same(tmp_path, settings, ship):
    runs = {alpha: tmp_path / str(alpha) for alpha in (1.0, 0.25)}
    for alpha, folder in runs.items():
        train(plan_in(folder, ship_alpha=alpha, ship=ship, lr=1e-3, probe=None, **settings))
    adapted, shipped = (load_file(folder / "checkpoint" / "backbone.safetensors") for folder in runs.values())
    for name, tensor in shipped.items():
        begun = initial()[f"backbone.vit.{name}"]
        torch.testing.assert_close(tensor, 0.75 * begun + 0.25 * adapted[name])
    moved = [n for n in shipped if not torch.equal(shipped[n], initial()[f"backbone.vit.{n}"])]
    assert moved == [n for n in shipped if not torch.equal(adapted[n], initial()[f"backbone.vit.{n}"])] != []
    expected, found = (final_tensors(folder) for folder in runs.values())
    assert [k for k in expected if not torch.equal(expected[k], found[k])] == []
    assert load(runs[0.25]).info["ship_alpha"] == 0.25
    assert "ship_alpha" not in load(runs[1.0]).info


def test_what_is_measured_is_what_is_shipped(tmp_path):
    plan = plan_in(tmp_path, ship_alpha=0.25, lr=1e-3)
    measured = train(plan).probes.last
    again = plan.probe.frames.measure(load(tmp_path).backbone, nullcontext)
    assert again.as_dict() | {"seconds": 0} == measured.as_dict() | {"seconds": 0}


def test_folded_adapters_leave_the_network_that_their_merged_weights_make():
    adapted = small(ARCHITECTURES[0])
    add_low_rank(adapted, 4)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "low_rank_up" in name:
                parameter.normal_(std=0.1)
    expected = merged(adapted.state_dict())
    fold(adapted)
    found = adapted.state_dict()
    assert not has_low_rank(adapted)
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []


def test_the_teachers_adapters_follow_the_students(tmp_path):
    session = open_session(plan_in(tmp_path, low_rank=4, probe=None), print)
    names = [name for name, _ in session.student.named_parameters()]
    assert names == [name for name, _ in session.teacher.named_parameters()]
    assert not any(p.requires_grad for p in session.teacher.parameters())


# Runs


@pytest.mark.slow
@retained
@pytest.mark.parametrize("step", [2, 7])
def test_stopped_and_resumed_equals_uninterrupted_bit_for_bit(tmp_path, monkeypatch, settings, step):
    train(plan_in(tmp_path / "whole", probe=None, **settings))
    with monkeypatch.context() as patched:
        stop_after(patched, step)
        assert train(plan_in(tmp_path / "parts", probe=None, **settings)).status == "stopped"
    # The initial weights are the state's: whoever resumes may have lost the file that they came from.
    elsewhere = plan_in(tmp_path / "parts", probe=None, **settings)
    with torch.no_grad():
        for parameter in elsewhere.backbone.parameters():
            parameter.fill_(0.5)
    assert train(elsewhere).resumed_from == step
    expected, found = final_tensors(tmp_path / "whole"), final_tensors(tmp_path / "parts")
    assert expected.keys() == found.keys()
    assert [k for k in expected if not torch.equal(expected[k], found[k])] == []
    expected, found = load(tmp_path / "whole").state_dict(), load(tmp_path / "parts").state_dict()
    assert [k for k in expected if not torch.equal(expected[k], found[k])] == []


@pytest.mark.slow
@retained
def test_micro_batches_make_the_run_of_one(tmp_path, settings):
    run(tmp_path / "one", settings)
    run(tmp_path / "micro", {**settings, "accumulate": 2})
    assert_same_run(tmp_path / "micro", tmp_path / "one")


@pytest.mark.slow
@pytest.mark.quick("all")
@spread
def test_two_processes_make_the_run_of_one(tmp_path, settings):
    run(tmp_path / "one", settings)
    for name, layout in (("copies", {}), ("sharded", {"shard": True})):
        in_processes(2, run, tmp_path / name, {**settings, **layout})
        assert_same_run(tmp_path / name, tmp_path / "one")


@pytest.mark.slow
@spread
def test_a_sharded_run_goes_on_in_one_process(tmp_path, settings):
    run(tmp_path / "one", settings)
    in_processes(2, run, tmp_path / "parts", {**settings, "shard": True}, (1, 7))
    run(tmp_path / "parts", settings)
    assert_same_run(tmp_path / "parts", tmp_path / "one")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"frozen_blocks": 3}, "at most the 2 blocks"),
        ({"frozen_blocks": -1}, "train.frozen_blocks"),
        ({"pull": -1.0}, "train.pull"),
        ({"pull": 3000.0}, "below 1 / train.lr"),
        ({"low_rank": 64}, "below the width 64"),
        ({"ship_alpha": 0.0}, "train.ship_alpha"),
        ({"ship_alpha": 1.5}, "train.ship_alpha"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path, settings, said):
    with pytest.raises(SurgdinoError, match=said):
        open_session(plan_in(tmp_path, **settings), print)


def test_resuming_with_another_pull_names_it(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        stop_after(patched, 1)
        train(plan_in(tmp_path, pull=1.0, probe=None))
    with pytest.raises(SurgdinoError, match=r"train\.pull"):
        train(plan_in(tmp_path, pull=2.0, probe=None))


def test_by_default_everything_learns_and_nothing_is_kept():
    settings, backbone = shipped(PretrainSettings, "pretrain", "train"), build_backbone(TOY, drop_path=0.0)
    assert all(is_trainable(backbone, name, settings.learning) for name, _ in backbone.named_parameters())
    assert Retention.of(backbone, settings).initial == {}


# A part of the blocks


@pytest.mark.parametrize(
    ("tune", "low_rank", "learns"),
    [
        ("attn_proj", 0, lambda name: ".attn.proj." in name),
        ("last1", 0, lambda name: ".blocks.1." in name or "norm" in name),
        ("last1+lora", 4, lambda name: ".blocks.1." in name or "norm" in name),
        ("lora", 4, lambda name: "norm" in name),
    ],
)
def test_a_part_of_the_blocks_learns_and_the_rest_stays_bit_for_bit(tmp_path, tune, low_rank, learns):
    train(plan_in(tmp_path, tune=tune, low_rank=low_rank, probe=None, steps=6))
    assert changed(tmp_path, "student") == {n for n in initial() if learns(n)} | {"backbone.mask_token"}
    adapters = {key for key in part(tmp_path, "student") if "low_rank" in key}
    assert {key.split(".")[3] for key in adapters} == {"last1+lora": {"0"}, "lora": {"0", "1"}}.get(tune, set())
    assert load(tmp_path).info["tune"] == tune


NAMES = {"class": "vit.cls_token", "mask": "mask_token", "position": "vit.pos_embed"}


@pytest.mark.parametrize("settings", [{}, {"low_rank": 4}, {"tune": "last1"}], ids=["all", "adapters", "tune"])
def test_tokens_that_are_frozen_stay_bit_for_bit_and_the_rest_learns_as_before(tmp_path, settings):
    frozen = {f"backbone.{name}" for name in NAMES.values()}
    train(plan_in(tmp_path / "free", probe=None, steps=5, **settings))
    train(plan_in(tmp_path / "held", probe=None, steps=5, freeze_tokens=(*NAMES, "register"), **settings))
    for network in ("student", "teacher"):
        assert changed(tmp_path / "held", network) == changed(tmp_path / "free", network) - frozen
    assert changed(tmp_path / "free", "student") & frozen
    assert load(tmp_path / "held").info["freeze_tokens"] == [*NAMES, "register"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_registers_stay_too_where_a_model_has_them(architecture):
    backbone = small(architecture)
    names = {name for name, _ in backbone.named_parameters()}
    prepare(backbone, Learning("all", 0, freeze_tokens=("register", "position")))
    learns = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    assert names - learns == names & {"vit.reg_token", "vit.pos_embed"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tune": "last3"}, "at most the 2 blocks"),
        ({"tune": "lora"}, "train.tune=lora does not go with train.low_rank=0"),
        ({"tune": "attn_proj", "low_rank": 4}, "does not go with train.low_rank=4"),
        ({"tune": "first2"}, "train.tune cannot be used; expected all, attn_proj, lora, last2 or last2"),
        ({"freeze_tokens": ("cls",)}, r"train.freeze_tokens\[0\] cannot be used; expected class or mask or position"),
    ],
)
def test_what_cannot_be_tuned_is_one_line(tmp_path, settings, said):
    with pytest.raises(SurgdinoError, match=said):
        open_session(plan_in(tmp_path, probe=None, **settings), print)
