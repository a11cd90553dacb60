"""Positions on another grid: learned ones interpolated as timm does, rotary ones relative to the crop."""

from __future__ import annotations

import pytest
import torch

from surgdino.backbone.positions import on_grid, rescale_rotary
from surgdino.backbone.vit import Backbone, build_backbone
from surgdino.errors import SurgdinoError

SMALL = {"embed_dim": 64, "depth": 2, "num_heads": 2}


def toy(architecture: str, **more: object) -> Backbone:
    torch.manual_seed(0)
    return build_backbone({"timm": architecture, "timm_kwargs": {**SMALL, "img_size": 64, **more}}, drop_path=0.0)


@pytest.mark.parametrize(
    ("architecture", "more"),
    [
        ("vit_tiny_patch16_224", {}),
        ("vit_tiny_patch16_224", {"reg_tokens": 4, "no_embed_class": True}),
        ("eva02_tiny_patch14_224", {"img_size": 56}),
    ],
    ids=["class token with a position", "without, registers", "learned and rotary"],
)
def test_a_larger_grid_sees_at_once_what_timm_interpolates_in_every_pass(architecture, more):
    before = toy(architecture, **more).eval()
    after = on_grid(before, (7, 7), drop_path=0.0).eval()
    side = 7 * before.patch_size
    assert (after.grid, after.settings.timm_kwargs.img_size) == ((7, 7), side)
    images = torch.randn(2, 3, side, side)
    with torch.no_grad():
        torch.testing.assert_close(after(images).patches, before(images).patches)
    assert on_grid(after, (7, 7), 0.0) is after


def test_rotary_coordinates_are_stretched_in_training_alone_and_anew_in_every_pass():
    backbone = toy("vit_small_patch16_dinov3")
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        plain = backbone(images).cls
        rescale_rotary(backbone, 2.0)
        one, other = backbone(images).cls, backbone(images).cls
        assert not any(torch.allclose(*each) for each in ((one, plain), (one, other)))
        torch.manual_seed(3)
        drawn = backbone(images).cls
        torch.manual_seed(3)
        assert torch.equal(backbone(images).cls, drawn)
        torch.testing.assert_close(backbone.eval()(images).cls, plain)


def test_rotary_coordinates_span_the_crop_at_any_size():
    """The first and the last patch of a row lie as far apart in a crop of 8 x 8 patches as in one of 4 x 4."""
    rope = toy("vit_small_patch16_dinov3").eval().vit.rope
    for side in (4, 8):
        embed = rope.make(shape=(side, side)).unflatten(0, (side, side))
        assert torch.allclose(embed[0, 0].chunk(2)[1], embed[-1, -1].chunk(2)[1], atol=1e-5), "cosines are even"
        assert torch.allclose(embed[0, 0].chunk(2)[0], -embed[-1, -1].chunk(2)[0], atol=1e-5)


def test_a_model_without_rotary_positions_refuses():
    with pytest.raises(SurgdinoError, match="no rotary positions"):
        rescale_rotary(toy("vit_tiny_patch16_224"), 2.0)
