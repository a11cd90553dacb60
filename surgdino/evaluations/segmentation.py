"""Masks predicted patch by patch, by a linear probe or by k-NN without any training, scored on the pictures"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from surgdino.datasets.masks import read_masks
from surgdino.engine.probes.masks import patch_logits
from surgdino.engine.probing.frames import even
from surgdino.evaluations.parts.evaluation import Evaluation
from surgdino.evaluations.parts.given import Given
from surgdino.evaluations.parts.outcome import Outcome, pooled
from surgdino.metrics.segmentation import ImageScores, class_means, image_scores, pooled_scores, stacked
from surgdino.tasks.features.files import FeatureRows
from surgdino.tasks.segmentation.targets import MaskTargets, placements

Logits = Callable[[Tensor], np.ndarray]  # tokens [t, D] -> [t, c], above 0 where the class is
_IMAGES = 32  # whose patches are in memory at a time
_WORDS = {"dice": "Dice", "iou": "IoU"}


@dataclass(frozen=True)
class SegmentationSettings:
    """How masks are predicted.

    Attributes:
        classifier: `linear` (ridge regression onto 0 and 1, its threshold that with the best Dice in training) or `knn`
            (20 neighbouring patches).
        patches: of the training pictures that are learnt from, evenly chosen.
    """

    classifier: Literal["knn", "linear"]
    patches: Annotated[int, Field(ge=100, le=10**7)]


class Segmentation(Evaluation[SegmentationSettings]):
    """IoU and Dice at the pictures' own size, each class by itself; the mean over classes.

    Image-wise, a class that a picture neither has nor is said to have is left out; pooled, the pixels of all pictures
    are taken together. What is not labelled counts for nothing.
    """

    Settings = SegmentationSettings
    dense = True

    def labels(self) -> tuple[str, ...]:
        return ("masks",)

    def outcomes(self, given: Given) -> Iterator[Outcome]:
        patches, classes = given.patches(), given.classes
        targets = MaskTargets(given.frames, classes, round(patches.shape[1] ** 0.5), given.features.workers)
        where, video_of = placements(given.frames), given.frames.video_of
        images: dict[int, ImageScores] = {}
        for train, test in given.folds():
            learnt = self._learnt(patches, targets, train, given.device)
            for i, logits in _predicted(learnt, patches, test, len(classes), given.device):
                truth, labelled = read_masks(given.frames.masks(i), classes)
                images[i] = image_scores(truth, where[video_of[i]].to_picture(logits), labelled=labelled, hd95=False)
        rows = sorted(images)
        scores, owners = [images[i] for i in rows], given.operations[rows].tolist()
        values = {name: value for name, value in stacked(scores, classes).items() if name != "hd95"}
        for words, statistic in {
            "image-wise": lambda rows: class_means(values, rows),
            "pooled": lambda rows: pooled_scores(scores, rows),
        }.items():
            for outcome in pooled(statistic, owners):
                yield replace(outcome, name=f"{_WORDS[outcome.name]}, {words}")

    def _learnt(
        self, patches: FeatureRows, targets: MaskTargets, train: np.ndarray, device: torch.device
    ) -> list[tuple[np.ndarray, Logits]]:
        """(classes, what tells them) of every group of classes that are labelled in the same training pictures."""
        found = []
        known, group_of = np.unique(targets.labelled[train], axis=1, return_inverse=True)
        for group in range(known.shape[1]):
            rows, classes = train[known[:, group]], np.flatnonzero(group_of.reshape(-1) == group)
            chosen = even(np.arange(len(rows) * patches.shape[1]), self.settings.patches)
            covered = (targets[rows][:, classes] > 127).transpose(0, 2, 3, 1).reshape(-1, len(classes))[chosen]
            mixed = covered.any(0) & ~covered.all(0) if len(rows) else np.zeros(len(classes), bool)
            if mixed.any():  # of the others nothing can be learnt: nowhere, or everywhere, as in training
                tokens = _tokens(patches, rows, chosen).to(device)
                logits = patch_logits(self.settings.classifier, tokens, covered[:, mixed].astype(np.float64))
                found.append((classes[mixed], logits))
            if len(rows) and (everywhere := covered.all(0)).any():
                found.append((classes[everywhere], lambda tokens: np.ones((len(tokens), 1))))
        return found


def _tokens(patches: FeatureRows, rows: np.ndarray, chosen: np.ndarray) -> Tensor:
    """float32 [len(chosen), D]: those at `chosen`, ascending, of all patches of the pictures `rows`."""
    picture, patch = np.divmod(chosen, patches.shape[1])
    found = np.empty((len(chosen), patches.shape[2]), np.float32)
    for start in range(0, len(rows), _IMAGES):
        here = slice(*np.searchsorted(picture, (start, start + _IMAGES)))
        found[here] = patches[rows[start : start + _IMAGES]][picture[here] - start, patch[here]]
    return torch.from_numpy(found)


def _predicted(
    learnt: Sequence[tuple[np.ndarray, Logits]],
    patches: FeatureRows,
    rows: np.ndarray,
    classes: int,
    device: torch.device,
) -> Iterator[tuple[int, np.ndarray]]:
    """(row, float32 [classes, side, side]) of each picture, above 0 where the class is."""
    side = round(patches.shape[1] ** 0.5)
    for start in range(0, len(rows), _IMAGES):
        some = rows[start : start + _IMAGES]
        tokens = torch.from_numpy(patches[some]).to(device).flatten(0, 1).float()
        logits = np.full((len(tokens), classes), -1.0, np.float32)
        for places, predict in learnt:
            logits[:, places] = predict(tokens)
        planes = logits.reshape(len(some), side, side, classes).transpose(0, 3, 1, 2)
        yield from zip(some.tolist(), np.ascontiguousarray(planes), strict=True)
