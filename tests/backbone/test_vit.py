"""Every model that is discovered is a backbone: masks, any crop size, and a state dict that is timm's own."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest
import torch
import yaml

from surgdino.backbone.catalogue import catalogue
from surgdino.backbone.settings import ModelSettings
from surgdino.backbone.timm_import import timm
from surgdino.backbone.vit import Backbone, build_backbone
from surgdino.discovery import files
from surgdino.errors import SurgdinoError
from tests import ROOT

MODELS = files("configs/model")
PACKAGE = ROOT / "surgdino"


def settings(name: str) -> dict:
    return yaml.safe_load(MODELS[name].read_text())


def toy(**changes) -> Backbone:
    torch.manual_seed(0)
    return build_backbone({**settings("vit_toy"), **changes}).eval()


@pytest.fixture(scope="module", params=MODELS)
def discovered(request: pytest.FixtureRequest) -> tuple[dict, Backbone]:
    """Each model file and the backbone that it describes, without memory for its parameters."""
    described = settings(request.param)
    with torch.device("meta"):
        return described, build_backbone(described)


@pytest.mark.quick("toy", "tiny", "small")
def test_every_discovered_model_builds_as_its_file_says(discovered) -> None:
    described, backbone = discovered
    file = MODELS[described["name"]]
    assert file.read_text().startswith("# ")
    assert backbone.patch_size == described["patch_size"]
    assert set(described) == set(settings("vit_toy")), "the same keys in every model file"
    assert len(described["mean"]) == len(described["std"]) == 3


@pytest.mark.quick("toy", "tiny", "small_patch14")
def test_every_discovered_model_takes_two_crop_sizes_and_masks(discovered) -> None:
    _, backbone = discovered
    with torch.device("meta"):
        patch = backbone.patch_size
        globals_, locals_ = backbone.forward_crops(
            [
                (torch.zeros(2, 3, 4 * patch, 4 * patch), torch.zeros(2, 16, dtype=torch.bool)),
                (torch.zeros(6, 3, 2 * patch, 3 * patch), None),
            ]
        )
    assert globals_.cls.shape == (2, backbone.embed_dim)
    assert globals_.patches.shape == (2, 16, backbone.embed_dim)
    assert locals_.patches.shape == (6, 6, backbone.embed_dim)


def test_state_dict_is_that_of_the_plain_timm_model(discovered) -> None:
    described, backbone = discovered
    with torch.device("meta"):
        plain = timm.create_model(described["timm"], num_classes=0, **described["timm_kwargs"]).state_dict()
    assert {k: v.shape for k, v in backbone.vit.state_dict().items()} == {k: v.shape for k, v in plain.items()}


def test_known_weights_are_as_large_as_the_model_they_fit(discovered) -> None:
    described, backbone = discovered
    own = sum(p.numel() for p in backbone.vit.parameters()) * 4 / 1e6
    for entry in (e for e in catalogue() if e.model == described["name"]):
        assert own * 0.99 < entry.megabytes < own * 1.01 + 4.5, f"{entry.name}: only a classifier may come on top"


@pytest.mark.parametrize(
    "architecture", ["vit_tiny_patch16_224", "vit_small_patch14_reg4_dinov2", "vit_small_patch16_dinov3"]
)
def test_features_equal_those_of_plain_timm_at_every_size(architecture: str) -> None:
    small = {"embed_dim": 64, "depth": 2, "num_heads": 2, "img_size": 4 * 14 if "14" in architecture else 4 * 16}
    backbone = build_backbone({"timm": architecture, "timm_kwargs": small}).eval()
    for rows, columns in ((4, 4), (2, 2), (6, 3)):
        images = torch.randn(2, 3, rows * backbone.patch_size, columns * backbone.patch_size)
        tokens = backbone.vit.forward_features(images)
        features = backbone(images)
        torch.testing.assert_close(features.cls, tokens[:, 0])
        torch.testing.assert_close(features.patches, tokens[:, -rows * columns :])


def test_what_lies_under_a_mask_is_not_seen() -> None:
    backbone = toy()
    torch.nn.init.normal_(backbone.mask_token)
    masks = torch.zeros(2, 16, dtype=torch.bool)
    masks[0, :4] = True  # the top row of patches of the first image
    images = torch.rand(2, 3, 32, 32)
    other = images.clone()
    other[0, :, :8] = torch.rand(3, 8, 32)
    seen, unseen = backbone(images, masks), backbone(other, masks)
    torch.testing.assert_close(seen.patches, unseen.patches)
    assert not torch.allclose(backbone(images).patches[0], seen.patches[0])
    torch.testing.assert_close(backbone(images).patches[1], seen.patches[1])  # nothing masked in the second


def test_the_mask_token_learns_and_only_where_something_is_masked() -> None:
    backbone = toy()
    images, masks = torch.rand(2, 3, 32, 32), torch.zeros(2, 16, dtype=torch.bool)
    backbone(images, masks).patches.square().sum().backward()
    assert not backbone.mask_token.grad.any()
    masks[1, 3] = True
    backbone(images, masks).patches.square().sum().backward()
    assert backbone.mask_token.grad.any()


def test_recomputing_activations_changes_no_gradient() -> None:
    images, gradients = torch.rand(2, 3, 32, 32), []
    for recompute in (False, True):
        backbone = toy().train()
        backbone.set_grad_checkpointing(recompute)
        backbone(images).cls.square().sum().backward()
        gradients.append([p.grad for p in backbone.vit.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_bfloat16_autocast_keeps_shapes_and_stays_finite() -> None:
    masks = torch.rand(2, 16) < 0.5
    with torch.autocast("cpu", torch.bfloat16):
        features = toy()(torch.rand(2, 3, 32, 32), masks)
    assert features.patches.isfinite().all()
    assert features.patches.shape == (2, 16, 64)


def test_drop_path_is_the_settings_own_unless_given() -> None:
    def last_rate(backbone: Backbone) -> float:
        return getattr(backbone.vit.blocks[-1].drop_path1, "drop_prob", 0.0)

    assert last_rate(toy(drop_path=0.3)) == pytest.approx(0.3)
    assert last_rate(build_backbone({**settings("vit_toy"), "drop_path": 0.3}, drop_path=0.0)) == 0.0


def test_layer_ids_rise_with_depth_and_cover_every_parameter() -> None:
    backbone = toy()
    ids = {name: backbone.layer_id(name) for name, _ in backbone.named_parameters()}
    assert {ids[n] for n in ("mask_token", "vit.cls_token", "vit.pos_embed", "vit.patch_embed.proj.weight")} == {0}
    assert ids["vit.blocks.0.norm1.weight"] == 1
    assert ids["vit.blocks.1.mlp.fc2.bias"] == backbone.depth == 2
    assert ids["vit.norm.weight"] == 3
    assert all(backbone.layer_id(name.removeprefix("vit.")) == number for name, number in ids.items())


@pytest.mark.parametrize("name", MODELS)
def test_the_settings_of_every_model_are_kept_as_its_file_gives_them(name: str) -> None:
    assert ModelSettings.of(settings(name)).as_dict() == settings(name)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"timm": "vit_tiny_patch16_22"}, "did you mean 'vit_tiny_patch16_224'"),
        ({"timm": "resnet18", "timm_kwargs": {}}, "vit_"),
        ({"timm_kwargs": {"embed_dimm": 64}}, "embed_dimm"),
        ({"patch_size": 16}, "expected 8, found 16"),
    ],
)
def test_a_wrong_model_file_is_told_in_one_line(changes: dict, words: str) -> None:
    with pytest.raises(SurgdinoError) as caught:
        build_backbone({**settings("vit_toy"), **changes})
    assert words.lower() in caught.value.line().lower()
    assert "\n" not in caught.value.line()


def test_images_and_masks_of_the_wrong_size_are_told_with_the_right_one() -> None:
    with pytest.raises(SurgdinoError, match=r"multiples of 8, found 30x32"):
        toy()(torch.zeros(1, 3, 30, 32))
    with pytest.raises(SurgdinoError, match=r"\(1, 16\), found \(1, 9\)"):
        toy()(torch.zeros(1, 3, 32, 32), torch.zeros(1, 9, dtype=torch.bool))


@pytest.mark.slow
def test_timm_is_imported_through_its_guard_only() -> None:
    importers = set()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {(node.module or "").split(".")[0]} if not node.level else set()
            else:
                continue
            if names & {"timm", "torchvision"}:
                importers.add(file.name)
    assert importers == {"timm_import.py"}


@pytest.mark.slow
def test_the_guard_lets_torchvision_be_imported_beside_this_torch() -> None:
    code = "from surgdino.backbone.timm_import import timm; import torchvision; print(timm.__version__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
