"""Linear probes on frozen features: instruments and phases across operations, polyps on patch tokens."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from surgdino.backbone.preprocess import Preprocess
from surgdino.backbone.vit import Backbone
from surgdino.datasets.manifest import Manifest
from surgdino.engine.probing.view import aligned
from surgdino.errors import SurgdinoError
from surgdino.frames.store import FrameStore
from surgdino.metrics.arrays import nanmean
from surgdino.metrics.average_precision import average_precision

# Inverse penalties of the probes on class tokens. A figure is the mean over them, so that no penalty is chosen: on one
# operation alone, all that is left when a choice has to leave one of two out, the strongest penalty always wins.
PENALTIES = (0.003, 0.01, 0.03, 0.1)
FIXED_PENALTY = 0.01
_KVASIR_PENALTY = 0.01
_BATCH = 32


@dataclass(frozen=True)
class ProbeFrames:
    """Labelled frames of several operations.

    Attributes:
        images: float32 [n, 3, S, S], normalised.
        operation: [n] video ids.
        instruments: 0/1 [n, classes].
        phase: [n] class ids.
    """

    images: Tensor
    operation: np.ndarray
    instruments: np.ndarray
    phase: np.ndarray


@dataclass(frozen=True)
class MaskedImages:
    """Kvasir-SEG: float32 [n, 3, S, S] images and bool [n][H, W] masks; every fifth is held out."""

    images: Tensor
    masks: list[np.ndarray]


def probe(backbone: Backbone, frames: ProbeFrames, polyps: MaskedImages | None, held: str) -> dict[str, Any]:
    """Every measure of a backbone, fractions in [0, 1]: fitted on the other operations, scored on `held`."""
    cls, mean = features(backbone, frames.images)
    result: dict[str, Any] = {}
    kinds = {"": cls, "_with_patches": np.hstack([cls, mean])}
    kinds |= {f"_aligned{suffix}": aligned(tokens, frames.operation) for suffix, tokens in kinds.items()}
    for suffix, tokens in kinds.items():
        for name, score, labels in (
            ("instrument_ap", instrument_ap, frames.instruments),
            ("phase_accuracy", phase_accuracy, frames.phase),
        ):
            result[name + suffix] = left_out(score, tokens, labels, frames.operation, held)
    both = np.hstack([cls, mean])
    for name, (score, labels) in FIXED.items():
        result[name] = left_out(score, both, getattr(frames, labels), frames.operation, held, (FIXED_PENALTY,))
    if polyps is not None:
        result["kvasir_dice"] = polyp_dice(backbone, polyps)
    return result


def left_out(
    score: Any,
    tokens: np.ndarray,
    labels: np.ndarray,
    operation: np.ndarray,
    held: str,
    penalties: tuple[float, ...] = PENALTIES,
) -> float:
    """The score on operation `held` of probes fitted on the others, mean over penalties."""
    fitted = operation != held
    scaler = StandardScaler().fit(tokens[fitted])
    x, x_held = scaler.transform(tokens[fitted]), scaler.transform(tokens[~fitted])
    return float(np.mean([score(x, labels[fitted], x_held, labels[~fitted], penalty) for penalty in penalties]))


def instrument_ap(x: np.ndarray, y: np.ndarray, x_held: np.ndarray, y_held: np.ndarray, penalty: float) -> float:
    """Mean AP over the instruments that the scored operation shows; one never seen in fitting is scored as chance."""
    scores = np.zeros(y_held.shape)
    for k in np.flatnonzero((y.min(0) == 0) & (y.max(0) == 1)):
        scores[:, k] = logistic(penalty).fit(x, y[:, k]).decision_function(x_held)
    return float(nanmean(average_precision(y_held.astype(bool), scores)))


def phase_accuracy(x: np.ndarray, y: np.ndarray, x_held: np.ndarray, y_held: np.ndarray, penalty: float) -> float:
    """Balanced accuracy: mean recall of the phases that the scored operation has."""
    fitted = logistic(penalty, class_weight="balanced").fit(x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a phase that is predicted but not there
        return float(balanced_accuracy_score(y_held, fitted.predict(x_held)))


def phase_neighbours(x: np.ndarray, y: np.ndarray, x_held: np.ndarray, y_held: np.ndarray, _: float) -> float:
    """Balanced accuracy of the majority of the 20 nearest frames by cosine."""
    fitted = KNeighborsClassifier(20, metric="cosine").fit(x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return float(balanced_accuracy_score(y_held, fitted.predict(x_held)))


# By class and mean patch token, at one penalty that was fixed beforehand: name -> score, labels
FIXED = {
    "fixed_instrument_ap": (instrument_ap, "instruments"),
    "fixed_phase_accuracy": (phase_accuracy, "phase"),
    "fixed_phase_neighbours": (phase_neighbours, "phase"),
}


def polyp_dice(backbone: Backbone, polyps: MaskedImages) -> float:
    """Mean Dice of a linear probe on patch tokens, its probabilities enlarged to the masks' size."""
    _, tokens = features(backbone, polyps.images, patches=True)
    side = int(tokens.shape[1] ** 0.5)
    share_of = [cv2.resize(m.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA) for m in polyps.masks]
    held = np.arange(len(tokens)) % 5 == 0
    scaler = StandardScaler().fit(tokens[~held].reshape(-1, tokens.shape[2]))
    x = scaler.transform(tokens[~held].reshape(-1, tokens.shape[2]))
    fitted = logistic(_KVASIR_PENALTY).fit(x, np.stack(share_of)[~held].ravel() > 0.5)
    return float(np.mean([_dice(fitted, scaler.transform(tokens[i]), polyps.masks[i]) for i in np.flatnonzero(held)]))


def _dice(fitted: LogisticRegression, tokens: np.ndarray, mask: np.ndarray) -> float:
    side = int(len(tokens) ** 0.5)
    probability = fitted.predict_proba(tokens)[:, 1].reshape(side, side).astype(np.float32)
    predicted = cv2.resize(probability, mask.shape[::-1], interpolation=cv2.INTER_LINEAR) > 0.5
    return float(2 * (predicted & mask).sum() / max(predicted.sum() + mask.sum(), 1))


def logistic(penalty: float, **options: Any) -> LogisticRegression:
    """The linear probe."""
    return LogisticRegression(C=penalty, max_iter=300, **options)


@torch.no_grad()
def features(backbone: Backbone, images: Tensor, patches: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Class tokens [n, D], and the mean patch tokens [n, D] or all of them [n, N, D]."""
    device = next(backbone.eval().parameters()).device
    cls, tokens = [], []
    for batch in images.split(_BATCH):
        found = backbone(batch.to(device))
        cls.append(found.cls.cpu())
        tokens.append((found.patches if patches else found.patches.mean(1)).cpu())
    return torch.cat(cls).numpy(), torch.cat(tokens).numpy()


def probe_frames(manifest: Manifest, store: FrameStore, preprocess: Preprocess) -> ProbeFrames:
    """All stored frames with both labels, those among them that pretraining would leave out too.

    Raises:
        SurgdinoError: fewer than three operations have such frames: one to score, two to choose a penalty on.
    """
    store = store.select(flagged=True)
    rows, operation, instruments, phase = [], [], [], []
    for index in range(len(store)):
        video, number = store.video_id(index), np.array([store.number(index)])
        found = [manifest.labels[task].values.get(video) for task in ("instrument", "phase")]
        labels = [each.at(number) for each in found if each is not None]
        if len(labels) == 2 and all(present[0] for present, _ in labels):
            rows.append(store.read(index))
            operation.append(video)
            instruments.append(labels[0][1][0])
            phase.append(labels[1][1][0])
    if len(set(operation)) < 3:
        raise SurgdinoError("too few labelled operations", file=manifest.root, expected="3", found=len(set(operation)))
    return ProbeFrames(preprocess(rows), np.array(operation), np.array(instruments), np.array(phase))


def masked_images(folder: Path, count: int | None, preprocess: Preprocess) -> MaskedImages | None:
    """The first `count` of Kvasir-SEG (all where None), or None where the folder is not there."""
    if not folder.is_dir():
        return None
    images, masks = [], []
    for path in sorted((folder / "images").iterdir())[:count]:
        mask = next((folder / "masks").glob(f"{path.stem}.*"))
        images.append(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB))
        masks.append(cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE) > 127)
    return MaskedImages(preprocess(images), masks)
