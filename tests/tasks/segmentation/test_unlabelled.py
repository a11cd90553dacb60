"""Pixels of a mask of which nothing is known count for neither side of a score."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from surgdino.datasets.card import load_card
from surgdino.datasets.open import open_dataset
from surgdino.datasets.synthetic.masks import write_masks
from surgdino.frames.store import StoreSettings, build_store
from surgdino.tasks.labelled_frames import labelled_frames
from surgdino.tasks.segmentation.inference import Segmenter


def test_what_is_predicted_of_unlabelled_pixels_is_not_judged(tmp_path, monkeypatch):
    ((video, masks),) = write_masks(tmp_path / "set", "cholecseg8k", recordings=1, frames=1, public_ids=True).items()
    manifest = open_dataset(load_card("cholecseg8k"), tmp_path / "set")
    store = build_store(manifest, tmp_path / "store", StoreSettings.of(), workers=1, progress=False)
    classes = manifest.labels["masks"].classes
    ids = masks[80]
    predicted = (ids == np.arange(1, len(classes) + 1)[:, None, None]) | (ids == 255)
    assert predicted.sum() > (ids[ids != 255] > 0).sum()
    monkeypatch.setattr(Segmenter, "masks", lambda self, frames, tokens: iter([(video, 80, predicted)]))
    segmenter = Segmenter(SimpleNamespace(classes=classes), None)
    tally = segmenter.tally(labelled_frames(manifest, store, "masks"), hd95=False)
    assert np.nanmean(tally.images[video, 80].dice) == pytest.approx(1)
