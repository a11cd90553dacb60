"""Tasks with any number of classes a frame, such as tools and triplets: k-NN and a linear probe, scored by mean AP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from surgdino.engine.probing.folds import whole_frame_scores
from surgdino.engine.probing.measures import LABELS, Finding, Measure, Probe
from surgdino.engine.probing.view import View
from surgdino.metrics.arrays import nanmean
from surgdino.metrics.average_precision import average_precision


class ManyClasses(Probe):
    """k-NN and a linear probe, scored by mean AP."""

    order = 11
    measures: ClassVar = {
        "_linear_ap": Measure("{task}, linear probe (mean AP)", chooses=LABELS),
        "_aligned_ap": Measure("{task}, aligned linear probe (mean AP)"),
        "_knn_ap": Measure("{task}, k-NN (mean AP)"),
    }

    def find(self, view: View) -> Iterator[Finding]:
        """Per operation: the mean of the average precisions of the classes that the operation has."""
        for labels in view.labels:
            for name, scores in whole_frame_scores(view, labels) if not labels.exclusive else ():
                rows = np.flatnonzero(~np.isnan(scores[:, 0]))
                values = {
                    operation: float(nanmean(average_precision(labels.values[at] > 0, scores[at])))
                    for operation, at in view.frames.of(rows).items()
                }
                if values:
                    yield Finding.over(f"{labels.task}_{name}_ap", values, len(rows))
