"""Linear layers by oneDNN give the same outputs and gradients as torch's own, which other layers keep."""

import pytest
import torch
from torch import nn

from surgdino.backbone import linear_on_cpu
from surgdino.backbone.linear_on_cpu import LinearOnCpu, linear
from surgdino.backbone.low_rank import LowRankLinear

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_on_cpu, "is_quicker", lambda dtype: True)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
@pytest.mark.parametrize("learns", [(True, True, True), (False, True, True), (True, False, False)])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_outputs_and_gradients_are_those_of_the_layer(everywhere: None, dtype: torch.dtype, learns: tuple) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(48, 80).to(dtype)
    x = torch.randn(37, 2, 48, dtype=dtype)[:, 1].requires_grad_(learns[0])  # not contiguous
    for weights, learn in zip((layer.weight, layer.bias), learns[1:], strict=True):
        weights.requires_grad_(learn)
    given = torch.randn(80, 37, dtype=dtype).t()
    inputs = [tensor for tensor in (x, layer.weight, layer.bias) if tensor.requires_grad]
    ours, theirs = linear(layer, x), layer(x)
    assert type(ours.grad_fn).__name__ == LinearOnCpu.__name__ + "Backward"
    for one, other in zip(
        (ours, *torch.autograd.grad(ours, inputs, given)),
        (theirs, *torch.autograd.grad(theirs, inputs, given)),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=TOLERANCE[dtype] * 10, rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("layer", [nn.Linear(8, 8, bias=False), nn.Identity()], ids=["no bias", "no linear layer"])
def test_other_layers_compute_their_own_way(everywhere: None, layer: nn.Module) -> None:
    x = torch.randn(3, 8)
    torch.testing.assert_close(linear(layer, x), layer(x), rtol=0, atol=0)


def test_an_adapter_is_not_left_out(everywhere: None) -> None:
    layer: nn.Linear = nn.Linear(8, 8)
    layer.__class__ = LowRankLinear
    layer.low_rank_down, layer.low_rank_up = nn.Parameter(torch.ones(2, 8)), nn.Parameter(torch.ones(8, 2))
    x = torch.randn(3, 8)
    torch.testing.assert_close(linear(layer, x), layer(x), rtol=0, atol=0)


def test_weights_in_another_type_are_left_to_autocast(everywhere: None) -> None:
    layer, x = nn.Linear(8, 8), torch.randn(3, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(layer, x).dtype == torch.bfloat16


def test_what_watches_a_layer_still_sees_it(everywhere: None) -> None:
    layer, seen = nn.Linear(8, 8), []
    layer.register_forward_hook(lambda _, __, output: seen.append(output))
    assert linear(layer, torch.randn(3, 8)) is seen[0]
