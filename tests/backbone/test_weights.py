"""Weights come in under many names; each gives the features of the model it was made from, or a clear refusal."""

from __future__ import annotations

import argparse
import copy
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

from surgdino.backbone import weights
from surgdino.backbone.catalogue import catalogue
from surgdino.backbone.timm_import import timm
from surgdino.backbone.vit import Backbone, build_backbone
from surgdino.backbone.weights import load_weights
from surgdino.errors import SurgdinoError
from surgdino.paths import share

State = dict[str, Tensor]
PLAIN = {"timm": "vit_tiny_patch16_224", "patch_size": 16}
LAYER_SCALE = {"timm": "vit_small_patch14_dinov2", "patch_size": 14}
REGISTERS = {"timm": "vit_small_patch14_reg4_dinov2", "patch_size": 14}
ROTARY = {"timm": "vit_small_patch16_dinov3", "patch_size": 16}


def small(kind: dict, grid: int = 4, seed: int = 0, **changes) -> Backbone:
    """A model of that kind, 64 wide and 2 deep, with every parameter away from its initial value."""
    torch.manual_seed(seed)
    kwargs = {"embed_dim": 64, "depth": 2, "num_heads": 2, "img_size": grid * kind["patch_size"], **changes}
    backbone = build_backbone({**kind, "name": "small", "timm_kwargs": kwargs}).eval()
    with torch.no_grad():
        for parameter in backbone.vit.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return backbone


def as_dinov2(state: State) -> State:
    """The authors' own layout: a mask token, and positions for the class token too where there are registers."""
    state = {**state, "mask_token": torch.full((1, 64), 0.25)}
    if "reg_token" in state:
        state["register_tokens"] = state.pop("reg_token")
        position = torch.randn(1, 1, 64)
        state["cls_token"] = state["cls_token"] - position
        state["pos_embed"] = torch.cat([position, state["pos_embed"]], dim=1)
    return state


def as_chunks(state: State) -> State:
    """DINOv2 and SimDINOv2 while they train: blocks in chunks, numbered through."""
    return {re.sub(r"^blocks\.(\d+)\.", r"blocks.\1.\1.", name): t for name, t in as_dinov2(state).items()}


def as_hugging_face(state: State) -> State:
    names = (
        ("cls_token", "embeddings.cls_token"),
        ("mask_token", "embeddings.mask_token"),
        ("register_tokens", "embeddings.register_tokens"),
        ("pos_embed", "embeddings.position_embeddings"),
        ("patch_embed.proj", "embeddings.patch_embeddings.projection"),
        ("blocks.", "encoder.layer."),
        (".attn.proj.", ".attention.output.dense."),
        (".ls1.gamma", ".layer_scale1.lambda1"),
        (".ls2.gamma", ".layer_scale2.lambda1"),
    )
    renamed: State = {}
    for name, tensor in as_dinov2(state).items():
        for ours, theirs in names:
            name = name.replace(ours, theirs)
        name = re.sub(r"^norm\.", "layernorm.", name)
        if ".attn.qkv." in name:
            for part, third in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                renamed[name.replace(".attn.qkv.", f".attention.attention.{part}.")] = third.clone()
        else:
            renamed[name] = tensor
    return renamed


def as_hugging_face_vit(state: State) -> State:
    """Hugging Face's plain ViT, in which DINO's own weights are offered there; its untrained pooler comes along."""
    names = ((".norm1.", ".layernorm_before."), (".norm2.", ".layernorm_after."))
    names += ((".mlp.fc1.", ".intermediate.dense."), (".mlp.fc2.", ".output.dense."))
    renamed = {"pooler.dense.weight": torch.zeros(64, 64)}
    for name, tensor in as_hugging_face(state).items():
        for ours, theirs in names:
            name = name.replace(ours, theirs)
        if "mask_token" not in name:
            renamed[name] = tensor
    return renamed


def as_dinov3(state: State) -> State:
    renamed = {"mask_token": torch.full((1, 64), 0.25), "rope_embed.periods": torch.ones(16)}
    for name, tensor in state.items():
        renamed[re.sub(r"\.gamma_([12])$", r".ls\1.gamma", name).replace("reg_token", "storage_tokens")] = tensor
    for block in range(2):
        renamed[f"blocks.{block}.attn.qkv.bias"] = torch.zeros(192)
        renamed[f"blocks.{block}.attn.qkv.bias_mask"] = torch.ones(192)
    return renamed


def with_heads(state: State, prefix: str) -> dict:
    return {
        **{f"{prefix}{name}": t for name, t in state.items()},
        "dino_head.mlp.0.weight": torch.zeros(8, 64),
        "ibot_head.mlp.0.weight": torch.zeros(8, 64),
    }


def in_teacher(state: State) -> dict:
    return {"teacher": with_heads(as_chunks(state), "backbone."), "iteration": 24999}


def as_dino_training(state: State) -> dict:
    wrong = {name: torch.full_like(t, 7.0) for name, t in state.items()}
    return {
        "student": with_heads(wrong, "module.backbone."),
        "teacher": with_heads(state, "backbone."),
        "args": argparse.Namespace(arch="vit_small", patch_size=16),
        "epoch": 100,
    }


STYLES: list[tuple[str, dict, Callable[[State], dict], str]] = [
    ("timm", PLAIN, dict, "timm"),
    (
        "timm with a head",
        PLAIN,
        lambda s: {**s, "head.weight": torch.zeros(10, 64), "head.bias": torch.zeros(10)},
        "timm",
    ),
    ("timm wrapped", PLAIN, lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}}, "timm"),
    ("compiled", PLAIN, lambda s: {"model": {f"_orig_mod.{k}": v for k, v in s.items()}}, "timm"),
    ("dino training checkpoint", PLAIN, as_dino_training, "timm"),
    ("hugging face vit", PLAIN, as_hugging_face_vit, "hugging face"),
    ("dinov2", LAYER_SCALE, as_dinov2, "dinov2"),
    ("dinov2 registers", REGISTERS, as_dinov2, "dinov2"),
    ("timm registers", REGISTERS, dict, "timm"),
    ("simdinov2 teacher checkpoint", REGISTERS, in_teacher, "dinov2"),
    ("hugging face dinov2", LAYER_SCALE, as_hugging_face, "hugging face"),
    ("hugging face dinov2 registers", REGISTERS, as_hugging_face, "hugging face"),
    (
        "hugging face dinov2 classifier",
        LAYER_SCALE,
        lambda s: {
            **{f"dinov2.{k}": v for k, v in as_hugging_face(s).items()},
            "classifier.weight": torch.zeros(5, 128),
        },
        "hugging face",
    ),
    ("dinov3", ROTARY, as_dinov3, "dinov3"),
    ("dinov3 timm", ROTARY, dict, "timm"),
]


@pytest.mark.parametrize(("title", "kind", "style", "told"), STYLES, ids=[s[0] for s in STYLES])
def test_every_key_style_gives_the_features_it_was_made_from(title, kind, style, told, tmp_path: Path) -> None:
    source, target = small(kind, seed=1), small(kind, seed=2)
    file = tmp_path / "weights.pth"
    torch.save(style(source.vit.state_dict()), file)
    report = load_weights(target, file)
    images = torch.randn(2, 3, 4 * kind["patch_size"], 4 * kind["patch_size"])
    torch.testing.assert_close(target(images).cls, source(images).cls, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(target(images).patches, source(images).patches, atol=1e-5, rtol=1e-5)
    assert report.style == told
    assert not report.interpolated
    assert report.tensors == len(target.vit.state_dict())
    assert "\n" not in report.line()


def test_heads_are_left_out_and_named(tmp_path: Path) -> None:
    source = small(PLAIN)
    torch.save(as_dino_training(source.vit.state_dict()), tmp_path / "dino.pth")
    report = load_weights(small(PLAIN, seed=2), tmp_path / "dino.pth")
    assert report.container == "teacher.backbone"
    assert report.dropped == ["dino_head.mlp.0.weight", "ibot_head.mlp.0.weight"]
    assert "left out 2" in report.line()


def test_a_mask_token_in_the_file_is_taken_over(tmp_path: Path) -> None:
    torch.save(as_dinov2(small(LAYER_SCALE).vit.state_dict()), tmp_path / "dinov2.pth")
    target = small(LAYER_SCALE, seed=2)
    assert load_weights(target, tmp_path / "dinov2.pth").mask_token
    assert (target.mask_token == 0.25).all()


@pytest.mark.parametrize("kind", [PLAIN, REGISTERS], ids=["class position", "registers"])
def test_another_position_grid_is_interpolated_and_said(kind: dict, tmp_path: Path) -> None:
    source, target = small(kind, grid=6), small(kind, grid=4, seed=2)
    save_file(source.vit.state_dict(), tmp_path / "weights.safetensors")
    report = load_weights(target, tmp_path / "weights.safetensors")
    assert report.interpolated == ["position embedding 6x6 interpolated to 4x4"]
    assert "6x6 interpolated to 4x4" in report.line()
    # timm's own interpolation is the reference: at 4x4 both give the same features
    images = torch.randn(2, 3, 4 * kind["patch_size"], 4 * kind["patch_size"])
    torch.testing.assert_close(target(images).cls, source(images).cls, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".bin"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_file_kind_and_precision_becomes_float32(suffix: str, dtype: torch.dtype, tmp_path: Path) -> None:
    state = {name: t.to(dtype) for name, t in small(PLAIN).vit.state_dict().items()}
    file = tmp_path / f"weights{suffix}"
    save_file(state, file) if suffix == ".safetensors" else torch.save(state, file)
    target = small(PLAIN, seed=2)
    load_weights(target, file)
    for name, tensor in target.vit.state_dict().items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, state[name].float(), atol=0, rtol=0)


@pytest.mark.slow
def test_a_wrong_architecture_lists_the_first_differences_and_what_would_fit(tmp_path: Path) -> None:
    described = yaml.safe_load((share("configs") / "model" / "vit_toy.yaml").read_text())
    save_file(build_backbone(described).vit.state_dict(), tmp_path / "toy.safetensors")
    target = small(PLAIN)
    before = copy.deepcopy(target.state_dict())
    with pytest.raises(SurgdinoError) as caught:
        load_weights(target, tmp_path / "toy.safetensors")
    line = caught.value.line()
    assert "pos_embed" in line or "patch_embed.proj.weight is (64, 3, 8, 8) where the model has (64, 3, 16, 16)" in line
    assert "model=vit_toy" in line
    assert "toy.safetensors" in line
    assert "\n" not in line
    assert all(torch.equal(before[k], v) for k, v in target.state_dict().items()), "nothing may be loaded by halves"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda s: s.pop("norm.weight"), "norm.weight (64,) is missing"),
        (
            lambda s: s.update({"blocks.2.norm1.weight": torch.zeros(64)}),
            "blocks.2.norm1.weight (64,) is not in the model",
        ),
        (lambda s: s["norm.bias"].fill_(float("nan")), "not finite"),
    ],
)
def test_one_wrong_tensor_is_enough(spoil: Callable, words: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(weights, "models_that_fit", lambda _: [])
    state = {name: t.clone() for name, t in small(PLAIN).vit.state_dict().items()}
    spoil(state)
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(SurgdinoError) as caught:
        load_weights(small(PLAIN, seed=2), tmp_path / "weights.safetensors")
    assert words in caught.value.line()


class Intruder:
    """What a malicious checkpoint carries: a call that reading it would make."""

    def __reduce__(self):
        return os.mkdir, ("intruder-was-here",)


def test_a_pth_with_code_in_it_is_refused_and_the_code_does_not_run(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": small(PLAIN).vit.state_dict(), "extra": Intruder()}, "bad.pth")
    with pytest.raises(SurgdinoError, match="could run code") as caught:
        load_weights(small(PLAIN), Path("bad.pth"))
    assert "mkdir" in caught.value.line()
    assert not Path("intruder-was-here").exists()


def test_a_pickled_module_is_refused_too(tmp_path: Path) -> None:
    torch.save(small(PLAIN).vit, tmp_path / "module.pth")
    with pytest.raises(SurgdinoError, match="could run code"):
        load_weights(small(PLAIN), tmp_path / "module.pth")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("left", [0, 100, 50_000])
def test_a_cut_file_is_told_as_damaged(suffix: str, left: int, tmp_path: Path) -> None:
    state, file = small(PLAIN).vit.state_dict(), tmp_path / f"cut{suffix}"
    save_file(state, file) if suffix == ".safetensors" else torch.save(state, file)
    file.write_bytes(file.read_bytes()[:left])
    with pytest.raises(SurgdinoError, match=r"cut\.\w+: damaged"):
        load_weights(small(PLAIN), file)


def test_missing_foreign_and_headless_files_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(SurgdinoError, match="does not exist"):
        load_weights(small(PLAIN), tmp_path / "nowhere.pth")
    (tmp_path / "weights.npz").write_bytes(b"x")
    with pytest.raises(SurgdinoError, match=r"expected \.safetensors, .*found \.npz"):
        load_weights(small(PLAIN), tmp_path / "weights.npz")
    save_file({"layer1.0.conv1.weight": torch.zeros(3)}, tmp_path / "resnet.safetensors")
    with pytest.raises(SurgdinoError, match="no vision transformer"):
        load_weights(small(PLAIN), tmp_path / "resnet.safetensors")
    torch.save([1, 2, 3], tmp_path / "list.pth")
    with pytest.raises(SurgdinoError, match="no vision transformer"):
        load_weights(small(PLAIN), tmp_path / "list.pth")


def test_a_known_file_brings_its_licence_and_normalisation(tmp_path: Path) -> None:
    file = tmp_path / "vit_tiny_patch16_224.augreg_in21k_ft_in1k.safetensors"
    save_file(small(PLAIN).vit.state_dict(), file)
    report = load_weights(small(PLAIN, seed=2), file)
    assert (report.known_as, report.licence) == ("augreg_tiny16", "Apache-2.0")
    assert report.normalisation_warning([0.5] * 3, [0.5] * 3) is None
    assert "model.mean=[0.5, 0.5, 0.5]" in report.normalisation_warning([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert report.history_unknown, "of a file of another size its name says nothing"


@pytest.mark.parametrize("known", catalogue(), ids=lambda known: known.name)
def test_a_published_file_is_known_by_its_hash_or_size(known) -> None:
    size = known.megabytes * 1_000_000
    assert known.is_it(size, known.sha256 or "0" * 64)
    assert not known.is_it(size, "0" * 64) if known.sha256 else not known.is_it(size // 2, "0" * 64)


@pytest.mark.real
def test_the_real_vit_tiny_gives_the_features_of_plain_timm(real_data: Path) -> None:
    file = real_data / "weights" / "vit_tiny_patch16_224.safetensors"
    plain = timm.create_model("vit_tiny_patch16_224").eval()
    plain.load_state_dict(load_file(file), strict=True)
    backbone = build_backbone(yaml.safe_load((share("configs") / "model" / "vit_tiny_patch16.yaml").read_text())).eval()
    report = load_weights(backbone, file)
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        tokens, features = plain.forward_features(images), backbone(images)
    # Relative to the features' own size, which reaches 10: packed blocks add the same numbers up in another order.
    for ours, theirs in ((features.cls, tokens[:, 0]), (features.patches, tokens[:, 1:])):
        assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()
    assert report.dropped == ["head.bias", "head.weight"]
