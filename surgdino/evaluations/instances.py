"""The same building, tool or thing found again among pictures: mAP and mP@k as on revisited Oxford and Paris"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from surgdino.crops.workers import load
from surgdino.datasets.adapters.oxford_paris import EASY, HARD, INSTANCE, JUNK, QUERY
from surgdino.errors import SurgdinoError
from surgdino.evaluations.parts.evaluation import Evaluation, Reading
from surgdino.evaluations.parts.given import Given
from surgdino.evaluations.parts.outcome import Outcome
from surgdino.evaluations.parts.ranked import over
from surgdino.frames.store import FrameStore
from surgdino.metrics.arrays import nanmean
from surgdino.metrics.retrieval import ranking
from surgdino.tasks.features.cache import FeatureCache

# Setup -> what is to be found, and what is junk, which is taken out of the ranking (Radenovic et al. 2018).
SETUPS = {"easy": ((EASY,), (JUNK, HARD)), "medium": ((EASY, HARD), (JUNK,)), "hard": ((HARD,), (JUNK, EASY))}


@dataclass(frozen=True)
class InstancesSettings:
    """How pictures are seen.

    Attributes:
        size: pixels of the longer side; smaller pictures stay as they are, and sides become multiples of the patch.
        scales: of that size; the mean of their class tokens is what is compared.
        ks: of the precision.
    """

    size: Annotated[int, Field(ge=16, le=4096)]
    scales: Annotated[tuple[Annotated[float, Field(gt=0, le=2)], ...], Field(min_length=1, max_length=10)]
    ks: Annotated[tuple[Annotated[int, Field(ge=1, le=10_000)], ...], Field(min_length=1, max_length=10)]


class Instances(Evaluation[InstancesSettings]):
    """Mean average precision (trapezoids) and precision at k over queries, by the class tokens' cosine.

    A query without anything to find in a setup does not count there. Pictures keep their shape.
    """

    Settings = InstancesSettings

    def labels(self) -> tuple[str, ...]:
        return (INSTANCE,)

    def reads(self, features: FeatureCache) -> list[Reading]:
        """None that are kept: pictures have shapes of their own."""
        return []

    def outcomes(self, given: Given) -> Iterator[Outcome]:
        told = given.frames.targets
        assert told is not None
        is_query = (told == QUERY).any(1)
        queries, gallery = np.flatnonzero(is_query), np.flatnonzero(~is_query)
        if not len(queries) or not len(gallery):
            found = f"{len(queries)} queries, {len(gallery)} pictures"
            raise SurgdinoError("nothing to look for", expected="queries, and pictures to find", found=found)
        unit = F.normalize(self._tokens(given), dim=1)
        similarity = (unit[queries] @ unit[gallery].T).numpy()
        codes = told[gallery][:, (told[queries] == QUERY).argmax(1)].T
        for setup, (positive, junk) in SETUPS.items():
            ranks = ranking(similarity, np.isin(codes, positive), np.isin(codes, junk), self.settings.ks)
            table = np.column_stack([ranks.average_precision, ranks.until_last])
            names = [f"mAP, {setup}", *(f"mP@{k}, {setup}" for k in self.settings.ks)]

            def statistic(rows: np.ndarray, table=table, names=names) -> Mapping[str, float]:
                return dict(zip(names, nanmean(table[rows], 0).tolist(), strict=True))

            if not np.isnan(table).all():
                yield from over(given, queries, statistic, "queries")

    def _tokens(self, given: Given) -> Tensor:
        """float32 [n, D]."""
        cache, frames, own = given.features, given.frames, self.settings
        read, places = _Read(frames.store, own.size, own.scales, cache.backbone.patch_size), frames.index.tolist()
        wanted, found = 3 * own.size**2 * len(own.scales), []
        for pictures in load(read, places, min(cache.workers, len(places)), result_bytes=wanted):
            tokens = [cache.encode(picture[None]).cls.float() for picture in pictures]
            found.append(torch.stack(tokens).mean(0).cpu())
        return torch.cat(found)


@dataclass
class _Read:
    """A position in the store in, uint8 [3, H, W] at each scale out, sides in whole patches; runs in the workers."""

    store: FrameStore
    size: int
    scales: tuple[float, ...]
    patch: int

    def __call__(self, index: int) -> list[Tensor]:
        picture, found = self.store.read(index), []
        whole = min(1.0, self.size / max(picture.shape[:2]))
        for scale in self.scales:
            sides = [max(1, round(whole * scale * side / self.patch)) * self.patch for side in picture.shape[:2]]
            shrinks = sides[0] <= picture.shape[0] and sides[1] <= picture.shape[1]
            how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
            found.append(torch.from_numpy(cv2.resize(picture, sides[::-1], interpolation=how)).permute(2, 0, 1))
        return found
