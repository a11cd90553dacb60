"""Whole pictures: votes of neighbours, the grid of linear classifiers, and how sure the numbers are."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from surgdino.backbone.preprocess import Preprocess
from surgdino.backbone.vit import build_backbone
from surgdino.config import shipped_settings
from surgdino.datasets.manifest import Labels
from surgdino.engine import precision
from surgdino.errors import SurgdinoError
from surgdino.evaluations import picture_linear
from surgdino.evaluations.parts.evaluation import open_evaluation
from surgdino.evaluations.parts.given import Given
from surgdino.evaluations.parts.linear_grid import RATES, Choice, LinearGrid, Steps, grid
from surgdino.evaluations.parts.outcome import Outcome
from surgdino.evaluations.parts.ranked import over, ranks
from surgdino.frames.store import FrameStore
from surgdino.runs.benchmark import _ends, _interval
from surgdino.tasks.features.cache import FeatureCache
from surgdino.tasks.labelled_frames import LabelledFrames

KNN = {"labels": ["class"], "neighbours": [10, 20]}
LINEAR = {"labels": ["class"], "epochs": 50, "steps": 40, "batch": 32}


def given_of(ids: np.ndarray, operations: list[str], tested: np.ndarray, classes: int, folder: Path) -> Given:
    """Frames of these classes, a video each operation; features are cached in the folder."""
    torch.manual_seed(0)
    backbone = build_backbone(shipped_settings("model", "vit_toy"))
    autocast = partial(precision.autocast, torch.device("cpu"), torch.float32)
    cache = FeatureCache(folder, backbone, Preprocess(32), autocast)
    names, starts = np.unique(operations, return_index=True)
    labels = Labels("class", tuple(f"class {k}" for k in range(classes)), {})
    every, videos = np.arange(len(ids)), tuple(map(str, names))
    starts = np.append(starts, len(ids))
    frames = LabelledFrames(
        FrameStore([]), every, videos, starts, {name: name for name in videos}, every, every * 1.0, ids, labels
    )
    return Given(frames, tested, ~tested, cache, cache)


@pytest.fixture
def given(monkeypatch, tmp_path) -> Given:
    """120 pictures of 8 classes, the last 40 tested; the class token tells the class, and much else."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 8, 120)
    found = given_of(ids, ["a"] * 80 + ["b"] * 40, np.arange(120) >= 80, 8, tmp_path)
    width, depth = found.features.backbone.embed_dim, found.features.backbone.depth
    tokens = rng.normal(size=(120, (depth + 1) * width)).astype(np.float32)
    last = (depth - 1) * width
    tokens[:, last : last + 8] += 4 * np.eye(8)[ids]
    for name in ("pooled", "pooled_rows"):
        monkeypatch.setattr(FeatureCache, name, lambda *_: tokens[:, last:])
    monkeypatch.setattr(FeatureCache, "classes", lambda _, __, layers: tokens[:, min(layers) * width : depth * width])
    return found


def named(outcomes) -> dict[str, Outcome]:
    return {outcome.name: outcome for outcome in outcomes}


def test_neighbours_vote_as_scikit_learns(given):
    found = named(open_evaluation("picture_knn", KNN, "").outcomes(given))
    tokens = given.tokens().numpy().astype(np.float64)
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    train, test, truth = slice(0, 80), slice(80, 120), given.values
    for count in (10, 20):
        voters = KNeighborsClassifier(count, weights=lambda far: np.exp((1 - far**2 / 2) / 0.07))
        voters.fit(tokens[train], truth[train])
        votes = voters.predict_proba(tokens[test])
        top = votes.argsort(1)[:, ::-1]
        right = votes[np.arange(40), truth[test]] > 0
        top1, top5 = (np.mean([truth[80 + i] in top[i, :k] and right[i] for i in range(40)]) for k in (1, 5))
        assert found[f"{count}-NN, top-1, over pictures"].value == pytest.approx(top1)
        assert found[f"{count}-NN, top-5, over pictures"].value == pytest.approx(top5)
        each = [np.mean(top[truth[test] == k, 0] == k) for k in np.unique(truth[test])]
        assert found[f"{count}-NN, balanced accuracy, over pictures"].value == pytest.approx(np.mean(each))


def test_ranks_by_hand():
    """Of equal scores the first class is before; what has no score is behind everything."""
    scores = np.array(
        [[0.1, 0.5, 0.4], [0.3, 0.3, 0.3], [0.2, -np.inf, 0.1], [np.nan, np.nan, np.nan], [0.0, 0.1, 0.1]]
    )
    assert ranks(scores, np.array([2, 1, 1, 0, 2])).tolist() == [1, 1, 3, 3, 1]


def test_a_choice_learns_what_sgd_written_out_learns():
    """Every choice of the grid, fitted with all others, against momentum and a cosine step by step in NumPy."""
    rng = np.random.default_rng(1)
    width, layers, classes, steps = 3, 2, 4, 12
    tokens, truth = rng.normal(size=(10, width * (layers + 1))), rng.integers(0, classes, 10)
    grown = LinearGrid(grid(layers), width, layers, classes).double()
    assert len(grown.choices) == 4 * len(RATES) == 52
    starts = [[p.detach().numpy().copy() for p in part.parameters()] for part in grown._parts]
    grown.fit(torch.from_numpy(tokens), torch.from_numpy(truth), torch.arange(10), Steps(100, steps, 1024))
    columns = {(1, False): [3, 4, 5], (1, True): range(3, 9), (2, False): range(6), (2, True): range(9)}
    after = [logits.detach().numpy() for logits in grown(torch.from_numpy(tokens))]
    for place, (inputs, read) in enumerate(columns.items()):
        x = tokens[:, list(read)]
        for k, rate in enumerate(RATES):
            assert grown.choices[place * 13 + k] == Choice(*inputs, rate)
            weight, bias = (start[k * classes : (k + 1) * classes].copy() for start in starts[place])
            speed = [np.zeros_like(weight), np.zeros_like(bias)]
            for step in range(steps):
                logits = x @ weight.T + bias
                shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
                error = (shares - np.eye(classes)[truth]) / len(x)
                speed = [0.9 * v + g for v, g in zip(speed, (error.T @ x, error.sum(0)), strict=True)]
                now = rate * len(x) / 256 * (1 + math.cos(math.pi * step / steps)) / 2
                weight, bias = weight - now * speed[0], bias - now * speed[1]
            assert after[place][:, k] == pytest.approx(x @ weight.T + bias, rel=1e-4, abs=1e-6)


def test_the_grid_is_chosen_on_training_pictures_alone(given, monkeypatch):
    """Tested pictures are neither fitted nor chosen by; every class has one in ten kept apart."""
    fits, choices = list[set[int]](), list[set[int]]()
    fit, best = LinearGrid.fit, LinearGrid.best

    def watched_fit(self, x, y, rows, steps):
        fits.append(set(rows.tolist()))
        fit(self, x, y, rows, steps)

    def watched_best(self, x, y, rows):
        choices.append(set(rows.tolist()))
        return best(self, x, y, rows)

    monkeypatch.setattr(LinearGrid, "fit", watched_fit)
    monkeypatch.setattr(LinearGrid, "best", watched_best)
    found = named(open_evaluation("picture_linear", LINEAR, "").outcomes(given))
    assert fits[0] | choices[0] == fits[1] == set(range(80))
    assert not fits[0] & choices[0]
    counts = np.bincount(given.values[sorted(choices[0])], minlength=8)
    assert counts.tolist() == [math.ceil((n - 1) / 10) for n in np.bincount(given.values[:80], minlength=8)]
    assert found["top-1, over pictures"].value > 0.5 > 3 / 8
    assert found["chosen on training pictures: rate"].value in RATES


def test_a_choice_is_what_is_right_most_often(given):
    """Two rates of which one does nothing."""
    width, layers = given.features.backbone.embed_dim, min(4, given.features.backbone.depth)
    tokens = np.hstack([given.features.classes(None, range(given.features.backbone.depth))[:, -layers * width :]])
    tokens = torch.from_numpy(np.hstack([tokens, given.features.pooled(None)[:, width:]]))
    truth, every = torch.from_numpy(given.values), torch.arange(120)
    both = LinearGrid([Choice(1, False, 1e-9), Choice(1, False, 0.1)], width, layers, 8)
    both.fit(tokens, truth, every, Steps(100, 60, 64))
    assert both.best(tokens, truth, every) == Choice(1, False, 0.1)


@pytest.mark.slow
def test_numbers_over_pictures_have_an_interval_that_covers(given):
    """95 % intervals of a share of 0.7 from twenty blocks of 200 independent pictures."""
    rng, hits = np.random.default_rng(0), 0
    rows = np.flatnonzero(given.tested)
    many = replace(given, tested=np.ones(120, bool))
    many.__dict__["operations"] = np.full(200, "b")
    for _ in range(200):
        right = rng.random(200) < 0.7
        (found,) = over(many, np.arange(200), lambda at, right=right: {"share": float(right[at].mean())}, "pictures")
        low, high = _ends(_interval(found))["interval_95"]
        hits += low <= 0.7 <= high
    assert found.name == "share, over pictures"
    assert not found.per_operation
    assert 0.91 <= hits / 200 <= 0.99
    assert len(rows) == 40


def test_pictures_of_operations_are_told_by_operation(given):
    given.__dict__["operations"] = np.repeat([f"op{k}" for k in range(12)], 10)
    found = named(open_evaluation("picture_knn", {**KNN, "neighbours": [5]}, "").outcomes(given))
    outcome = found["5-NN, top-1"]
    assert outcome.per_operation.keys() == {"op8", "op9", "op10", "op11"} == outcome.without.keys()


def test_features_that_are_all_alike_know_nothing(given, monkeypatch):
    """Neither is a tie a hit, nor a number that is none."""
    alike = np.ones_like(given.features.pooled(None))
    for name in ("pooled", "pooled_rows"):
        monkeypatch.setattr(FeatureCache, name, lambda *_: alike)
    monkeypatch.setattr(FeatureCache, "classes", lambda *_: alike)  # of two blocks: as wide
    for name, section in (("picture_knn", KNN), ("picture_linear", LINEAR)):
        found = named(open_evaluation(name, section, "").outcomes(given))
        assert max(outcome.value for key, outcome in found.items() if "top-1" in key) < 0.35


@pytest.mark.parametrize("count", [1, 3])
def test_too_few_pictures_to_choose_by_are_one_line(count, tmp_path):
    tested = np.arange(count + 2) >= count
    given = given_of(np.arange(count + 2) % (count + 1), ["a"] * count + ["b"] * 2, tested, 9, tmp_path)
    with pytest.raises(SurgdinoError, match="too few training pictures to choose a learning rate by"):
        picture_linear._kept_apart(given, np.arange(count))
