"""Triplets: heads, losses, weights and targets against values worked out by hand or by plain torch."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from surgdino.config import shipped_settings
from surgdino.datasets.card import load_card
from surgdino.datasets.manifest import Manifest
from surgdino.errors import SurgdinoError
from surgdino.tasks.classifier.head import AttentionPool
from surgdino.tasks.classifier.multilabel import FOCUS, multilabel_loss, positive_weights, prior_logits, repeat_factors
from surgdino.tasks.task import open_task
from surgdino.tasks.triplet.components import combined_scores, component_targets, triplet_map_of
from surgdino.tasks.triplet.head import PooledLinear

CARD = load_card("cholect50")
MAPPING = triplet_map_of(CARD)


def frame_of(*names: str) -> np.ndarray:
    flags = np.zeros((1, 100), np.uint8)
    flags[0, [CARD.triplets.index(name) for name in names]] = 1
    return flags


def probabilities_of(**values: float) -> dict[str, np.ndarray]:
    """The same probability for every class of a component."""
    counts = {"I": 6, "V": 10, "T": 15, "IVT": 100}
    return {name: np.full((1, counts[name]), value, np.float32) for name, value in values.items()}


# Targets and scores.


def test_a_frame_shows_the_parts_of_its_triplets():
    found = component_targets(frame_of("grasper,retract,gallbladder", "hook,coagulate,liver"), MAPPING)
    assert np.flatnonzero(found["I"]).tolist() == [CARD.instruments.index("grasper"), CARD.instruments.index("hook")]
    assert np.flatnonzero(found["V"]).tolist() == [CARD.verbs.index("retract"), CARD.verbs.index("coagulate")]
    assert np.flatnonzero(found["T"]).tolist() == [CARD.targets.index("gallbladder"), CARD.targets.index("liver")]
    assert found["IVT"].sum() == 2


def test_null_triplets_are_the_last_six():
    assert np.flatnonzero(MAPPING.null).tolist() == [94, 95, 96, 97, 98, 99]


def test_the_triplet_head_alone_is_weight_zero():
    probabilities = probabilities_of(I=0.9, V=0.1, T=0.5, IVT=0.25)
    assert combined_scores(probabilities, MAPPING, 0.0) == pytest.approx(0.25)


def test_combined_scores_are_the_geometric_mean_of_a_triplet_and_its_parts():
    probabilities = probabilities_of(I=0.5, V=0.5, T=0.5, IVT=0.5)
    hook = CARD.instruments.index("hook")
    probabilities["I"][0, hook] = 1 / 32
    scores = combined_scores(probabilities, MAPPING, 1.0)[0]
    with_hook = np.array([name.startswith("hook,") for name in CARD.triplets])
    assert scores[~with_hook] == pytest.approx(0.5)
    assert scores[with_hook] == pytest.approx(0.25)  # (1/2 * 1/32 * 1/2 * 1/2) ^ (1/4) = 2 ^ -2


def test_a_probability_of_zero_stays_a_finite_score():
    assert np.isfinite(combined_scores(probabilities_of(I=0.0, V=1.0, T=1.0, IVT=0.0), MAPPING, 1.0)).all()


# Losses.


def test_bce_with_weights_is_torchs_own():
    torch.manual_seed(0)
    logits, target, weights = torch.randn(8, 5), (torch.rand(8, 5) < 0.3).float(), torch.rand(5) * 9 + 1
    found = multilabel_loss(logits, target, "bce", weights)
    expected = F.binary_cross_entropy_with_logits(logits, target, pos_weight=weights, reduction="sum") / 8
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "there", "absent"),
    [
        # p = 0.8: (1 - p)^2 log p and p^2 log(1 - p)
        ("focal", 0.2**2 * -math.log(0.8), 0.8**2 * -math.log(0.2)),
        # positives plain; negatives with q = 0.8 - 0.05: q^4 log(1 - q)
        ("asymmetric", -math.log(0.8), 0.75**4 * -math.log(0.25)),
    ],
)
def test_focal_and_asymmetric_loss_by_hand(name, there, absent):
    logits = torch.full((1, 2), math.log(0.8 / 0.2))
    assert multilabel_loss(logits, torch.tensor([[1, 0]]), name).item() == pytest.approx(there + absent, rel=1e-5)


def test_negatives_below_the_margin_give_no_gradient():
    logits = torch.tensor([[-4.0, 1.0]], requires_grad=True)  # p = 0.018 and 0.73
    multilabel_loss(logits, torch.zeros(1, 2), "asymmetric").backward()
    assert logits.grad[0, 0] == 0
    assert logits.grad[0, 1] > 0


@pytest.mark.parametrize("name", FOCUS)
def test_losses_and_gradients_stay_finite_where_the_head_is_sure_and_wrong(name):
    logits = torch.tensor([[-200.0, 200.0, 200.0, -200.0]], requires_grad=True)
    loss = multilabel_loss(logits, torch.tensor([[1, 0, 1, 0]]), name)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


# Weights.


def test_positives_weigh_the_root_of_negatives_per_positive_between_1_and_the_cap():
    targets = np.zeros((100, 4), np.uint8)
    targets[:10, 0] = 1  # 90 / 10: the root is 3
    targets[:1, 1] = 1  # 99: 9.95, over the cap
    targets[:80, 2] = 1  # 20 / 80: 0.5, under 1; the last class is never there
    assert positive_weights(targets, 5).tolist() == [3.0, 5.0, 1.0, 1.0]
    assert positive_weights(targets, 1).tolist() == [1.0] * 4


def test_classes_start_at_their_share_of_the_frames():
    targets = np.zeros((9, 2), np.uint8)
    targets[:2, 0] = 1
    shares = 1 / (1 + np.exp(-prior_logits(targets)))
    assert shares == pytest.approx([2.5 / 10, 0.5 / 10])
    head = PooledLinear(8, {"IVT": 2}, pool_heads=0)
    head.start_at({"IVT": torch.from_numpy(prior_logits(targets))})
    assert head(torch.zeros(1, 8))["IVT"].sigmoid().tolist()[0] == pytest.approx([0.25, 0.05])


def test_frames_of_rare_classes_are_drawn_more_often():
    targets = np.zeros((100, 2), np.uint8)
    targets[:50, 0] = 1
    targets[0:4, 1] = 1  # a share of 0.04 under a threshold of 0.16: twice
    factors = repeat_factors(targets, 0.16)
    assert factors[:4].tolist() == pytest.approx([2.0] * 4)
    assert (factors[4:] == 1).all()
    assert repeat_factors(targets, 0.0) is None


# Heads.


def test_attention_pooling_is_multi_head_attention_with_a_learned_query():
    torch.manual_seed(0)
    width, heads, queries = 16, 4, 3
    attention = torch.nn.MultiheadAttention(width, heads, bias=False, batch_first=True, dtype=torch.float64)
    attention.out_proj.weight.data = torch.eye(width, dtype=torch.float64)
    learned = torch.randn(queries, width, dtype=torch.float64)
    patches = torch.randn(2, 10, width, dtype=torch.float64)
    expected, _ = attention(learned.expand(2, -1, -1), patches, patches)

    project_query, project_key, project_value = attention.in_proj_weight.unflatten(0, (3, heads, -1))
    pool = AttentionPool(width, queries, heads).double()
    small = torch.einsum("hed,qd->qhe", project_query, learned)
    scale = width**0.5 / (width // heads) ** 0.5  # attention divides by the root of a head's width
    pool.queries.data = torch.einsum("qhe,hed->qhd", small, project_key) * scale
    pool.values.data = project_value.transpose(1, 2)
    assert torch.allclose(pool(patches), expected, atol=1e-12)


def test_every_component_pools_for_itself():
    torch.manual_seed(0)
    head = PooledLinear(8, {"I": 3, "IVT": 5}, pool_heads=2)
    cls, patches = torch.randn(2, 8), torch.randn(2, 6, 8)
    before = head(cls, patches)
    with torch.no_grad():
        head.pool.queries[0] = torch.randn(2, 8)
    after = head(cls, patches)
    assert not torch.allclose(before["I"], after["I"])
    assert torch.equal(before["IVT"], after["IVT"])
    assert [tuple(value.shape) for value in after.values()] == [(2, 3), (2, 5)]


def test_without_pooling_the_class_token_is_all_that_is_read():
    head = PooledLinear(8, {"IVT": 5}, pool_heads=0)
    cls = torch.randn(2, 8)
    assert not head.reads_patches
    assert torch.equal(head(cls)["IVT"], head(cls, torch.randn(2, 6, 8))["IVT"])


def test_pooling_finds_what_only_one_patch_shows():
    """Tokens of noise, one of which, anywhere, carries the class: the class token knows nothing of it."""
    torch.manual_seed(0)
    signs = F.normalize(torch.randn(3, 32), dim=1) * 8

    def draw(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        classes, patches = torch.randint(0, 3, (count,)), torch.randn(count, 16, 32)
        patches[torch.arange(count), torch.randint(0, 16, (count,))] = signs[classes]
        return torch.randn(count, 32), patches, F.one_hot(classes, 3)

    head = PooledLinear(32, {"I": 3}, pool_heads=2)
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.01)
    for _ in range(150):
        cls, patches, target = draw(64)
        optimizer.zero_grad()
        multilabel_loss(head(cls, patches)["I"], target).backward()
        optimizer.step()
    cls, patches, target = draw(256)
    right = head(cls, patches)["I"].argmax(1) == target.argmax(1)
    assert right.float().mean() > 0.95


# Settings.

SETTINGS = shipped_settings("task", "triplet")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pool_heads", -1),
        ("dropout", 1.0),
        ("positive_weight_cap", 0.5),
        ("repeat_threshold", 1.0),
        ("component_loss", -1.0),
        ("component_weight", -0.1),
    ],
)
def test_settings_out_of_range_are_refused_by_name(key, value):
    with pytest.raises(SurgdinoError, match=f"task.{key}"):
        open_task({**SETTINGS, key: value})


def test_a_dataset_without_triplets_is_refused():
    with pytest.raises(SurgdinoError, match="no triplets"):
        open_task(SETTINGS).classes(load_card("cholec80"), Manifest("cholec80", Path("nowhere"), ()))
