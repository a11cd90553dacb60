"""The feature cache: what a backbone says, computed once, bound to what it depends on, whole or not there at all."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from surgdino.backbone.preprocess import Preprocess
from surgdino.backbone.vit import build_backbone
from surgdino.config import shipped, shipped_settings
from surgdino.datasets.card import load_card
from surgdino.datasets.open import open_dataset
from surgdino.engine import precision
from surgdino.engine.settings import HardwareSettings
from surgdino.errors import SurgdinoError
from surgdino.frames.store import FrameStore, StoreSettings, build_store
from surgdino.tasks.features import cache as features_module
from surgdino.tasks.features import elsewhere
from surgdino.tasks.features.cache import FeatureCache, weights_hash
from surgdino.tasks.features.elsewhere import Elsewhere
from surgdino.tasks.labelled_frames import LabelledFrames, labelled_frames

CPU = torch.device("cpu")
MODEL = shipped_settings("model", "vit_toy")


@pytest.fixture(scope="module")
def frames(synthetic_cholec80, tmp_path_factory) -> LabelledFrames:
    """4 videos of 24 frames, black ones among them; 32 a batch, so that batches span videos."""
    manifest = open_dataset(load_card("cholec80"), synthetic_cholec80)
    settings = StoreSettings.of(fps=2, short_side=64)
    store = build_store(manifest, tmp_path_factory.mktemp("store"), settings, workers=1, progress=False)
    return labelled_frames(manifest, store, "phase")


def cache_in(folder: Path, *, size: int = 32, seed: int = 0, **changes) -> FeatureCache:
    torch.manual_seed(seed)
    backbone = build_backbone(MODEL)
    preprocess = Preprocess(size, tuple(MODEL["mean"]), tuple(MODEL["std"]))
    return FeatureCache(folder, backbone, preprocess, partial(precision.autocast, CPU, torch.float32), **changes)


def files_in(folder: Path, suffix: str = ".npy") -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob(f"*{suffix}")}


@pytest.fixture(scope="module")
def extracted(frames, tmp_path_factory) -> tuple[FeatureCache, np.ndarray]:
    cache = cache_in(tmp_path_factory.mktemp("features"))
    return cache, cache.pooled(frames)


def test_features_are_those_of_the_backbone_frame_by_frame(frames, extracted):
    cache, pooled = extracted
    assert pooled.shape == (len(frames), 128)
    assert pooled.dtype == np.float32
    for i in (0, 31, 32, len(frames) - 1):  # at the borders of batches and videos
        with torch.no_grad():
            found = cache.backbone(cache.preprocess(frames.store.read(int(frames.index[i]))))
        assert np.allclose(pooled[i, :64], found.cls[0], atol=1e-5), i
        assert np.allclose(pooled[i, 64:], found.patches[0].mean(0), atol=1e-5), i
    assert np.array_equal(cache.cls(frames), pooled[:, :64])


def test_a_device_with_too_little_memory_is_one_line(frames, tmp_path, monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    cache = cache_in(tmp_path)
    monkeypatch.setattr(cache.backbone, "forward", fail)
    with pytest.raises(SurgdinoError, match=r"features: .*room for 32 pictures of 32 px.* 2.00 GiB more. End other"):
        cache.pooled(frames)


def test_a_second_call_computes_nothing(frames, extracted, monkeypatch):
    cache, pooled = extracted
    monkeypatch.setattr(features_module, "load", lambda *_, **__: pytest.fail("frames were read"))
    assert np.array_equal(cache.pooled(frames), pooled)
    part = frames.of_videos(frames.videos[2:0:-1])
    assert np.array_equal(cache.pooled(part), np.concatenate([pooled[frames.span(k)] for k in (2, 1)]))


@pytest.mark.parametrize("workers", [0, 2])
def test_features_do_not_depend_on_workers_or_on_the_other_videos(frames, extracted, tmp_path, workers):
    cache = cache_in(tmp_path, workers=workers)
    for place in (3, 1):  # one by one, and in another order
        alone = cache.pooled(frames.of_videos([frames.videos[place]]))
        assert np.array_equal(alone, extracted[1][frames.span(place)])


def test_only_labelled_frames_are_given_and_all_are_kept(frames, extracted):
    """Another split, another task, fewer labels: the same files."""
    cache, pooled = extracted
    odd = replace(
        frames,
        index=frames.index[1::2],
        numbers=frames.numbers[1::2],
        times=frames.times[1::2],
        starts=np.cumsum([0, *(len(range(*frames.span(k).indices(len(frames)))) // 2 for k in range(4))]),
    )
    before = files_in(cache.folder)
    assert np.array_equal(cache.pooled(odd), pooled[1::2])
    assert files_in(cache.folder) == before


class KilledError(Exception):
    """What a kill looks like to a test."""


def test_an_interrupted_extraction_keeps_the_finished_videos_and_goes_on(frames, extracted, tmp_path, monkeypatch):
    read, count = FrameStore.read, iter(range(1000))

    def killed(self, index: int) -> np.ndarray:
        if next(count) == 64:
            raise KilledError
        return read(self, index)

    with monkeypatch.context() as patched:
        patched.setattr(FrameStore, "read", killed)
        with pytest.raises(KilledError):
            cache_in(tmp_path).pooled(frames)
    finished = files_in(tmp_path)
    assert len(finished) == 2  # of 24 frames each
    assert not files_in(tmp_path, ".tmp")
    assert np.array_equal(cache_in(tmp_path).pooled(frames), extracted[1])
    assert files_in(tmp_path).items() >= finished.items()


def test_a_file_that_is_cut_short_is_computed_again(frames, extracted, tmp_path):
    cache_in(tmp_path).pooled(frames)
    broken = sorted(tmp_path.rglob("*.npy"))[1]
    broken.write_bytes(broken.read_bytes()[:-100])
    leftover = broken.with_name(f".{broken.name}.123.tmp")
    leftover.write_bytes(b"half")
    assert np.array_equal(cache_in(tmp_path).pooled(frames), extracted[1])
    assert not leftover.exists()


def test_features_of_other_weights_size_or_precision_are_others(frames, tmp_path):
    here = frames.of_videos(frames.videos[:1])
    changes: list[dict] = [{}, {"seed": 1}, {"size": 64}, {"precision": "bfloat16"}]
    found = [cache_in(tmp_path, **change).pooled(here) for change in changes]
    assert len(list(tmp_path.rglob("*.npy"))) == len(list(tmp_path.rglob("identity.json"))) == len(changes)
    assert not any(np.allclose(found[0], other, atol=1e-3) for other in found[1:3])


def test_a_backbone_that_was_trained_meanwhile_is_another(frames, tmp_path):
    cache = cache_in(tmp_path)
    here = frames.of_videos(frames.videos[:1])
    before, hashed = cache.cls(here), weights_hash(cache.backbone.vit.state_dict())
    with torch.no_grad():
        cache.backbone.vit.norm.weight.mul_(2)
    assert weights_hash(cache.backbone.vit.state_dict()) != hashed
    assert not np.allclose(cache.cls(here), before)


def test_a_shard_that_was_built_again_takes_its_old_features_along(frames, synthetic_cholec80, tmp_path):
    manifest = open_dataset(load_card("cholec80"), synthetic_cholec80)
    cache = cache_in(tmp_path / "features")
    for fps in (2, 3):  # the same folder name for the shard, other frames in it
        settings = StoreSettings.of(fps=fps, short_side=64)
        store = build_store(manifest, tmp_path / f"store{fps}", settings, workers=1, progress=False)
        assert len(cache.cls(labelled_frames(manifest, store, "phase"))) == 4 * 12 * fps
        assert len(list(tmp_path.rglob("*.npy"))) == 4


def test_patches_lie_beside_each_other_in_half_precision_and_are_read_by_row(frames, tmp_path):
    cache = cache_in(tmp_path)
    here = frames.of_videos(frames.videos[:2])
    rows = cache.patches(here, (0, -1))
    assert rows.shape == (48, 16, 128)
    assert rows.dtype == np.float16
    assert len(rows) == 48
    pixels = cache.preprocess(frames.store.read(int(here.index[30])))
    with torch.no_grad():
        first, last = cache.backbone.intermediate(pixels, (0, -1))
        assert torch.allclose(last.patches, cache.backbone(pixels).patches, atol=1e-6)
        whole, parts = cache.backbone.forward_through(pixels, (0, -1))
        assert torch.equal(parts[1].patches, cache.backbone(pixels).patches)
        assert torch.equal(parts[1].patches, whole.patches)
        assert torch.allclose(parts[0].patches, first.patches, atol=1e-6)
    expected = torch.cat([first.patches, last.patches], 2)[0].numpy()
    assert np.allclose(rows[30], expected, atol=1e-2)
    chosen = rows[np.array([47, 0, 30, 30])]
    assert np.array_equal(chosen[2], rows[30])
    assert np.array_equal(chosen[2], chosen[3])
    assert np.array_equal(rows[28:33][2], rows[30])
    assert np.array_equal(rows[-1], chosen[0])
    assert np.array_equal(cache.patches(here, (1, 0))[30], np.roll(rows[30], 64, axis=1))
    assert len(list(tmp_path.rglob("patches-*"))) == 2


@pytest.mark.parametrize("layers", [(-1,), (0,), (0, -1)])
def test_any_blocks_patches_bring_the_class_tokens_along_bit_for_bit(layers, frames, extracted, tmp_path, monkeypatch):
    cache = cache_in(tmp_path)
    cache.patches(frames, layers)
    monkeypatch.setattr(features_module, "load", lambda *_, **__: pytest.fail("frames were read"))
    assert np.array_equal(cache.pooled(frames), extracted[1])


def test_a_stream_gives_the_same_and_keeps_nothing(frames, extracted, tmp_path):
    cache = cache_in(tmp_path)
    found = [(part.rows, torch.cat([part.cls, part.mean], 1)) for part in cache.stream(frames)]
    assert found[0][0] == slice(0, 32)
    assert found[-1][0].stop == len(frames)
    assert np.array_equal(torch.cat([features for _, features in found]), extracted[1])
    assert not files_in(tmp_path)


def test_features_that_do_not_fit_on_the_disk_are_refused_before_any_is_computed(frames, tmp_path, monkeypatch):
    monkeypatch.setattr(features_module.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(SurgdinoError, match="do not fit on the disk"):
        cache_in(tmp_path).patches(frames)


def test_a_damaged_frame_ends_the_extraction_in_one_line(frames, tmp_path, monkeypatch):
    def refuse(self, index):
        raise SurgdinoError("the shard is damaged", file="x.zip")

    monkeypatch.setattr(FrameStore, "read", refuse)
    with pytest.raises(SurgdinoError, match=r"x\.zip: the shard is damaged"):
        cache_in(tmp_path).pooled(frames)


def test_no_such_block_is_said(frames, tmp_path):
    with pytest.raises(SurgdinoError, match="no such block"):
        build_backbone(MODEL).intermediate(torch.zeros(1, 3, 32, 32), (5,))


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [1, 40])  # a video at a time, and two together
def test_workers_elsewhere_write_the_same_files_and_only_those_that_are_missing(frames, tmp_path, monkeypatch, at_once):
    distributed = pytest.importorskip("distributed", reason="the extra surgdino[dask] is not installed")
    monkeypatch.setattr(elsewhere, "_AT_ONCE", at_once)
    hardware = shipped(HardwareSettings, "hardware/auto", device="cpu", precision="fp32")
    here = cache_in(tmp_path / "here")
    alone = {"processes": False, "protocol": "tcp://", "dashboard_address": None, "silence_logs": 50}
    with distributed.LocalCluster(n_workers=1, threads_per_worker=2, **alone) as cluster:
        there = replace(here, folder=tmp_path / "there", elsewhere=Elsewhere(cluster.scheduler_address, hardware))
        for layers in ((0,), (-1,)):
            assert np.array_equal(there.patches(frames, layers)[:], here.patches(frames, layers)[:])
        assert np.array_equal(there.pooled(frames), here.pooled(frames))
        pooled = there.identified() / "pooled"
        before = files_in(pooled)
        assert set(before) == set(files_in(here.identified() / "pooled"))
        lost = next(pooled.iterdir())
        lost.unlink()
        assert np.array_equal(there.pooled(frames), here.pooled(frames))
        assert {name for name, time in files_in(pooled).items() if before[name] != time} == {lost.name}
