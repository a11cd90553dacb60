"""Queries that go through the backbone's last blocks with the patches: class, box and mask of each, for a backbone that
learns (EoMT, Kerssies et al. 2025, arXiv 2503.19108).

Before each of those blocks every query says what it has found, and may then look at the patches under its mask alone.
That is annealed away in training, block after block, so that a trained network is the plain ViT with more tokens.
Matching and losses are Mask2Former's (Cheng et al. 2022), with DETR's of boxes (Carion et al. 2020).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from surgdino.backbone.vit import Backbone
from surgdino.errors import SurgdinoError
from surgdino.exports.graph import Unpacked
from surgdino.tasks.instances.heads import Found, InstanceHead, Output
from surgdino.tasks.instances.losses import assigned, dice_loss, generalised_iou, mask_points, mean_of_pictures
from surgdino.tasks.segmentation.pyramid import Enlarge
from surgdino.tasks.training.batches import Batch
from surgdino.transfers import host_copy, uploaded

_CLASS, _MASK, _DICE, _L1, _GIOU = 2.0, 5.0, 5.0, 5.0, 2.0
_NOTHING = 0.1  # weight of queries that should find nothing
_POWER = 0.9  # of the polynomial by which masks in attention become rarer


class QueryHead(InstanceHead):
    """Q queries; masks at a quarter of the input's resolution.

    Attributes:
        step: of training, for the annealing.
        steps: of the whole training.
    """

    reads_tokens = False
    defaults: ClassVar = {}
    step: Tensor

    def __init__(self, backbone: Backbone, classes: int, queries: int, blocks: int, points: int) -> None:
        super().__init__(backbone, classes)
        if not backbone.packs:
            what, fix = "task.head=queries needs a plain ViT", "use task.head=centre"
            raise SurgdinoError(what, expected="timm's plain blocks", found=backbone.settings.name, fix=fix)
        width, self.points, self.blocks = backbone.embed_dim, points, min(blocks, backbone.depth)
        self.queries = nn.Parameter(torch.randn(queries, width) * 0.02)
        self.kind = nn.Linear(width, classes + 1)
        self.box, self.mask = _layers(width, 4), _layers(width, width)
        self.enlarge = nn.Sequential(
            *(Enlarge(width) for _ in range(max(round(math.log2(backbone.patch_size)) - 2, 0)))
        )
        self.register_buffer("step", torch.tensor(0))
        self.steps = 1

    def of_images(self, backbone: Backbone | Unpacked, images: Tensor) -> Output:
        """`kinds` [A, B, Q, C + 1] and `masks` [A, B, Q, H, W] logits and `boxes` [A, B, Q, 4] in shares, of A answers:
        in training that before each of the last blocks, then that at the end; the last alone otherwise."""
        patch, vit = backbone.patch_size, backbone.vit
        grid = images.shape[2] // patch, images.shape[3] // patch
        tokens, first, said = backbone.embedded(images), backbone.depth - self.blocks, []
        for k, block in enumerate(vit.blocks):
            looks = None
            if k == first:
                tokens = torch.cat([self.queries.to(tokens.dtype).expand(tokens.shape[0], -1, -1), tokens], 1)
            if k >= first and self.training:
                said.append(self._say(vit.norm(tokens), grid))
                looks = self._looks(said[-1]["masks"], grid, tokens.shape[1], k - first)
            if vit.grad_checkpointing and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, attn_mask=looks, use_reentrant=False)
            else:
                tokens = block(tokens, attn_mask=looks)
        said.append(self._say(vit.norm(tokens), grid))
        if self.training:
            done = self.known("step") + 1
            self.step += 1
            self._read["step"] = self.step, self.step._version, done
        return {name: torch.stack([each[name] for each in said]) for name in said[0]}

    def _say(self, tokens: Tensor, grid: tuple[int, int]) -> Output:
        queries, patches = tokens[:, : len(self.queries)], tokens[:, -grid[0] * grid[1] :]
        maps = self.enlarge(patches.transpose(1, 2).unflatten(2, grid))
        masks = torch.einsum("bqd,bdhw->bqhw", self.mask(queries), maps)
        return {"kinds": self.kind(queries), "boxes": self.box(queries).sigmoid(), "masks": masks}

    def _looks(self, masks: Tensor, grid: tuple[int, int], length: int, block: int) -> Tensor | None:
        """bool [B, 1, length, length], where a token may look; None where all may look everywhere."""
        share = self._masked_share(block)
        if not self.known("masked") or share == 0:
            return None
        with torch.no_grad():
            count = len(self.queries)
            under = (F.adaptive_avg_pool2d(masks.float(), grid) > 0).flatten(2)
            free = torch.rand(under.shape[:2], device=under.device) >= share
            under |= (free | ~under.any(2))[..., None]
            looks = under.new_ones(len(masks), 1, length, length)
            looks[:, 0, :count, -under.shape[2] :] = under
        return looks

    def _masked_share(self, block: int) -> float:
        """Share of the queries whose view is masked in that block: 1, then falling to 0 in a part of the training."""
        done = self.known("step") / self.steps * (self.blocks + 2) - (block + 1)
        return (1 - min(max(done, 0.0), 1.0)) ** _POWER

    def losses(self, output: Output, targets: Batch) -> dict[str, Tensor]:
        """The sum over all answers; the logged terms are those of the last."""
        answers = [{name: values[a].float() for name, values in output.items()} for a in range(len(output["kinds"]))]
        pairs = self._pairs(answers, targets)
        terms = [self._terms(answer, targets, *each) for answer, each in zip(answers, pairs, strict=True)]
        return {"loss": torch.stack([value for each in terms for value in each.values()]).sum(), **terms[-1]}

    def _terms(self, answer: Output, targets: Batch, pairs: Tensor, drawn: Tensor) -> dict[str, Tensor]:
        """Of one answer.

        Args:
            pairs: int64 [k, 3], picture, query and place of the object that it should have found.
            drawn: int64 [d], which of the pairs are of objects with masks.
        """
        batch, queries, _ = answer["kinds"].shape
        picture, query, place = pairs.unbind(1)
        kinds = torch.full((batch, queries), answer["kinds"].shape[2] - 1, device=query.device)
        kinds[picture, query] = targets["kinds"][picture, place]
        weight = torch.full_like(kinds, _NOTHING, dtype=torch.float32)
        weight = weight.index_put((picture, query), torch.ones_like(query, dtype=torch.float32))
        cross = F.cross_entropy(answer["kinds"].flatten(0, 1), kinds.flatten(), reduction="none").view_as(weight)
        found, boxes = answer["boxes"][picture, query], targets["boxes"][picture, place]
        distance = (found - boxes).abs().sum(1) * _L1 + (1 - generalised_iou(found, boxes)) * _GIOU
        terms = {"class": _CLASS * ((cross * weight).sum(1) / weight.sum(1)).mean()}
        terms["box"] = mean_of_pictures(distance, picture, batch)
        if targets["masks"].shape[-1]:
            picture, query, place = pairs[drawn].unbind(1)
            logits, masks = answer["masks"][picture, query], targets["masks"][picture, place]
            each = logits.new_zeros(len(logits))
            if len(logits):
                logits, masks = mask_points(logits, masks.float() / 255, self.points)
                each = _MASK * F.binary_cross_entropy_with_logits(logits, masks, reduction="none").mean(1)
                each = each + _DICE * dice_loss(logits, masks)
            terms["mask"] = mean_of_pictures(each, picture, batch)
        return terms

    @torch.no_grad()
    def _pairs(self, answers: Sequence[Output], targets: Batch) -> list[tuple[Tensor, Tensor]]:
        """The `pairs` and `drawn` of each answer. Pairs are found on the host: it waits for the costs of all answers at
        once, the one wait of a step."""
        costs = torch.stack([self._costs(answer, targets) for answer in answers])
        host = host_copy({"costs": costs, **{name: targets[name] for name in ("objects", "masked")}}, copy=False)()
        pictures, places = host["objects"].numpy().T
        masked, device = host["masked"].numpy(), costs.device
        found = []
        for of_answer in host["costs"].numpy():
            rows = [np.zeros((0, 3), np.int64)]
            for b, cost in enumerate(of_answer):
                there = places[pictures == b]
                queries, objects = assigned(cost[:, there])
                rows.append(np.stack([np.full_like(queries, b), queries, there[objects]], 1))
            pairs = np.concatenate(rows)
            drawn = np.flatnonzero(masked[pairs[:, 0], pairs[:, 2]])
            found.append((uploaded(pairs, device), uploaded(drawn, device)))
        return found

    @staticmethod
    def _costs(answer: Output, targets: Batch) -> Tensor:
        """float32 [B, Q, M], of every query with what is in every place of its picture."""
        boxes, kinds, found = targets["boxes"], targets["kinds"].clamp(min=0), answer["boxes"]
        cost = -_CLASS * answer["kinds"].softmax(-1).gather(2, kinds[:, None].expand(-1, found.shape[1], -1))
        cost = cost + _L1 * torch.cdist(found, boxes, p=1)
        cost = cost - _GIOU * generalised_iou(found[:, :, None], boxes[:, None])
        if targets["masks"].shape[-1]:
            cost = cost + targets["masked"][:, None] * _mask_cost(answer["masks"], targets["masks"].float() / 255)
        return cost

    def found(self, output: Output, most: int, masks: bool) -> Found:
        """A query may answer with several classes; its score is the class's probability, and with masks the mean of the
        mask's probability inside it too."""
        kinds, boxes, logits = (output[name][-1].float() for name in ("kinds", "boxes", "masks"))
        scores = kinds.softmax(-1)[..., :-1]
        if masks:
            sure, inside = logits.sigmoid(), logits > 0
            scores = scores * ((sure * inside).sum((2, 3)) / inside.sum((2, 3)).clamp(min=1))[..., None]
        values, flat = scores.flatten(1).topk(min(most, scores.shape[1] * scores.shape[2]), dim=1)
        query, kind = flat // scores.shape[2], flat % scores.shape[2]
        rows = torch.arange(values.shape[0], device=values.device)[:, None]
        return Found(boxes[rows, query], kind, values, logits[rows, query] if masks else None)


def _mask_cost(logits: Tensor, masks: Tensor) -> Tensor:
    """[B, Q, M]: cross-entropy and Dice of every pair, at the answers' resolution."""
    flat, target = logits.flatten(2), F.adaptive_avg_pool2d(masks, (logits.shape[2], logits.shape[3])).flatten(2)
    cross = F.softplus(flat).mean(2)[:, :, None] - flat @ target.mT / flat.shape[2]
    found = flat.sigmoid()
    dice = 1 - (2 * found @ target.mT + 1) / (found.sum(2)[:, :, None] + target.sum(2)[:, None] + 1)
    return _MASK * cross + _DICE * dice


def _layers(width: int, outputs: int) -> nn.Sequential:
    parts: Sequence[nn.Module] = (nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.GELU())
    return nn.Sequential(*parts, nn.Linear(width, outputs))
