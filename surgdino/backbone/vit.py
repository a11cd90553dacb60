"""The backbone: a timm vision transformer that takes masks and any crop size.

Shapes: B images, D the embedding width, N = (H / patch) * (W / patch) patches in row-major order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from surgdino.backbone.timm_import import timm
from surgdino.errors import SurgdinoError, nearest

_BLOCK = re.compile(r"^blocks\.(\d+)\.")
_EMBEDDINGS = ("patch_embed.", "pos_embed", "cls_token", "reg_token", "mask_token", "norm_pre.")


class Features(NamedTuple):
    """What the backbone says of images, after its final norm: `cls` [B, D] and `patches` [B, N, D]."""

    cls: Tensor
    patches: Tensor


class Backbone(nn.Module):
    """A timm ViT (`.vit`, unchanged, so that its state dict is timm's own) and a mask token beside it.

    Position embeddings stay in the parameters at the grid the weights were made with and are interpolated at run time
    (bicubic, antialiased, as timm does), so one set of parameters serves every crop size and the saved file still loads
    strictly into plain timm.

    Attributes:
        vit: the timm model, without a classifier.
        mask_token: [D], put in place of the embeddings of masked patches before positions are added.
        embed_dim, depth, patch_size: D, the number of blocks, a patch's side in pixels.
        grid: (rows, columns) of the native position embedding.
        settings: the keys of configs/model/*.yaml that it was built from, as plain values.
    """

    vit: Any  # timm's models share no type that names their parts

    def __init__(self, vit: Any, settings: Mapping | None = None) -> None:
        super().__init__()
        self.vit = vit
        self.settings: dict = _plain(settings or {})
        self.embed_dim: int = vit.embed_dim
        self.depth: int = len(vit.blocks)
        self.patch_size: int = vit.patch_embed.patch_size[0]
        self.grid: tuple[int, int] = tuple(vit.patch_embed.grid_size)
        self.mask_token = nn.Parameter(torch.zeros(self.embed_dim))

    def forward(self, images: Tensor, masks: Tensor | None = None) -> Features:
        """Features of normalised images.

        Args:
            images: float [B, 3, H, W], H and W multiples of the patch size.
            masks: bool [B, N], True where a patch is replaced by the mask token.

        Raises:
            SurgdinoError: H or W is no multiple of the patch size, or the masks are for another grid.
        """
        self._check(images, masks)
        embeddings = self.vit.patch_embed(images)  # [B, H / patch, W / patch, D]
        if masks is not None:
            where = masks.view(*embeddings.shape[:3], 1)
            embeddings = torch.where(where, self.mask_token.to(embeddings.dtype), embeddings)
        tokens = self._encode(embeddings)
        return Features(tokens[:, 0], tokens[:, self.vit.num_prefix_tokens :])

    def forward_crops(self, crops: Sequence[tuple[Tensor, Tensor | None]]) -> list[Features]:
        """Features of several crop sizes, one (images, masks) pair and one result per size.

        The sizes run one after another, each with a single fused attention call a block. Packing their tokens together
        for the linear layers was measured at 4-6 % faster on one core at batch 4, ViT-T and ViT-S, and would have to
        repeat the inside of timm's blocks here; it is not done.
        """
        return [self(images, masks) for images, masks in crops]

    def layer_id(self, parameter: str) -> int:
        """A parameter's depth for layerwise learning rates: 0 embeddings, 1..depth the blocks, depth + 1 the rest.

        `parameter` is a name as `named_parameters()` of the backbone or of its `.vit` spells it.
        """
        name = parameter.removeprefix("vit.")
        if block := _BLOCK.match(name):
            return int(block.group(1)) + 1
        return 0 if name.startswith(_EMBEDDINGS) else self.depth + 1

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block's activations in the backward pass: about a third more compute for far less memory."""
        self.vit.set_grad_checkpointing(enable)

    def _encode(self, embeddings: Tensor) -> Tensor:
        positioned = self.vit._pos_embed(embeddings)
        # Models with rotary positions hand them over separately; the blocks apply them inside attention.
        tokens, rope = positioned if isinstance(positioned, tuple) else (positioned, None)
        tokens = self.vit.norm_pre(tokens)
        extra = {} if rope is None else {"rope": rope}
        recompute = self.vit.grad_checkpointing and torch.is_grad_enabled()
        for block in self.vit.blocks:
            tokens = checkpoint(block, tokens, use_reentrant=False, **extra) if recompute else block(tokens, **extra)
        return self.vit.norm(tokens)

    def _check(self, images: Tensor, masks: Tensor | None) -> None:
        height, width = images.shape[-2:]
        patch = self.patch_size
        if height % patch or width % patch:
            raise SurgdinoError(
                "the images do not divide into patches",
                expected=f"height and width that are multiples of {patch}",
                found=f"{height}x{width}",
                fix=f"choose crop sizes such as {max(round(width / patch), 1) * patch}",
            )
        expected = (images.shape[0], (height // patch) * (width // patch))
        if masks is not None and tuple(masks.shape) != expected:
            raise SurgdinoError("the masks are for another grid", expected=expected, found=tuple(masks.shape))


def build_backbone(model: Mapping, drop_path: float | None = None) -> Backbone:
    """The backbone that a model's settings describe, freshly initialised.

    Args:
        model: the keys of configs/model/*.yaml; `timm` (architecture), `timm_kwargs` and `patch_size` are read here.
        drop_path: stochastic depth of the last block, rising linearly from 0; the settings' own where None.

    Raises:
        SurgdinoError: an unknown architecture or option, or one that is not a ViT with a class token.
    """
    architecture, kwargs = str(model["timm"]), _plain(model.get("timm_kwargs") or {})
    drop_path = float(model.get("drop_path", 0.0)) if drop_path is None else drop_path
    place = f"model={model.get('name', architecture)}"
    if not timm.is_model(architecture):
        raise SurgdinoError(
            f"timm has no architecture {architecture!r}", place=place, fix=nearest(architecture, timm.list_models())
        )
    try:
        vit = timm.create_model(
            architecture, pretrained=False, num_classes=0, dynamic_img_size=True, drop_path_rate=drop_path, **kwargs
        )
    except (TypeError, ValueError, AssertionError) as error:
        raise SurgdinoError(
            f"timm refuses these options for {architecture}",
            place=place,
            found=error,
            fix="use an architecture named vit_* and correct timm_kwargs",
        ) from error
    _check_is_vit(vit, architecture, place)
    backbone = Backbone(vit, model)
    if (stated := model.get("patch_size")) is not None and int(stated) != backbone.patch_size:
        raise SurgdinoError(
            f"patch_size is not that of {architecture}", place=place, expected=backbone.patch_size, found=stated
        )
    return backbone


def _plain(settings: Mapping) -> dict:
    # A configuration's own list and dictionary types are neither JSON nor what timm expects.
    return {
        str(key): _plain(value)
        if isinstance(value, Mapping)
        else list(value)
        if isinstance(value, Sequence) and not isinstance(value, str)
        else value
        for key, value in settings.items()
    }


def _check_is_vit(vit: nn.Module, architecture: str, place: str) -> None:
    needed = ("patch_embed", "blocks", "norm", "norm_pre", "_pos_embed", "num_prefix_tokens")
    if all(hasattr(vit, name) for name in needed) and getattr(vit, "cls_token", None) is not None:
        return
    raise SurgdinoError(
        f"{architecture} is not a vision transformer with a class token",
        place=place,
        fix="use an architecture named vit_*, such as vit_small_patch16_224",
    )
