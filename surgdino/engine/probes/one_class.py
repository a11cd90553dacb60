"""Tasks with one class a frame, such as phase: k-NN and a linear probe on operations that neither was trained on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
from torch import Tensor

from surgdino.engine.probing.folds import Classifier, balanced, folds, whole_frame_probes
from surgdino.engine.probing.frames import TaskLabels
from surgdino.engine.probing.measures import LABELS, Finding, Measure, Probe
from surgdino.engine.probing.view import View
from surgdino.metrics.arrays import nanmean, ratio
from surgdino.metrics.phase import confusion_matrix


class OneClass(Probe):
    """k-NN and a linear probe, scored by accuracy."""

    order = 10
    measures: ClassVar = {
        "_linear_balanced_accuracy": Measure("{task}, linear probe (balanced accuracy)", chooses=LABELS),
        "_linear_accuracy": Measure("{task}, linear probe (accuracy)", margin=None),
        "_aligned_balanced_accuracy": Measure("{task}, aligned linear probe (balanced accuracy)"),
        "_aligned_accuracy": Measure("{task}, aligned linear probe (accuracy)", margin=None),
        "_knn_balanced_accuracy": Measure("{task}, k-NN (balanced accuracy)"),
        "_knn_accuracy": Measure("{task}, k-NN (accuracy)", margin=None),
    }

    def find(self, view: View) -> Iterator[Finding]:
        """Per operation: accuracy, and the mean of the recalls of the classes that the operation has."""
        for labels in view.labels:
            if labels.exclusive:
                for probe in whole_frame_probes(view):
                    yield from _probe(view, labels, *probe)


def _probe(
    view: View, labels: TaskLabels, name: str, classifier: Classifier, features: Tensor, tested: np.ndarray
) -> Iterator[Finding]:
    predicted = np.full(len(view.frames), -1)
    classes = len(labels.classes)
    for train, test in folds(view.frames, np.flatnonzero(labels.present)):
        test = test[tested[test]]
        if not len(test):
            continue
        ids = labels.values
        targets = np.eye(classes)[ids[train]]
        scores = classifier(features[train], targets, features[test], balanced(ids[train]))
        predicted[test] = scores.argmax(1)
    rows = np.flatnonzero(predicted >= 0)
    confusion = {
        operation: confusion_matrix(labels.values[at], predicted[at], classes)
        for operation, at in view.frames.of(rows).items()
    }
    if confusion:
        recall = {op: float(nanmean(ratio(np.diag(table), table.sum(1)))) for op, table in confusion.items()}
        accuracy = {op: float(np.trace(table) / table.sum()) for op, table in confusion.items()}
        yield Finding.over(f"{labels.task}_{name}_balanced_accuracy", recall, len(rows))
        yield Finding.over(f"{labels.task}_{name}_accuracy", accuracy, len(rows))
