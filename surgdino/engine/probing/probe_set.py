"""The probe: a fixed set of frames with their labels, the measurement of a backbone on them, and when a run does it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from torch import Tensor

from surgdino import console
from surgdino.backbone.preprocess import Preprocess
from surgdino.backbone.vit import Backbone
from surgdino.datasets.manifest import Labels
from surgdino.engine.probing.frames import ProbeFrames, choose_frames, frame_labels, labelled_frames, mask_labels
from surgdino.engine.probing.measures import LABELS, NO_LABELS, Finding, probes
from surgdino.engine.probing.report import ProbeReport
from surgdino.engine.probing.view import Autocast, View, extract
from surgdino.frames.store import FrameStore
from surgdino.metrics.arrays import nanmean
from surgdino.transfers import uploaded


class ProbeSet:
    """Frames, labels and groups to measure a backbone on, the same from step 0 to the end.

    Pictures are read once, at the first measurement, and kept as uint8 in memory (512 frames at 224 px: 77 MB).

    Attributes:
        frames: which they are; those that are not tested only train probes that need labels.
        labels: of whole frames, one a task.
        masks: of some of the frames, or None.
        reference: class tokens and mean patch tokens of the tested frames as first measured.
        store: what the frames are from.
    """

    def __init__(
        self,
        store: FrameStore,
        count: int,
        preprocess: Preprocess,
        labels: Mapping[str, Labels] | None = None,
        tested: Collection[str] | None = None,
    ) -> None:
        """Args:
        store: where the frames are from.
        count: at most so many.
        preprocess: how the backbone is given them.
        labels: `Manifest.labels` of the store's dataset.
        tested: operations to test on; the others only train. None tests on every one.
        """
        labels = labels or {}
        labelled = labelled_frames(store, labels)
        if tested is not None and not labelled.any():  # the others have nothing to train with
            store = store.select([video.id for video in store.videos if video.operation in tested])
            labelled, tested = labelled_frames(store, {}), None
        self.store, self._preprocess = store, preprocess
        self.frames: ProbeFrames = choose_frames(store, count, tested, labelled)
        self.labels = frame_labels(store, self.frames.rows, labels)
        self.masks = mask_labels(store, self.frames.rows, labels)
        self.reference: tuple[Tensor, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def operations(self) -> tuple[str, ...]:
        """The operations that are tested."""
        return tuple(np.unique(self.frames.operations[self.frames.tested]).tolist())

    @property
    def tasks(self) -> tuple[str, ...]:
        """What there are labels of."""
        return (*(labels.task for labels in self.labels), *(() if self.masks is None else ("masks",)))

    @cached_property
    def fingerprint(self) -> str:
        """A hash of which frames these are and how large: measurements compare only where it is the same."""
        frames = self.frames
        facts = [self._preprocess.image_size, self.tasks, *zip(frames.videos, frames.rows, frames.tested, strict=True)]
        return hashlib.sha256(repr([str(item) for item in facts]).encode()).hexdigest()[:16]

    @cached_property
    def pictures(self) -> list[np.ndarray]:
        """uint8 [side, side, 3] each."""
        side = (self._preprocess.image_size,) * 2
        frames = (self.store.read(int(i)) for i in self.frames.rows)
        return [cv2.resize(frame, side, interpolation=cv2.INTER_AREA) for frame in frames]

    def measure(self, backbone: Backbone, autocast: Autocast) -> ProbeReport:
        """Everything that the data let one measure of `backbone`; the first one measured is the reference for drift.

        It is in evaluation mode during the measurement and nothing is drawn at random: training is not affected.
        """
        began = time.perf_counter()
        was_training = backbone.training
        backbone.eval()
        try:
            view = self._view(backbone, autocast)
            found = {}
            with console.bar("measuring", len(probes()), stays=False) as bar:
                for name, probe in probes().items():
                    bar.update(text=name)
                    found[name] = list(probe.find(view))
                    bar.advance()
        finally:
            backbone.train(was_training)
        score, score_of = _score(found)
        findings = {finding.name: finding for of_probe in found.values() for finding in of_probe}
        return ProbeReport(score, score_of, findings, time.perf_counter() - began)

    def _view(self, backbone: Backbone, autocast: Autocast) -> View:
        dense = np.unique(np.concatenate([probe.dense(self.frames, self.masks) for probe in probes().values()]))
        features = extract(backbone, self.pictures, dense, self._preprocess, autocast)
        if self.reference is None:
            tested = uploaded(np.flatnonzero(self.frames.tested), features.cls.device)
            self.reference = features.cls[tested], features.mean_patches[tested]
        side = self._preprocess.image_size // backbone.patch_size
        cls, mean_patches = (tensor.to(features.cls.device) for tensor in self.reference)  # a resumed run read them
        return View(self.frames, self.pictures, self.labels, self.masks, features, (cls, mean_patches), (side, side))


@dataclass(frozen=True)
class Probing:
    """What to measure and when.

    Attributes:
        frames: what to measure on.
        every: steps; step 0 and the last are measured as well.
        both: measure student and teacher, not only the one that is shipped.
        share: of the run's time that measuring may take, if more than a minute; step 0 and the last are not left out.
    """

    frames: ProbeSet
    every: int = 100
    both: bool = False
    share: float = 1.0

    def due(self, step: int, steps: int) -> bool:
        """Whether the backbone is measured after `step` of `steps`."""
        return step == 0 or step == steps or step % self.every == 0


def _score(found: Mapping[str, Sequence[Finding]]) -> tuple[float, tuple[str, ...]]:
    """The number that chooses the best checkpoint, and the findings that it is the mean of.

    With labels, the linear probes: first the mean within each kind of label (one class a frame, many, masks), then over
    kinds, so that triplets with their three parts do not outvote the phase. Without, the alignment of nearby frames.
    """
    known = probes()
    for choice in (LABELS, NO_LABELS):
        kinds = []
        for probe, findings in found.items():
            ends = tuple(key for key, measure in known[probe].measures.items() if measure.chooses == choice)
            chosen = [f for f in findings if ends and f.name.endswith(ends) and f.value == f.value]
            kinds += [chosen] if chosen else []
        if kinds:
            values = np.array([nanmean(np.array([f.value for f in kind])) for kind in kinds])
            return float(values.mean()), tuple(f.name for kind in kinds for f in kind)
    return float("nan"), ()
