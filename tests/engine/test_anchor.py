"""Gram anchoring: its formula, the clean crops, a resumed run, any layout."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from surgdino.backbone.checkpoint import load
from surgdino.config import shipped_settings
from surgdino.crops.multicrop import MultiCrop
from surgdino.engine.anchor import gram_loss
from surgdino.engine.methods.parts.views import student_tokens
from surgdino.engine.step import anchored, micro_batches
from surgdino.engine.train import open_session, train
from tests.engine.gloo import in_processes
from tests.engine.test_processes import assert_same_run, plan_without_chance
from tests.engine.test_training import CROPS, MemoryStore, final_tensors, plan_in, stop_after

SETTINGS = {"gram": 1.0, "gram_scale": 2, "gram_every": 4}


def test_the_loss_is_its_formula_and_knows_no_rotation():
    generator = torch.Generator().manual_seed(0)
    student, anchor = torch.randn(2, 3, 5, 8, generator=generator)
    by_hand = torch.stack([F.cosine_similarity(s[:, None], s[None], dim=-1) for s in student])
    theirs = torch.stack([F.cosine_similarity(a[:, None], a[None], dim=-1) for a in anchor])
    assert gram_loss(student, anchor).item() == pytest.approx((by_hand - theirs).square().mean().item(), rel=1e-5)
    turned, _ = torch.linalg.qr(torch.randn(8, 8, generator=generator))
    assert gram_loss(3 * anchor @ turned, anchor).item() == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("scale", [1, 2])
def test_the_clean_crop_is_the_global_crop_before_anything_is_painted(scale):
    store, side = MemoryStore(), CROPS.global_size
    painted = MultiCrop(CROPS, {**shipped_settings("augment", "surgical"), "vertical_flip": 0.5})
    plain = MultiCrop(CROPS, {"horizontal_flip": 0.5, "vertical_flip": 0.5})
    for seed in range(8):
        clean = np.empty((2, 3, scale * side, scale * side), np.uint8)
        crops = [np.empty((2, 3, side, side), np.uint8), np.empty((2, 3, 16, 16), np.uint8)]
        with_clean = [crop.copy() for crop in crops]
        plain.fill(store.read(seed), store.content(seed), seed, *with_clean, clean=clean)
        plain.fill(store.read(seed), store.content(seed), seed, *crops)
        assert all(np.array_equal(one, other) for one, other in zip(crops, with_clean, strict=True))
        if scale == 1:
            assert np.array_equal(clean, crops[0])
        else:
            shrunk = F.avg_pool2d(torch.from_numpy(clean).float(), 2).numpy()
            assert np.abs(shrunk - crops[0]).mean() < 4
        painted.fill(store.read(seed), store.content(seed), seed, *crops, clean=clean)


def test_a_backbone_that_did_not_move_is_where_it_is_anchored(tmp_path):
    """At step 0 the student without masks sees what the anchor sees."""
    plan = plan_in(tmp_path, probe=None, gram=1.0)
    session = open_session(replace(plan, augment={"horizontal_flip": 0.5}), print)
    session.student.eval()
    [views] = anchored(session, micro_batches(session, next(session.batches())))
    bare = replace(views, masks=torch.zeros_like(views.masks))
    tokens = student_tokens(session.student.backbone, bare, dense=True)
    assert gram_loss(tokens.patches.view_as(views.anchor), views.anchor).item() < 1e-9


@pytest.mark.slow
def test_stopped_and_resumed_equals_uninterrupted_bit_for_bit(tmp_path, monkeypatch):
    whole = train(plan_in(tmp_path / "whole", probe=None, **SETTINGS))
    assert whole.last["gram"] > 0
    with monkeypatch.context() as patched:
        stop_after(patched, 7)
        train(plan_in(tmp_path / "parts", probe=None, **SETTINGS))
    elsewhere = plan_in(tmp_path / "parts", probe=None, **SETTINGS)
    with torch.no_grad():
        for parameter in elsewhere.backbone.parameters():
            parameter.fill_(0.5)
    assert train(elsewhere).resumed_from == 7
    expected, found = final_tensors(tmp_path / "whole"), final_tensors(tmp_path / "parts")
    assert expected.keys() == found.keys()
    assert [key for key in expected if not torch.equal(expected[key], found[key])] == []
    assert load(tmp_path / "parts").info["retention"]["gram"] == 1.0


def run(folder: Path, layout: dict[str, Any]) -> None:
    train(plan_without_chance(folder, probe=None, low_rank=4, **SETTINGS, **layout))


@pytest.mark.slow
def test_micro_batches_and_two_processes_make_the_run_of_one(tmp_path):
    run(tmp_path / "one", {})
    run(tmp_path / "micro", {"accumulate": 2})
    assert_same_run(tmp_path / "micro", tmp_path / "one")
    in_processes(2, run, tmp_path / "sharded", {"shard": True})
    assert_same_run(tmp_path / "sharded", tmp_path / "one")
