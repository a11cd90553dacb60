"""Depth from patch tokens: the head and its losses by hand, what is found, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from surgdino.backbone.preprocess import Preprocess
from surgdino.backbone.vit import build_backbone
from surgdino.config import shipped_settings
from surgdino.datasets.card import load_card
from surgdino.datasets.open import open_dataset
from surgdino.datasets.synthetic.depth import write_depth
from surgdino.datasets.synthetic.structure_from_motion import write_structure_from_motion
from surgdino.engine import precision
from surgdino.errors import SurgdinoError
from surgdino.evaluations.depth import DepthTruths, Tokens
from surgdino.evaluations.parts.depth_head import BINS, DepthHead, Fitting, centres_of, fit, gradient_loss, sig_loss
from surgdino.evaluations.parts.dpt_head import DPTHead
from surgdino.evaluations.parts.evaluation import open_evaluation
from surgdino.evaluations.parts.given import Given
from surgdino.frames.store import StoreSettings, build_store
from surgdino.tasks.features.cache import FeatureCache
from surgdino.tasks.labelled_frames import LabelledFrames, labelled_frames

SECTION = {
    "head": "linear",
    "channels": 8,
    "layers": 4,
    "bins": "log",
    "steps": 10,
    "batch": 4,
    "lr": 0.01,
    "gradient": 0.5,
    "alignments": ["none", "median"],
}
SECTION["tested"] = "operations"


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> Given:
    folder = tmp_path_factory.mktemp("depth")
    write_depth(folder / "set", recordings=3)
    manifest = open_dataset(load_card("simcol3d"), folder / "set")
    store = build_store(manifest, folder / "store", StoreSettings.of(), workers=1, progress=False)
    return given_of(labelled_frames(manifest, store, "depth"), folder)


def given_of(frames: LabelledFrames, folder: Path) -> Given:
    torch.manual_seed(0)
    backbone = build_backbone(shipped_settings("model", "vit_toy"))
    autocast = partial(precision.autocast, torch.device("cpu"), torch.float32)
    cache = FeatureCache(
        folder / "features", backbone, Preprocess(32, (0.5,) * 3, (0.5,) * 3), autocast, progress=False
    )
    every = np.ones(len(frames), bool)
    return Given(frames, every, every, cache, cache)


def found(given: Given, **change) -> dict[str, float]:
    outcomes = open_evaluation("depth", {**SECTION, **change}, "").outcomes(given)
    return {outcome.name: outcome.value for outcome in outcomes}


def test_bins_are_weighted_as_written():
    """One token, logits 0 and 1 of the first two bins: (0.1 (sum of centres) + 1 * second) / (0.1 * 256 + 1)."""
    head = DepthHead(torch.zeros(2), torch.zeros(2), centres_of("uniform", 1.0, 256.0), torch.full((7,), 40.0))
    assert head(torch.zeros(1, 2, 2, 2)).mean().item() == pytest.approx(0.9 * 40 + 0.1 * 128.5, abs=0.1)
    with torch.no_grad():
        head.linear.weight.zero_()
        head.linear.bias.fill_(-3)
        head.linear.bias[1] = 1
    centres = np.arange(1, BINS + 1)
    expected = (0.1 * centres.sum() + 1 * 2) / (0.1 * BINS + 1)
    assert head(torch.zeros(1, 2, 2, 2)).detach().numpy() == pytest.approx(np.full((1, 8, 8), expected), rel=1e-5)


def test_bins_by_logarithm_grow_by_one_factor():
    centres = centres_of("log", 1.0, 200.0).double()
    assert centres[[0, -1]].tolist() == pytest.approx([1, 200])
    assert (centres[1:] / centres[:-1]).tolist() == pytest.approx([200 ** (1 / 255)] * 255, rel=1e-5)


def test_the_losses_are_the_slow_versions():
    rng = np.random.default_rng(0)
    predicted, truth = rng.uniform(5, 90, (2, 15, 13)), rng.uniform(5, 90, (2, 15, 13))
    truth[rng.random(truth.shape) < 0.3] = np.nan
    apart = np.log(predicted + 1e-3) - np.log(truth + 1e-3)
    known = apart[np.isfinite(apart)]
    tensors = torch.from_numpy(predicted), torch.from_numpy(truth)
    expected = math.sqrt(known.var(ddof=1) + 0.15 * known.mean() ** 2)
    assert float(sig_loss(*tensors)) == pytest.approx(expected)
    assert float(sig_loss(*tensors, warm_up=True)) == pytest.approx(math.sqrt(0.15) * abs(known.mean()))
    total = 0.0
    for step in (1, 2, 4, 6):
        some = apart[:, ::step, ::step]
        b, h, w = some.shape
        at = [(i, y, x, i, y + 2, x) for i in range(b) for y in range(h - 2) for x in range(w)]
        at += [(i, y, x, i, y, x + 2) for i in range(b) for y in range(h) for x in range(w - 2)]
        changes = [abs(some[i, y, x] - some[j, v, u]) for i, y, x, j, v, u in at]
        total += sum(change for change in changes if math.isfinite(change)) / np.isfinite(some).sum()
    assert float(gradient_loss(*tensors)) == pytest.approx(total)


def test_sparse_depth_is_averaged_over_what_is_known(given, monkeypatch):
    truths, sparse = DepthTruths(given.frames), np.full((48, 64), np.nan, np.float32)
    sparse[0, 0], sparse[2, 3], sparse[40, 60] = 10, 30, 50  # the first two in one pixel of 12 x 16
    monkeypatch.setattr(DepthTruths, "whole", lambda *_: sparse)
    small = truths.stored(0, 8)
    assert small[0, 0] == pytest.approx(20)
    assert small[6, 7] == pytest.approx(50)
    assert np.isfinite(small).sum() == 2


def dpt(dim: int, channels: int = 8) -> DPTHead:
    return DPTHead(torch.zeros(5 * dim), torch.ones(5 * dim), channels, torch.full((9,), 40.0), 1.0, 200.0)


def test_a_dpt_head_has_the_published_parts():
    """Parameters of DINOv2's for ViT-S (384, 256 channels), counted from the paper's parts; 16 times the grid."""
    dim, c, maps = 384, 256, (48, 96, 192, 384)
    conv = lambda i, o, k, bias=True: i * o * k * k + o * bias  # noqa: E731
    reassembled = sum(2 * dim * dim + dim + conv(dim, m, 1) + conv(m, c, 3, bias=False) for m in maps)
    resized = conv(48, 48, 4) + conv(96, 96, 2) + conv(384, 384, 3)
    fused = 7 * 2 * conv(c, c, 3) + 4 * conv(c, c, 1)
    head = conv(c, c, 3) + conv(c, c // 2, 3) + conv(c // 2, 32, 3) + conv(32, 1, 1)
    assert sum(p.numel() for p in dpt(dim, c).parameters()) == reassembled + resized + fused + head
    for side in (4, 5):
        found = dpt(8)(torch.randn(2, side, side, 40, generator=torch.Generator().manual_seed(0)))
        assert found.shape == (2, 16 * side, 16 * side)
        assert found.median().item() == pytest.approx(40, rel=0.3)  # before anything is learnt


def test_a_dpt_head_reads_every_layer_and_begins_alike():
    tokens = torch.randn(1, 4, 4, 40, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    one, two = dpt(8), dpt(8)
    assert torch.equal(one(tokens), two(tokens))
    for part in range(5):
        changed = tokens.clone()
        changed[..., 8 * part : 8 * part + 8] += 1
        assert not torch.equal(one(changed), one(tokens)), part


def test_a_dpt_head_needs_four_layers(given):
    with pytest.raises(SurgdinoError, match=r"head=dpt reads four layers.* expected 4, found 1"):
        open_evaluation("depth", {**SECTION, "head": "dpt", "layers": 1}, "")
    with pytest.raises(SurgdinoError, match="expected a backbone of four blocks, found 2"):
        found(given, head="dpt")


def test_a_dpt_head_learns_what_each_place_says():
    """Tokens that tell the depth of their own place, which differs from picture to picture: new pictures are read."""
    rng = torch.Generator().manual_seed(0)
    grid = torch.randn(30, 2, 2, 1, generator=rng)
    tokens = torch.cat([grid, -grid], 3).repeat(1, 1, 1, 10)  # [30, 2, 2, 5 * 4]
    truth = F.interpolate(3.7 + 0.5 * grid.permute(0, 3, 1, 2), (32, 32), mode="bilinear")[:, 0].exp()
    head = dpt(4)
    before = sig_loss(head(tokens[24:]), truth[24:]).item()
    fit(head, Fitting(30, 2, 0.02, 0.5), 24, lambda at: (tokens[:24][at], truth[:24][at]))
    assert sig_loss(head(tokens[24:]), truth[24:]).item() < 0.75 * before
    settings = open_evaluation("depth", {**SECTION, "head": "dpt"}, "").settings
    assert (settings.head, settings.channels) == ("dpt", 8)


def test_depth_that_the_tokens_tell_is_found(given, monkeypatch):
    truths = DepthTruths(given.frames)
    grid = torch.from_numpy(np.stack([truths.stored(i, 4) for i in range(len(given.frames))]))[..., None].log()
    monkeypatch.setattr(Tokens, "__getitem__", lambda _, rows: torch.cat([grid, grid**2], 3)[rows])
    how = {"tested": "later_frames", "alignments": ["median"], "steps": 40, "lr": 0.1}
    told = next(iter(found(given, **how).values()))
    grid = grid.flip(1, 2).roll(5, 0)
    assert told < 0.35
    assert next(iter(found(given, **how).values())) > told + 0.1


def test_later_frames_of_one_operation_are_named_so(given):
    first = given.operations == given.operations[0]
    alone = replace(given, tested=first, learns=first)
    with pytest.raises(SurgdinoError, match=r"no operation to learn from .* later frames of the same one"):
        found(alone)
    names = found(alone, tested="later_frames", alignments=["scale-shift"])
    assert len(names) == 8
    assert all(name.endswith("scale and shift fitted, later frames of the same operations") for name in names)
    _, test = next(open_evaluation("depth", {**SECTION, "tested": "later_frames"}, "")._folds(alone))
    assert given.frames.numbers[test].tolist() == [2, 3]


def test_depth_without_a_scale_is_told_after_an_alignment_alone(tmp_path):
    write_structure_from_motion(tmp_path / "set", frames=3)
    manifest = open_dataset(load_card("sinus_sfm"), tmp_path / "set")
    store = build_store(manifest, tmp_path / "store", StoreSettings.of(), workers=1, progress=False)
    frames = labelled_frames(manifest, store, "depth")
    given = given_of(frames, tmp_path)
    values = found(given, layers=1)
    assert len(values) == 8
    assert all(name.endswith("median scaled") for name in values)
    assert "RMSE, in medians, median scaled" in values
    assert all(np.isfinite(value) for value in values.values())
    with pytest.raises(SurgdinoError, match="depth of relative scale has no error without an alignment"):
        found(given, layers=1, alignments=["none"])
    before = given.identity(False)
    file = next(iter(frames.labels.values.values())).frames[10].files["depth"]
    file.points[0, 2] *= 2
    assert given.identity(False) != before


def test_nothing_known_is_one_line(given, monkeypatch):
    monkeypatch.setattr(DepthTruths, "whole", lambda *_: np.full((48, 64), np.nan, np.float32))
    with pytest.raises(
        SurgdinoError, match="no training picture has a pixel of known depth; expected depth between 1 and"
    ):
        found(given)


def test_truth_of_another_unit_is_other_work(given):
    values = given.frames.labels.values
    video = next(iter(values))
    before, frame = given.identity(False), values[video].frames[0]
    changed = replace(frame, files={"depth": replace(frame.files["depth"], millimetres=1.0)})
    values[video].frames[0] = changed
    try:
        assert given.identity(False) != before
    finally:
        values[video].frames[0] = frame
    assert given.identity(False) == before
    assert Path(frame.files["depth"].path).name == "Depth_0000.png"
