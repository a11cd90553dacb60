"""`task.temporal=auto`: which temporal model is used, or none, is decided on operations that it has not learnt from.

Every candidate is trained beside the classifier of single frames and judged by accuracy, operation by operation. It is
chosen where it gains most on that classifier after its gain's standard error is taken off; where none gains, there is
no temporal model. One that is better on one operation and worse on another is so not taken for better.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from surgdino import distributed
from surgdino.tasks.context import TaskContext
from surgdino.tasks.phase.head import PhaseHead
from surgdino.tasks.phase.settings import NONE, PhaseSettings
from surgdino.tasks.phase.stages import (
    classifier_stage,
    pooled_features,
    temporal_stage,
)
from surgdino.tasks.training.stage import Stage
from surgdino.transfers import uploaded
from surgdino.wording import counted

MOST_FOLDS = 3
_NEVER = 10**9  # steps
# As the whole is trained that has no validation part: the last step counts.
_TO_THE_END = {"patience": 0, "validate_every": _NEVER}


@dataclass
class Choice:
    """What was found of the candidates so far.

    Attributes:
        accuracy: candidate, or `none` for the frame classifier -> operation -> its accuracy on it.
    """

    accuracy: dict[str, dict[str, float]] = field(default_factory=dict)

    def record(self, name: str, context: TaskContext, settings: PhaseSettings, head: PhaseHead) -> None:
        """Judge a trained head on the validation part of the context."""
        self.accuracy.setdefault(name, {}).update(accuracies(context, settings, head))

    def gains(self, name: str) -> tuple[float, float]:
        """The mean gain in accuracy on the frame classifier, and its standard error; 0 for a single operation."""
        found, base = self.accuracy[name], self.accuracy[NONE]
        gains = np.array([found[operation] - base[operation] for operation in sorted(base)])
        return float(gains.mean()), float(gains.std(ddof=1) / len(gains) ** 0.5) if len(gains) > 1 else 0.0

    @property
    def best(self) -> str:
        """The candidate of the highest gain less its standard error, `none` where no such is above 0."""
        sure = {name: mean - error for name, (mean, error) in ((n, self.gains(n)) for n in self.accuracy)}
        best = max(sure, key=lambda name: sure[name], default=NONE)
        return best if sure and sure[best] > 0 else NONE

    def told(self) -> str:
        """What was found, in a line."""
        if not self.accuracy:
            return "task.temporal=auto: one operation to learn from leaves none to judge by: frame by frame"
        number, base = len(self.accuracy[NONE]), np.mean(list(self.accuracy[NONE].values()))
        gains = {name: self.gains(name) for name in self.accuracy if name != NONE}
        listed = ", ".join(f"{name} {100 * mean:+.1f} ± {100 * error:.1f}" for name, (mean, error) in gains.items())
        operations = counted(number, "operation")
        return (
            f"task.temporal=auto chose {self.best} on {operations} not learnt from: accuracy frame by frame "
            f"{100 * base:.1f} %, gain and its standard error: {listed}"
        )


def candidates_on_validation(
    context: TaskContext, settings: PhaseSettings, head: PhaseHead, candidates: dict[str, PhaseHead], choice: Choice
) -> Iterator[Stage]:
    """Each candidate's stage over the frame classifier of `head`, which is trained; judged on the validation part.

    Args:
        candidates: name -> a head that shares the frame classifier.
    """
    choice.record(NONE, context, settings, head)
    for name, candidate in candidates.items():
        yield temporal_stage(context, settings, candidate, f"temporal-{name}")
        choice.record(name, context, settings, candidate)


def candidates_on_folds(
    context: TaskContext, settings: PhaseSettings, candidates: dict[str, PhaseHead], choice: Choice
) -> Iterator[Stage]:
    """The stages of all candidates on parts of the training operations, each judged on those left out.

    Features are those of the backbone as it is at the beginning, also where it learns afterwards.

    Args:
        candidates: name -> a fresh head; it is copied, and stays so. `none` is the frame classifier alone.
    """
    train = context.parts["train"]
    operations = sorted(set(train.operations.values()))
    folds = min(len(operations), MOST_FOLDS)
    for fold in range(folds if folds > 1 else 0):
        held = set(operations[fold::folds])
        parts = {
            "train": train.of_videos([video for video in train.videos if train.operations[video] not in held]),
            "val": train.of_videos([video for video in train.videos if train.operations[video] in held]),
        }
        part = replace(context, tuning="frozen", parts=parts)
        frame = copy.deepcopy(candidates[NONE])
        for name, candidate in candidates.items():
            trial = frame if name == NONE else PhaseHead(frame.frame, copy.deepcopy(candidate.temporal))
            build = classifier_stage if name == NONE else temporal_stage
            stage = build(part, settings, trial, f"choice-{fold + 1}-{name}")
            yield replace(stage, overrides={**stage.overrides, **_TO_THE_END}, kept=False)
            choice.record(name, part, settings, trial)


@torch.no_grad()
def accuracies(context: TaskContext, settings: PhaseSettings, head: PhaseHead) -> dict[str, float]:
    """Operation -> the mean accuracy over its videos of the validation part, the same in every process."""
    frames = context.parts["val"]
    pooled, truths = pooled_features(context, settings, head, frames), frames.truths()
    found: dict[str, list[float]] = {}

    def judge() -> float:
        head.eval()
        for place, video in enumerate(frames.videos):
            rows = uploaded(pooled[frames.span(place)], context.device)
            predicted = torch.cat(list(head.probabilities(iter([rows])))).argmax(1).cpu().numpy()
            found.setdefault(frames.operations[video], []).append(float((predicted == truths[video]).mean()))
        return 0.0

    distributed.from_main(judge)
    names = sorted({frames.operations[video] for video in frames.videos})
    return {name: distributed.from_main(lambda name=name: float(np.mean(found[name]))) for name in names}  # type: ignore[misc]
