"""Attentive tokens: a query finds what a few patches show, the same way every time; and k-NN's search by groups."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from surgdino.engine.probing.folds import fold_scores, highest, linear
from surgdino.errors import SurgdinoError
from surgdino.evaluations.parts.attentive import Attention, fit_attentive
from surgdino.evaluations.parts.evaluation import open_evaluation

HOW = Attention(heads=2, steps=100, batch=64, lr=0.05)


def hidden(many: bool) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Class tokens that say nothing, and patches that each show some class; that of the marked one counts."""
    rng = np.random.default_rng(0)
    ids = np.arange(240) % 3
    patches = rng.normal(size=(240, 16, 16)).astype(np.float16)
    patches[:, :, :3], patches[:, :, 3] = 8 * np.eye(3)[rng.integers(0, 3, (240, 16))], 0
    patches[np.arange(240), rng.integers(0, 16, 240), :4] = 8 * np.c_[np.eye(3)[ids], np.ones(240)]
    values = np.eye(3, dtype=bool)[ids] if many else ids
    return torch.from_numpy(rng.normal(size=(240, 16)).astype(np.float32)), patches, values


@pytest.mark.parametrize("many", [False, True])
def test_attention_finds_what_one_patch_shows_and_is_the_same_every_time(many):
    cls, patches, values = hidden(many)
    train, test = np.arange(160), np.arange(160, 240)
    scores = fit_attentive(cls, patches, values, train, 3, HOW)(test)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    assert np.array_equal(fit_attentive(cls, patches, values, train, 3, HOW)(test), scores)
    assert torch.equal(torch.get_rng_state(), before)
    truth = values[test].argmax(1) if many else values[test]
    assert (scores.argmax(1) == truth).mean() > 0.95
    pooled = torch.cat([cls, torch.from_numpy(patches).float().mean(1)], 1)
    averaged = fold_scores(linear, pooled, values, 3, [(train, test)])[test]
    assert (averaged.argmax(1) == truth).mean() < 0.6


SECTION = {"classifier": "linear", "tokens": "attentive", "labels": ["phase"], "shares": [1], "seeds": 1}
ATTENTION = {"heads": 4, "steps": 3, "batch": 8, "lr": 0.1}


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({}, "expected {heads, steps, batch, lr} with tokens: attentive, found none"),
        ({"tokens": "class", "attention": ATTENTION}, "with tokens: attentive alone, found tokens: class"),
        ({"classifier": "knn", "attention": ATTENTION}, "tokens=attentive learns"),
        ({"attention": {**ATTENTION, "steps": 0}}, "steps"),
        ({"attention": {**ATTENTION, "stepss": 1}}, "stepss"),
    ],
)
def test_settings_of_attention_that_cannot_be_are_one_line(more, told):
    with pytest.raises(SurgdinoError) as error:
        open_evaluation("classification", {**SECTION, **more}, "evaluations.x")
    assert told in error.value.line()


@pytest.mark.parametrize("columns", [70_000, 3 * 65_536, 65_536 + 511])
def test_the_highest_of_many_columns_are_topks(columns):
    values = torch.randn(5, columns, generator=torch.Generator().manual_seed(0))
    values[0, -1] = values[1, 0] = 9
    found, places = highest(values, 20)
    expected = values.topk(20, dim=1)
    assert torch.equal(found, expected.values)
    assert torch.equal(places, expected.indices)
