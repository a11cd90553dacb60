"""Clips: frames averaged or beside each other, and over what the numbers are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from surgdino.engine.probing.folds import as_targets, linear_scores
from surgdino.evaluations.parts.evaluation import open_evaluation
from surgdino.evaluations.parts.given import Given
from tests.evaluations.test_pictures import given_of, named

SECTION = {"labels": ["clip"], "frames": 3, "join": "average", "tokens": "class"}


@pytest.fixture
def given(monkeypatch, tmp_path) -> Given:
    """24 clips of 5 frames and two classes; the tokens of one class are those of the other backwards."""
    rng = np.random.default_rng(0)
    kinds = np.arange(24) % 2
    ramp = np.linspace(-1, 1, 5)
    tokens = np.stack([np.stack([ramp if kind else -ramp, np.ones(5)], 1) for kind in kinds]).reshape(-1, 2)
    tokens = torch.from_numpy(tokens + rng.normal(scale=0.05, size=tokens.shape)).float()
    monkeypatch.setattr(Given, "tokens", lambda *_: tokens)
    clips = [f"clip{number:02d}" for number in range(24) for _ in range(5)]
    return given_of(kinds.repeat(5), clips, np.ones(120, bool), 2, tmp_path)


def test_the_order_of_frames_counts_beside_each_other_alone(given):
    both = {name: named(open_evaluation("clips", {**SECTION, "join": name}, "").outcomes(one(given))) for name in JOINS}
    assert both["concatenate"]["top-1, over clips"].value == 1
    assert both["average"]["top-1, over clips"].value < 0.8


JOINS = ("average", "concatenate")


def one(given: Given) -> Given:
    """Every operation is learnt from as well, as without a split."""
    return Given(given.frames, given.tested, given.tested, given.features, given.first)


@pytest.mark.parametrize("join", JOINS)
def test_a_probe_of_whole_clips_by_hand(given, join):
    """First, middle and last frame; the first fold tests every fifth clip."""
    found = named(open_evaluation("clips", {**SECTION, "join": join}, "").outcomes(one(given)))
    tokens = given.tokens().reshape(24, 5, 2)[:, [0, 2, 4]]
    tokens = tokens.mean(1) if join == "average" else tokens.reshape(24, 6)
    truth, scores = np.arange(24) % 2, np.zeros((24, 2))
    for fold in range(5):
        test = np.arange(24) % 5 == fold
        targets, weight = as_targets(truth[~test], 2)
        scores[test] = linear_scores(tokens[~test], targets, tokens[test], weight)
    right = scores.argmax(1) == truth
    assert found["top-1, over clips"].value == pytest.approx(right.mean())
    balanced = np.mean([right[truth == kind].mean() for kind in (0, 1)])
    assert found["balanced accuracy, over clips"].value == pytest.approx(balanced)


def test_operations_of_several_clips_are_told_by_operation(given):
    each = one(given)
    each.__dict__["operations"] = np.array([f"op{number // 4}" for number in range(24) for _ in range(5)])
    found = named(open_evaluation("clips", {**SECTION, "join": "concatenate"}, "").outcomes(each))
    assert found["top-1"].per_operation.keys() == {f"op{number}" for number in range(6)}
