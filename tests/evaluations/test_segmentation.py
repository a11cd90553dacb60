"""Masks from patch tokens: what the tokens tell is found, at any scale, and what excludes what."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from surgdino.backbone.preprocess import Preprocess
from surgdino.backbone.vit import build_backbone
from surgdino.config import shipped_settings
from surgdino.datasets.card import load_card
from surgdino.datasets.open import open_dataset
from surgdino.datasets.synthetic.davis import write_davis
from surgdino.engine import precision
from surgdino.errors import SurgdinoError
from surgdino.evaluations.parts.evaluation import open_evaluation
from surgdino.evaluations.parts.given import Given
from surgdino.frames.store import StoreSettings, build_store
from surgdino.tasks.features.cache import FeatureCache
from surgdino.tasks.labelled_frames import labelled_frames
from surgdino.tasks.segmentation.targets import MaskTargets, Placement

SECTION = {
    "classifier": "linear",
    "classes": "separate",
    "layers": 1,
    "scales": [1],
    "patches": 1000,
    "tested": "operations",
}
KINDS = [(classifier, classes) for classifier in ("linear", "knn") for classes in ("separate", "exclusive")]


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> Given:
    """Two films with two objects each, which exclude each other."""
    folder = tmp_path_factory.mktemp("masks")
    write_davis(folder / "davis", objects=(2, 2), frames=5)
    torch.manual_seed(0)
    backbone = build_backbone(shipped_settings("model", "vit_toy"))
    autocast = partial(precision.autocast, torch.device("cpu"), torch.float32)
    manifest = open_dataset(load_card("davis"), folder / "davis")
    store = build_store(manifest, folder / "store", StoreSettings.of(fps=24), workers=1, progress=False)
    frames = labelled_frames(manifest, store, "objects")
    preprocess, every = Preprocess(32, (0.5,) * 3, (0.5,) * 3), np.ones(len(frames), bool)
    cache = FeatureCache(folder / "features", backbone, preprocess, autocast, progress=False)
    return Given(frames, every, every, cache, cache)


def found(given: Given, **change) -> dict[str, float]:
    outcomes = open_evaluation("segmentation", {**SECTION, **change}, "").outcomes(given)
    return {outcome.name: outcome.value for outcome in outcomes}


def plant(monkeypatch, given: Given, shift: int = 0) -> dict[int, int]:
    """Patch tokens that say how much of them each class covers, 16 a side for 32 pixels; gives side -> how often it was
    asked for."""
    asked: dict[int, int] = {}

    def patches(cache: FeatureCache, frames, layers) -> np.ndarray:
        side = cache.preprocess.image_size // 2
        asked[side] = asked.get(side, 0) + 1
        cover = MaskTargets(frames, given.classes, side)[np.arange(len(frames))].reshape(len(frames), -1, side * side)
        rows = np.concatenate([cover, 255 - cover], 1).transpose(0, 2, 1).astype(np.float16)
        return np.roll(rows, shift, 0)

    monkeypatch.setattr(FeatureCache, "patches", patches)
    return asked


@pytest.mark.parametrize(("classifier", "classes"), KINDS)
def test_masks_that_the_tokens_tell_are_found(classifier, classes, given, monkeypatch):
    plant(monkeypatch, given)
    told = found(given, classifier=classifier, classes=classes)
    assert list(told) == ["Dice, image-wise", "IoU, image-wise", "Dice, pooled", "IoU, pooled", "EndoVis challenge IoU"]
    assert told["Dice, pooled"] > 0.7
    assert told["EndoVis challenge IoU"] > 0.5
    plant(monkeypatch, given, shift=7)
    assert found(given, classifier=classifier, classes=classes)["Dice, pooled"] < told["Dice, pooled"] - 0.1


@pytest.mark.parametrize(("classifier", "classes"), KINDS[:2])
def test_larger_inputs_beside_it_are_nearer_to_the_truth(classifier, classes, given, monkeypatch):
    asked = plant(monkeypatch, given)
    how = {"classifier": classifier, "classes": classes}
    once, twice = found(given, **how), found(given, **how, scales=[1, 1.5, 2])
    assert asked == {16: 4, 24: 1, 32: 1}  # what is learnt from and the first scale, twice
    assert twice["IoU, pooled"] > once["IoU, pooled"] + 0.02


def test_scales_are_averaged_at_the_pictures_size():
    """As torch enlarges and averages; softmax before the mean where classes exclude each other."""
    rng, where = np.random.default_rng(0), Placement((40, 30), (4, 3, 36, 27), (32, 24))
    scales = [rng.normal(size=(3, side, side)).astype(np.float32) for side in (4, 6)]
    planes = [F.interpolate(torch.from_numpy(each)[None], (24, 32), mode="bilinear")[0] for each in scales]
    evaluation = partial(open_evaluation, "segmentation", place="")
    masks = evaluation({**SECTION, "classes": "exclusive"})._masks(scales, where)
    expected = sum(each.softmax(0) for each in planes).argmax(0).numpy()
    assert (masks[:, 3:27, 4:36] == [expected == 1, expected == 2]).mean() > 0.999  # of rounding
    assert masks[:, :3].sum() == masks[:, :, :4].sum() == 0
    masks = evaluation(SECTION)._masks(scales, where)
    assert (masks[:, 3:27, 4:36] == (sum(planes) > 0).numpy()).mean() > 0.999
    one = evaluation(SECTION)._masks(scales[:1], where)
    assert (one == where.to_picture(where.enlarged(scales[0]) > 0)).all()


def test_four_layers_are_read_beside_each_other(given):
    own = open_evaluation("segmentation", {**SECTION, "layers": 2, "scales": [1.3]}, "")
    rows = [each.features.patches(given.frames, each.patches) for each in own.reads(given.features)]
    depth, dim = given.features.backbone.depth, given.features.backbone.embed_dim
    patch = given.features.backbone.patch_size
    assert [each.shape[1:] for each in rows] == [
        ((32 // patch) ** 2, 2 * dim),
        (round(32 * 1.3 / patch) ** 2, 2 * dim),
    ]
    last = given.features.patches(given.frames, (depth - 1,))
    assert np.allclose(rows[0][np.arange(3)][..., dim:], last[np.arange(3)], atol=1e-2)


def test_pictures_that_are_not_labelled_in_full_or_overlap_are_left_out(given, monkeypatch, capsys):
    plant(monkeypatch, given)
    whole = MaskTargets.__getitem__
    monkeypatch.setattr(MaskTargets, "__getitem__", lambda self, rows: np.maximum(whole(self, rows), 200))
    assert found(given, classes="exclusive") == {}
    assert "these masks overlap" in capsys.readouterr().out
    assert found(given)


@pytest.mark.parametrize("change", [{"scales": []}, {"scales": [9]}, {"classes": "both"}, {"layers": 0}])
def test_settings_that_cannot_be_are_one_line(change):
    with pytest.raises(SurgdinoError, match=rf"e\.{next(iter(change))}.* cannot be used"):
        open_evaluation("segmentation", {**SECTION, **change}, "e")


def test_later_frames_of_one_operation_are_named_so(given, monkeypatch):
    plant(monkeypatch, given)
    first = given.operations == given.operations[0]
    alone = replace(given, tested=first, learns=first)
    with pytest.raises(SurgdinoError, match="no operation to learn from"):
        found(alone)
    values = found(alone, tested="later_frames")
    assert all(name.endswith(", later frames of the same operations") for name in values)
    assert values["Dice, pooled, later frames of the same operations"] > 0.7


def test_the_real_masks_of_one_video_are_read(real_data):
    manifest = open_dataset(load_card("video01_instruments"), real_data / "laparoscopic-clip-masks")
    assert [(video.operation, problem) for video in manifest.videos for problem in (*manifest.problems, None)] == [
        ("camma/1", None)
    ]
    (masks,) = manifest.labels["masks"].values.values()
    assert masks.numbers.tolist() == list(range(20))


def test_an_evaluation_of_real_tokens_gives_numbers(given):
    assert all(0 <= value <= 1 for value in found(given, classes="exclusive", scales=[1, 2]).values())
