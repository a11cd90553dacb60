"""Probes that need labels: training and test frames, and the classifiers, none of which draws at random.

The rule: a test frame is classified by what was learnt from frames of other operations only. The training frames are
those of all other labelled operations, whether or not pretraining has seen them; the tested operations form at most
five folds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from surgdino.engine.probing.frames import ProbeFrames, TaskLabels
from surgdino.engine.probing.view import View
from surgdino.transfers import host_copy, uploaded

FOLDS = 5
# Weighted k-NN as DINO evaluates it (Caron et al. 2021, section 4.1): 20 neighbours, weights exp(cosine / 0.07).
NEIGHBOURS, TEMPERATURE = 20, 0.07
_AT_ONCE = 1 << 28  # similarities in memory, 1 GB
_GROUP, _MANY = 512, 1 << 16  # columns of a group; rows of so many columns are searched by groups
# Ridge penalty a frame, on standardised features. Measured on CholecT50 excerpts over penalties 0.3 to 30 a frame.
_PENALTY = 3.0


def folds(frames: ProbeFrames, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(training rows, test rows), no operation on both sides.

    Args:
        rows: int64, labelled frames as places in `frames`.
    """
    tested = np.unique(frames.operations[rows[frames.tested[rows]]])
    for fold in range(min(FOLDS, len(tested))):
        of_fold = np.isin(frames.operations[rows], tested[fold::FOLDS])
        if not of_fold.all():
            yield rows[~of_fold], rows[of_fold]


def neighbours(train: Tensor, test: Tensor, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Cosines and places in `train` of the nearest rows of each test row, [b, count] each, some test rows at a time.

    Args:
        train, test: [m, D] and [t, D].
        count: all of them where there are fewer.
    """
    train = F.normalize(train.float(), dim=-1)
    for part in test.split(max(_AT_ONCE // len(train), 1)):
        yield highest(F.normalize(part.float(), dim=-1) @ train.T, min(count, len(train)))


def highest(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` highest of each row [t, m], descending, and their columns: `topk`, but for which of equal ones come.

    They lie in the `count` groups of columns with the highest maxima. Of a million columns `topk` alone takes eight
    times longer.
    """
    columns = values.shape[1]
    if columns < max(_MANY, _GROUP * count):
        found, places = values.topk(count, dim=1)
        return found, places
    whole = columns - columns % _GROUP
    groups = values[:, :whole].unflatten(1, (-1, _GROUP)).amax(2).topk(count, dim=1).indices
    places = (_GROUP * groups[:, :, None] + torch.arange(_GROUP, device=values.device)).flatten(1)
    rest = torch.arange(whole, columns, device=values.device).expand(len(values), -1)
    places = torch.cat([places, rest], 1)
    found, chosen = values.gather(1, places).topk(count, dim=1)
    return found, places.gather(1, chosen)


def knn_scores(
    train: Tensor,
    targets: np.ndarray,
    test: Tensor,
    weight: np.ndarray | None = None,
    temperature: float = TEMPERATURE,
) -> np.ndarray:
    """The neighbours' targets, weighted by similarity: [m, D], [m, c] and [t, D] -> float32 [t, c].

    Args:
        weight: [m], the weight of each training row.
        temperature: infinity gives every neighbour the same weight.
    """
    return knn(train, targets, test, weight, temperature).cpu().numpy()


def knn(
    train: Tensor,
    targets: np.ndarray,
    test: Tensor,
    weight: np.ndarray | None = None,
    temperature: float = TEMPERATURE,
) -> Tensor:
    """`knn_scores`, left on the device."""
    device = train.device
    known = uploaded(torch.from_numpy(targets).float(), device)
    counts = None if weight is None else uploaded(torch.from_numpy(weight).float(), device)
    found = []
    for values, nearest in neighbours(train, test, NEIGHBOURS):
        weights = torch.softmax(values / temperature, dim=1)
        if counts is not None:
            weights = F.normalize(weights * counts[nearest], p=1, dim=1)
        found.append(torch.einsum("tk,tkc->tc", weights, known[nearest]))
    return torch.cat(found)


def linear_scores(train: Tensor, targets: np.ndarray, test: Tensor, weight: np.ndarray | None = None) -> np.ndarray:
    """Ridge regression onto 0/1 targets, all classes in one solve: [m, D], [m, c] and [t, D] -> float64 [t, c].

    In closed form, so that two measurements differ by the features alone, and a hundred classes cost what one does.

    Args:
        weight: [m], the weight of each training row.
    """
    return fit_linear(train, targets, weight)(test)


def fit_linear(train: Tensor, targets: np.ndarray, weight: np.ndarray | None = None) -> Callable[[Tensor], np.ndarray]:
    """`linear_scores` of any test rows, fitted once."""
    predict = fitted(train, targets, weight)
    return lambda test: predict(test).cpu().numpy()


def linear(train: Tensor, targets: np.ndarray, test: Tensor, weight: np.ndarray | None = None) -> Tensor:
    """`linear_scores`, left on the device."""
    return fitted(train, targets, weight)(test)


def fitted(train: Tensor, targets: np.ndarray, weight: np.ndarray | None = None) -> Callable[[Tensor], Tensor]:
    """`linear` of any test rows, fitted once."""
    if train.device.type != "cpu":
        return fit_ridge(train, targets, weight)
    scaler = StandardScaler().fit(train.numpy())
    ridge = Ridge(_PENALTY * len(train)).fit(scaler.transform(train.numpy()), targets, sample_weight=weight)
    return lambda test: torch.from_numpy(ridge.predict(scaler.transform(test.numpy())).reshape(len(test), -1))


def ridge_scores(train: Tensor, targets: np.ndarray, test: Tensor, weight: np.ndarray | None = None) -> Tensor:
    """`linear_scores` on the tensors' own device, in float64."""
    return fit_ridge(train, targets, weight)(test)


def fit_ridge(train: Tensor, targets: np.ndarray, weight: np.ndarray | None = None) -> Callable[[Tensor], Tensor]:
    """`ridge_scores` of any test rows, fitted once."""
    x, y = train.double(), uploaded(torch.from_numpy(targets).double(), train.device)
    deviation, mean = torch.std_mean(x, 0, correction=0)
    deviation = deviation.where(deviation > 0, 1.0)
    x = (x - mean) / deviation
    weights = (
        x.new_ones(len(x), 1) if weight is None else uploaded(torch.from_numpy(weight).double(), x.device)[:, None]
    )
    middle_x, middle_y = ((weights * part).sum(0) / weights.sum() for part in (x, y))
    x, y = x - middle_x, y - middle_y
    penalty = _PENALTY * len(x) * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    # The penalty makes the matrix regular; `solve` would have the host wait to see that it is.
    slopes = torch.linalg.solve_ex(x.T @ (weights * x) + penalty, x.T @ (weights * y)).result
    return lambda test: ((test.double() - mean) / deviation - middle_x) @ slopes + middle_y


def balanced(ids: np.ndarray) -> np.ndarray:
    """[m], weights with which every class counts the same and their mean is 1."""
    _, inverse, counts = np.unique(ids, return_inverse=True, return_counts=True)
    return len(ids) / (len(counts) * counts[inverse])


Classifier = Callable[..., Tensor]
CLASSIFIERS: dict[str, Classifier] = {"linear": linear, "knn": knn}
Pairs = Iterable[tuple[np.ndarray, np.ndarray]]


def whole_frame_scores(view: View, labels: TaskLabels) -> Iterator[tuple[str, np.ndarray]]:
    """(name, scores [n, classes] of all frames) of the probes that use labels of whole frames; nan where not tested.

    `aligned` is the linear probe once more, on features whose level and spread are each operation's own; of a single
    frame nothing would be left, so operations of one are not tested by it. Where a frame has one class, every class
    counts the same.
    """
    frames, labelled, classes = view.frames, np.flatnonzero(labels.present), len(labels.classes)
    _, place, counts = np.unique(frames.operations, return_inverse=True, return_counts=True)
    probes = [(name, classifier, view.features.cls, frames.tested) for name, classifier in CLASSIFIERS.items()]
    probes.append(("aligned", linear, view.aligned_cls, frames.tested & (counts[place] > 1)))
    pairs = list(folds(frames, labelled))
    found = {
        name: _of_folds(classifier, features, labels.values, classes, [(a, b[tested[b]]) for a, b in pairs])
        for name, classifier, features, tested in probes
    }
    for name, parts in host_copy(found, copy=False)().items():  # of all probes at once
        yield name, _scattered(parts, len(frames), classes)


def fold_scores(classifier: Classifier, features: Tensor, values: np.ndarray, classes: int, pairs: Pairs) -> np.ndarray:
    """Scores [n, classes] of the test rows of all folds; nan elsewhere.

    Args:
        features: [n, D].
        values: class ids int [n], with which every class counts the same, or 0/1 [n, classes].
        pairs: (training rows, test rows), int64, of each fold.
    """
    parts = host_copy(_of_folds(classifier, features, values, classes, pairs), copy=False)()
    return _scattered(parts, len(features), classes)


Parts = list[tuple[np.ndarray, Tensor]]


def _of_folds(classifier: Classifier, features: Tensor, values: np.ndarray, classes: int, pairs: Pairs) -> Parts:
    """(test rows, their scores on the device) of each fold that has any."""
    parts, device = [], features.device
    for train, test in pairs:
        targets, weight = as_targets(values[train], classes)
        if len(test):
            learnt, tested = (features[uploaded(rows, device)] for rows in (train, test))
            parts.append((test, classifier(learnt, targets, tested, weight)))
    return parts


def _scattered(parts: Parts, frames: int, classes: int) -> np.ndarray:
    scores = np.full((frames, classes), np.nan)
    for rows, found in parts:
        scores[rows] = found.numpy()
    return scores


def as_targets(values: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray | None]:
    """What classifiers learn: float64 [m, classes], and the weight of each row; of class ids every class counts alike.

    Args:
        values: class ids int [m], or 0/1 [m, classes].
    """
    if values.ndim > 1:
        return values.astype(np.float64), None
    return np.eye(classes)[values], balanced(values)
