"""Masks follow their picture into the backbone's input and predictions find back; what's unlabelled teaches nothing."""

from __future__ import annotations

import random

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from surgdino import discovery
from surgdino.datasets.card import load_card
from surgdino.datasets.masks import FrameMasks, read_masks
from surgdino.datasets.open import open_dataset
from surgdino.errors import SurgdinoError
from surgdino.frames.store import StoreSettings, build_store
from surgdino.tasks.labelled_frames import labelled_frames
from surgdino.tasks.segmentation.heads import open_head
from surgdino.tasks.segmentation.inference import window_logits
from surgdino.tasks.segmentation.loss import ExclusiveLoss, MaskLoss, class_weights
from surgdino.tasks.segmentation.targets import (
    CutTargets,
    MaskTargets,
    Placement,
    WindowCutter,
    placements,
    refuse_overlap,
    shown_classes,
)
from surgdino.tasks.training.cut import Cut
from tests.datasets.mask_sets import write_dsad


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Bright ellipses inside an endoscope's disc in a wide black frame, masks of the same ellipses beside them."""
    root = tmp_path_factory.mktemp("drawn")
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    rng = np.random.default_rng(0)
    for number in range(4):
        picture = np.zeros((540, 960, 3), np.uint8)
        cv2.circle(picture, (500, 275), 235, (60, 40, 120), -1)
        mask = np.zeros((540, 960), np.uint8)
        centre = (int(rng.uniform(430, 560)), int(rng.uniform(220, 320)))
        cv2.ellipse(mask, centre, (70, 40), 30.0 * number, 0, 360, 255, -1)
        picture[mask > 0] = (90, 220, 230)
        cv2.imwrite(str(root / "images" / f"drawn{number}.png"), picture)
        cv2.imwrite(str(root / "masks" / f"drawn{number}.png"), mask)
    manifest = open_dataset(load_card("folder"), root)
    store = build_store(manifest, root / "store", StoreSettings.of(short_side=256), workers=1, progress=False)
    return labelled_frames(manifest, store, "masks")


def centroid(mask: np.ndarray) -> np.ndarray:
    """(x, y) of a mask's middle."""
    return np.array([axis.mean() for axis in np.nonzero(mask)][::-1])


def bright(picture: np.ndarray) -> np.ndarray:
    """Where the drawn ellipse is in a picture, RGB."""
    return picture[..., 0] > 160


def stored(frames, i: int) -> np.ndarray:
    return frames.store.read(int(frames.index[i]))


def test_stored_frames_are_cut_to_their_content_here(drawn):
    for placement in placements(drawn):
        assert placement.source == (960, 540)
        assert placement.box != (0, 0, 960, 540)


def test_masks_lie_on_the_stored_picture_to_less_than_a_pixel(drawn):
    for i, placement in enumerate(placements(drawn)):
        masks, _ = read_masks(drawn.masks(i), ("foreground",))
        seen, target = bright(stored(drawn, i)), placement.to_frame(masks, placement.stored)[0] > 127
        assert target.shape == seen.shape
        assert np.abs(centroid(seen) - centroid(target)).max() < 0.5
        assert 2 * (seen & target).sum() / (seen.sum() + target.sum()) > 0.98


def test_a_prediction_returns_to_the_picture_it_was_made_from(drawn):
    for i, placement in enumerate(placements(drawn)):
        truth, _ = read_masks(drawn.masks(i), ("foreground",))
        logits = np.where(bright(stored(drawn, i)), 5.0, -5.0).astype(np.float32)[None]
        found = placement.to_picture(placement.enlarged(logits) > 0)
        assert found.shape == truth.shape
        assert np.abs(centroid(found[0]) - centroid(truth[0])).max() < 1.0
        assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.98


def test_outside_the_stored_part_is_background():
    placement = Placement(source=(100, 60), box=(20, 10, 80, 50), stored=(60, 40))
    found = placement.to_picture(placement.enlarged(np.ones((2, 4, 6), np.float32)) > 0)
    assert found[:, 10:50, 20:80].all()
    assert found.sum() == 2 * 60 * 40


def test_there_and_back_is_the_same_mask():
    mask = np.zeros((1, 60, 100), bool)
    mask[0, 22:41, 33:60] = True
    placement = Placement(source=(100, 60), box=(20, 10, 80, 50), stored=(30, 20))
    share = placement.to_frame(mask, placement.stored)
    assert share.dtype == np.uint8
    assert abs(share.mean() / 255 - mask[0, 10:50, 20:80].mean()) < 0.005  # area is kept
    back = placement.to_picture(placement.enlarged(share.astype(np.float32) - 127.5) > 0)
    assert 2 * (back & mask).sum() / (back.sum() + mask.sum()) > 0.96


@pytest.mark.parametrize("flips", [(False, False), (True, False), (False, True), (True, True)])
def test_a_cut_moves_picture_and_mask_together(drawn, flips):
    read = CutTargets(drawn, ("foreground",))
    for i in range(len(drawn)):
        picture = stored(drawn, i)
        height, width = picture.shape[:2]
        cut = Cut((width // 8, height // 7, width - 11, height - 5), 224, *flips)
        target = read(i, cut)
        seen = bright(cut.apply(picture, cv2.INTER_AREA))
        mask = cv2.resize(target["masks"][0], (224, 224), interpolation=cv2.INTER_LINEAR) > 127
        assert target["labelled"].tolist() == [True]
        assert np.abs(centroid(seen) - centroid(mask)).max() < 0.75
        assert 2 * (seen & mask).sum() / (seen.sum() + mask.sum()) > 0.95


def test_windows_are_of_their_size_and_inside_the_frame(drawn):
    cutter = WindowCutter(64, {"horizontal_flip": 0.5})
    rng = random.Random(0)
    content = drawn.store.content(0)
    cuts = [cutter.draw(120, 200, content, rng) for _ in range(200)]
    sides = {cut.box[2] - cut.box[0] for cut in cuts}
    assert min(sides) >= 64 / 1.26
    assert max(sides) <= 64 * 1.26
    assert all(cut.box[0] >= 0 and cut.box[2] <= 200 and cut.box[1] >= 0 and cut.box[3] <= 120 for cut in cuts)
    assert {cut.flip_horizontal for cut in cuts} == {True, False}
    assert cutter.draw(40, 50, content, rng).size == 64  # of a smaller frame as much as there is


def test_sliding_windows_say_what_the_network_says_of_each_place():
    """A network of single pixels must give the same picture through windows as at once, smaller pictures included."""

    def network(images: torch.Tensor) -> torch.Tensor:
        return images.sum(1, keepdim=True) * 2 - 1

    for size in ((70, 100), (20, 90), (32, 32)):
        image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
        found = window_logits(network, image, window=32, overlap=0.5, batch=4)
        torch.testing.assert_close(found, network(image)[0])


# ---- DSAD: what is unlabelled ----


@pytest.fixture(scope="module")
def dsad(tmp_path_factory):
    root = tmp_path_factory.mktemp("dsad")
    write_dsad(root, surgeries=(1, 4), images=3)
    return root


def dsad_frames(root, tmp_path, organ):
    manifest = open_dataset(load_card("dsad"), root, options={"organ": organ})
    store = build_store(manifest, tmp_path / "store", StoreSettings.of(), workers=1, progress=False)
    return manifest.labels["masks"].classes, labelled_frames(manifest, store, "masks")


def test_one_organ_is_binary_and_all_labelled(dsad, tmp_path):
    classes, frames = dsad_frames(dsad, tmp_path, "liver")
    targets = MaskTargets(frames, classes, 24)
    assert classes == ("liver",)
    assert targets.labelled.all()
    assert targets[np.arange(len(frames))].shape == (6, 1, 24, 24)
    assert targets[np.arange(len(frames))].max() == 255


def test_an_organs_folder_says_nothing_of_the_others_and_multilabel_says_absent(dsad, tmp_path):
    classes, frames = dsad_frames(dsad, tmp_path, None)
    targets = MaskTargets(frames, classes, 24)
    card = load_card("dsad")
    for k, video in enumerate(frames.videos):
        folder = video.split("/")[0]
        told = card.multilabel if folder == "multilabel" else (folder,)
        expected = [name in told for name in classes]
        assert (targets.labelled[frames.span(k)] == expected).all()
    assert not targets[np.arange(len(targets))][~targets.labelled].any()
    multilabel = np.array([video.startswith("multilabel") for video in frames.videos])[frames.video_of]
    shown = shown_classes(frames, classes)
    assert (targets.labelled & ~shown)[multilabel].any()  # known to be absent
    assert (targets.labelled == shown)[~multilabel].all()


@pytest.mark.parametrize("name", ["dice_ce", "dice_focal"])
def test_unlabelled_classes_have_no_gradient_and_no_part_in_the_loss(name):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, 8, 8, generator=generator, requires_grad=True)
    target = (torch.rand(3, 4, 16, 16, generator=generator) > 0.6).float()
    labelled = torch.tensor([[1, 0, 1, 0], [0, 0, 1, 0], [1, 1, 1, 0]]).bool()
    weights = torch.tensor([0.5, 1.0, 2.0, 9.0])
    loss = MaskLoss(name, weights)(logits, target, labelled.nonzero())
    [gradient] = torch.autograd.grad(loss, logits)
    assert (gradient[~labelled] == 0).all()
    assert (gradient[labelled].flatten(1).abs().sum(1) > 0).all()
    # Whatever stands in the unlabelled channels, on either side, the loss is the same to the last bit.
    other_logits, other_target = logits.detach().clone(), target.clone()
    other_logits[~labelled], other_target[~labelled] = 1e4, 1.0
    assert MaskLoss(name, weights)(other_logits, other_target, labelled.nonzero()) == loss.detach()


def test_the_loss_by_hand():
    """One pixel a picture: logit 0 for a covered pixel is p = 1/2, so Dice = 1 - (2 * 1/2 + 1) / (1/2 + 1 + 1)."""
    loss = MaskLoss("dice_ce")(torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1), torch.zeros(1, 2, dtype=torch.int64))
    assert loss.item() == pytest.approx(1 - 2 / 2.5 + np.log(2), abs=1e-6)


def test_weights_of_classes_weigh_their_share():
    logits, target = torch.zeros(2, 2, 4, 4), torch.zeros(2, 2, 4, 4)
    target[:, 1] = 1.0
    everything = torch.ones(2, 2, dtype=torch.bool)

    def of(place: int) -> float:
        only = torch.zeros(2, 2, dtype=torch.bool)
        only[:, place] = True
        return MaskLoss()(logits, target, only.nonzero()).item()

    weighted = MaskLoss(class_weights=torch.tensor([1.0, 3.0]))(logits, target, everything.nonzero()).item()
    assert weighted == pytest.approx((of(0) + 3 * of(1)) / 4, abs=1e-6)


def test_a_batch_without_labels_teaches_nothing_but_keeps_the_graph():
    logits = torch.ones(2, 3, 4, 4, requires_grad=True)
    loss = MaskLoss()(logits, torch.ones(2, 3, 4, 4), torch.zeros(0, 2, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("name", ["dice_ce", "dice_focal"])
def test_exclusive_classes_leave_out_pictures_whose_background_is_not_known(name):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 3, 8, 8, generator=generator, requires_grad=True)
    target = torch.zeros(3, 2, 16, 16)
    target[:, 0, :8], target[:, 1, 8:12] = 1.0, 0.5
    labelled = torch.tensor([[1, 1], [1, 0], [1, 1]]).bool()
    places = ExclusiveLoss.places(labelled)
    assert places.tolist() == [0, 2]
    loss = ExclusiveLoss(name, torch.tensor([1.0, 2.0]))(logits, target, places)
    [gradient] = torch.autograd.grad(loss, logits)
    assert (gradient[1] == 0).all()
    assert (gradient[0] != 0).any()
    planes = torch.cat([1 - target.sum(1, keepdim=True), target], 1)
    right = 12 * (nn.functional.interpolate(planes, size=(8, 8)) > 0.5).float()
    assert ExclusiveLoss(name)(right, target, places) < ExclusiveLoss(name)(-right, target, places)
    assert ExclusiveLoss(name)(logits, target, places[:0]) == 0


class Pictures(list):
    """Labelled frames as far as their masks."""

    masks = list.__getitem__


def test_masks_that_overlap_or_say_nothing_of_a_class_are_refused_as_exclusive(tmp_path):
    picture = tmp_path / "picture.png"
    cv2.imwrite(str(picture), np.zeros((4, 4, 3), np.uint8))
    for name, rows in (("upper", slice(0, 2)), ("lower", slice(2, 4)), ("middle", slice(1, 3))):
        mask = np.zeros((4, 4), np.uint8)
        mask[rows] = 255
        cv2.imwrite(str(tmp_path / f"{name}.png"), mask)

    def look(**files: str | None) -> None:
        masks = {name: file and tmp_path / f"{file}.png" for name, file in files.items()}
        refuse_overlap(Pictures([FrameMasks(picture, masks)]), ("a", "b"))

    look(a="upper", b="lower")
    look(a="upper", b=None)
    with pytest.raises(SurgdinoError, match=r"33\.3 %"):
        look(a="upper", b="middle")
    with pytest.raises(SurgdinoError, match="every class is labelled"):
        look(a="upper")


def test_rare_classes_weigh_more_by_the_inverse_root():
    present = torch.zeros(16, 2, dtype=torch.bool)
    present[:, 0], present[:4, 1] = True, True
    weights = class_weights(present)
    assert weights[1] / weights[0] == pytest.approx(2.0)
    assert class_weights(present[:, :1]) is None


# ---- heads ----

QUICK = ("linear", "decoder")
LEARNING = [
    name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
    for name in discovery.names("surgdino.tasks.segmentation.heads")
]


@pytest.mark.parametrize("name", discovery.names("surgdino.tasks.segmentation.heads"))
@pytest.mark.parametrize(("depth", "grid", "patch"), [(12, (14, 14), 16), (2, (4, 6), 8), (12, (16, 16), 14)])
def test_heads_answer_over_the_whole_field_of_view_and_learn(name, depth, grid, patch):
    kind = open_head(name)
    layers = kind.layers(depth)
    assert all(-depth <= layer < 0 for layer in layers)
    assert layers[-1] == -1
    torch.manual_seed(0)
    head = kind(24, len(layers), 3, 16)
    tokens = torch.randn(2, grid[0] * grid[1], 24 * len(layers))
    images = torch.randn(2, 3, grid[0] * patch, grid[1] * patch) if kind.reads_images else None
    logits = head(tokens, grid, images)
    assert logits.shape[:2] == (2, 3)
    assert logits.shape[2] / grid[0] == logits.shape[3] / grid[1] >= 1
    logits.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in head.parameters())


@pytest.mark.parametrize("name", LEARNING)
def test_heads_keep_places_where_they_are(name):
    """Trained on a token that says left or right, a head must answer on that side, not mirrored or transposed."""
    kind = open_head(name)
    torch.manual_seed(0)
    layers = len(kind.layers(4))
    head = kind(8, layers, 1, 16)
    tokens = torch.randn(4, 16, 8 * layers)
    side = torch.tensor([1.0, 1.0, -1.0, -1.0]).repeat(4)  # rows of a 4 x 4 grid, left half positive
    tokens += 3 * side[None, :, None]
    target = torch.zeros(4, 1, 16, 16)
    target[..., :8] = 1.0
    images = torch.zeros(4, 3, 32, 32) if kind.reads_images else None
    optimizer = torch.optim.Adam(head.parameters(), lr=0.01)
    loss = MaskLoss()
    for _ in range(50):
        optimizer.zero_grad()
        loss(head(tokens, (4, 4), images), target, torch.ones(4, 1).nonzero()).backward()
        optimizer.step()
    logits = nn.functional.interpolate(head.eval()(tokens, (4, 4), images), size=(16, 16))
    assert (logits[..., :6] > 0).float().mean() > 0.95
    assert (logits[..., 10:] < 0).float().mean() > 0.95


@pytest.mark.parametrize("name", LEARNING)
def test_a_class_that_nothing_is_known_of_is_seen_nowhere(name):
    kind = open_head(name)
    torch.manual_seed(0)
    layers = len(kind.layers(4))
    head = kind(8, layers, 2, 16)
    tokens, images = torch.randn(4, 16, 8 * layers), torch.randn(4, 3, 32, 32)
    labelled = torch.tensor([[True, False]]).expand(4, 2)
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        logits = head(tokens, (4, 4), images if kind.reads_images else None)
        MaskLoss()(logits, torch.ones(4, 2, 16, 16), labelled.nonzero()).backward()
        optimizer.step()
    logits = head(tokens, (4, 4), images if kind.reads_images else None)
    assert (logits[:, 0] > 0).float().mean() > 0.9
    assert (logits[:, 1] < 0).float().mean() > 0.99


def test_an_unknown_head_names_the_nearest():
    with pytest.raises(SurgdinoError, match="linear"):
        open_head("lineer")
