"""Phase losses and class weights are the papers' formulas, computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from surgdino.tasks.classifier.head import FrameClassifier
from surgdino.tasks.phase.loss import frame_loss, median_frequency_weights, smoothing_loss, stages_loss


def test_weights_are_the_median_frequency_over_each_class_s_own():
    targets = np.repeat([0, 1, 3], [10, 40, 20])
    assert median_frequency_weights(targets, 5).tolist() == [2.0, 0.5, 1.0, 1.0, 1.0]  # the median of 10, 20, 40 is 20


def test_weighted_classes_add_up_alike():
    targets = np.repeat([0, 1, 2], [3, 300, 30])
    weights = median_frequency_weights(targets, 3)
    np.testing.assert_allclose(np.bincount(targets) * weights, 30, rtol=1e-6)


def test_frame_loss_is_the_mean_of_weighted_negative_log_probabilities():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, -1.0]])
    targets, weights = torch.tensor([0, 0, 1]), torch.tensor([0.5, 4.0])
    each = [math.log(sum(math.exp(v) for v in row)) - row[t] for row, t in zip(logits.tolist(), (0, 0, 1), strict=True)]
    expected = (0.5 * each[0] + 0.5 * each[1] + 4.0 * each[2]) / 3
    assert frame_loss(logits, targets, weights).item() == pytest.approx(expected, rel=1e-6)
    assert frame_loss(logits, targets, None).item() == pytest.approx(sum(each) / 3, rel=1e-6)


def test_smoothing_is_the_truncated_squared_jump_of_log_probabilities():
    p = torch.tensor([[0.9, 0.1], [0.5, 0.5], [1e-6, 1 - 1e-6]], dtype=torch.float64)
    jump = [
        [math.log(0.5 / 0.9), math.log(0.5 / 0.1)],
        [-4.0, math.log((1 - 1e-6) / 0.5)],  # log(1e-6 / 0.5) is -13, which counts as 4
    ]
    expected = sum(v * v for row in jump for v in row) / (3 * 2)
    assert smoothing_loss(p.log()).item() == pytest.approx(expected, rel=1e-5)
    assert smoothing_loss(p.log()[:1]).item() == 0


def test_smoothing_moves_the_later_frame_alone():
    logits = torch.tensor([[1.0, 0.0], [0.0, 0.5]], requires_grad=True)
    smoothing_loss(logits).backward()
    assert logits.grad[0].abs().sum() == 0
    assert logits.grad[1].abs().sum() > 0


def test_every_stage_has_the_same_loss():
    torch.manual_seed(0)
    stages, targets = [torch.randn(6, 3), torch.randn(6, 3)], torch.tensor([0, 0, 1, 1, 2, 2])
    plain = stages_loss(stages, targets, None, 0.0)
    assert set(plain) == {"loss"}
    assert plain["loss"].item() == pytest.approx(sum(frame_loss(s, targets, None).item() for s in stages), rel=1e-6)
    smoothed = stages_loss(stages, targets, None, 0.15)
    assert smoothed["smooth"].item() == pytest.approx(sum(smoothing_loss(s).item() for s in stages), rel=1e-6)
    assert smoothed["loss"].item() == pytest.approx(plain["loss"].item() + 0.15 * smoothed["smooth"].item(), rel=1e-6)


@pytest.mark.parametrize(("tokens", "hidden"), [("cls+mean", 0), ("cls", 0), ("cls+mean", 7), ("attentive", 0)])
def test_the_frame_classifier_does_not_care_for_the_scale_of_the_tokens(tokens, hidden):
    torch.manual_seed(0)
    classifier = FrameClassifier(8, 3, tokens=tokens, hidden=hidden).eval()
    pooled = torch.randn(5, 16)
    logits = classifier(pooled)
    assert logits.shape == (5, 3)
    scaled = torch.cat([100 * pooled[:, :8] + 3, 0.1 * pooled[:, 8:]], 1)
    torch.testing.assert_close(classifier(scaled), logits, rtol=1e-3, atol=1e-4)
    reads_second = tokens != "cls"
    assert torch.equal(classifier(torch.cat([pooled[:, :8], -pooled[:, 8:]], 1)), logits) is not reads_second


def test_attention_can_choose_a_single_patch_and_the_mean_cannot():
    torch.manual_seed(0)
    classifier = FrameClassifier(8, 3, tokens="attentive", pool_heads=2).eval()
    patches, cls = torch.randn(5, 6, 8), torch.randn(5, 8)
    with torch.no_grad():
        classifier.pool.queries.copy_(1e4 * classifier.norm(patches[0, 2]).expand(1, 2, 8))
        found = classifier.pooled(cls[:1], patches[:1])[0, 8:]
        alone = classifier.pooled(cls[:1], patches[:1, 2:3])[0, 8:]
    torch.testing.assert_close(found, alone)
    assert torch.equal(classifier(cls, patches), classifier(classifier.pooled(cls, patches)))
