"""Instance retrieval: revisited Oxford's truth and its protocol, by hand; and files that are refused."""

from __future__ import annotations

import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from surgdino.backbone.preprocess import Preprocess
from surgdino.backbone.vit import build_backbone
from surgdino.config import shipped_settings
from surgdino.datasets.adapters.oxford_paris import QUERY
from surgdino.datasets.card import load_card
from surgdino.datasets.manifest import Manifest
from surgdino.datasets.open import open_dataset
from surgdino.engine import precision
from surgdino.errors import SurgdinoError
from surgdino.evaluations.instances import Instances
from surgdino.evaluations.parts.evaluation import open_evaluation
from surgdino.evaluations.parts.given import Given
from surgdino.frames.store import StoreSettings, build_store
from surgdino.metrics.retrieval import ranking
from surgdino.tasks.features.cache import FeatureCache
from surgdino.tasks.labelled_frames import labelled_frames
from tests.datasets.pictures import write_oxford, write_truth

SECTION = {"size": 64, "scales": [1, 0.5], "ks": [1, 5]}


def opened(root: Path) -> Manifest:
    return open_dataset(load_card("roxford5k"), root)


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> Given:
    folder = tmp_path_factory.mktemp("oxford")
    manifest = opened(write_oxford(folder / "set"))
    settings = StoreSettings.of(short_side=512, content_crop=False)
    store = build_store(manifest, folder / "store", settings, workers=1, progress=False)
    frames = labelled_frames(manifest, store, "instance")
    torch.manual_seed(0)
    backbone = build_backbone(shipped_settings("model", "vit_toy"))
    autocast = partial(precision.autocast, torch.device("cpu"), torch.float32)
    cache = FeatureCache(folder / "features", backbone, Preprocess(32), autocast)
    every = np.ones(len(frames), bool)
    return Given(frames, every, every, cache, cache)


def test_a_query_is_the_box_of_its_picture(given):
    """In the source's pixels, whatever the content; the others are whole."""
    sizes = {video.id: video.shard.header for video in given.frames.store.videos}
    assert (sizes["query/query_0"]["width"], sizes["query/query_0"]["height"]) == (20, 40)
    assert (sizes["query/query_2"]["width"], sizes["query/query_2"]["height"]) == (20, 36)
    whole = sizes["gallery/building_000000"]
    assert (whole["width"], whole["height"]) == tuple(whole["content"]["source_size"])


def test_mean_average_precision_by_hand(given, monkeypatch):
    """The gallery is ranked 0 1 2 3 4 5 6 7 for every query.

    Query 0: easy 0 3, hard 6, junk 1. Medium: ranks 0, 2, 5 without the junk picture. Query 1: hard 1 4. Query 2: easy
    2 5, junk 0 7: ranks 1, 4.
    """
    gallery = torch.stack([torch.tensor([np.cos(angle), np.sin(angle)]) for angle in np.linspace(0, 1, 8)])
    is_query = (given.frames.targets == QUERY).any(1)
    tokens = torch.zeros(11, 2, dtype=gallery.dtype)
    tokens[~is_query], tokens[is_query] = gallery, torch.tensor([1.0, 0.0], dtype=gallery.dtype)
    monkeypatch.setattr(Instances, "_tokens", lambda *_: tokens)
    found = {outcome.name: outcome for outcome in open_evaluation("instances", SECTION, "").outcomes(given)}

    def trapezoids(ranks: list[int]) -> float:
        pairs = [((j / r if r else 1) + (j + 1) / (r + 1)) / 2 for j, r in enumerate(ranks)]
        return sum(pairs) / len(ranks)

    medium = [trapezoids([0, 2, 5]), trapezoids([1, 4]), trapezoids([1, 4])]
    easy = [trapezoids([0, 1]), trapezoids([1, 4])]  # query 0 without 1 and 6: 0 2 3 -> ranks 0, 2
    easy[0] = trapezoids([0, 2])
    hard = [trapezoids([3]), trapezoids([1, 4])]  # query 0 without 0, 1 and 3: 2 4 5 6
    assert found["mAP, medium, over queries"].value == pytest.approx(np.mean(medium))
    assert found["mAP, easy, over queries"].value == pytest.approx(np.mean(easy))
    assert found["mAP, hard, over queries"].value == pytest.approx(np.mean(hard))
    assert found["mP@1, medium, over queries"].value == pytest.approx(1 / 3)
    # Of five: 0 and 2 of query 0; both of the others, whose rankings end at the fifth.
    assert found["mP@5, medium, over queries"].value == pytest.approx((2 / 5 + 2 / 5 + 2 / 5) / 3)
    assert found["mP@5, hard, over queries"].value == pytest.approx((1 / 4 + 2 / 5) / 2)


@pytest.mark.parametrize("seed", range(3))
def test_precision_until_the_last_positive_is_the_protocols(seed):
    """Radenovic's loop: k is at most the rank of the last positive, counted from 1."""
    rng = np.random.default_rng(seed)
    similarity, positive = rng.normal(size=(6, 12)), rng.random((6, 12)) < 0.3
    found = ranking(similarity, positive, np.zeros((6, 12), bool), [1, 5, 10])
    for row, (alike, good) in enumerate(zip(similarity, positive, strict=True)):
        ranks = np.flatnonzero(good[np.argsort(-alike)]) + 1
        for column, k in enumerate([1, 5, 10]):
            bound = min(ranks.max(), k) if len(ranks) else 0
            expected = (ranks <= bound).sum() / bound if bound else np.nan
            assert found.until_last[row, column] == pytest.approx(expected, nan_ok=True)


def test_pictures_keep_their_shape_and_scales_are_averaged(given, monkeypatch):
    seen: list[tuple[int, int]] = []
    encode = FeatureCache.encode
    monkeypatch.setattr(FeatureCache, "encode", lambda self, x: (seen.append(tuple(x.shape[2:])), encode(self, x))[1])
    evaluation = open_evaluation("instances", SECTION, "")
    both = evaluation._tokens(given)
    one, half = (open_evaluation("instances", {**SECTION, "scales": [s]}, "")._tokens(given) for s in (1, 0.5))
    assert torch.equal(both, torch.stack([one, half]).mean(0))
    assert all(side % 8 == 0 for shape in seen for side in shape)
    assert max(map(max, seen)) <= 64
    assert any(height != width for height, width in seen)


def test_the_json_says_the_same_as_the_pickle(tmp_path):
    sides = [opened(write_oxford(tmp_path / kind, kind)) for kind in ("pkl", "json")]
    labels = [{v: each.array.tolist() for v, each in side.labels["instance"].values.items()} for side in sides]
    assert labels[0] == labels[1]
    assert [video.box for video in sides[0].videos] == [video.box for video in sides[1].videos]


class Bomb:
    def __reduce__(self):
        return (print, ("run",))


GOOD = {"bbx": [0, 0, 9, 9], "easy": [0], "hard": [], "junk": []}
NAMES = {"imlist": [f"building_{number:06d}" for number in range(8)], "qimlist": ["query_0"]}


@pytest.mark.parametrize(
    ("truth", "expected"),
    [
        (Bomb(), "not a pickle of plain containers"),
        ({**NAMES, "gnd": [{**GOOD, "easy": np.arange(2)}]}, "not a pickle of plain containers"),
        ({**NAMES, "gnd": [{**GOOD, "easy": [8]}]}, "the places of a query cannot be"),
        ({**NAMES, "gnd": [{**GOOD, "hard": [0]}]}, "the places of a query cannot be"),
        ({**NAMES, "gnd": [{**GOOD, "junk": [1, 1]}]}, "the places of a query cannot be"),
        ({**NAMES, "gnd": [{**GOOD, "easy": [-1]}]}, "easy"),
        ({**NAMES, "gnd": [{**GOOD, "bbx": [5, 5, 5, 9]}]}, "a box that cannot be"),
        ({**NAMES, "gnd": []}, "the queries do not fit"),
        ({**NAMES, "imlist": ["building_000000"] * 2, "gnd": [GOOD]}, "the queries do not fit"),
        ({**NAMES, "qimlist": ["nowhere"], "gnd": [GOOD]}, "a picture of the list is not here"),
        ([], "gnd_roxford5k"),
        (b"", "gnd_roxford5k"),
    ],
)
def test_a_truth_that_cannot_be_is_one_line(truth, expected, tmp_path, capsys):
    root = write_oxford(tmp_path / "set")
    write_truth(root, truth, "pkl")
    if truth == b"":
        (root / "gnd_roxford5k.pkl").write_bytes(pickle.dumps(NAMES, protocol=2)[:-9])
    try:
        (line,) = [problem.error().line() for problem in opened(root).errors]
    except SurgdinoError as error:
        line = error.line()
    assert expected in line
    assert "\n" not in line
    assert not capsys.readouterr().out
