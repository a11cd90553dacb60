"""Tasks with one class a frame, such as phase: k-NN and a linear probe on operations that neither was trained on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from surgdino.engine.probing.folds import whole_frame_scores
from surgdino.engine.probing.measures import LABELS, Finding, Measure, Probe
from surgdino.engine.probing.view import View
from surgdino.metrics.phase import accuracies


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
            for name, scores in whole_frame_scores(view, labels) if labels.exclusive else ():
                rows = np.flatnonzero(~np.isnan(scores[:, 0]))
                found = {
                    operation: accuracies(labels.values[at], scores[at].argmax(1), len(labels.classes))
                    for operation, at in view.frames.of(rows).items()
                }
                for place, measure in ((1, "balanced_accuracy"), (0, "accuracy")) if found else ():
                    values = {operation: each[place] for operation, each in found.items()}
                    yield Finding.over(f"{labels.task}_{name}_{measure}", values, len(rows))
