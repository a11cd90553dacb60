"""Every evaluation: what it finds in features that are known, and that it keeps its contract."""

from __future__ import annotations

import base64
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.preprocessing import StandardScaler

from surgdino import discovery
from surgdino.backbone.preprocess import Preprocess
from surgdino.backbone.vit import Backbone, build_backbone
from surgdino.config import read_yaml, shipped_settings
from surgdino.datasets.card import load_card
from surgdino.datasets.open import open_dataset
from surgdino.datasets.synthetic.davis import write_davis
from surgdino.datasets.synthetic.depth import write_depth
from surgdino.discovery import files
from surgdino.engine import precision
from surgdino.engine.probing.folds import knn_scores
from surgdino.errors import SurgdinoError
from surgdino.evaluations import PACKAGE
from surgdino.evaluations.label_curve import LabelCurve, LabelCurveSettings
from surgdino.evaluations.parts.components import component_pictures
from surgdino.evaluations.parts.evaluation import Evaluation, open_evaluation
from surgdino.evaluations.parts.given import Given
from surgdino.evaluations.parts.logistic import logistic_scores
from surgdino.evaluations.parts.outcome import Outcome, pooled
from surgdino.evaluations.stability import neighbours_kept
from surgdino.frames.store import StoreSettings, build_store
from surgdino.inputs.suite import open_suite
from surgdino.runs.names import Pseudonyms
from surgdino.tasks.features.cache import FeatureCache
from surgdino.tasks.labelled_frames import LabelledFrames, every_frame, labelled_frames
from surgdino.verbs import benchmark
from tests.datasets.clips import write_clips
from tests.datasets.pictures import write_image_folder, write_oxford
from tests.tasks.sets import SETS

NAMES = discovery.names(PACKAGE)
ENTRIES = [pair for file in files("configs/suites").values() for pair in read_yaml(file)["evaluations"].items()]
SECTIONS = {  # the first entry of each
    entry.get("evaluation", name): {key: value for key, value in entry.items() if key not in ("evaluation", "datasets")}
    for name, entry in reversed(ENTRIES)
}
SECTIONS["depth"] |= {"steps": 10, "batch": 4}
SECTIONS["instances"] |= {"size": 64}
SECTIONS["picture_linear"] |= {"steps": 3}
SECTIONS["propagation"] |= {"short_side": 64}


@pytest.fixture(scope="module")
def frames(synthetic_cholec80, tmp_path_factory) -> dict[str | None, LabelledFrames]:
    """Kind of labels -> its frames: phases and tools of 4 operations, masks of 24 pictures, depth of 12, 2 films, 18
    pictures of 3 classes, 12 clips, 8 pictures of a gallery with 3 queries."""
    folder, found = tmp_path_factory.mktemp("sets"), {}
    SETS["segmentation"].write(folder / "pairs")
    write_depth(folder / "depth", recordings=3)
    write_davis(folder / "davis", frames=5)
    write_image_folder(folder / "imagefolder", {"train": 4, "val": 2})
    write_clips(folder / "clips")
    write_oxford(folder / "roxford5k")
    options = {"operation_pattern": "(.+)"}
    sets = {"cholec80": synthetic_cholec80, "folder": folder / "pairs", "simcol3d": folder / "depth"}
    for card, root in (sets | {name: folder / name for name in ("davis", "imagefolder", "clips", "roxford5k")}).items():
        manifest = open_dataset(load_card(card), root, options=options if card == "folder" else {})
        settings = StoreSettings.of(fps=24 if card == "davis" else 2, short_side=64)
        store = build_store(manifest, folder / "store", settings, workers=1, progress=False)
        found |= {kind: labelled_frames(manifest, store, kind) for kind in manifest.labels}
        found.setdefault(None, every_frame(store))
    return found


def cache_in(folder: Path, seed: int = 0) -> FeatureCache:
    torch.manual_seed(seed)
    model = shipped_settings("model", "vit_toy")
    autocast = partial(precision.autocast, torch.device("cpu"), torch.float32)
    return FeatureCache(
        folder, build_backbone(model), Preprocess(32, tuple(model["mean"]), tuple(model["std"])), autocast
    )


def given_of(frames: LabelledFrames, folder: Path) -> Given:
    every = np.ones(len(frames), bool)
    towers = {operation: "AB"[place % 2] for place, operation in enumerate(sorted(set(frames.operations.values())))}
    return Given(frames, every, every, cache_in(folder), cache_in(folder, 1), {"tower": towers})


def named(outcomes) -> dict[str, Outcome]:
    return {outcome.name: outcome for outcome in outcomes}


@pytest.mark.parametrize("name", NAMES)
def test_every_evaluation_keeps_the_contract(name, frames, tmp_path, monkeypatch):
    few = {"frames": min(16, SECTIONS[name].get("frames", 16)), "corruptions": ["smoke"]}
    section = {key: few[key] if name == "robustness" and key in few else SECTIONS[name][key] for key in SECTIONS[name]}
    evaluation = open_evaluation(name, section, "evaluations")
    assert type(evaluation).__doc__ != Evaluation.__doc__
    kind = next(kind for kind in evaluation.labels() if kind in frames)
    given = given_of(frames[kind], tmp_path)
    for cache in (given.features, given.first):
        for at, *blocks in evaluation.reads(cache):
            at.keep(given.frames, *blocks)
    if name not in ("robustness", "propagation", "instances"):  # which compute features of other pictures
        monkeypatch.setattr(Backbone, "forward", lambda *_: pytest.fail("more is read than reads() says"))
    once, again = (list(evaluation.outcomes(given)) for _ in range(2))
    assert once == again
    assert once
    for outcome in once:
        assert np.isfinite(outcome.value)
        assert not outcome.percent or 0 <= outcome.value <= 1
        assert outcome.per_operation.keys() <= set(given.operations)
    assert len(named(once)) == len(once)


@pytest.mark.parametrize("suite", ["surgical", "dino"])
def test_all_evaluations_of_a_suite_share_one_pass_a_picture_and_size(suite, frames, tmp_path, monkeypatch):
    """Whatever layers they read; those with pictures of their own aside."""
    passes, forward = list[int](), Backbone.forward
    monkeypatch.setattr(Backbone, "forward", lambda *a: passes.append(len(a[1])) or forward(*a))
    entries, films = open_suite(suite).entries, {each.store.videos[0].id: each.store for each in frames.values()}
    for film, store in films.items():
        own = {kind: each for kind, each in frames.items() if each.store.videos[0].id == film}
        plan = [(entry, kind) for entry in entries for kind in entry.evaluation.labels() if kind in own]
        cache, run = cache_in(tmp_path), SimpleNamespace(folder=tmp_path, names=Pseudonyms(), cells={})
        assert benchmark._extract(run, "set", "natural", cache, plan, own) is None
        reads = [(own[kind], *each) for entry, kind in plan for each in benchmark._readings(entry, cache)]
        sizes = {at.preprocess.image_size for _, at, *_ in reads}
        assert len(passes) == len(sizes) * -(-len(store) // cache.batch_size)
        passes.clear()
        for here, at, *blocks in reads:
            at.keep(here, *blocks)
        assert not passes


@pytest.mark.parametrize("name", NAMES)
def test_no_two_operations_meet(name, frames, tmp_path):
    """What is learnt of an operation never tests it, nor with a split any operation of the other part."""
    given = given_of(frames["phase"], tmp_path)
    first = given.operations == given.operations[0]
    for each in (given, replace(given, tested=first, learns=~first)):
        folds = list(each.folds())
        for train, test in folds:
            assert not set(each.operations[train]) & set(each.operations[test])
        assert sorted(np.concatenate([test for _, test in folds])) == np.flatnonzero(each.tested).tolist()
    few = [train for train, _ in given.folds(0.5, seed=1)]
    assert all(len(set(given.operations[train])) == 2 for train in few)
    with pytest.raises(SurgdinoError, match="no operation to learn from"):
        list(replace(given, learns=first, tested=first).folds())


def test_balanced_accuracy_is_scikit_learns(frames, tmp_path):
    section = {"classifier": "knn", "tokens": "class", "labels": ["phase"], "shares": [1], "seeds": 1}
    given = given_of(frames["phase"], tmp_path)
    found = named(open_evaluation("classification", section, "").outcomes(given))
    tokens, truth = given.tokens(), given.frames.class_ids()
    for operation in np.unique(given.operations):
        test = np.flatnonzero(given.operations == operation)
        train = np.flatnonzero(given.operations != operation)
        ids, counts = np.unique(truth[train], return_counts=True)
        weight = (len(train) / (len(ids) * counts))[np.searchsorted(ids, truth[train])]
        scores = knn_scores(tokens[train], np.eye(len(given.classes))[truth[train]], tokens[test], weight)
        with np.errstate(all="ignore"):
            right = balanced_accuracy_score(truth[test], scores.argmax(1))
        assert found["balanced accuracy"].per_operation[operation] == pytest.approx(right)


def test_few_labels_learn_from_few_operations(frames, tmp_path):
    section = {
        "classifier": "linear",
        "tokens": "class",
        "labels": ["phase"],
        "shares": [0.01, 0.34, 0.7, 1],
        "seeds": 2,
    }
    found = named(open_evaluation("classification", section, "").outcomes(given_of(frames["phase"], tmp_path)))
    # Three operations to learn from: 1 % and 34 % are one of them both.
    names = [
        "balanced accuracy, 1 % of operations (1 operation)",
        "balanced accuracy, 70 % of operations (2 operations)",
    ]
    assert list(found) == [*names, "balanced accuracy", "accuracy"]


CURVE = {"labels": ["phase", "tools"], "operations": [1, 2, 5], "choices": 10, "seed": 0, "penalty": 0.01}


@pytest.mark.parametrize("kind", ["phase", "tools"])
def test_a_label_curve_is_taught_by_other_operations_alone(kind, frames, tmp_path, monkeypatch):
    """Every choice of 1, of 2 and of all 3 others; tokens that tell the label are learnt, and the own labels never."""
    given = given_of(frames[kind], tmp_path)
    values = given.frames.targets
    told = torch.eye(len(given.classes))[values.astype(int)] if values.ndim == 1 else torch.tensor(values).float()
    monkeypatch.setattr(Given, "tokens", lambda *_: told)
    curve, taught = open_evaluation("label_curve", CURVE, ""), []
    scores = LabelCurve._scores

    def watched(self, tokens, values, train, test, classes):
        names = [set(given.operations[rows].tolist()) for rows in (train, test)]
        assert not names[0] & names[1]
        taught.append((tuple(sorted(names[1])), tuple(sorted(names[0]))))
        return scores(self, tokens, values, train, test, classes)

    monkeypatch.setattr(LabelCurve, "_scores", watched)
    found = list(curve.outcomes(given))
    assert len(set(taught)) == len(taught) == 4 * (3 + 3 + 1)
    assert [outcome.curve[1] for outcome in found] == [1, 1, 2, 2, 3, 3]
    assert found[-2].name.endswith("logistic regression, taught by 3 operations")
    assert found[-2].value > 0.95
    assert found[-2].value >= found[0].value


def test_few_of_many_choices_are_drawn_from_the_seed(frames, tmp_path):
    names = [f"op{k}" for k in range(12)]
    choices = [LabelCurve(LabelCurveSettings((), (), 10, seed, 0.01))._choices(names, 4) for seed in (0, 0, 1)]
    assert choices[0] == choices[1] != choices[2]
    assert len(set(choices[0])) == 10
    assert all(len(set(chosen)) == 4 for chosen in choices[0])


def test_logistic_scores_are_scikit_learns_and_what_nobody_taught_is_never_found():
    rng = np.random.default_rng(0)
    x, z = rng.normal(size=(60, 5)), rng.normal(size=(20, 5))
    ids = rng.choice([0, 2, 3], 60)
    fitted = LogisticRegression(C=0.01, max_iter=300, class_weight="balanced").fit(x, ids)
    scores = logistic_scores(x, ids, z, 5, 0.01)
    assert scores.argmax(1).tolist() == fitted.predict(z).tolist()
    assert not scores[:, [1, 4]].any()
    assert (logistic_scores(x, np.full(60, 3), z, 5, 0.01).argmax(1) == 3).all()
    many = np.stack([ids == 0, ids < 9, ids > 9], 1).astype(int)
    scores = logistic_scores(x, many, z, 3, 0.01)
    assert scores[:, 0].any()
    assert not scores[:, 1:].any()


def test_twenty_neighbours_vote_as_scikit_learns(frames, tmp_path, monkeypatch):
    given = given_of(frames["phase"], tmp_path)
    apart = torch.from_numpy(np.random.default_rng(0).normal(size=(len(given.frames), 8)))  # frames are all but alike
    monkeypatch.setattr(Given, "tokens", lambda *_: apart)
    found = named(open_evaluation("label_curve", {**CURVE, "operations": []}, "").outcomes(given))
    tokens, truth = given.tokens("class+mean").numpy(), given.frames.class_ids()
    for operation in np.unique(given.operations):
        test = given.operations == operation
        scaler = StandardScaler().fit(tokens[~test])
        voters = KNeighborsClassifier(20, metric="cosine").fit(scaler.transform(tokens[~test]), truth[~test])
        right = balanced_accuracy_score(truth[test], voters.predict(scaler.transform(tokens[test])))
        assert found["balanced accuracy, 20-NN, taught by 3 operations"].per_operation[operation] == pytest.approx(
            right
        )


@pytest.mark.parametrize("change", [{"operations": [0]}, {"choices": 0}, {"penalty": 0}, {"labels": 3}, {"seed": -1}])
def test_a_label_curve_that_cannot_be_is_one_line(change):
    with pytest.raises(SurgdinoError, match=rf"e\.{next(iter(change))}.* cannot be used"):
        open_evaluation("label_curve", {**CURVE, **change}, "e")


def test_pictures_of_patch_features_are_alike_for_backbones_that_are(frames, tmp_path):
    given = given_of(frames["phase"], tmp_path)
    larger = replace(given.features, preprocess=replace(given.features.preprocess, image_size=48))
    rows = component_pictures(
        given, {"one": given.features, "again": given.features, "other": given.first, "l": larger}
    )
    assert [row["operation"] for row in rows] == sorted(set(given.operations))
    for row in rows:
        pictures = {
            name: cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), 1)
            for name, text in row["pictures"].items()
        }
        sides = {name: picture.shape[:2] for name, picture in pictures.items()}
        assert sides == {"one": (4, 4), "again": (4, 4), "other": (4, 4), "l": (6, 6)}, "a pixel a patch"
        assert np.abs(pictures["one"].astype(int) - pictures["again"]).max() <= 4  # clipped tails turn too
        assert len(np.unique(pictures["one"])) > 4
        assert not np.array_equal(pictures["one"], pictures["other"])
    alone = replace(given, tested=given.operations == given.operations[0])
    assert len(component_pictures(alone, {"one": given.features})) == 4  # of the one operation, at four times


def test_neighbours_kept_are_scikit_learns():
    rng = np.random.default_rng(0)
    first = rng.normal(size=(40, 6)).astype(np.float32)
    second = first + rng.normal(size=first.shape).astype(np.float32)
    sides = []
    for each in (first, second):
        found = NearestNeighbors(n_neighbors=4, metric="cosine").fit(each).kneighbors(return_distance=False)
        sides.append([set(row.tolist()) for row in found])
    slow = [len(one & other) / 4 for one, other in zip(*sides, strict=True)]
    assert neighbours_kept(torch.from_numpy(first), torch.from_numpy(second), 4).tolist() == slow
    assert (neighbours_kept(torch.from_numpy(first), torch.from_numpy(first), 4) == 1).all()


def test_moments_and_labels_are_found_where_features_tell_them(frames, tmp_path, monkeypatch):
    given = given_of(frames["phase"], tmp_path)
    same = {"labels": ["phase"], "find": "label", "frames": 1000, "ks": [1]}
    phases = torch.eye(len(given.classes))[given.frames.class_ids()]
    monkeypatch.setattr(Given, "tokens", lambda *_: phases)
    assert next(open_evaluation("retrieval", same, "").outcomes(given)).value == 1
    near = {"labels": [], "find": "moment", "frames": 1000, "ks": [1]}
    of_video = torch.from_numpy(given.frames.video_of * 10.0)
    angle = torch.from_numpy(given.frames.times) / 20
    place = torch.stack([torch.cos(angle + of_video), torch.sin(angle + of_video), of_video], 1)
    monkeypatch.setattr(Given, "tokens", lambda *_: place)
    recall = named(open_evaluation("retrieval", near, "").outcomes(given))["recall at 1"]
    assert recall.value == 1


def test_pooled_numbers_know_what_each_operation_adds():
    values, owners = np.array([1.0, 0.0, 0.0, 1.0, 1.0]), list("aabcc")
    (found,) = pooled(lambda rows: {"share": float(values[rows].mean())}, owners)
    assert found.value == pytest.approx(0.6)
    assert found.per_operation == {"a": 0.5, "b": 0.0, "c": 1.0}
    assert found.without == pytest.approx({"a": 2 / 3, "b": 0.75, "c": 1 / 3})


@pytest.mark.slow
def test_mean_corruption_error_is_the_ratio_of_the_errors(frames, tmp_path, monkeypatch):
    """Of what the evaluation says of single corruptions, for two backbones; of the first itself it is 100 %."""
    section = {"labels": ["phase"], "frames": 24, "corruptions": ["smoke", "defocus"]}
    given = given_of(frames["phase"], tmp_path)
    evaluation = open_evaluation("robustness", section, "")
    own = named(evaluation.outcomes(given))
    first = named(evaluation.outcomes(replace(given, features=given.first)))
    monkeypatch.setattr(FeatureCache, "extract", lambda *_: pytest.fail("a forward pass"))
    assert named(evaluation.outcomes(given)) == own
    name = "mean corruption error (the first: 1)"
    assert first[name].value == 1
    slow = np.mean([own[f"error, {each}"].value / first[f"error, {each}"].value for each in section["corruptions"]])
    assert own[name].value == pytest.approx(slow)


@pytest.mark.parametrize("name", NAMES)
def test_a_mistyped_setting_is_one_line(name):
    with pytest.raises(SurgdinoError, match=r"unknown setting e\.oops"):
        open_evaluation(name, {**SECTIONS[name], "oops": 1}, "e")
    with pytest.raises(SurgdinoError, match=f"there is no evaluation={name}x. Did you mean '{name}'"):
        open_evaluation(f"{name}x", {}, "e")
