"""Masks through a video: votes against a slow implementation, what is scored, and objects that patches tell."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from surgdino.backbone.checkpoint import save_backbone
from surgdino.backbone.vit import build_backbone
from surgdino.cli.main import main
from surgdino.config import shipped_settings
from surgdino.datasets.card import load_card
from surgdino.datasets.open import open_dataset
from surgdino.datasets.synthetic.davis import write_davis
from surgdino.errors import SurgdinoError
from surgdino.evaluations.parts.evaluation import open_evaluation
from surgdino.evaluations.propagation import drawn_masks, input_size, on_grid
from surgdino.frames.store import StoreSettings, build_store
from surgdino.metrics.propagation import boundary_scores, region_scores
from surgdino.tasks.features.cache import FeatureCache
from surgdino.tasks.labelled_frames import labelled_frames
from surgdino.tasks.segmentation.carry import Reach, carry
from surgdino.tasks.segmentation.targets import Placement
from tests.evaluations.test_evaluations import given_of, named

SECTION = {
    "short_side": 96,
    "protocol": "dinov3",
    "context": 3,
    "neighbours": 5,
    "radius": 3,
    "temperature": 0.1,
    "smallest": 1,
    "absent": "scored",
    "within": [],
}


def given_in(folder: Path, **written):
    """The evaluation's view of a written set, and its truth."""
    truths = write_davis(folder / "davis", **written)
    return opened(folder), truths


def opened(folder: Path):
    manifest = open_dataset(load_card("davis"), folder / "davis")
    assert not manifest.problems
    settings = StoreSettings.of(fps=24, short_side=96, content_crop=False)
    store = build_store(manifest, folder / "store", settings, workers=1, progress=False)
    return given_of(labelled_frames(manifest, store, "objects"), folder)


def found_in(given, **changes):
    return named(open_evaluation("propagation", SECTION | changes, "").outcomes(given))


def slow_carry(target, context, labels, radius, disc, neighbours, temperature):
    height, count, width, _ = context.shape
    carried = np.zeros((height, width, labels.shape[-1]))
    for y, x in itertools.product(range(height), range(width)):
        votes = []
        for v, u, c in itertools.product(range(height), range(width), range(count)):
            near = math.hypot(v - y, u - x) <= radius if disc else max(abs(v - y), abs(u - x)) <= radius
            if near:
                votes.append((float(target[y, x] @ context[v, c, u]), labels[v, c, u]))
        votes = sorted(votes, key=lambda vote: -vote[0])[:neighbours]
        weights = np.array([math.exp(cosine / temperature) for cosine, _ in votes])
        carried[y, x] = (weights / weights.sum()) @ np.array([label for _, label in votes])
    return carried


@pytest.mark.parametrize("disc", [False, True])
@pytest.mark.parametrize(("grid", "radius"), [((5, 7), 2), ((4, 3), 5), ((6, 6), 1)])
def test_votes_are_those_of_a_slow_implementation(grid, radius, disc):
    rng = np.random.default_rng(radius)
    unit = [rng.normal(size=size) for size in ((*grid, 8), (grid[0], 3, grid[1], 8))]
    target, context = (each / np.linalg.norm(each, axis=-1, keepdims=True) for each in unit)
    labels = rng.dirichlet(np.ones(3), size=context.shape[:3])
    reach = Reach.of(grid[1], radius, disc, torch.device("cpu"))
    tensors = [torch.from_numpy(each) for each in (target, context, labels)]
    for neighbours in (1, 4, 40):
        slow = slow_carry(target, context, labels, radius, disc, neighbours, 0.1)
        np.testing.assert_allclose(carry(*tensors, reach, neighbours, 0.1).numpy(), slow, atol=1e-12)


def test_sides_are_rounded_as_the_two_protocols_do():
    assert input_size((854, 480), 480, "dino", 16) == (448, 832)
    assert input_size((854, 480), 480, "dino", 14) == (476, 854)  # 64 is no multiple of 14
    assert input_size((480, 854), 480, "dino", 8) == (832, 448)
    assert input_size((854, 480), 960, "dinov3", 16) == (960, 1712)
    assert input_size((160, 96), 8, "dino", 16) == (64, 64)


def test_a_mask_goes_to_the_grid_and_back():
    """Within the part of the picture that is stored; a label that is nowhere stays nowhere."""
    placement = Placement((80, 60), (8, 4, 72, 52), (64, 48))
    masks = np.zeros((2, 60, 80), bool)
    masks[0, 4:28, 8:40] = True
    labels = on_grid(masks, (6, 8), placement)
    assert labels[:3, :4, 1].all()
    assert labels[..., 1].sum() == 12
    assert (labels.sum(-1) == 1).all()
    back = drawn_masks(labels, (48, 64), placement)
    assert region_scores(masks[:1], back[:1])[0] > 0.95
    assert not back[1].any()
    assert not back[:, :4].any()


def test_objects_that_patches_tell_are_followed(tmp_path, monkeypatch):
    given, _ = given_in(tmp_path, objects=(1, 3), frames=6)

    def colours(self, images):
        patches = F.avg_pool2d(images.float() / 255 - 0.5, self.backbone.patch_size)
        return patches.flatten(2).transpose(1, 2)

    monkeypatch.setattr(FeatureCache, "dense", colours)
    told = found_in(given)
    assert told["J"].per_operation.keys() == set(given.operations)
    assert told["J"].value > 0.7
    assert told["F"].value > 0.7
    assert told["J&F"].value == pytest.approx((told["J"].value + told["F"].value) / 2)
    assert told["J recall"].value == 1


def test_scored_are_the_later_masks_but_the_last_frames(tmp_path, monkeypatch):
    """Objects weigh alike: three of one sequence and one of another; a missing later object counts by `absent`."""
    given, truths = given_in(tmp_path, objects=(1, 3), frames=7, every=2)
    evaluation = open_evaluation("propagation", SECTION, "")
    still = {}

    def unmoved(self, video, given):
        still[given.frames.videos[given.frames.video_of[video.rows[0]]]] = given.frames.numbers[video.rows].tolist()
        for _ in video.rows:
            yield video.first

    monkeypatch.setattr(type(evaluation), "_carried", unmoved)
    found = named(evaluation.outcomes(given))
    early = found_in(given, within=[2.1 / 24, 100, 0.001])
    assert list(still.values()) == [[2, 4], [2, 4]]
    scores = {"J": [], "F": []}
    for truth, count in zip(truths.values(), (1, 3), strict=True):
        masks = truth[:, None] == np.arange(1, count + 1)[:, None, None]
        for name, score in (("J", region_scores), ("F", boundary_scores)):
            scores[name] += list(np.mean([score(masks[frame], masks[0]) for frame in (2, 4)], 0))
    for name, values in scores.items():
        assert found[name].value == pytest.approx(np.mean(values))
    assert early["J&F within 100 s"].value == pytest.approx(np.mean(list(scores.values())))
    assert early["J&F within 0.0875 s"].value > found["J&F"].value
    assert not any("0.001" in name for name in early)


def test_frames_without_an_object(tmp_path, monkeypatch):
    write_davis(tmp_path / "davis", objects=(1,), frames=5)
    path = tmp_path / "davis/Annotations/480p/disc-1/00002.png"
    Image.fromarray(np.zeros_like(np.asarray(Image.open(path)))).save(path)
    given = opened(tmp_path)
    evaluation = open_evaluation("propagation", SECTION, "")
    monkeypatch.setattr(type(evaluation), "_carried", lambda self, video, _: iter([video.first] * len(video.rows)))
    scored, left_out = found_in(given), found_in(given, absent="left_out")
    assert scored["J"].value == pytest.approx(2 / 3 * left_out["J"].value)
    assert left_out["drawn where absent"].value == 1
    assert "drawn where absent" not in scored
    assert not list(open_evaluation("propagation", SECTION | {"smallest": 10_000}, "").outcomes(given))


def test_a_mask_of_another_size_is_one_line(tmp_path):
    write_davis(tmp_path / "davis", objects=(1,), frames=3)
    path = tmp_path / "davis/Annotations/480p/disc-1/00001.png"
    Image.open(path).resize((80, 48), Image.Resampling.NEAREST).save(path)
    given = opened(tmp_path)
    with pytest.raises(SurgdinoError, match=r"the mask has another size than its picture.*00001\.png|00001\.png.*size"):
        found_in(given)
    with pytest.raises(SurgdinoError, match=r"e\.temperature"):
        open_evaluation("propagation", SECTION | {"temperature": 0}, "e")


@pytest.mark.slow
def test_a_benchmark_of_it_alone_computes_no_other_features(tmp_path, monkeypatch, capsys):
    write_davis(tmp_path / "davis", objects=(1, 2), frames=4)
    save_backbone(tmp_path / "start", build_backbone(shipped_settings("model", "vit_toy")), {"image_size": 32})
    entry = {"propagation": SECTION}
    frames = {"davis": {"fps": 24, "short_side": 96, "content_crop": False}}
    (tmp_path / "suite.yaml").write_text(json.dumps({"datasets": frames, "evaluations": entry}))
    monkeypatch.setattr(FeatureCache, "extract", lambda *_: pytest.fail("features that nothing reads"))
    words = [f"suite={tmp_path / 'suite.yaml'}", f"backbones=[{tmp_path / 'start'}]", f"run.dir={tmp_path / 'run'}"]
    words += [f"data.davis={tmp_path / 'davis'}", f"data.store={tmp_path / 'store'}", "data.workers=1", "hardware=cpu"]
    assert main(["benchmark", *words]) == 0
    rows = json.loads((tmp_path / "run/results.json").read_text())["rows"]
    assert [row["measure"] for row in rows][:3] == ["J&F", "J", "J recall"]
    (tmp_path / "davis/Annotations/480p/disc-1/00000.png").unlink()
    assert main(["benchmark", *words]) == 2
    assert "no mask of the first frame; expected 00000.png" in capsys.readouterr().err
