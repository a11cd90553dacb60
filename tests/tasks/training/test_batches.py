"""Batches: a pure function of seed and step, the same for any workers and processes; masks stay on their picture."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from surgdino.backbone.vit import build_backbone
from surgdino.config import shipped, shipped_settings
from surgdino.crops.sampler import FrameSampler
from surgdino.datasets.card import load_card
from surgdino.datasets.manifest import Labels, SecondLabels
from surgdino.datasets.open import open_dataset
from surgdino.errors import SurgdinoError
from surgdino.frames.content import Content
from surgdino.frames.store import StoreSettings, build_store
from surgdino.tasks.labelled_frames import every_frame, labelled_frames, labels_of
from surgdino.tasks.settings import HeadTraining
from surgdino.tasks.training.batches import FrameFeatures, FrameImages, TrainingData, WholeVideos
from surgdino.tasks.training.cut import Cut, Cutter
from surgdino.tasks.training.tuning import backbone_groups, select
from tests.datasets.mask_sets import write_pairs


@pytest.fixture(scope="module")
def set_of(synthetic_cholec80, tmp_path_factory):
    manifest = open_dataset(load_card("cholec80"), synthetic_cholec80)
    folder = tmp_path_factory.mktemp("store")
    store = build_store(manifest, folder, StoreSettings.of(fps=2, short_side=64), workers=1, progress=False)
    return manifest, store, labelled_frames(manifest, store, "phase")


def batches(data: TrainingData, start: int, steps: int, size: int = 8, seed: int = 1, process: tuple = (0, 1)) -> list:
    sampler = FrameSampler(len(data), size, seed, start, steps, *process, data.weights)
    return [batch.on(torch.device("cpu")) for batch in data.batches(sampler)]


def assert_same(ours: list, theirs: list) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


# Frames and their labels


def test_every_labelled_frame_counts_the_black_ones_too(set_of):
    manifest, store, frames = set_of
    assert len(frames) == 4 * 24 > len(store)
    for i in (0, 40, 95):
        video = frames.videos[int(frames.video_of[i])]
        assert frames.store.video_id(int(frames.index[i])) == video
        assert frames.store.number(int(frames.index[i])) == frames.numbers[i]
        assert frames.targets[i] == manifest.labels["phase"].values[video][int(frames.numbers[i])]
    assert frames.operations["video03"] == "camma/3"
    assert {video: len(truth) for video, truth in frames.truths().items()} == dict.fromkeys(frames.videos, 24)


def test_some_videos_come_in_the_order_asked_for(set_of):
    frames = set_of[2]
    part = frames.of_videos(["video04", "video02"])
    assert np.array_equal(part.index, np.concatenate([frames.index[frames.span(3)], frames.index[frames.span(1)]]))
    assert np.array_equal(part.targets[part.span(1)], frames.targets[frames.span(1)])
    assert (len(frames.of_videos([])), len(every_frame(set_of[1]))) == (0, 96)


def test_labels_by_second_meet_frames_by_time(set_of):
    manifest, store, _ = set_of
    values = {"video02": SecondLabels(np.arange(6.0), np.arange(6))}
    manifest = replace(manifest, labels={"phase": Labels("phase", tuple("abcdef"), values)})
    frames = labelled_frames(manifest, store, "phase")
    assert frames.videos == ("video02",)
    assert frames.targets[:4].tolist() == [0, 0, 1, 1]


def test_masks_are_found_frame_by_frame(tmp_path):
    write_pairs(tmp_path / "set", images=6)
    manifest = open_dataset(load_card("folder"), tmp_path / "set")
    store = build_store(manifest, tmp_path / "store", StoreSettings.of(short_side=64), workers=1, progress=False)
    frames = labelled_frames(manifest, store, "masks")
    assert (len(frames), frames.targets) == (6, None)
    assert frames.masks(4).image.stem == frames.videos[4]


def test_labels_that_are_not_there_are_named(set_of):
    with pytest.raises(SurgdinoError, match=r"no labels of kind 'masks'.*found phase, tools"):
        labels_of(set_of[0], "masks")


# Batches


def test_features_come_once_an_epoch_and_from_any_step_on_the_same():
    rng = np.random.default_rng(0)
    data = FrameFeatures(rng.normal(size=(20, 3)), {"a": np.arange(20), "b": rng.random((20, 2)) > 0.5})
    whole = batches(data, 0, 10)
    drawn = torch.cat([batch["index"] for batch in whole])
    assert sorted(drawn[:20].tolist()) == sorted(drawn[20:40].tolist()) == list(range(20))
    assert all(torch.equal(batch["a"], batch["index"]) for batch in whole)
    assert whole[0]["features"].dtype == torch.float32
    assert_same(batches(data, 7, 10), whole[7:])
    assert not torch.equal(batches(data, 0, 1, seed=2)[0]["index"], whole[0]["index"])


@pytest.mark.parametrize("weights", [None, np.arange(1.0, 21.0)], ids=["epochs", "weighted"])
def test_processes_share_one_batch(weights):
    data = FrameFeatures(np.zeros((20, 1)), None, weights)
    whole = batches(data, 0, 5)
    parts = [batches(data, 0, 5, process=(rank, 2)) for rank in (0, 1)]
    for batch, first, second in zip(whole, *parts, strict=True):
        assert torch.equal(batch["index"], torch.cat([first["index"], second["index"]]))


def test_a_video_comes_whole_and_in_order(set_of):
    frames = set_of[2]
    features = np.arange(len(frames), dtype=np.float32)[:, None]
    [batch] = batches(WholeVideos(features, frames, frames.targets), 0, 1, size=1, seed=0)
    span = frames.span(int(frames.video_of[batch["index"][0, 0]]))
    assert torch.equal(batch["features"][0, :, 0], torch.arange(span.start, span.stop).float())
    assert torch.equal(batch["targets"][0], torch.from_numpy(frames.targets[span].astype(np.int64)))
    with pytest.raises(SurgdinoError, match="one at a time"):
        batches(WholeVideos(features, frames, frames.targets), 0, 1, size=4)


@dataclass
class Boxes:
    """A target that depends on where the picture was cut."""

    def __call__(self, row: int, cut: Cut) -> dict[str, np.ndarray]:
        return {"box": np.array(cut.box), "row": np.array(row)}


def test_pictures_are_the_same_for_any_number_of_workers_and_processes(set_of):
    frames = set_of[2]
    cutter = Cutter(32, shipped_settings("augment", "supervised"), (0.5, 1.0))
    one, two = (FrameImages(frames, cutter, frames.targets, Boxes(), workers=workers) for workers in (0, 2))
    whole = batches(one, 0, 4, seed=3)
    assert_same(batches(two, 0, 4, seed=3), whole)
    assert_same(batches(one, 3, 4, seed=3), whole[3:])
    assert whole[0]["images"].shape == (8, 3, 32, 32)
    assert torch.equal(whole[0]["row"], whole[0]["index"])
    [half] = batches(one, 0, 1, seed=3, process=(1, 2))
    assert torch.equal(half["images"], whole[0]["images"][4:])


def test_what_the_device_paints_is_what_a_worker_would_have(set_of):
    """With the same draws; cuts and flips, and the targets that follow them, stay where they are."""
    frames, size = set_of[2], 48
    found = {}
    for on in ("cpu", "gpu"):
        cutter = Cutter(size, {**shipped_settings("augment", "surgical"), "on": on}, (0.5, 1.0))
        data = FrameImages(frames, cutter, frames.targets, Boxes())
        found[on] = list(data.batches(FrameSampler(len(data), 16, 3, 0, 3)))
    for here, left in zip(found["cpu"], found["gpu"], strict=True):
        assert (here.effects is None, left.effects is None) == (True, False)
        painted = left.on(torch.device("cpu"))
        assert painted.keys() == here.tensors.keys()
        for name, tensor in here.tensors.items():
            apart = (painted[name].float() - tensor.float()).abs()
            assert apart.mean() < 0.3 if name == "images" else not apart.any(), name
        assert (left.tensors["images"].float() - here.tensors["images"].float()).abs().mean() > 3


def test_a_fault_of_a_frame_comes_out_of_a_worker_as_itself(set_of):
    frames = set_of[2]

    @dataclass
    class Faulty:
        def __call__(self, row: int, cut: Cut) -> dict:
            raise SurgdinoError("the mask has another size", file="mask.png")

    data = FrameImages(frames, Cutter(32), None, Faulty(), workers=1)
    with pytest.raises(SurgdinoError, match=r"mask\.png: the mask has another size"):
        batches(data, 0, 1, size=2)


def test_a_mask_follows_its_picture(tmp_path):
    """A picture that is its own mask stays one through cuts and flips, and so does the box told to a target."""
    image = np.zeros((60, 80, 3), np.uint8)
    cv2.circle(image, (50, 20), 12, (255, 255, 255), -1)
    cutter = Cutter(40, {"horizontal_flip": 0.5, "vertical_flip": 0.5, "transforms": {}}, (0.3, 1.0))
    seen = set()
    for seed in range(12):
        out = np.empty((3, 40, 40), np.uint8)
        cut, _ = cutter.fill(image, Content.full(60, 80), seed, out)
        mask = cut.apply(image[..., 0], cv2.INTER_NEAREST_EXACT)
        assert np.mean((out[0] > 127) != (mask > 127)) < 0.02
        seen.add((cut.flip_horizontal, cut.flip_vertical))
    assert len(seen) == 4


def test_without_scale_and_augmentation_a_picture_is_whole():
    cut = Cutter(32).draw(50, 70, Content.full(50, 70), random.Random(0))
    assert cut == Cut((0, 0, 70, 50), 32)


# What of the backbone learns

USER = shipped(HeadTraining, "finetune", "train")


@pytest.mark.parametrize(
    ("tuning", "blocks", "embeddings"), [("frozen", 0, False), ("last4", 4, False), ("full", 6, True)]
)
def test_tuning_says_what_of_the_backbone_learns(tuning, blocks, embeddings):
    model = shipped_settings("model", "vit_toy")
    backbone = build_backbone({**model, "timm_kwargs": {**model["timm_kwargs"], "depth": 6}})
    learns = {name for name, p in select(backbone, tuning, USER).named_parameters() if p.requires_grad}
    expected = {f"vit.blocks.{k}" for k in range(6 - blocks, 6)}
    assert {".".join(name.split(".")[:3]) for name in learns if ".blocks." in name} == expected
    assert ("vit.patch_embed.proj.weight" in learns, "vit.pos_embed" in learns) == (embeddings, embeddings)
    assert ("vit.norm.weight" in learns) == bool(blocks)
    assert "mask_token" not in learns
    groups = backbone_groups(backbone, 0.5)
    assert sum(len(group["params"]) for group in groups) == len(learns)
    scales = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    for name, parameter in backbone.named_parameters():
        if name in learns:
            assert scales[id(parameter)] == 0.5 ** (7 - backbone.layer_id(name)), name
    decaying = [p for group in groups if group["decays"] for p in group["params"]]
    assert all(p.ndim > 1 for p in decaying)
    assert not any(p is backbone.vit.pos_embed for p in decaying)


def test_only_what_learns_gets_a_gradient():
    backbone = select(build_backbone(shipped_settings("model", "vit_toy")), "frozen", USER)
    head = nn.Linear(64, 2)
    head(backbone(torch.randn(2, 3, 32, 32)).cls).sum().backward()
    assert head.weight.grad is not None
    assert all(p.grad is None for p in backbone.parameters())
