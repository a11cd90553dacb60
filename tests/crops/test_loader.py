"""The same seed gives the same batches: for any number of workers, of processes, and after a resume."""

from __future__ import annotations

import pickle
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from surgdino.config import shipped, shipped_settings
from surgdino.crops.loader import Batch, make_loader
from surgdino.crops.multicrop import MultiCrop
from surgdino.crops.sampler import FrameSampler, order
from surgdino.crops.settings import CropSettings
from surgdino.errors import SurgdinoError
from surgdino.frames.content import Content

SMALL = shipped(CropSettings, "crops", global_size=32, local_size=16, local_count=3)


@dataclass
class FakeStore:
    """What the loader needs of a frame store: its length, a frame, its content."""

    length: int = 10
    damaged: int | None = None

    def __len__(self) -> int:
        return self.length

    def read(self, index: int) -> np.ndarray:
        if index == self.damaged:
            raise SurgdinoError(
                "the shard is damaged", file="video07.zip", place=f"frame {index}", fix="rebuild the store"
            )
        image = np.random.default_rng(index).integers(60, 200, (64, 80, 3), dtype=np.uint8)
        image[:, :, 0] |= 64
        return image

    def content(self, index: int) -> Content:
        return Content.disc(40.0, 32.0, 36.0, 64, 80)

    def near(self, index: int, seconds: float) -> range:
        """A frame a second in videos of four frames each, the last one shorter."""
        video = range(index // 4 * 4, min(index // 4 * 4 + 4, self.length))
        return range(max(video.start, index - int(seconds)), min(video.stop, index + int(seconds) + 1))


PAIRS = replace(SMALL, pair_seconds=2.0)


def batches(workers: int = 0, rank: int = 0, world: int = 1, start_step: int = 0, **changes: object) -> list[Batch]:
    words = {
        "batch_size": 4,
        "seed": 11,
        "steps": 5,
        "patch_size": 8,
        "mask_probability": 0.5,
        "mask_ratio": (0.1, 0.5),
        **changes,
    }
    store, crops = words.pop("store", FakeStore()), words.pop("crops", SMALL)
    return list(
        make_loader(
            store,
            crops,
            shipped_settings("augment", "surgical"),
            workers=workers,
            rank=rank,
            world=world,
            start_step=start_step,
            **words,
        )
    )


def assert_equal(one: Batch, other: Batch) -> None:
    assert one.step == other.step
    for name in ("index", "second", "masks", "global_crops", "local_crops"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name


@pytest.fixture(scope="module", params=[SMALL, PAIRS], ids=["one frame", "pairs"])
def crops(request: pytest.FixtureRequest) -> CropSettings:
    return request.param


@pytest.fixture(scope="module")
def in_process(crops: CropSettings) -> list[Batch]:
    return batches(workers=0, crops=crops)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [2, 4])
def test_bit_for_bit_the_same_for_any_number_of_workers(
    workers: int, crops: CropSettings, in_process: list[Batch]
) -> None:
    parallel = batches(workers=workers, crops=crops)
    assert len(parallel) == len(in_process) == 5
    for one, other in zip(in_process, parallel, strict=True):
        assert_equal(one, other)


@pytest.mark.parametrize("world", [2, 4])
def test_the_processes_shares_make_up_the_same_step(world: int, crops: CropSettings, in_process: list[Batch]) -> None:
    shares = [batches(rank=rank, world=world, crops=crops) for rank in range(world)]
    for step, whole in enumerate(in_process):
        for name in ("global_crops", "local_crops", "masks"):
            parts = [getattr(share[step], name) for share in shares]
            views = len(getattr(whole, name)) // 4
            joined = torch.cat([part.unflatten(0, (views, -1)) for part in parts], dim=1).flatten(0, 1)
            assert torch.equal(joined, getattr(whole, name)), name
        for name in ("index", "second"):
            assert torch.equal(torch.cat([getattr(share[step], name) for share in shares]), getattr(whole, name))


MIXED = shipped(
    CropSettings,
    "crops",
    local_count=2,
    sizes=[
        {"global_size": 32, "local_size": 16, "share": 0.5},
        {"global_size": 64, "local_size": 16, "share": 0.3},
        {"global_size": 64, "local_size": 32, "share": 0.2},
    ],
)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_mixed_sizes_are_a_steps_own_for_any_workers_processes_and_after_a_resume() -> None:
    whole = batches(crops=MIXED, steps=12, clean=1)
    for other in (batches(2, crops=MIXED, steps=12), batches(crops=MIXED, steps=12, start_step=5)):
        for one, again in zip(whole[-len(other) :], other, strict=True):
            assert_equal(one, again)
    share = batches(crops=MIXED, steps=12, rank=1, world=2)
    for one, part in zip(whole, share, strict=True):
        assert torch.equal(one.global_crops.unflatten(0, (2, -1))[:, 2:].flatten(0, 1), part.global_crops)
        assert one.masks.shape[1] == (one.global_crops.shape[-1] // 8) ** 2
        assert one.clean.shape == one.global_crops.shape
    assert len({(batch.global_crops.shape[-1], batch.local_crops.shape[-1]) for batch in whole}) == 3


def test_sizes_are_drawn_by_their_shares() -> None:
    tiny = replace(MIXED, local_count=0, sizes=[replace(s, global_size=8 * k) for k, s in enumerate(MIXED.sizes, 1)])
    drawn = Counter(b.global_crops.shape[-1] for b in batches(crops=tiny, steps=400, batch_size=1, store=FakeStore(1)))
    assert [drawn[8 * k] / 400 for k in (1, 2, 3)] == pytest.approx([0.5, 0.3, 0.2], abs=0.08)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ([], "crops.sizes"),
        ([{"global_size": 32, "local_size": 16, "share": 0.4}], "add up to 1, found 0.4"),
        (
            [{"global_size": 32, "share": 1}],
            "expected a list, each entry {global_size: ..., local_size: ..., share: ...}",
        ),
        ([{"global_size": 32, "local_size": 16, "share": 0}], "crops.sizes[0].share"),
        ([{"global_size": 36, "local_size": 16, "share": 1}], "crops.sizes[0].global_size: crops do not divide"),
    ],
)
def test_sizes_that_cannot_be_are_one_line(sizes, words) -> None:
    with pytest.raises(SurgdinoError) as fault:
        batches(crops=shipped(CropSettings, "crops", sizes=sizes))
    assert words in str(fault.value)


def test_resuming_goes_on_where_it_stopped(crops: CropSettings, in_process: list[Batch]) -> None:
    resumed = batches(start_step=3, crops=crops)
    assert [batch.step for batch in resumed] == [3, 4]
    for one, other in zip(in_process[3:], resumed, strict=True):
        assert_equal(one, other)


def test_a_finished_run_asks_for_nothing() -> None:
    assert batches(start_step=5) == []


def test_shapes_types_and_view_major_order(in_process: list[Batch]) -> None:
    batch = in_process[0]
    assert batch.global_crops.shape == (8, 3, 32, 32)
    assert batch.local_crops.shape == (12, 3, 16, 16)
    assert batch.global_crops.dtype == batch.local_crops.dtype == torch.uint8
    assert batch.masks.shape == (8, 16)
    assert batch.masks.dtype == torch.bool
    assert batch.index.dtype == torch.int64
    assert batch.masks.any(dim=1).sum() <= 4  # half of the views; a 4 x 4 grid has no room for the smallest shares


def test_another_seed_gives_other_crops(in_process: list[Batch]) -> None:
    other = batches(seed=12)
    assert [b.index.tolist() for b in in_process] == [b.second.tolist() for b in batches()]
    assert not torch.equal(in_process[0].global_crops, other[0].global_crops)
    assert [b.index.tolist() for b in in_process] != [b.index.tolist() for b in other]


def test_the_same_frame_is_cut_differently_each_time_it_comes() -> None:
    one = batches(store=FakeStore(1), batch_size=2, steps=1)[0]
    assert one.index.tolist() == [0, 0]
    assert not torch.equal(one.global_crops[0], one.global_crops[1])


def test_each_epoch_shows_every_frame_once_also_across_batches() -> None:
    shown = [i for plan in FrameSampler(10, 4, seed=3, start_step=0, steps=25) for i in plan.indices]
    for epoch in range(10):
        assert sorted(shown[10 * epoch : 10 * epoch + 10]) == list(range(10))
    assert shown[:10] != shown[10:20]
    assert Counter(shown) == dict.fromkeys(range(10), 10)


def test_order_is_a_pure_function_of_seed_and_position() -> None:
    assert order(7, 5, 12, seed=1) == [order(7, place, 1, seed=1)[0] for place in range(5, 17)]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_frame_is_one_clear_error_from_any_process(workers: int) -> None:
    with pytest.raises(SurgdinoError, match=r"^video07\.zip, frame 4: the shard is damaged\. Rebuild the store\.$"):
        batches(workers=workers, store=FakeStore(10, damaged=4))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"patch_size": 5}, "crops.global_size"),
        ({"batch_size": 3, "world": 2}, "a multiple of the 2 processes"),
        ({"batch_size": 0}, "train.batch_size"),
        ({"store": FakeStore(0)}, "no usable frame"),
    ],
)
def test_what_cannot_work_is_said_before_the_first_batch(change: dict, says: str) -> None:
    with pytest.raises(SurgdinoError, match=says):
        batches(**change)


@pytest.mark.parametrize(
    "wrong",
    [
        {"global_size": 0},
        {"local_count": -1},
        {"global_scale": (0.9, 0.1)},
        {"local_scale": (0.0, 0.4)},
        {"ratio": (0.0, 1.0)},
        {"pair_seconds": 0.0},
    ],
)
def test_unusable_crop_settings_are_named(wrong: dict) -> None:
    with pytest.raises(SurgdinoError, match=rf"crops\.{next(iter(wrong))}"):
        shipped(CropSettings, "crops", **wrong)


@pytest.mark.slow
def test_pairs_are_near_frames_of_one_video_and_all_of_them_come() -> None:
    store = FakeStore()
    drawn: set[tuple[int, int]] = set()
    for batch in batches(crops=PAIRS, steps=250):
        drawn |= set(zip(batch.index.tolist(), batch.second.tolist(), strict=True))
    assert drawn == {(i, j) for i in range(len(store)) for j in store.near(i, 2.0) if j != i}


def test_a_frame_without_a_neighbour_is_its_own_pair() -> None:
    alone, as_ever = (batches(store=FakeStore(1), batch_size=2, steps=2, crops=c) for c in (PAIRS, SMALL))
    for one, other in zip(alone, as_ever, strict=True):
        assert one.second.tolist() == one.index.tolist()
        assert_equal(one, other)


def test_the_second_global_view_and_the_last_half_of_the_locals_show_the_second_frame() -> None:
    plain = MultiCrop(replace(SMALL, local_count=5), {"transforms": {}})
    dark, light = np.full((64, 80, 3), 10, np.uint8), np.full((64, 80, 3), 240, np.uint8)
    content = Content.full(64, 80)
    global_crops, local_crops = plain(dark, content, 3, (light, content))
    assert [int(crop.max()) for crop in global_crops] == [10, 240]
    assert [int(crop.max()) for crop in local_crops] == [10, 10, 10, 240, 240]


def test_pairs_leave_the_boxes_and_the_augmentation_of_the_first_frame_as_they_are() -> None:
    multicrop, store = MultiCrop(SMALL, shipped_settings("augment", "surgical")), FakeStore()
    alone, paired = (
        multicrop(store.read(1), store.content(1), 5, second) for second in (None, (store.read(2), store.content(2)))
    )
    assert np.array_equal(alone[0][0], paired[0][0])
    assert not np.array_equal(alone[0][1], paired[0][1])


def test_no_local_crops_is_allowed() -> None:
    multicrop = MultiCrop(
        shipped(CropSettings, "crops", global_size=32, local_count=0), shipped_settings("augment", "none")
    )
    store = FakeStore()
    global_crops, local_crops = multicrop(store.read(0), store.content(0), 0)
    assert global_crops.shape == (2, 3, 32, 32)
    assert local_crops.shape == (0, 3, 96, 96)


def test_crops_without_augmentation_are_the_resized_box() -> None:
    store = FakeStore()
    image, content = store.read(0), Content.full(64, 80)
    whole = shipped(CropSettings, "crops", global_size=64, local_count=0, global_scale=(1.0, 1.0), ratio=(1.25, 1.25))
    global_crops, _ = MultiCrop(whole, {"transforms": {}})(image, content, 0)
    ramp = np.tile(np.arange(80, dtype=np.uint8)[None, :, None] * 3, (64, 1, 3))
    ramped, _ = MultiCrop(whole, {"transforms": {}})(ramp, content, 0)
    assert np.array_equal(global_crops[0], global_crops[1])
    assert (np.diff(ramped[0, 0, 0].astype(int)) >= 0).all()  # not mirrored, not transposed
    assert np.ptp(ramped[0, 0, :, 10]) == 0


def test_a_crop_far_larger_than_its_target_is_not_aliased() -> None:
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 255
    settings = shipped(CropSettings, "crops", global_size=32, local_count=0, global_scale=(1.0, 1.0), ratio=(1.0, 1.0))
    crops, _ = MultiCrop(settings, {"transforms": {}})(stripes, Content.full(512, 512), 0)
    assert abs(int(crops.max()) - int(crops.min())) < 8


def test_the_real_store_feeds_the_loader(tmp_path: Path, synthetic_cholec80: Path) -> None:
    from surgdino.datasets.card import load_card
    from surgdino.datasets.open import open_dataset
    from surgdino.frames.store import StoreSettings, build_store

    manifest = open_dataset(load_card("cholec80"), synthetic_cholec80)
    store = build_store(manifest, tmp_path / "store", StoreSettings.of(short_side=64), workers=1, progress=False)
    one, other = (batches(workers=workers, store=store, steps=2) for workers in (0, 2))
    for a, b in zip(one, other, strict=True):
        assert_equal(a, b)
    assert one[0].global_crops.float().mean() > 20


def test_multicrop_survives_pickling_as_spawned_workers_need() -> None:
    multicrop, store = MultiCrop(SMALL, shipped_settings("augment", "surgical")), FakeStore()
    again = pickle.loads(pickle.dumps(multicrop))
    for seed in range(5):
        one, other = (m(store.read(1), store.content(1), seed) for m in (multicrop, again))
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
