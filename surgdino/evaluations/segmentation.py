"""Masks predicted patch by patch, by a linear probe or by k-NN without any training, scored on the pictures"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import cv2
import numpy as np
import torch
from pydantic import Field
from scipy.special import softmax
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from surgdino.console import warn
from surgdino.datasets.masks import read_truth
from surgdino.engine.probes.masks import patch_logits
from surgdino.engine.probing.folds import knn_scores
from surgdino.engine.probing.frames import even
from surgdino.evaluations.parts.evaluation import Evaluation, Reading
from surgdino.evaluations.parts.given import LATER, Fold, Given
from surgdino.evaluations.parts.logistic import fit_logistic
from surgdino.evaluations.parts.outcome import Outcome, pooled
from surgdino.metrics.segmentation import (
    ImageScores,
    challenge_iou,
    class_means,
    image_scores,
    pooled_scores,
    stacked,
)
from surgdino.tasks.features.cache import FeatureCache
from surgdino.tasks.features.files import FeatureRows
from surgdino.tasks.segmentation.targets import MaskTargets, Placement, placements

Logits = Callable[[Tensor], np.ndarray]  # tokens [t, D] -> [t, c]
Learnt = list[tuple[np.ndarray, Logits]]  # planes, and what tells them
Scale = Annotated[float, Field(ge=0.25, le=4)]
_IMAGES = 32  # whose patches are in memory at a time
_WORDS = {"dice": "Dice", "iou": "IoU"}
_PENALTY = 0.01  # inverse, of the softmax probe, on standardised tokens
_OVERLAP = 0.01  # of the patches with a class may show two, where classes exclude each other
_NEVER = -1e4  # the logarithm of a probability of nothing


@dataclass(frozen=True)
class SegmentationSettings:
    """How masks are predicted.

    Attributes:
        classifier: `linear`, or `knn` (20 neighbouring patches).
        classes: `separate`, each by itself (linear: ridge regression onto 0 and 1, its threshold that with the best
            Dice in training); or `exclusive`, a pixel being one of them or background (linear: softmax regression).
        layers: last blocks whose patch tokens are read, beside each other.
        scales: of the input that is learnt from, at which the tested pictures are given; the predictions are averaged
            at the pictures' own size.
        patches: of the training pictures that are learnt from, evenly chosen.
        tested: `operations`, or `later_frames` of each, by what was learnt from its earlier ones, as in `depth`.
    """

    classifier: Literal["knn", "linear"]
    classes: Literal["separate", "exclusive"]
    layers: Annotated[int, Field(ge=1, le=12)]
    scales: Annotated[tuple[Scale, ...], Field(min_length=1, max_length=8)]
    patches: Annotated[int, Field(ge=100, le=10**7)]
    tested: Literal["operations", "later_frames"]


class Segmentation(Evaluation[SegmentationSettings]):
    """IoU and Dice at the pictures' own size, mean over classes without the background; EndoVis' challenge IoU.

    Image-wise, a class that a picture neither has nor is said to have is left out; pooled, the pixels of all pictures
    are taken together. What is not labelled counts for nothing; where classes are exclusive neither does a picture
    with a class that is not labelled, or a pixel of two classes.
    """

    Settings = SegmentationSettings

    def labels(self) -> tuple[str, ...]:
        return ("masks",)

    def reads(self, features: FeatureCache) -> list[Reading]:
        """At the input's size, which is learnt from, then at each that is tested, by scale."""
        depth, size, patch = features.backbone.depth, features.preprocess.image_size, features.backbone.patch_size
        layers = tuple(range(depth - min(self.settings.layers, depth), depth))
        sides = [size, *(max(round(size * scale / patch), 1) * patch for scale in self.settings.scales)]
        caches = (replace(features, preprocess=replace(features.preprocess, image_size=side)) for side in sides)
        return [Reading(cache, layers) for cache in caches]

    def outcomes(self, given: Given) -> Iterator[Outcome]:
        patches = [each.features.patches(given.frames, each.patches) for each in self.reads(given.features)]
        classes, exclusive = given.classes, self._exclusive
        targets = MaskTargets(given.frames, classes, round(patches[0].shape[1] ** 0.5), given.features.workers)
        usable = np.asarray(targets.labelled.all(1) | (not exclusive))
        if exclusive and not _exclude_each_other(targets, np.flatnonzero(usable)):
            warn("these masks overlap, or no picture has all labelled: classes=exclusive leaves them out")
            return
        where, video_of = placements(given.frames), given.frames.video_of
        images: dict[int, ImageScores] = {}
        later = self.settings.tested == "later_frames"
        for train, test in _of(usable, [given.halves()] if later else given.folds()):
            learn = self._learnt_exclusive if exclusive else self._learnt
            learnt = learn(patches[0], targets, train, given.device)
            for i, planes in _predicted(learnt, patches, test, len(classes) + exclusive, given.device):
                truth, labelled, valid = read_truth(given.frames.masks(i), classes)
                valid = valid & (truth.sum(0) < 2) if exclusive else valid
                found = self._masks(planes, where[video_of[i]])
                images[i] = image_scores(truth, found, labelled=labelled, valid=valid, hd95=False)
        for outcome in _told(images, given):
            yield outcome.called(outcome.name + (LATER if later else ""))

    @property
    def _exclusive(self) -> bool:
        return self.settings.classes == "exclusive"

    def _masks(self, scales: Sequence[np.ndarray], where: Placement) -> np.ndarray:
        """bool [classes, H, W] of the picture, from what each scale predicts of the stored frame [planes, h, w]."""
        x0, y0, x1, y1 = where.box
        size, total = (x1 - x0, y1 - y0), np.zeros((), np.float32)
        for planes in scales:
            enlarged = np.stack([cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR) for plane in planes])
            proper = self._exclusive and self.settings.classifier == "linear"
            total = total + (softmax(enlarged, 0) if proper else enlarged)
        ids = np.arange(1, len(total))[:, None, None]
        chosen = total.argmax(0) == ids if self._exclusive else total > 0
        masks = np.zeros((len(chosen), *where.source[::-1]), bool)
        masks[:, y0:y1, x0:x1] = chosen
        return masks

    def _learnt(self, patches: FeatureRows, targets: MaskTargets, train: np.ndarray, device: torch.device) -> Learnt:
        """(classes, what tells them) of every group of classes that are labelled in the same training pictures; above
        0 where a class is."""
        found: Learnt = []
        known, group_of = np.unique(targets.labelled[train], axis=1, return_inverse=True)
        for group in range(known.shape[1]):
            rows, classes = train[known[:, group]], np.flatnonzero(group_of.reshape(-1) == group)
            chosen = even(np.arange(len(rows) * patches.shape[1]), self.settings.patches)
            covered = _covered(targets, rows, chosen)[:, classes]
            mixed = covered.any(0) & ~covered.all(0) if len(rows) else np.zeros(len(classes), bool)
            if mixed.any():  # of the others nothing can be learnt: nowhere, or everywhere, as in training
                tokens = _tokens(patches, rows, chosen).to(device)
                logits = patch_logits(self.settings.classifier, tokens, covered[:, mixed].astype(np.float64))
                found.append((classes[mixed], logits))
            if len(rows) and (everywhere := covered.all(0)).any():
                found.append((classes[everywhere], lambda tokens: np.ones((len(tokens), 1))))
        return found

    def _learnt_exclusive(
        self, patches: FeatureRows, targets: MaskTargets, train: np.ndarray, device: torch.device
    ) -> Learnt:
        """(planes, what tells them): background, then the classes; logarithms of probabilities, or k-NN's votes."""
        chosen = even(np.arange(len(train) * patches.shape[1]), self.settings.patches)
        covered = _covered(targets, train, chosen)
        ids = np.where(covered.any(1), covered.argmax(1) + 1, 0)
        present, tokens = np.unique(ids), _tokens(patches, train, chosen)
        if len(present) == 1:
            return [(present, lambda tokens: np.ones((len(tokens), 1)))]
        if self.settings.classifier == "knn":
            votes, known = (ids[:, None] == present).astype(np.float64), tokens.to(device)
            return [(present, lambda tokens: knn_scores(known, votes, tokens))]
        scaler = StandardScaler().fit(tokens.numpy())
        fitted = fit_logistic(scaler.transform(tokens.numpy()), ids, _PENALTY)

        def predict(tokens: Tensor) -> np.ndarray:
            return np.maximum(fitted.predict_log_proba(scaler.transform(tokens.cpu().numpy())), _NEVER)

        return [(present, predict)]


def _told(images: dict[int, ImageScores], given: Given) -> Iterator[Outcome]:
    rows = sorted(images)
    scores, owners = [images[i] for i in rows], given.operations[rows].tolist()
    values = {name: value for name, value in stacked(scores, given.classes).items() if name != "hd95"}
    for words, statistic in {
        "image-wise": lambda rows: class_means(values, rows),
        "pooled": lambda rows: pooled_scores(scores, rows),
    }.items():
        for outcome in pooled(statistic, owners):
            yield outcome.called(f"{_WORDS[outcome.name]}, {words}")
    yield from pooled(lambda rows: {"EndoVis challenge IoU": challenge_iou(scores, rows)}, owners)


def _of(usable: np.ndarray, folds: Iterable[Fold]) -> Iterator[Fold]:
    """The folds' usable rows."""
    for fold in folds:
        train, test = (rows[usable[rows]] for rows in fold)
        if len(train) and len(test):
            yield train, test


def _exclude_each_other(targets: MaskTargets, rows: np.ndarray) -> bool:
    """Whether hardly a patch of these pictures shows more than one class; not of no pictures."""
    shown = two = 0
    for start in range(0, len(rows), _IMAGES):
        counts = (targets[rows[start : start + _IMAGES]] > 127).sum(1)
        shown, two = shown + int((counts > 0).sum()), two + int((counts > 1).sum())
    return len(rows) > 0 and two <= _OVERLAP * shown


def _covered(targets: MaskTargets, rows: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """bool [len(chosen), classes]: what covers more than half of the patches at `chosen` of all of these pictures."""
    planes = targets[rows]
    return (planes > 127).transpose(0, 2, 3, 1).reshape(-1, planes.shape[1])[chosen]


def _tokens(patches: FeatureRows, rows: np.ndarray, chosen: np.ndarray) -> Tensor:
    """float32 [len(chosen), D]: those at `chosen`, ascending, of all patches of the pictures `rows`."""
    picture, patch = np.divmod(chosen, patches.shape[1])
    found = np.empty((len(chosen), patches.shape[2]), np.float32)
    for start in range(0, len(rows), _IMAGES):
        here = slice(*np.searchsorted(picture, (start, start + _IMAGES)))
        found[here] = patches[rows[start : start + _IMAGES]][picture[here] - start, patch[here]]
    return torch.from_numpy(found)


def _predicted(
    learnt: Learnt, scales: Sequence[FeatureRows], rows: np.ndarray, planes: int, device: torch.device
) -> Iterator[tuple[int, list[np.ndarray]]]:
    """(row, float32 [planes, side, side] at each scale) of each picture; what was not learnt is nowhere."""
    for start in range(0, len(rows), _IMAGES):
        some, found = rows[start : start + _IMAGES], []
        for patches in scales:
            side = round(patches.shape[1] ** 0.5)
            tokens = torch.from_numpy(patches[some]).to(device).flatten(0, 1).float()
            logits = np.full((len(tokens), planes), _NEVER, np.float32)
            for places, predict in learnt:
                logits[:, places] = predict(tokens)
            shaped = logits.reshape(len(some), side, side, planes).transpose(0, 3, 1, 2)
            found.append(np.ascontiguousarray(shaped))
        yield from ((int(row), [each[i] for each in found]) for i, row in enumerate(some))
