"""Pictures of what was learned: colours that mean the same before and after, neighbours elsewhere, true attention."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from surgdino.backbone.checkpoint import LoadedBackbone
from surgdino.backbone.vit import build_backbone
from surgdino.config import shipped_settings
from surgdino.frames.content import Content
from surgdino.report.blocks import Maps, Scale, Strips
from surgdino.report.feature_map import flat, legend, map_svg, turned_towards
from surgdino.report.learned import Learned, Sample, heat_colours
from surgdino.report.record import RunRecord
from surgdino.report.views import (
    alike_by_phase,
    as_grid,
    class_attention,
    component_colours,
    encode,
    neighbours_elsewhere,
    over_frame,
    patches_inside,
)


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
    # Independently: run timm's blocks one by one and compute the softmax by hand.
    vit = toy.backbone.vit
    with torch.no_grad():
        tokens = vit.norm_pre(vit._pos_embed(vit.patch_embed(toy.preprocess(frames))))
        for block in vit.blocks[:-1]:
            tokens = block(tokens)
        last = vit.blocks[-1]
        heads = last.attn.num_heads
        query, key, _ = last.attn.qkv(last.norm1(tokens)).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        weights = (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1)[:, :, 0].mean(1)
    shares = weights * weights.shape[1]  # of what each of all tokens would get alike
    assert np.allclose(looks, shares[:, vit.num_prefix_tokens :].numpy(), atol=1e-4)


def test_encode_gives_what_the_backbone_gives(toy, frames):
    cls, patches = encode(toy, frames)
    with torch.no_grad():
        features = toy(toy.preprocess(frames))
    assert np.allclose(cls, features.cls.numpy(), atol=1e-6)
    assert np.allclose(patches, features.patches.numpy(), atol=1e-6)


def test_a_grid_becomes_a_picture_of_as_many_pixels():
    picture = as_grid(np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]))
    assert picture.tolist() == [[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]]


def test_patches_of_the_border_are_not_inside():
    disc = patches_inside(Content.disc(40, 20, 20, 40, 80), (40, 80, 3), 8).reshape(8, 8)
    assert disc[4, 4]
    assert disc[:, 3:5].all()
    assert not disc[:, [0, 1, 6, 7]].any()
    assert patches_inside(Content.full(40, 80), (40, 80, 3), 8).all()
    assert patches_inside(Content("rectangle", (0, 0, 1, 1)), (40, 80, 3), 4).all(), (
        "a content of nothing masks nothing"
    )


def test_heat_grows_with_attention_and_is_one_scale_for_all():
    frame, colours = np.full((8, 8, 3), 100, np.uint8), heat_colours()
    shown = [over_frame(frame, np.full(4, value), 2.0, colours, 8).astype(int).sum() for value in (0, 0.5, 1, 2, 9)]
    assert shown[:4] == sorted(set(shown[:4]))
    assert shown[3] == shown[4], "what is above the scale has its last colour"
    light = colours.astype(float) @ [0.299, 0.587, 0.114]
    assert (np.diff(light) > -0.6).all(), "brighter is more, in grey too"


def test_neighbours_of_the_same_phase_are_counted_against_chance():
    cls = np.eye(6)[[0, 0, 1, 0, 1, 2]] + 0.001 * np.eye(6)
    share, chance, count = alike_by_phase(cls, [*"aaabbb"], ["x", "x", "y", "x", "y", ""], 1)
    assert count == 5
    assert share == 1.0
    assert chance == pytest.approx((0.5 + 0.5 + 0.5 + 2 / 3 + 1 / 3) / 5)
    assert alike_by_phase(cls, [*"aaabbb"], ["x", "x", "y", "", "", ""], 1)[2] == 0, "one operation is none to compare"


@pytest.mark.parametrize(("count", "by"), [(12, "PCA"), (40, "t-SNE")])
def test_a_map_keeps_groups_together_and_is_the_same_again(count, by):
    features = np.random.default_rng(0).normal(size=(count, 8)) + 20 * np.eye(8)[np.arange(count) % 2]
    how, points = flat(features)
    assert how == by
    assert np.array_equal(flat(features)[1], points)
    middles = points[::2].mean(0), points[1::2].mean(0)
    apart = np.linalg.norm(middles[0] - middles[1])
    assert apart > 2 * np.linalg.norm(points[::2] - middles[0], axis=1).mean()
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(2, 2)))[0]
    assert np.allclose(turned_towards(points @ turn + 7, points), points - points.mean(0))


def test_a_map_says_what_its_points_are_without_colour_alone():
    points, colours = np.array([[0.0, 0], [1, 1], [2, 0], [3, 3]]), {"a": "#111111", "b": "#222222"}
    svg = map_svg("by <kind>", points, ["a", "b", "a", ""], colours, ["one", "two", "<three>", "four"])
    assert svg.count("<title>") == 4
    assert "&lt;three&gt;" in svg
    assert "by &lt;kind&gt;" in svg
    shapes = [sign.partition("<circle")[1] or "path" for sign, _ in legend(colours, "rest")]
    assert shapes == ["<circle", "path", "<circle"]
    assert [name for _, name in legend(colours, "rest")] == ["a", "b", "rest"]


def sample_of(frames: list[np.ndarray], phases: list[str]) -> Sample:
    contents = [Content.full(*frame.shape[:2]) for frame in frames]
    return Sample(frames, ["a", "a", "b", "b", "c", "c"], [f"video {i} 0:0{i}" for i in range(6)], phases, contents)


@pytest.mark.parametrize("names", [("before", "after"), ("backbone",)], ids=" ".join)
def test_the_section_has_pictures_of_every_backbone(toy, frames, names):
    section = Learned(sample_of(frames, ["x", "y"] * 3), dict.fromkeys(names, toy), "Handle it so.", "why")
    blocks = section.blocks([RunRecord(Path("run"), {}, {}, {"operations": ["a", "b"]}, [])])
    assert "Handle it so. 1 of their 3 operations were not trained on: c." in blocks[0].text
    assert blocks[1].text == "why"
    colours, neighbours, attention = (block for block in blocks if isinstance(block, Strips))
    for block in (colours, attention):
        assert [picture.caption for picture in block.strips[0].pictures] == ["frame", *names]
    assert {strip.title.partition(":")[0] for strip in neighbours.strips} == {*names}
    assert all(picture.pixels for strip in colours.strips for picture in strip.pictures[1:])
    assert [len(block.svgs) for block in blocks if isinstance(block, Maps)] == [len(names)] * 2, (
        "by phase, by operation"
    )
    assert len([block for block in blocks if isinstance(block, Scale)]) == 1
    assert all(
        p.uri.startswith("data:image/") for b in (colours, neighbours, attention) for s in b.strips for p in s.pictures
    )


@pytest.mark.parametrize(
    ("phases", "marks"),
    [(["x"] * 6, {"hit"}), (["x", "x", "y", "y", "z", "z"], {"miss"}), (["x", "x", "", "", "", ""], {"open"})],
    ids=["same", "other", "not known"],
)
def test_neighbours_are_framed_by_their_phase_and_say_it(toy, frames, phases, marks):
    blocks = Learned(sample_of(frames, phases), {"after": toy}, "").of_run(RunRecord(Path("run"), {}, {}, {}, []))
    strips = [block for block in blocks if isinstance(block, Strips)][1].strips
    for strip in strips:
        query, *found = strip.pictures
        assert query.mark == "query"
        assert {picture.mark for picture in found} == marks
        own = strip.title.removeprefix("after: ").partition(" ")[0]
        assert not any(f" {own} " in f" {picture.caption} " for picture in found), "one of its own operation"
    said = {"hit": "same phase", "miss": "· ", "open": "video"}[next(iter(marks))]
    assert said in strips[0].pictures[1].caption
