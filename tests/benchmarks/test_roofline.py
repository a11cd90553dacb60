"""The cost model counts what a step asks of a GPU, without one."""

from __future__ import annotations

import sys

import pytest

from surgdino.bench.flops import HeadShape, ViTShape, image_flops
from tests import ROOT

BATCH = 8


@pytest.fixture
def roofline(monkeypatch):
    """The module, found as it is when it is run as a script."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import roofline

    yield roofline
    sys.modules.pop("roofline", None)


def step(roofline, compiled: bool, drop_path: float = 0.0, method: str = "simdino"):
    return roofline.Step("vit_toy", method, BATCH, 64, 32, 2, drop_path, compiled)


@pytest.mark.slow
def test_products_and_attention_are_those_of_the_formula(roofline):
    """But for the last block, of which only class tokens are computed: simdino reads no patches."""
    work = roofline.traced(step(roofline, compiled=False))
    model = roofline.shipped_settings("model", "vit_toy")["timm_kwargs"]
    vit = ViTShape(model["embed_dim"], model["depth"], model["patch_size"])
    head = roofline.shipped_settings("method", "simdino")
    weights = vit.width * head["head_hidden"] + head["head_hidden"] ** 2 + head["head_hidden"] * head["head_out"]
    sizes = {"global_size": 64, "local_size": 32, "local_count": 2}
    expected = BATCH * image_flops(vit, HeadShape(weights, 0), **sizes)
    assert 0.75 * expected < work.products + work.attention < expected


@pytest.mark.slow
def test_compiled_blocks_move_less_and_launch_less(roofline):
    eager, compiled = (roofline.traced(step(roofline, each, drop_path=0.25)) for each in (False, True))
    assert compiled.products == pytest.approx(eager.products)
    assert compiled.attention == pytest.approx(eager.attention)
    assert compiled.traffic < eager.traffic
    assert compiled.kernels < eager.kernels


def test_a_faster_card_has_a_higher_bound(roofline):
    work = roofline.Work(products=1e13, attention=1e12, traffic=5e10, kernels=500)
    seconds = {card.name: work.seconds(card) for card in roofline.CARDS}
    assert seconds["H200"] < seconds["H100"] < seconds["A100"] < seconds["4090"] < seconds["3060 12 GB"]
    assert seconds["H100"] == pytest.approx(1.1e13 / 0.7 / 989e12 + 5e10 / 0.9 / 3.35e12 + 500 * 5e-6)
