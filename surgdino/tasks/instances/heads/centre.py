"""The detector for frozen features: a heat-map of centres for each class, with the size of the box at each place.

After CenterNet (Zhou et al. 2019, arXiv 1904.07850): an object is the point in its middle, so there is no suppression
of doubles beyond a 3 x 3 maximum. Masks are weighted sums of a few shared maps, cut off at the box (YOLACT, Bolya et
al. 2019).
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surgdino.backbone.vit import Backbone
from surgdino.tasks.instances.heads import Found, InstanceHead, Output
from surgdino.tasks.instances.losses import corners, dice_loss, heat_loss, mean_of_pictures
from surgdino.tasks.training.batches import Batch

_SHARED = 16  # maps that masks are made of
_SPREAD = 0.54 / 6  # of a centre's heat, in sides of its box (TTFNet, Liu et al. 2020)
_PRIOR = 0.02  # what a fresh head believes of any place (Lin et al. 2017)
_GROUPS = 8


class CentreHead(InstanceHead):
    """Answers at a quarter of a patch, from the last block's patch tokens alone."""

    crops = True
    defaults: ClassVar = {"epochs": 10, "batch_size": 16, "lr": 2e-3}

    def __init__(self, backbone: Backbone, classes: int, maps: int, dropout: float = 0.0) -> None:
        super().__init__(backbone, classes)
        self.dropout = nn.Dropout2d(dropout)
        self.norm, self.reduce = nn.LayerNorm(backbone.embed_dim), nn.Linear(backbone.embed_dim, maps)
        fine = max(maps // 2, 1)
        self.coarse, self.middle = _Refine(maps, maps), _Refine(maps, fine)
        self.fine = _Refine(fine, fine)
        self.heat, self.shape = nn.Conv2d(fine, classes, 1), nn.Conv2d(fine, 4, 1)
        self.shares, self.shared = nn.Conv2d(fine, _SHARED, 1), nn.Conv2d(fine, _SHARED, 1)
        nn.init.normal_(self.heat.weight, std=0.01)
        nn.init.constant_(self.heat.bias, math.log(_PRIOR / (1 - _PRIOR)))  # type: ignore[arg-type]
        with torch.no_grad():
            self.shape.bias.copy_(torch.tensor([0, 0, math.log(0.2), math.log(0.2)]))  # type: ignore[union-attr]

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Output:
        """Maps over tokens [B, N, D], all of [B, ..., 4h, 4w]: `heat` [C] logits; `shape` [4], of a box whose centre is
        in that cell, the centre's offset from the cell's in cells and the logarithms of its sides in shares; `shares`
        and `shared` of the masks."""
        maps = self.coarse(self.dropout(self.reduce(self.norm(tokens.float())).transpose(1, 2).unflatten(2, grid)))
        for refine in (self.middle, self.fine):
            maps = refine(F.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False))
        parts = {"heat": self.heat, "shape": self.shape, "shares": self.shares, "shared": self.shared}
        return {name: part(maps) for name, part in parts.items()}

    def losses(self, output: Output, targets: Batch) -> dict[str, Tensor]:
        """Focal loss of centres, L1 of offsets and logarithms of sides; of masks cross-entropy and Dice in the box."""
        output = {name: values.float() for name, values in output.items()}
        batch, _, height, width = output["heat"].shape
        picture, place = targets["objects"].unbind(1)
        mine, kinds = targets["boxes"][picture, place], targets["kinds"][picture, place]
        heat, weight = _heat(mine, kinds, picture, output["heat"].shape), _outside_crowds(targets, output["heat"].shape)
        counts = mine.new_zeros(batch).index_add_(0, picture, mine.new_ones(len(mine)))
        heat_term = heat_loss(output["heat"], heat, counts, weight)
        cells = torch.stack([mine[:, 0] * width, mine[:, 1] * height], 1)
        x, y = (cells[:, k].long().clamp(0, side - 1) for k, side in ((0, width), (1, height)))
        offset = cells - torch.stack([x, y], 1) - 0.5
        expected = torch.cat([offset, mine[:, 2:].clamp(min=1e-3).log()], 1)
        found = output["shape"][picture, :, y, x]
        shape_term = mean_of_pictures((found - expected).abs().mean(1), picture, batch)
        terms = {"loss": heat_term + shape_term, "heat": heat_term, "box": shape_term}
        if targets["masks"].shape[-1]:
            has = targets["drawn"]
            masks = targets["masks"][picture[has], place[has]].float() / 255
            logits = _masks(output, picture[has], x[has], y[has], masks.shape[-2:])
            inside = _inside(mine[has], masks.shape[-2:])
            cross = F.binary_cross_entropy_with_logits(logits, masks, reduction="none") * inside
            each = cross.sum((1, 2)) / inside.sum((1, 2)).clamp(min=1)
            each = each + dice_loss(logits.masked_fill(inside == 0, -20).flatten(1), (masks * inside).flatten(1))
            terms["mask"] = mean_of_pictures(each, picture[has], batch)
            terms["loss"] = terms["loss"] + terms["mask"]
        return terms

    def found(self, output: Output, most: int, masks: bool) -> Found:
        """Places that are hotter than those around them."""
        output = {name: values.float() for name, values in output.items()}
        heat = output["heat"].sigmoid()
        _, _, height, width = heat.shape
        peaks = (heat * (heat == F.max_pool2d(heat, 3, stride=1, padding=1))).flatten(1)
        scores, flat = peaks.topk(min(most, peaks.shape[1]), dim=1)
        kinds, cell = flat // (height * width), flat % (height * width)
        places = torch.stack([cell % width, cell // width], 2)
        shape = _at(output["shape"], cell)
        x, y = (places + 0.5 + shape[..., :2].clamp(-1, 1)).unbind(2)
        boxes = torch.cat([torch.stack([x / width, y / height], 2), shape[..., 2:].clamp(-7, 0).exp()], 2)
        shares = _at(output["shares"], cell)
        return Found(boxes, kinds, scores, torch.einsum("bke,behw->bkhw", shares, output["shared"]) if masks else None)


class _Refine(nn.Sequential):
    def __init__(self, inputs: int, outputs: int) -> None:
        groups = _GROUPS if outputs % _GROUPS == 0 else 1
        layers = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.GroupNorm(groups, outputs)
        super().__init__(*layers, nn.GELU())


def _heat(boxes: Tensor, kinds: Tensor, pictures: Tensor, shape: torch.Size) -> Tensor:
    """What the heat-map [B, C, h, w] should be: of all objects of a class the hottest.

    Args:
        boxes, kinds, pictures: [k, 4], [k] and [k], of the objects.
    """
    height, width = shape[2:]
    xs, ys = torch.arange(width, device=boxes.device), torch.arange(height, device=boxes.device)
    x, y = ((boxes[:, k, None] * side).long().clamp(0, side - 1) for k, side in ((0, width), (1, height)))
    across = ((xs - x) / (boxes[:, 2, None] * width * _SPREAD).clamp(min=0.3)).square()[:, None, :]
    along = ((ys - y) / (boxes[:, 3, None] * height * _SPREAD).clamp(min=0.3)).square()[:, :, None]
    return _gathered(boxes.new_zeros(shape), pictures, kinds, torch.exp(-(across + along) / 2), "amax")


def _outside_crowds(targets: Batch, shape: torch.Size) -> Tensor:
    """A weight [B, C, h, w] that is 0 where a crowd of the class lies."""
    picture, place = targets["crowds"].unbind(1)
    boxes, kinds = targets["boxes"][picture, place], targets["kinds"][picture, place]
    return _gathered(boxes.new_ones(shape), picture, kinds, 1 - _inside(boxes, shape[2:]), "amin")


def _gathered(maps: Tensor, pictures: Tensor, kinds: Tensor, values: Tensor, how: str) -> Tensor:
    """Maps [B, C, h, w] with the largest (or smallest) of what [k, h, w] give for their picture and class."""
    flat = maps.view(-1, maps.shape[2] * maps.shape[3])
    rows = (pictures * maps.shape[1] + kinds)[:, None].expand(-1, flat.shape[1])
    return flat.scatter_reduce_(0, rows, values.flatten(1), how).view_as(maps)


def _inside(boxes: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """[k, h, w]: 1 at the pixels that a box touches."""
    height, width = size
    x0, y0, x1, y1 = corners(boxes).T[..., None]
    xs, ys = torch.arange(width, device=boxes.device), torch.arange(height, device=boxes.device)
    across, along = (xs + 1 > x0 * width) & (xs < x1 * width), (ys + 1 > y0 * height) & (ys < y1 * height)
    return (along[:, :, None] & across[:, None, :]).to(boxes.dtype)


def _at(maps: Tensor, cell: Tensor) -> Tensor:
    """[B, k, M]: what maps [B, M, h, w] hold at the cells [B, k]."""
    return maps.flatten(2).gather(2, cell[:, None].expand(-1, maps.shape[1], -1)).transpose(1, 2)


def _masks(output: Output, picture: Tensor, x: Tensor, y: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Logits [k, *size] of the masks of what is found at these places."""
    shares, shared = output["shares"][picture, :, y, x], output["shared"][picture]
    found = torch.einsum("ke,kehw->khw", shares, shared)
    if not len(found) or found.shape[-2:] == size:
        return found.reshape(-1, *size)
    return F.interpolate(found[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
