"""What is measured of a backbone: which frames, who teaches and who is tested, and what each probe's number means."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from surgdino.backbone.preprocess import Preprocess
from surgdino.backbone.vit import build_backbone
from surgdino.datasets.manifest import FrameLabels, Labels
from surgdino.engine.probes.drift import linear_cka
from surgdino.engine.probes.effective_rank import effective_rank
from surgdino.engine.probes.masks import best_threshold
from surgdino.engine.probes.operations import different_moments
from surgdino.engine.probes.patches import share_found
from surgdino.engine.probing import ProbeReport, ProbeSet
from surgdino.engine.probing.folds import balanced, folds, knn_scores, linear_scores, ridge_scores
from surgdino.engine.probing.frames import ProbeFrames, TaskLabels, choose_frames
from surgdino.engine.probing.measures import Finding, Probe, measure_named, probes
from surgdino.engine.probing.view import ProbeFeatures, View

TOY = {
    "timm": "vit_tiny_patch16_224",
    "timm_kwargs": {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 2},
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
}
PREPROCESS = Preprocess(32, (0.5,) * 3, (0.5,) * 3)


@dataclass
class Frames:
    """The frame store's interface: operation after operation, each one video in one colour, a frame every `step` s."""

    each: tuple[int, ...]
    step: float = 1.0

    def __post_init__(self) -> None:
        rng = np.random.default_rng(0)
        self.place = np.repeat(np.arange(len(self.each)), self.each)
        self.within = np.concatenate([np.arange(n) for n in self.each])
        colours = np.array([[220, 30, 30], [30, 30, 220], [30, 220, 30], [200, 200, 30], [30, 200, 200]])
        noise = rng.integers(-20, 20, (len(self.place), 40, 40, 3))
        self.frames = (colours[self.place % 5][:, None, None] + noise).astype(np.uint8)

    def __len__(self) -> int:
        return len(self.place)

    def read(self, i: int) -> np.ndarray:
        return self.frames[i]

    def video_id(self, i: int) -> str:
        return f"v{self.place[i]}"

    def operation(self, i: int) -> str:
        return f"op{self.place[i]}"

    def number(self, i: int) -> int:
        return int(self.within[i]) * 25

    def time(self, i: int) -> float:
        return float(self.within[i]) * self.step


def no_autocast():
    return torch.autocast("cpu", enabled=False)


def view_of(store: Frames, cls: torch.Tensor, tested: set[str] | None = None, labels: tuple = ()) -> View:
    """Every frame of a store with these class tokens."""
    frames = choose_frames(store, 2 * len(store), tested)
    features = ProbeFeatures(cls, cls, torch.empty(0), np.empty(0, int), lambda _: torch.empty(0))
    rows = np.flatnonzero(frames.tested)
    return View(frames, [], labels, None, features, (cls[rows], cls[rows]), (4, 4))


def found(probe: str, view: View) -> dict[str, Finding]:
    return {finding.name: finding for finding in probes()[probe].find(view)}


# What is discovered


@pytest.mark.parametrize("name", probes())
def test_every_probe_keeps_the_contract(name):
    probe = probes()[name]
    assert isinstance(probe.order, int)
    assert type(probe).__doc__ != Probe.__doc__
    assert probe.find.__doc__
    for key, measure in probe.measures.items():
        assert measure_named(f"phase{key}" if key.startswith("_") else key).words
        assert key.startswith("_") == ("{task}" in measure.words)


def test_names_of_measures_do_not_collide():
    keys = [key for probe in probes().values() for key in probe.measures]
    assert len(keys) == len(set(keys))
    assert measure_named("phase_linear_balanced_accuracy").words == "phase, linear probe (balanced accuracy)"
    assert measure_named("phase_linear_accuracy").words == "phase, linear probe (accuracy)"
    with pytest.raises(KeyError):
        measure_named("phase_linear")


# Which frames


def test_every_operation_gives_the_same_share_and_what_a_small_one_lacks_goes_to_the_others():
    frames = choose_frames(Frames((10, 200, 200)), 90)
    counts = {op: len(rows) for op, rows in frames.of(np.arange(len(frames))).items()}
    assert counts["op0"] == 10
    assert counts["op1"] == counts["op2"] >= 36  # 40 each, less partners that were anchors already
    assert len(frames) <= 90


def test_frames_come_with_partners_of_the_same_moment():
    frames = choose_frames(Frames((2000,)), 100)
    gaps = np.diff(frames.times)
    assert np.sum(gaps == 2.0) >= 20
    assert frames.times[0] == 0
    assert frames.times[-1] == 1999
    assert np.sum(gaps > 20) >= 70


def test_a_store_of_few_frames_a_minute_still_knows_neighbours():
    assert choose_frames(Frames((50,), step=20.0), 50).near == 30.0
    assert choose_frames(Frames((50,), step=1.0), 50).near == 5.0


def test_operations_that_only_teach_get_half_of_the_frames_and_labels_go_first():
    store = Frames((100, 100, 100))
    labelled = np.zeros(300, bool)
    labelled[:300:4] = True
    frames = choose_frames(store, 40, {"op1"}, labelled)
    assert set(frames.operations[frames.tested]) == {"op1"}
    assert frames.tested.sum() <= 20
    assert (~frames.tested).sum() <= 20
    assert labelled[frames.rows].mean() > 0.6


def test_of_more_operations_than_frames_some_are_taken_from_all_over():
    frames = choose_frames(Frames((1,) * 200), 20)
    taken = sorted(int(op.removeprefix("op")) for op in frames.operations)
    assert len(taken) == 20
    assert (taken[0], taken[-1]) == (0, 199)
    assert max(np.diff(taken)) < 14


# Who teaches and who is tested


@pytest.mark.parametrize(("operations", "tested"), [(2, 2), (4, 1), (4, 2), (13, 13), (13, 7)])
def test_no_operation_is_on_both_sides_and_every_tested_one_is_tested_once(operations, tested):
    frames = choose_frames(Frames((6,) * operations), 1000, {f"op{i}" for i in range(tested)})
    rows = np.arange(len(frames))
    seen = []
    for count, (train, test) in enumerate(folds(frames, rows), start=1):
        assert not set(frames.operations[train]) & set(frames.operations[test])
        assert count <= 5
        assert set(frames.operations[~frames.tested]) <= set(frames.operations[train])
        seen += test.tolist()
    assert sorted(seen) == np.flatnonzero(frames.tested).tolist()


def test_one_operation_alone_teaches_nobody():
    assert list(folds(choose_frames(Frames((9,)), 9), np.arange(9))) == []


def test_knn_agrees_with_scikit_learn_and_rides_on_the_nearest():
    rng = np.random.default_rng(0)
    train, test = (torch.from_numpy(rng.normal(size=(n, 8)).astype(np.float32)) for n in (60, 15))
    ids = rng.integers(0, 3, 60)
    ours = knn_scores(train, np.eye(3)[ids], test)
    weigh = lambda distance: np.exp((1 - distance) / 0.07)  # noqa: E731
    oracle = KNeighborsClassifier(20, metric="cosine", weights=weigh).fit(train.numpy(), ids)
    np.testing.assert_allclose(ours, oracle.predict_proba(test.numpy()), atol=1e-5)


def test_weights_let_a_rare_class_be_heard():
    ids = np.array([0] * 18 + [1] * 2)
    assert balanced(ids).sum() == pytest.approx(20)
    assert balanced(ids)[:18].sum() == pytest.approx(balanced(ids)[18:].sum())
    features = torch.zeros(20, 4)
    features[:, 0] = 1
    features[18:, 1] = 0.05
    for classify in (knn_scores, linear_scores):
        plain, weighed = (classify(features, np.eye(2)[ids], features[18:], w)[0] for w in (None, balanced(ids)))
        assert weighed[1] > plain[1]
        assert weighed.argmax() == 1


@pytest.mark.parametrize("weighed", [False, True])
def test_the_linear_probe_of_a_gpu_is_that_of_the_cpu(weighed):
    rng = np.random.default_rng(0)
    train, test = (torch.from_numpy(rng.normal(2, 3, size=(n, 8)).astype(np.float32)) for n in (60, 15))
    ids = rng.choice(3, 60, p=(0.6, 0.3, 0.1))
    given = (train, np.eye(3)[ids], test, balanced(ids) if weighed else None)
    np.testing.assert_allclose(ridge_scores(*given), linear_scores(*given), atol=1e-5)


def test_a_linear_probe_finds_what_is_linear_in_unseen_operations():
    rng = np.random.default_rng(0)
    store = Frames((60, 60, 60))
    ids = rng.integers(0, 3, 180)
    features = torch.from_numpy(np.eye(3)[ids] @ rng.normal(size=(3, 16)) + rng.normal(size=(180, 16)) * 0.1).float()
    phase = TaskLabels("phase", ("a", "b", "c"), np.ones(180, bool), ids)
    values = found("one_class", view_of(store, features, {"op0"}, (phase,)))
    assert values["phase_linear_balanced_accuracy"].value > 0.95
    assert values["phase_knn_accuracy"].value > 0.95
    assert list(values["phase_linear_accuracy"].per_operation) == ["op0"]
    shuffled = TaskLabels("phase", ("a", "b", "c"), np.ones(180, bool), rng.permutation(ids))
    assert found("one_class", view_of(store, features, None, (shuffled,)))["phase_knn_accuracy"].value < 0.5


def test_an_operation_of_one_frame_is_tested_by_all_but_the_aligned_probe():
    rng = np.random.default_rng(0)
    ids = np.tile([0, 1], 61)[:121]
    features = torch.from_numpy(np.eye(2)[ids] + rng.normal(size=(121, 2)) * 0.01).float()
    labels = (
        TaskLabels("phase", ("a", "b"), np.ones(121, bool), ids),
        TaskLabels("tools", ("a", "b"), np.ones(121, bool), np.eye(2)[ids]),
    )
    view = view_of(Frames((60, 60, 1)), features, None, labels)
    phase, tools = found("one_class", view), found("many_classes", view)
    assert phase["phase_linear_accuracy"].per_operation == {"op0": 1, "op1": 1, "op2": 1}
    assert list(phase["phase_aligned_accuracy"].per_operation) == ["op0", "op1"]
    assert list(tools["tools_aligned_ap"].per_operation) == ["op0", "op1"]
    only = found("one_class", view_of(Frames((60, 60, 1)), features, {"op2"}, labels[:1]))
    assert "phase_aligned_accuracy" not in only
    assert only["phase_linear_accuracy"].value == 1


def test_what_operations_differ_by_as_a_whole_does_not_hurt_an_aligned_probe():
    rng = np.random.default_rng(0)
    store = Frames((60, 60, 60))
    ids = rng.integers(0, 3, 180)
    # Phases in three dimensions; an offset and a scale of each operation's own, in the same three.
    features = 0.3 * np.eye(3)[ids] + rng.normal(size=(180, 3)) * 0.05
    features = features * np.array([1.0, 2.0, 0.5])[store.place][:, None] + rng.normal(size=(3, 3))[store.place]
    labels = (
        TaskLabels("phase", ("a", "b", "c"), np.ones(180, bool), ids),
        TaskLabels("tools", ("a", "b", "c"), np.ones(180, bool), np.eye(3)[ids]),
    )
    view = view_of(store, torch.from_numpy(features).float(), None, labels)
    phase, tools = found("one_class", view), found("many_classes", view)
    assert phase["phase_linear_balanced_accuracy"].value < 0.6
    assert phase["phase_aligned_balanced_accuracy"].value > 0.95
    assert tools["tools_aligned_ap"].value > 0.95
    for rows in view.frames.of(np.arange(180)).values():
        assert view.aligned_cls[rows].mean(0).abs().max() < 1e-5
    assert torch.equal(view.features.cls, torch.from_numpy(features).float())  # and nothing else was moved


def test_classes_that_an_operation_lacks_do_not_enter_its_mean():
    rng = np.random.default_rng(1)
    store = Frames((40, 40))
    tools = (rng.random((80, 3)) < 0.4).astype(np.uint8)
    tools[:40, 2] = 0  # nowhere in the first operation
    features = torch.from_numpy(tools + rng.normal(size=(80, 3)) * 0.05).float()
    labels = TaskLabels("tools", ("a", "b", "c"), np.ones(80, bool), tools)
    values = found("many_classes", view_of(store, features, None, (labels,)))
    assert values["tools_linear_ap"].per_operation["op0"] == pytest.approx(1.0)
    assert values["tools_linear_ap"].value > 0.9


def test_a_threshold_for_dice_is_the_best_there_is():
    rng = np.random.default_rng(0)
    truth = rng.random(500) < 0.1
    scores = rng.normal(size=500) + 1.5 * truth
    dice = lambda t: 2 * ((scores > t) & truth).sum() / ((scores > t).sum() + truth.sum())  # noqa: E731
    assert dice(best_threshold(scores, truth)) == pytest.approx(max(dice(t) for t in np.r_[scores, -9]), abs=1e-12)


# What needs no labels


def test_effective_rank_counts_dimensions():
    basis = torch.linalg.qr(torch.randn(32, 8, generator=torch.Generator().manual_seed(0)))[0]
    for rank in (1, 3, 8):
        features = torch.zeros(32, 8)
        features[:, :rank] = basis[:, :rank]
        assert effective_rank(features).item() == pytest.approx(rank, rel=1e-3)
    assert torch.isnan(effective_rank(torch.full((2, 2), torch.nan)))


def test_cka_is_its_formula_and_does_not_see_rotation_scale_or_shift():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 6)), rng.normal(size=(50, 9))
    x_, y_ = x - x.mean(0), y - y.mean(0)
    norm = np.linalg.norm
    expected = norm(y_.T @ x_) ** 2 / (norm(x_.T @ x_) * norm(y_.T @ y_))
    first, second = torch.from_numpy(x), torch.from_numpy(y)
    assert linear_cka(first, second) == pytest.approx(expected, rel=1e-9)
    rotation = torch.from_numpy(np.linalg.qr(rng.normal(size=(6, 6)))[0])
    assert linear_cka(first, 3 * first @ rotation + 5) == pytest.approx(1, abs=1e-9)
    assert linear_cka(first, torch.zeros(50, 4)) == 0


def test_features_that_follow_time_are_aligned_and_random_ones_are_not():
    store = Frames((120, 120))
    angle = torch.arange(240) % 120 / 120 * 1.5
    following = torch.stack([angle.cos(), angle.sin()], dim=1)
    assert found("moments", view_of(store, following))["moment_alignment"].value == pytest.approx(1.0)
    random = torch.randn(240, 16, generator=torch.Generator().manual_seed(0))
    assert found("moments", view_of(store, random))["moment_alignment"].value == pytest.approx(0.5, abs=0.05)
    assert found("moments", view_of(store, torch.ones(240, 4)))["moment_alignment"].value == 0.5
    assert found("moments", view_of(Frames((1, 1, 1)), torch.randn(3, 4))) == {}


def test_patches_are_found_where_the_crop_shows_them():
    grid, corner = (8, 8), (0.25, 0.0)
    place = torch.stack(torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij"), dim=-1)
    waves = torch.randn(2, 32, generator=torch.Generator().manual_seed(0)) * 0.4
    content = lambda at: torch.cat([(at @ waves).cos(), (at @ waves).sin()], dim=-1).flatten(0, 1)  # noqa: E731
    shown = torch.tensor(corner) * 8 + 0.75 * (place + 0.5) - 0.5
    assert share_found(content(shown), content(place), grid, corner) == 1.0
    # Tokens that say nothing but where in their own picture they are take the crop for the whole frame.
    assert share_found(content(place), content(place), grid, corner) < 0.75
    random = torch.randn(2, 64, 64, generator=torch.Generator().manual_seed(1))
    assert share_found(random[0], random[1], grid, corner) < 0.3


def test_operations_are_told_apart_and_the_same_moment_is_left_out():
    torch.manual_seed(0)
    probe = ProbeSet(Frames((40, 40)), 80, PREPROCESS)
    allowed = different_moments(probe.frames)
    assert not allowed[0, :10].any()  # 39 s of video: a quarter of it
    assert allowed[0, 10:].all()
    backbone = build_backbone(TOY).train()
    report = probe.measure(backbone, no_autocast)
    values = report.as_dict()
    assert values["operation_knn"] == pytest.approx(1.0)
    assert 0.3 < values["operation_chance"] < 0.6
    assert [values["cka_cls"], values["cka_patches"]] == pytest.approx([1.0, 1.0], abs=1e-9)
    assert values["score"] == values["moment_alignment"]
    assert report.score_of == ("moment_alignment",)
    assert backbone.training
    with torch.no_grad():
        for block in backbone.vit.blocks:
            block.mlp.fc2.weight.normal_()
    assert probe.measure(backbone, no_autocast).as_dict()["cka_cls"] < 1 - 1e-6


def test_with_one_operation_there_is_nothing_to_tell_apart():
    assert (
        "operation_knn" not in ProbeSet(Frames((20,)), 8, PREPROCESS).measure(build_backbone(TOY), no_autocast).findings
    )


def test_labels_at_hand_are_probed_and_choose():
    store = Frames((30, 30, 30))
    ids = np.arange(30) // 10
    values = {f"v{i}": FrameLabels(np.arange(30) * 25, ids) for i in range(3)}
    labels = {"phase": Labels("phase", ("a", "b", "c"), values)}
    torch.manual_seed(0)
    probe = ProbeSet(store, 60, PREPROCESS, labels, {"op1", "op2"})
    assert probe.operations == ("op1", "op2")
    assert probe.tasks == ("phase",)
    report = probe.measure(build_backbone(TOY), no_autocast)
    assert report.score == report.as_dict()["phase_linear_balanced_accuracy"]
    assert report.per_operation["phase_knn_accuracy"].keys() == {"op1", "op2"}


def test_without_labels_the_operations_that_would_teach_are_left_out():
    class Selecting(Frames):
        videos = tuple(type("V", (), {"id": f"v{i}", "operation": f"op{i}"})() for i in range(3))

        def select(self, ids):
            assert ids == ["v1"]
            return Frames((30,))

    assert len(ProbeSet(Selecting((30, 30, 30)), 90, PREPROCESS, {}, {"op1"})) == 30


def test_a_report_survives_being_saved():
    torch.manual_seed(0)
    report = ProbeSet(Frames((30, 30)), 40, PREPROCESS).measure(build_backbone(TOY), no_autocast)
    assert ProbeReport.of_state(report.state_dict()) == report


def test_frames_of_a_probe_are_told_apart_by_their_fingerprint():
    probes = [ProbeSet(Frames((30, 30)), count, PREPROCESS) for count in (20, 20, 24)]
    assert probes[0].fingerprint == probes[1].fingerprint != probes[2].fingerprint
    assert isinstance(probes[0].frames, ProbeFrames)
