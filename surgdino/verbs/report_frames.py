"""The frames and backbones that the report's pictures are made of, found again from a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from surgdino.backbone.vit import build_backbone
from surgdino.backbone.weights import load_weights
from surgdino.checkpoint import LoadedBackbone, load
from surgdino.datasets.card import Card
from surgdino.frames.store import FrameStore, open_store
from surgdino.inputs.settings import DataSettings, manifest_of
from surgdino.report.learned import Learned, Sample
from surgdino.report.record import RunRecord

# Nearest neighbours are looked for among these many frames.
_FRAMES = 192


def learned_of(record: RunRecord) -> Learned:
    """The section with pictures of a run.

    Raises:
        SurgdinoError: its frame store or its data folder is not there any more.
    """
    config: dict[str, Any] = dict(record.config)
    data = DataSettings.of(config)
    store = open_store(data.store, manifest_of(Card.from_dict(config["dataset"]), data), data.store_settings)
    after = load(record.folder)
    return Learned(sample_of(store), initial_backbone(record, after), after)


def sample_of(store: FrameStore) -> Sample:
    """Frames evenly over the store."""
    index = np.unique(np.linspace(0, len(store) - 1, min(_FRAMES, len(store))).astype(int)).tolist()
    return Sample(
        frames=[store.read(i) for i in index],
        operations=[store.operation(i) for i in index],
        names=[f"{store.video_id(i)} {store.time(i):.0f} s" for i in index],
    )


def initial_backbone(record: RunRecord, after: LoadedBackbone) -> LoadedBackbone | None:
    """The backbone that the run began with; None where its file is gone or there was none."""
    weights = (record.config.get("model") or {}).get("weights")
    if not weights or not Path(weights).exists():
        return None
    backbone = build_backbone(record.config["model"], drop_path=0.0)
    load_weights(backbone, Path(weights))
    return LoadedBackbone(backbone, after.info)
