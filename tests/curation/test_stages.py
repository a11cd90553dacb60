"""Stages given what they can do nothing with, or little: one line each, or a result that is plain."""

from __future__ import annotations

import numpy as np
import pytest

from surgdino.curation.settings import BalanceSettings, DuplicateSettings, RetrievalSettings
from surgdino.curation.stages import Frames, deduplicate, drop_unusable, keep_apart, rebalance, retrieve
from surgdino.errors import SurgdinoError

BALANCE = BalanceSettings("frames", "hierarchy", None, 2, None)
SAMPLE, CLUSTER = RetrievalSettings("sample", 4, 3, 100), RetrievalSettings("cluster", 4, 3, 100)


def duplicates(**given: float | None) -> DuplicateSettings:
    quantiles = {"along_quantile": 0.5, "across_quantile": 0.9, "against_quantile": 0.5}
    none = {"along": None, "across": None, "against": None}
    return DuplicateSettings(copies=False, across_by="groups", order="hard", **{**none, **quantiles, **given})


def frames(operations: int = 3, each: int = 40, seed: int = 0) -> Frames:
    """Walks that begin elsewhere in each operation, a frame a second."""
    rng = np.random.default_rng(seed)
    steps = 0.2 * rng.normal(size=(operations, each, 16))
    rows = (steps.cumsum(1) + 2 + 2 * rng.normal(size=(operations, 1, 16))).reshape(-1, 16)
    vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    of = np.repeat(np.arange(operations), each)
    return Frames(vectors, np.tile(np.arange(float(each)), operations), of, of, seed=0)


def test_the_error_says_which_stage_left_none_and_what_to_loosen():
    some = frames()
    with pytest.raises(SurgdinoError, match=r"blurred: no frame is left.*120 left out for this of 120.*under unusable"):
        drop_unusable(some, np.full(120, "blurred", object))
    some = frames()
    with pytest.raises(SurgdinoError, match=r"tested on: no frame is left.*duplicates\.against"):
        keep_apart(some, np.asarray(some.embeddings, np.float32), np.zeros(120, bool), duplicates(against=-0.9))
    some = frames()
    with pytest.raises(SurgdinoError, match=r"not like what is wanted: no frame is left.*retrieval"):
        retrieve(some, np.asarray(some.embeddings[:2], np.float32), CLUSTER, BALANCE)


def test_more_than_there_is_keeps_all_and_says_so(capsys):
    some = frames()
    rebalance(some, BALANCE, 121)
    assert len(some.left) == 120
    assert "keep=121 is more than the 120 frames that are left" in capsys.readouterr().out


@pytest.mark.parametrize("settings", [SAMPLE, RetrievalSettings("cluster", 4, 0, 100)])
def test_what_is_wanted_of_other_content_is_a_warning_with_figures(capsys, settings):
    some, other = frames(), -np.asarray(frames().embeddings[:5], np.float32)
    usual = some.calibration.quantile("another operation", 0.5)
    retrieve(some, other, settings, BALANCE)
    told = capsys.readouterr().out
    assert "nothing here is like what is wanted" in told
    assert f"different operations here {usual:.3f}" in told
    near = frames()
    retrieve(near, np.asarray(near.embeddings[::10], np.float32), settings, BALANCE)
    assert capsys.readouterr().out == ""
    assert 0 < len(near.left) <= 120


def test_one_operation_and_one_frame_are_curated_too():
    single = frames(operations=1)
    deduplicate(single, duplicates())
    rebalance(single, BALANCE, 10)
    assert len(single.left) == 10
    lone = frames(operations=1, each=1)
    with pytest.raises(SurgdinoError, match=r"no frames a second apart.*duplicates\.along"):
        deduplicate(lone, duplicates())
    deduplicate(lone, duplicates(along=0.9, across=0.9))
    retrieve(lone, np.asarray(lone.embeddings, np.float32), SAMPLE, BALANCE)
    rebalance(lone, BALANCE, 5)
    assert lone.left.tolist() == [0]


@pytest.mark.parametrize("given", [{}, {"along": 1.0, "across": 1.0}])
def test_of_frames_that_are_all_equal_one_stays(given):
    same = np.repeat(frames().embeddings[:1], 60, axis=0)
    of = np.repeat([0, 1, 2], 20)
    some = Frames(same, np.tile(np.arange(20.0), 3), of, of, seed=0)
    deduplicate(some, duplicates(**given))
    assert some.left.tolist() == [0]
    assert (some.group == 0).all()
    rebalance(some, BALANCE, 5)
    assert some.left.tolist() == [0]
    all_of_them = Frames(same, np.tile(np.arange(20.0), 3), of, of, seed=0)
    rebalance(all_of_them, BALANCE, 5)
    assert len(all_of_them.left) == 5
