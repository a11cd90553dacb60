"""Targets lie where the pictures do, heads say what they were taught, and the verbs write what others can read."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from surgdino.backbone.vit import build_backbone
from surgdino.cli.main import main
from surgdino.config import shipped_settings
from surgdino.datasets.card import load_card
from surgdino.datasets.open import open_dataset
from surgdino.errors import SurgdinoError
from surgdino.frames.build import StoreSettings
from surgdino.frames.store import build_store
from surgdino.tasks.instances.heads import InstanceHead
from surgdino.tasks.instances.heads.centre import CentreHead
from surgdino.tasks.instances.heads.queries import QueryHead
from surgdino.tasks.instances.losses import generalised_iou, mask_points
from surgdino.tasks.instances.targets import Beside, CutObjects, Told, stored_objects
from surgdino.tasks.labelled_frames import LabelledFrames, labelled_frames
from surgdino.tasks.task import open_task
from surgdino.tasks.training.cut import Cut
from tests.datasets.object_sets import CLASSES, write_objects
from tests.tasks.sets import words_of


@pytest.fixture(scope="module")
def frames(tmp_path_factory) -> LabelledFrames:
    root = tmp_path_factory.mktemp("objects")
    write_objects(root / "set", 8)
    manifest = open_dataset(load_card("folder"), root / "set")
    store = build_store(manifest, root / "store", StoreSettings.of(short_side=48), workers=1)
    return labelled_frames(manifest, store, "objects")


@pytest.mark.parametrize("flip", [False, True])
def test_boxes_and_masks_lie_on_the_object_wherever_it_is_cut(frames, flip):
    read = CutObjects(frames, CLASSES, room=3)
    for i in range(len(frames)):
        image = frames.store.read(int(frames.index[i]))
        height, width = image.shape[:2]
        for box in ((0, 0, width, height), (width // 4, 0, width, height)):
            cut = Cut(box, 64, flip_horizontal=flip)
            seen = cut.apply(image).max(2) > 150
            found = read(i, cut)
            for k in np.flatnonzero(found["kinds"] >= 0):
                (x, y, w, h), mask = found["boxes"][k] * 64, found["masks"][k] > 127
                across, along = np.arange(64) + 0.5, np.arange(64)[:, None] + 0.5
                inside = (abs(across - x) < w / 2) & (abs(along - y) < h / 2)
                assert seen[inside].mean() > 0.7
                large = np.kron(mask, np.ones((4, 4), bool))
                assert (large & inside).sum() / large.sum() > 0.75


def test_what_a_cut_leaves_too_little_of_is_no_target(frames):
    read, none = CutObjects(frames, CLASSES, room=3), 0
    for i in range(len(frames)):
        found = read(i, Cut((0, 0, 2, 2), 64))
        none += (found["kinds"] < 0).all()
    assert none >= len(frames) - 1


def test_mirrored_pictures_come_after_the_others_with_their_targets():
    rows = np.arange(12).reshape(6, 2)
    assert (Beside([rows, -rows])[np.array([7, 0, 11, 5])] == [rows[1] * -1, rows[0], rows[5] * -1, rows[5]]).all()
    assert len(Beside([rows, rows])) == 12


def test_targets_of_mirrored_pictures_are_mirrored(frames):
    found = stored_objects(CutObjects(frames, CLASSES, room=2), 64, (False, True))
    plain, mirrored = (found["boxes"][part] for part in (slice(8), slice(8, 16)))
    known = found["kinds"][:8] >= 0
    assert mirrored[known][:, 0] == pytest.approx(1 - plain[known][:, 0], abs=1e-6)
    assert (mirrored[known][:, 1:] == plain[known][:, 1:]).all()
    assert (found["masks"][8:] == found["masks"][:8, :, :, ::-1]).all()


def test_what_one_says_without_looking(frames):
    told = Told.of(frames, CLASSES)
    assert told.masked
    assert told.room == 2
    assert told.prior.shape == (2, 5)
    assert told.prior[0, 0] + told.prior[0, 2] / 2 < 0.5 < told.prior[1, 0] + told.prior[1, 2] / 2
    assert (told.prior[:, 4] < 1).all()


def backbone():
    return build_backbone(shipped_settings("model", "vit_toy"))


def target(batch: int = 2) -> dict[str, torch.Tensor]:
    boxes = torch.tensor([[0.3, 0.4, 0.2, 0.3], [0.7, 0.6, 0.3, 0.2], [0, 0, 0, 0]])
    masks = torch.zeros(3, 8, 8, dtype=torch.uint8)
    masks[0, 2:5, 2:4] = masks[1, 4:6, 4:7] = 255
    one = {"boxes": boxes, "kinds": torch.tensor([0, 1, -1]), "masks": masks}
    one |= {"crowd": torch.zeros(3, dtype=torch.bool), "masked": torch.tensor([True, True, False])}
    return {name: value.expand(batch, *value.shape) for name, value in one.items()}


def placed(targets: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """With where they are, as a stage has it."""
    return {**targets, **InstanceHead.places(targets)}


def learnt(head, forward, steps: int, lr: float):
    head.masked.fill_(True)
    head.train()
    optimizer = torch.optim.AdamW(head.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        head.losses(forward(), placed(target()))["loss"].backward()
        optimizer.step()
    head.eval()
    with torch.no_grad():
        return head.answers(forward(), 5)


@pytest.mark.slow
def test_the_heat_map_says_what_it_was_taught():
    torch.manual_seed(0)
    head, tokens = CentreHead(backbone(), 2, 16), torch.randn(2, 16, 64)
    found = learnt(head, lambda: head(tokens, (4, 4)), 120, 0.01)[0]
    order = found.kinds[:2].argsort()
    assert found.kinds[:2].sort().values.tolist() == [0, 1]
    assert found.scores[1] > 0.5 > found.scores[2]
    assert (generalised_iou(found.boxes[:2][order], target()["boxes"][0, :2]) > 0.6).all()
    masks = found.masks[:2][order]
    assert masks[0, 6, 5] > 0
    assert masks[1, 9, 10] > 0


def test_a_crowd_is_neither_found_nor_wrong():
    torch.manual_seed(0)
    head, given = CentreHead(backbone(), 2, 16), target(1)
    head.masked.fill_(False)
    output = head(torch.randn(1, 16, 64), (4, 4))
    nothing = {**given, "kinds": torch.full((1, 3), -1)}
    crowd = {**given, "kinds": torch.tensor([[0, -1, -1]]), "crowd": torch.tensor([[True, False, False]])}
    whole = {**crowd, "boxes": torch.tensor([[[0.5, 0.5, 1.0, 1.0]] * 3])}
    assert head.losses(output, placed(crowd))["loss"] < head.losses(output, placed(nothing))["loss"]
    grad = torch.autograd.grad(head.losses(output, placed(whole))["loss"], output["heat"])[0]
    assert (grad[:, 0] == 0).all()
    assert (grad[:, 1] != 0).any()


@pytest.mark.slow
def test_queries_say_what_they_were_taught():
    torch.manual_seed(0)
    body = backbone()
    head, images = QueryHead(body, 2, 6, 2, 64), torch.randn(2, 3, 32, 32)
    head.steps = 60
    found = learnt(head, lambda: head.of_images(body, images), 60, 0.003)[0]
    assert int(head.step) == 60
    order = found.kinds[:2].argsort()
    assert found.kinds[:2].sort().values.tolist() == [0, 1]
    assert (generalised_iou(found.boxes[:2][order], target()["boxes"][0, :2]) > 0.5).all()


def test_masks_in_attention_are_annealed_away_block_by_block():
    head = QueryHead(backbone(), 2, 4, 2, 64)
    head.steps = 8
    shares = []
    for step in range(9):
        head.step.fill_(step)
        shares.append([head._masked_share(block) for block in range(2)])
    assert shares[0] == shares[2] == [1, 1]
    assert shares[4] == [0, 1]
    assert shares[6] == shares[8] == [0, 0]
    assert 0 < shares[3][0] < 1
    head.masked.fill_(True)
    head.step.fill_(0)
    masks = torch.full((1, 4, 8, 8), -1.0)
    masks[0, 1, :2, :2] = 1.0
    looks = head._looks(masks, (4, 4), 4 + 1 + 16, 0)
    assert looks is not None
    assert looks[0, 0, 1].sum() == 4 + 1 + 1
    assert looks[0, 0, [0, 2, 3]].all(), "a query with an empty mask looks everywhere"
    assert looks[0, 0, 4:].all(), "patches look everywhere"


def test_points_are_where_a_mask_is_unsure():
    torch.manual_seed(0)
    logits = torch.full((1, 64, 64), 9.0)
    logits[:, :, 32:] = -9.0
    found, wanted = mask_points(logits, (logits > 0).float(), 128)
    assert found.shape == wanted.shape == (1, 128)
    assert (found.abs() < 8.9).float().mean() > 0.02
    whole, _ = mask_points(logits, (logits > 0).float(), 64 * 64)
    assert (whole == logits.flatten(1)).all()


def test_queries_need_a_backbone_that_learns_and_is_plain():
    task = open_task({**shipped_settings("task", "instances"), "head": "queries"})
    frozen = SimpleNamespace(backbone=backbone(), classes=CLASSES, learns=False)
    with pytest.raises(SurgdinoError, match=r"queries trains the last blocks; expected a backbone that learns"):
        task.build_head(frozen)
    frozen.backbone.packs, frozen.learns = False, True
    with pytest.raises(SurgdinoError, match="needs a plain ViT"):
        task.build_head(frozen)
    by_itself = open_task(shipped_settings("task", "instances"))
    assert isinstance(by_itself.build_head(frozen), CentreHead)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["frozen", "last4"])
def test_what_is_written_is_scored_alike_by_everyone(tmp_path, capsys, backbone):
    root, run = tmp_path / "set", tmp_path / "run"
    write_objects(root, 24)
    words = (f"backbone={backbone}", "train.steps=40", "train.lr=0.003")
    assert main(words_of("instances", root, run, *words)) == 0
    results = json.loads((run / "results.json").read_text())
    own = {(row["protocol"], row["name"]): row["value"] for row in results["scores"]}
    assert own["instances/coco-mask", "AP50"] > 0.2
    assert own["instances/coco-box", "AP50"] > own["instances/mean-box", "AP50"]
    folder = run / "predictions"
    words = ["score", "task=instances", f"truth={folder}", f"predictions={folder}", f"out={tmp_path / 'scored'}"]
    assert main(words) == 0
    again = json.loads((tmp_path / "scored" / "results.json").read_text())
    found = {(row["protocol"], row["name"]): row["value"] for row in again["scores"]}
    assert found == {key: value for key, value in own.items() if key[0] != "instances/mean-box"}
    words = [str(root / "images"), f"checkpoint={run}", "hardware.loader_workers=0", f"out={tmp_path / 'out'}"]
    assert main(["predict", *words]) == 0
    rows = json.loads((tmp_path / "out" / "images-results.json").read_text())
    assert {"image_id", "category_id", "score", "bbox", "segmentation"} == set(rows[0])
    images = json.loads((tmp_path / "out" / "images-images.json").read_text())
    assert len(images["images"]) == len(list(Path(tmp_path / "out" / "pictures").rglob("*.jpg"))) == 24
    assert main(["evaluate", f"checkpoint={run}", "averaging=flips", "hardware.loader_workers=0"]) == 0
    assert "flips" in capsys.readouterr().out
