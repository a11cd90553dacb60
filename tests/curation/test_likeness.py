"""Duplicates, clusters and retrieval, on embeddings whose truth is known."""

from __future__ import annotations

import faiss
import numpy as np
import pytest

from surgdino.array_files import map_array
from surgdino.curation import clusters, embeddings, groups, neighbours, retrieval
from surgdino.curation.clusters import Level, assign, clustered, entropy, hierarchy, kmeans, levels_for, medoids
from surgdino.curation.duplicates import along_time, calibrate, nearest_of
from surgdino.curation.embeddings import unit, write_unit
from surgdino.curation.groups import across
from surgdino.curation.neighbours import nearest
from surgdino.curation.pieces import HERE, Searchers
from surgdino.curation.semdedup import semdedup
from surgdino.errors import SurgdinoError


def scattered(n: int, width: int = 32, seed: int = 0) -> np.ndarray:
    return unit(np.random.default_rng(seed).normal(size=(n, width)))


def near(rows: np.ndarray, noise: float, seed: int) -> np.ndarray:
    """The same directions, turned a little."""
    return unit(rows + noise * np.random.default_rng(seed).normal(size=rows.shape))


def test_embeddings_are_unit_vectors_on_disk(tmp_path):
    rows = np.random.default_rng(0).normal(size=(100, 8)).astype(np.float32)
    mapped = write_unit(tmp_path / "e.npy", iter([rows[:30], rows[30:]]), 100, 8)
    assert mapped.dtype == np.float16
    assert np.allclose(mapped, rows / np.linalg.norm(rows, axis=1, keepdims=True), atol=1e-3)
    assert np.array_equal(mapped, map_array(tmp_path / "e.npy"))
    with pytest.raises(SurgdinoError, match=r"without a direction.*1 of 2 rows"):
        unit(np.array([[0.0, 0.0], [1.0, 0.0]]))


def test_neighbours_are_those_of_all_products_also_through_cells_and_in_shards(monkeypatch):
    rows, queries = scattered(3000), scattered(20, seed=1)
    truth = np.argsort(-queries @ rows.T, axis=1)[:, :5]
    found = nearest(rows, queries, 5)
    assert np.array_equal(found.rows, truth)
    assert np.allclose(found.cosines, np.take_along_axis(queries @ rows.T, truth, 1), atol=1e-5)
    some = np.arange(0, 3000, 2)
    among = nearest(rows, queries, 5, rows=some)
    assert np.array_equal(among.rows, some[np.argsort(-queries @ rows[some].T, axis=1)[:, :5]])
    assert nearest(rows[:3], queries, 5).rows[:, 3:].tolist() == [[-1, -1]] * 20
    fast = nearest(rows, rows[:200], 1, exact=100)
    assert np.mean(fast.rows[:, 0] == np.arange(200)) > 0.98
    monkeypatch.setattr(neighbours, "BLOCK", 700)
    monkeypatch.setattr(neighbours, "_SHARD", 700)
    assert np.array_equal(nearest(rows, queries, 5).rows, truth)
    fast = nearest(rows, rows[:200], 1, exact=100)
    assert np.mean(fast.rows[:, 0] == np.arange(200)) > 0.98
    assert np.array_equal(fast.rows, nearest(rows, rows[:200], 1, exact=100).rows)


def test_along_time_a_frame_stays_until_one_is_as_near():
    scenes = scattered(5)
    rows = near(np.repeat(scenes, 10, axis=0), 0.02, 1)  # five scenes of ten frames
    rows = np.concatenate([rows, rows])  # and a second operation with the same
    operations = np.repeat([0, 1], 50)
    stands_for = along_time(rows, np.arange(100), operations, 0.9)
    assert np.unique(stands_for).tolist() == [0, 10, 20, 30, 40, 50, 60, 70, 80, 90]
    assert (stands_for <= np.arange(100)).all()
    assert np.array_equal(operations[stands_for], operations)
    mixed = np.argsort(np.random.default_rng(0).random(100), kind="stable")  # operations need not be together
    again = along_time(rows[mixed], np.arange(100), operations[mixed], 0.9)
    assert len(np.unique(again)) == 10


def test_across_operations_copies_meet_and_others_do_not():
    originals = scattered(300)
    copies = near(originals[:100], 0.01, 2)
    rows = np.concatenate([originals, copies])
    groups = across(rows, np.arange(400), 0.95, seed=0)
    assert np.array_equal(groups[300:], groups[:100])
    assert len(np.unique(groups)) == 300
    assert (nearest_of(rows[:100], copies, 0) > 0.95).all()
    assert (nearest_of(rows[100:300], copies, 0) < 0.95).all()


def partners(of: np.ndarray) -> np.ndarray:
    """The first of each group, for every member: whatever the groups' numbers."""
    return np.unique(of, return_index=True)[1][of]


@pytest.mark.parametrize("threshold", [0.8, 0.9, 0.97])
def test_groups_through_cells_are_those_of_all_products(monkeypatch, threshold):
    monkeypatch.setattr(groups, "_AT_ONCE", 64)
    scenes = np.repeat(scattered(12, seed=1), 100, axis=0)
    rows = near(np.concatenate([near(scenes[::2], 0.06, 2)] * 2), 0.02, 3).astype(np.float16)
    chosen = np.sort(np.random.default_rng(0).choice(1200, 900, replace=False))
    vectors = embeddings.at(rows, chosen)
    cosines = vectors @ vectors.T
    edges = np.argwhere(cosines >= threshold)
    truth = partners(groups._components(edges, 900))
    found = partners(across(rows, chosen, threshold, seed=0))
    assert np.array_equal(found, truth)
    assert 1 < len(np.unique(truth)) < 900
    monkeypatch.setattr(groups, "_VISITED", 3)
    assert np.mean(partners(across(rows, chosen, threshold, seed=0, exact=0)) == truth) > 0.9


@pytest.mark.slow
def test_searches_by_workers_elsewhere_find_the_same_bits(tmp_path, monkeypatch):
    """Their workers are threads of this process, to be quick; what was begun and left by a killed run does no harm."""
    distributed = pytest.importorskip("distributed", reason="the extra surgdino[dask] is not installed")
    monkeypatch.setattr(groups, "_AT_ONCE", 64)
    monkeypatch.setattr(groups, "_CELLS", 10)
    monkeypatch.setattr(neighbours, "BLOCK", 300)
    monkeypatch.setattr(neighbours, "_SHARD", 500)
    rows = near(np.repeat(scattered(100, seed=1), 12, axis=0), 0.1, 2)
    mapped, some = write_unit(tmp_path / "e.npy", iter([rows]), len(rows), 32), np.arange(0, 1200, 2)

    def found(searchers: Searchers) -> list[np.ndarray]:
        exact, inverted = (nearest(mapped, rows[:20], 3, rows=some, exact=n, searchers=searchers) for n in (9999, 9))
        alike = nearest_of(mapped, rows[:50], 0, searchers)
        return [across(mapped, some, 0.9, 0, searchers=searchers), exact.rows, inverted.rows, exact.cosines, alike]

    alone = {"processes": False, "protocol": "tcp://", "dashboard_address": None, "silence_logs": 50}
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "found-0.npz").write_bytes(b"half")
    with distributed.LocalCluster(n_workers=1, threads_per_worker=2, **alone) as cluster:
        elsewhere = found(Searchers(cluster.scheduler_address, 2, tmp_path))
    assert all(np.array_equal(a, b) for a, b in zip(found(HERE), elsewhere, strict=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e.npy"]


@pytest.mark.parametrize("count", [1, 2, 500])
def test_frames_that_are_all_equal_are_one_group(monkeypatch, count):
    monkeypatch.setattr(groups, "_AT_ONCE", 64)
    rows = np.repeat(scattered(1, width=4), count, axis=0)
    assert across(rows, np.arange(count), 0.99, seed=0).tolist() == [0] * count
    assert len(np.unique(along_time(rows, np.arange(count), np.zeros(count, int), 0.99))) == 1
    fine, *_ = hierarchy(rows[:50], [4, 2], seed=0)
    assert len(np.unique(fine.of)) >= 1


@pytest.mark.slow
def test_the_number_of_threads_changes_nothing(monkeypatch):
    monkeypatch.setattr(clusters, "_DIRECT", 20)
    rows = near(np.repeat(scattered(40, seed=1), 25, axis=0), 0.1, 2)
    found = []
    for threads in (1, 2):
        before = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(threads)
        try:
            level, groups_of = clustered(rows, 60, 0, resamplings=2), across(rows, np.arange(1000), 0.9, 0)
            found.append((level.of, level.centroids, groups_of, nearest(rows, rows[:50], 5, exact=10).rows))
        finally:
            faiss.omp_set_num_threads(before)
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("order", ["hard", "easy", "random"])
def test_semdedup_keeps_one_of_each_group(order):
    originals = scattered(200)
    rows = np.concatenate([originals, near(originals[:80], 0.01, 3)])
    centroids = kmeans(rows, 5, seed=0)
    out = semdedup(rows, np.arange(280), Level(assign(rows, centroids)[0], centroids), 0.95, order, seed=0)
    assert len(out) == 80
    assert len({int(row) % 200 if row >= 200 else int(row) for row in out}) == 80  # one of each pair


def test_thresholds_can_be_read_from_pairs_a_second_apart():
    walk = np.cumsum(np.random.default_rng(0).normal(size=(600, 16)) * 0.1, axis=0) + 3
    rows = unit(np.concatenate([walk, walk[::-1] * [-1] + 1]))
    times, operations = np.tile(np.arange(600.0), 2), np.repeat([0, 1], 600)
    found = calibrate(rows, times, operations, operations, seed=0)
    medians = [found.quantile(name, 0.5) for name in ("1 s", "5 s", "30 s", "another operation")]
    assert medians == sorted(medians, reverse=True)
    sparse = calibrate(rows, times * 10, operations, operations, seed=0)
    assert np.isnan(sparse.quantile("1 s", 0.5))


def test_the_hierarchy_spreads_its_clusters_over_the_content_and_not_over_the_frames():
    centres = scattered(20, seed=5)
    counts = [2000] + [50] * 19  # one scene is shown forty times as long as any other
    rows = near(np.repeat(centres, counts, axis=0), 0.08, 6)
    scene = np.repeat(np.arange(20), counts)
    fine, coarse = hierarchy(rows, [60, 20], seed=0)
    assert (len(fine.centroids), len(coarse.centroids)) == (60, 20)
    nested = {int(cluster): set(coarse.of[fine.of == cluster].tolist()) for cluster in np.unique(fine.of)}
    assert all(len(parents) == 1 for parents in nested.values())
    flat = np.unique(assign(rows, kmeans(rows, 60, seed=0))[0][scene == 0])
    assert len(np.unique(fine.of[scene == 0])) < len(flat) / 2
    assert len(np.unique(coarse.of)) > 15
    assert np.array_equal(coarse.of, hierarchy(rows, [60, 20], seed=0)[1].of)
    middle = medoids(rows, coarse)
    there = middle >= 0
    assert np.array_equal(coarse.of[middle[there]], np.flatnonzero(there))


def test_many_clusters_are_split_off_coarse_ones_and_are_nearly_as_good(monkeypatch):
    rows = near(np.repeat(scattered(50, seed=5), 80, axis=0), 0.1, 6)
    flat = clustered(rows, 120, 0)
    monkeypatch.setattr(clusters, "_DIRECT", 40)
    split = clustered(rows, 120, 0, np.arange(0, 4000, 2))
    assert len(split.of) == 4000
    assert len(split.centroids) == 120
    assert np.array_equal(split.of, clustered(rows, 120, 0, np.arange(0, 4000, 2)).of)
    apart = [clusters.distances_within(rows, level).mean() for level in (flat, split)]
    assert apart[1] < 1.1 * apart[0]
    few = clustered(rows, 3000, 0, np.arange(100))  # no more than a cluster for two frames
    assert len(few.centroids) <= 100


def test_levels_follow_the_number_of_frames():
    assert levels_for(50) == [4]
    assert levels_for(10_000) == [400]
    assert levels_for(1_000_000) == [4000, 500, 62]


def test_entropy_is_a_share():
    assert entropy(np.array([0, 1, 2, 3]), 4) == pytest.approx(1)
    assert entropy(np.zeros(5, int), 4) == 0
    assert entropy(np.array([0, 0, 0, 1]), 2, np.array([1.0, 1, 1, 3])) == pytest.approx(1)


def test_retrieval_finds_what_is_wanted():
    centres = scattered(10, seed=7)
    rows = near(np.repeat(centres, 40, axis=0), 0.03, 8)
    wanted = near(np.repeat(centres[:2], 5, axis=0), 0.03, 9)
    some = retrieval.by_sample(rows, np.arange(400), wanted, 4, seed=0)
    assert set((some // 40).tolist()) == {0, 1}
    assert 8 <= len(some) <= 40
    centroids = kmeans(rows, 10, seed=0)
    level = Level(assign(rows, centroids)[0], centroids)
    many = retrieval.by_cluster(level, np.arange(400), wanted, 3, 15, seed=0)
    assert {0, 1} <= set((many // 40).tolist())
    assert set(level.of[many].tolist()) <= set(assign(wanted, centroids)[0].tolist())
    assert np.bincount(level.of[many]).max() <= 15
    assert len(retrieval.by_cluster(level, np.arange(400), wanted, 99, 15, seed=0)) == 0
