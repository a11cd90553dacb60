"""Pictures of what was learned: colours that mean the same before and after, neighbours elsewhere, true attention."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from surgdino.backbone.checkpoint import LoadedBackbone
from surgdino.backbone.vit import build_backbone
from surgdino.config import shipped_settings
from surgdino.report.blocks import Pictures
from surgdino.report.learned import (
    Learned,
    Sample,
    as_picture,
    class_attention,
    component_colours,
    encode,
    neighbours_elsewhere,
)
from surgdino.report.record import RunRecord


@pytest.fixture(scope="module")
def toy() -> LoadedBackbone:
    torch.manual_seed(0)
    settings = shipped_settings("model", "vit_toy")
    info = {"image_size": 32, "mean": settings["mean"], "std": settings["std"]}
    return LoadedBackbone(build_backbone(settings), info)


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 255, (6, 40, 60, 3), dtype=np.uint8))


def test_components_part_what_differs(frames):
    patches = np.zeros((2, 16, 8)) + 0.01 * np.random.default_rng(0).normal(size=(2, 16, 8))
    patches[:, :8, 0] += 1
    colours = component_colours(patches)
    assert colours.shape == (2, 16, 3)
    first = colours[..., 0]
    assert abs(first[:, :8].mean() - first[:, 8:].mean()) > 0.3
    assert first[:, :8].std() < 0.05


def test_turned_features_get_the_same_colours():
    random = np.random.default_rng(1)
    patches = random.normal(size=(3, 16, 3)) * np.array([3.0, 2.0, 1.0])
    turned = patches @ np.linalg.qr(random.normal(size=(3, 3)))[0]
    reference = component_colours(patches)
    assert np.allclose(component_colours(turned, reference), reference, atol=0.02)  # clipped tails turn too


def test_patches_that_do_not_count_are_black_and_change_no_component():
    random = np.random.default_rng(2)
    patches = random.normal(size=(3, 16, 3)) * np.array([3.0, 2.0, 1.0])
    counted = random.random((3, 16)) < 0.7
    colours = component_colours(patches, counted=counted)
    assert (colours[~counted] == 0).all()
    patches[~counted] += 100
    assert np.allclose(component_colours(patches, counted=counted), colours)
    turned = patches @ np.linalg.qr(random.normal(size=(3, 3)))[0]
    assert np.allclose(component_colours(turned, colours, counted), colours, atol=0.02)
    assert np.isfinite(component_colours(patches, counted=np.zeros((3, 16), bool))).all()


def test_neighbours_are_of_other_operations_and_nearest_first():
    cls = np.array([[1.0, 0], [1, 0.01], [1, 0.3], [1, 0.1], [0, 1]])
    found = neighbours_elsewhere(cls, ["a", "a", "b", "b", "c"], [0], 3)
    assert found.tolist() == [[3, 2, 4]]


def test_attention_is_that_of_the_last_block(toy, frames):
    looks = class_attention(toy, frames)
    assert looks.shape == (6, (32 // toy.backbone.patch_size) ** 2)
    assert np.allclose(looks.max(1), 1)
    # Independently: run timm's blocks one by one and compute the softmax by hand.
    vit = toy.backbone.vit
    with torch.no_grad():
        tokens = vit.norm_pre(vit._pos_embed(vit.patch_embed(toy.preprocess(frames))))
        for block in vit.blocks[:-1]:
            tokens = block(tokens)
        last = vit.blocks[-1]
        heads = last.attn.num_heads
        query, key, _ = last.attn.qkv(last.norm1(tokens)).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        weights = (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1)[:, :, 0, vit.num_prefix_tokens :].mean(1)
    assert np.allclose(looks, (weights / weights.amax(1, keepdim=True)).numpy(), atol=1e-5)


def test_encode_gives_what_the_backbone_gives(toy, frames):
    cls, patches = encode(toy, frames)
    with torch.no_grad():
        features = toy(toy.preprocess(frames))
    assert np.allclose(cls, features.cls.numpy(), atol=1e-6)
    assert np.allclose(patches, features.patches.numpy(), atol=1e-6)


def test_a_grid_becomes_a_picture_with_sharp_edges():
    picture = as_picture(np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]), 10)
    assert picture.shape == (10, 10, 3)
    assert picture[0, 0].tolist() == [255, 0, 0]
    assert picture[9, 9].tolist() == [255, 255, 255]


@pytest.mark.parametrize("with_before", [True, False])
def test_the_section_has_pictures_of_both_backbones(toy, frames, with_before):
    sample = Sample(frames, ["a", "a", "b", "b", "c", "c"], [f"frame {i}" for i in range(6)])
    blocks = Learned(sample, toy if with_before else None, toy).blocks([RunRecord(Path("run"), {}, {}, {}, [])])
    pictures = [picture for block in blocks if isinstance(block, Pictures) for picture in block.pictures]
    assert any("before" in picture.caption for picture in pictures) == with_before
    assert all(picture.uri.startswith("data:image/") for picture in pictures)
