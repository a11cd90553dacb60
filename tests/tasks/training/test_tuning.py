"""What learns of a backbone under each name of `backbone=`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from surgdino.backbone.low_rank import is_low_rank
from surgdino.backbone.vit import build_backbone
from surgdino.config import shipped, shipped_settings
from surgdino.errors import SurgdinoError
from surgdino.tasks.settings import HeadTraining
from surgdino.tasks.training.tuning import RANK, learning_of, select

TRAIN = shipped(HeadTraining, "finetune", "train")


def learning(tuning, train=TRAIN) -> set[str]:
    found = select(build_backbone(shipped_settings("model", "vit_toy"), drop_path=0.0), tuning, train)
    return {name for name, parameter in found.named_parameters() if parameter.requires_grad}


def test_adapters_and_norms_learn_by_one_word():
    found = learning("lora")
    assert any(is_low_rank(name) for name in found)
    assert all(is_low_rank(name) or "norm" in name for name in found)
    assert learning_of("lora", TRAIN) == ("lora", RANK)
    assert learning_of("lora", replace(TRAIN, low_rank=4)) == ("lora", 4)
    assert found == learning("full", replace(TRAIN, tune="lora", low_rank=RANK))


def test_projections_learn_by_one_word():
    found = learning("attn_proj")
    assert found
    assert all(".attn.proj." in name for name in found)


@pytest.mark.parametrize(
    ("tuning", "more"), [("lora", {"tune": "attn_proj"}), ("attn_proj", {"low_rank": 4}), ("frozen", {"tune": "lora"})]
)
def test_two_words_that_contradict_each_other_are_refused(tuning, more):
    with pytest.raises(SurgdinoError, match="backbone=full"):
        learning(tuning, replace(TRAIN, **more))
