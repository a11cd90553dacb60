"""Low-rank adapters: a block's linear layers learn a correction of rank r beside fixed weights.

Hu et al. 2021, arXiv 2106.09685: y = W x + b + B A x, with W fixed. Continued self-supervised pretraining of vision
transformers this way: Khanna et al. 2024, arXiv 2406.10973. Only W + B A leaves a run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surgdino.backbone.linear_on_cpu import affine
from surgdino.backbone.vit import Backbone
from surgdino.errors import SurgdinoError

LAYERS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
_DOWN, _UP = "low_rank_down", "low_rank_up"


class LowRankLinear(nn.Linear):
    """A linear layer with an adapter: A `low_rank_down` [r, in], B `low_rank_up` [out, r], and nn.Linear's own.

    B begins at 0, so fresh adapters change no output. B A has no factor (in the paper's words: alpha = r).
    """

    low_rank_down: nn.Parameter
    low_rank_up: nn.Parameter

    def forward(self, input: Tensor) -> Tensor:
        """[..., in] -> [..., out]; two thin products, since the gradient of the whole weight is never needed."""
        return affine(input, self.weight, self.bias) + F.linear(F.linear(input, self.low_rank_down), self.low_rank_up)


def add_low_rank(backbone: Backbone, rank: int, first_block: int = 0, end: int | None = None) -> None:
    """Give the four linear layers of every block from `first_block` on (before `end`) an adapter, in place.

    A is drawn from torch's random numbers, uniform with variance 1 / (3 in), as nn.Linear draws its weights.
    """
    if not 0 < rank < backbone.embed_dim:
        raise SurgdinoError(
            "unusable setting", place="train.low_rank", expected=f"below the width {backbone.embed_dim}", found=rank
        )
    for block in backbone.vit.blocks[first_block:end]:
        layers = dict(block.named_modules())
        for name in LAYERS:
            layer = layers.get(name)
            if type(layer) is not nn.Linear:
                raise SurgdinoError(
                    "the blocks of this model take no low-rank adapters",
                    place="train.low_rank",
                    expected=f"linear layers {', '.join(LAYERS)}",
                    found=f"{name} is {'missing' if layer is None else type(layer).__name__}",
                    fix="use train.low_rank=0, or another model",
                )
            _adapt(layer, rank)


def _adapt(layer: nn.Linear, rank: int) -> None:
    weight = layer.weight
    down = nn.Parameter(weight.new_empty(rank, layer.in_features))
    nn.init.kaiming_uniform_(down, a=math.sqrt(5))
    layer.__class__ = LowRankLinear  # its other attributes are nn.Linear's, so the instance fits
    layer.register_parameter(_DOWN, down)
    layer.register_parameter(_UP, nn.Parameter(weight.new_zeros(layer.out_features, rank)))


def is_low_rank(name: str) -> bool:
    """Whether a parameter of that name belongs to an adapter."""
    return name.endswith((_DOWN, _UP))


def has_low_rank(backbone: nn.Module) -> bool:
    """Whether any layer has an adapter."""
    return any(isinstance(module, LowRankLinear) for module in backbone.modules())


def fold(backbone: nn.Module) -> None:
    """Put W + B A in the place of W, in place, and take the adapters away: what is left is the network without them."""
    for module in backbone.modules():
        layer: nn.Module = module
        if isinstance(module, LowRankLinear):
            with torch.no_grad():
                module.weight.copy_(_product(module.weight, module.low_rank_up, module.low_rank_down))
            del module.low_rank_down, module.low_rank_up
            layer.__class__ = nn.Linear


def merged(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of the same network without adapters: W + B A in the place of W."""
    plain = {name: tensor for name, tensor in state.items() if not is_low_rank(name)}
    for name, up in state.items():
        if name.endswith(_UP):
            layer = name.removesuffix(_UP)
            plain[layer + "weight"] = _product(plain[layer + "weight"], up, state[layer + _DOWN])
    return plain


def _product(weight: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """W + B A."""
    return torch.addmm(weight.float(), up.float(), down.float()).to(weight.dtype)
