"""Depth read from patch tokens by a linear head of 256 bins or a DPT head, as DINOv2 has them; errors by alignment"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Annotated, Literal

import cv2
import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from surgdino.crops.workers import load
from surgdino.datasets.depth import DEPTH, DepthMap
from surgdino.datasets.files import image_size
from surgdino.errors import SurgdinoError
from surgdino.evaluations.parts import dpt_head
from surgdino.evaluations.parts.depth_head import UPSAMPLING, DepthHead, Fitting, Spacing, centres_of, fit
from surgdino.evaluations.parts.dpt_head import DPTHead
from surgdino.evaluations.parts.evaluation import Evaluation, Reading
from surgdino.evaluations.parts.given import LATER, Fold, Given
from surgdino.evaluations.parts.outcome import Outcome
from surgdino.metrics.arrays import nanmean
from surgdino.metrics.depth import MEASURES, Alignment, depth_errors
from surgdino.tasks.features.cache import FeatureCache
from surgdino.tasks.features.files import FeatureRows
from surgdino.tasks.labelled_frames import LabelledFrames
from surgdino.tasks.segmentation.targets import placements

_IMAGES = 16  # that are predicted at a time
_ALIGNED = {"none": "not aligned", "median": "median scaled", "scale-shift": "scale and shift fitted"}
_WITH_UNIT = ("SqRel", "RMSE")


@dataclass(frozen=True)
class DepthSettings:
    """How depth is learnt and scored.

    Attributes:
        head: `linear`, or `dpt`, which reads four layers.
        channels: of the maps that the DPT head fuses.
        layers: blocks whose patch tokens are read: the last one, or four evenly spaced ones; the last block's class
            token is beside them.
        bins: of the linear head, spaced evenly (`uniform`), or by logarithm (`log`), which suits what is mostly near.
        steps, batch, lr: of the fit; pictures of a step.
        gradient: weight of the gradient loss beside SigLoss; 0 leaves it out.
        alignments: with which errors are told; `none` is left out where depth has no scale.
        tested: `operations`, by what was learnt from others; or `later_frames`, the later half of each operation by
            what was learnt from the earlier half. Frames of one operation are alike, so the numbers' names say it.
    """

    head: Literal["linear", "dpt"]
    channels: Annotated[int, Field(ge=2, le=1024)]
    layers: Literal[1, 4]
    bins: Spacing
    steps: Annotated[int, Field(ge=10, le=100_000)]
    batch: Annotated[int, Field(ge=1, le=256)]
    lr: Annotated[float, Field(gt=0, le=1)]
    gradient: Annotated[float, Field(ge=0, le=10)]
    alignments: Annotated[tuple[Alignment, ...], Field(min_length=1)]
    tested: Literal["operations", "later_frames"]

    def __post_init__(self) -> None:
        if self.head == "dpt" and self.layers != dpt_head.LAYERS:
            raise SurgdinoError("head=dpt reads four layers", place="layers", expected="4", found=str(self.layers))


class Depth(Evaluation[DepthSettings]):
    """Errors at the picture's own size, over the pixels whose depth is known; the mean over an operation's pictures."""

    Settings = DepthSettings

    def labels(self) -> tuple[str, ...]:
        return (DEPTH,)

    def reads(self, features: FeatureCache) -> list[Reading]:
        return [Reading(features, self._layers(features.backbone.depth))]

    def outcomes(self, given: Given) -> Iterator[Outcome]:
        truths = DepthTruths(given.frames)
        tokens = Tokens(given, self._layers(given.features.backbone.depth))
        alignments = [how for how in self.settings.alignments if how != "none" or not truths.relative]
        if not alignments:
            what, expected = "depth of relative scale has no error without an alignment", "median or scale-shift"
            raise SurgdinoError(what, place="alignments", expected=expected, found="none")
        found: dict[int, dict[tuple[Alignment, str], float]] = {}
        for train, test in self._folds(given):
            head = self._learnt(given, tokens, truths, train)
            for i, plane in _predicted(head, tokens, test):
                truth = truths.whole(i)
                predicted = cv2.resize(plane, truth.shape[::-1], interpolation=cv2.INTER_LINEAR)
                found[i] = {}
                for how in alignments:
                    errors = depth_errors(truth, predicted, how, truths.nearest, truths.farthest)
                    found[i] |= {(how, name): value for name, value in errors.items()}
        yield from self._told(given, found, alignments, ", in medians" if truths.relative else ", mm")

    def _told(
        self,
        given: Given,
        found: dict[int, dict[tuple[Alignment, str], float]],
        alignments: Sequence[Alignment],
        unit: str,
    ) -> Iterator[Outcome]:
        rows = given.of_operations(np.array(sorted(found)))
        later = LATER if self.settings.tested == "later_frames" else ""
        for how in alignments:
            for measure in MEASURES:
                each = {op: float(nanmean(np.array([found[i][how, measure] for i in at]))) for op, at in rows.items()}
                share = measure.startswith("delta")
                name = f"{measure}{unit if measure in _WITH_UNIT else ''}, {_ALIGNED[how]}{later}"
                yield Outcome.mean(name, each, "higher" if share else "lower", percent=share)

    def _layers(self, depth: int) -> tuple[int, ...]:
        count = min(self.settings.layers, depth)
        if self.settings.head == "dpt" and count < dpt_head.LAYERS:
            raise SurgdinoError("head=dpt reads four layers", expected="a backbone of four blocks", found=str(depth))
        return tuple(depth * (k + 1) // count - 1 for k in range(count))

    def _folds(self, given: Given) -> Iterator[Fold]:
        if self.settings.tested == "operations":
            try:
                yield from given.folds()
            except SurgdinoError as error:
                raise error.but(fix="give more, or test later frames of the same one (tested: later_frames)") from error
            return
        yield given.halves()

    def _learnt(self, given: Given, tokens: Tokens, truths: DepthTruths, train: np.ndarray) -> nn.Module:
        side = (dpt_head.UPSAMPLING if self.settings.head == "dpt" else UPSAMPLING) * tokens.side
        read = partial(truths.stored, side=side)
        planes = np.stack(list(load(read, train.tolist(), min(given.features.workers, len(train)), result_bytes=0)))
        told = np.isfinite(planes).any((1, 2))
        if not told.any():
            what, fix = (
                "no training picture has a pixel of known depth",
                "check the card's unit and range (surgdino verify)",
            )
            expected = f"depth between {truths.nearest:g} and {truths.farthest:g} mm"
            raise SurgdinoError(what, file=truths.files[train[0]].path, expected=expected, fix=fix)
        train, planes = train[told], planes[told]
        head = self._head(tokens, train, torch.from_numpy(planes[np.isfinite(planes)]), truths).to(given.device)
        chosen = {name: value for name, value in asdict(self.settings).items() if name in Fitting.__annotations__}
        fit(
            head,
            Fitting(**chosen),
            len(train),
            lambda at: (tokens[train[at]], torch.from_numpy(planes[at]).to(given.device)),
        )
        return head

    def _head(self, tokens: Tokens, train: np.ndarray, known: Tensor, truths: DepthTruths) -> nn.Module:
        mean, deviation = tokens.moments(train)
        if self.settings.head == "dpt":
            return DPTHead(mean, deviation, self.settings.channels, known, truths.nearest, truths.farthest)
        return DepthHead(mean, deviation, centres_of(self.settings.bins, truths.nearest, truths.farthest), known)


class DepthTruths:
    """What is known of the depth of frames, read when asked for.

    Attributes:
        files: of each frame.
        nearest, farthest: mm.
        relative: as in `DepthMap`.
    """

    def __init__(self, frames: LabelledFrames) -> None:
        self._pictures = [frames.masks(i).image for i in range(len(frames))]
        self.files = [file for i in range(len(frames)) if isinstance(file := frames.masks(i).files[DEPTH], DepthMap)]
        self.nearest, self.farthest = self.files[0].nearest, self.files[0].farthest
        self.relative = self.files[0].relative
        self._boxes, self._video_of = [each.box for each in placements(frames)], frames.video_of

    def whole(self, i: int) -> np.ndarray:
        """float32 [H, W] mm of the part of the picture that is stored; NaN where unknown."""
        x0, y0, x1, y1 = self._boxes[self._video_of[i]]
        return self.files[i].read(*image_size(self._pictures[i]))[y0:y1, x0:x1]

    def stored(self, i: int, side: int) -> np.ndarray:
        """float32 [side, side]: the same as the backbone sees it, each pixel the mean of what is known in it."""
        depth = self.whole(i)
        known = np.isfinite(depth)
        how = cv2.INTER_AREA if min(depth.shape) >= side else cv2.INTER_NEAREST
        total, share = (
            cv2.resize(plane, (side, side), interpolation=how)
            for plane in (np.where(known, depth, 0), known.astype(np.float32))
        )
        return np.where(share > 1e-6, total / np.maximum(share, 1e-6), np.nan).astype(np.float32)


class Tokens:
    """Patch tokens of some layers, the class token beside each.

    Attributes:
        side: of the grid.
    """

    def __init__(self, given: Given, layers: tuple[int, ...]) -> None:
        self._patches: FeatureRows = given.features.patches(given.frames, layers)
        self._classes, self._device = given.tokens(), given.device
        self.side = round(self._patches.shape[1] ** 0.5)

    def __getitem__(self, rows: np.ndarray) -> Tensor:
        """float32 [b, side, side, D * layers + D]."""
        patches = torch.from_numpy(self._patches[rows]).to(self._device).float()
        classes = self._classes[torch.from_numpy(rows).to(self._device)][:, None].expand(-1, patches.shape[1], -1)
        return torch.cat([patches, classes], 2).unflatten(1, (self.side, self.side))

    def moments(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [D * layers + D] over all patches of these frames."""
        count, total, squares = 0, torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        for start in range(0, len(rows), _IMAGES):
            tokens = self[rows[start : start + _IMAGES]].flatten(0, 2).double().cpu()
            count, total, squares = count + len(tokens), total + tokens.sum(0), squares + (tokens**2).sum(0)
        mean = total / count
        return mean.float(), (squares / count - mean**2).clamp_min(0).sqrt().float()


@torch.no_grad()
def _predicted(head: nn.Module, tokens: Tokens, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(row, float32 [h, w] mm) of each picture, at the head's size."""
    for start in range(0, len(rows), _IMAGES):
        some = rows[start : start + _IMAGES]
        yield from zip(some.tolist(), head(tokens[some]).cpu().numpy(), strict=True)
