"""The backbone: a timm vision transformer that takes masks and any crop size.

Shapes: B images, D the embedding width, N = (H / patch) * (W / patch) patches in row-major order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from surgdino.backbone.packed import draw_kept, pack_blocks, residual_dtype
from surgdino.backbone.settings import ModelSettings
from surgdino.backbone.timm_import import timm
from surgdino.errors import SurgdinoError, nearest

_BLOCK = re.compile(r"^blocks\.(\d+)\.")
Schedule = Literal["uniform", "linear"]
# timm's files of vision transformers with a class token; another architecture, a hub or a folder is never opened.
_MODULES = ("vision_transformer", "deit", "eva")
_EMBEDDINGS = ("patch_embed.", "pos_embed", "cls_token", "reg_token", "mask_token", "norm_pre.")


class Features(NamedTuple):
    """Features after the final norm: `cls` [B, D]; `patches` [B, N, D], or [M, D] where only some are asked for."""

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
        settings: what it was built from.
        packs: whether several crop sizes go through the blocks together.
        compiles: whether blocks run compiled where the patches that will be read are named, as in training.
    """

    vit: Any  # timm's models share no type that names their parts

    def __init__(self, vit: Any, settings: ModelSettings) -> None:
        super().__init__()
        self.vit = vit
        self.settings = settings
        self.embed_dim: int = vit.embed_dim
        self.depth: int = len(vit.blocks)
        self.patch_size: int = vit.patch_embed.patch_size[0]
        self.grid: tuple[int, int] = tuple(vit.patch_embed.grid_size)
        self.mask_token = nn.Parameter(torch.zeros(self.embed_dim))
        self.packs: bool = pack_blocks(vit.blocks)
        self.compiles = False
        if getattr(vit, "rope", None) is not None and not any(True for _ in vit.rope.parameters()):
            _keep_tables(vit.rope)

    def forward(self, images: Tensor, masks: Tensor | None = None) -> Features:
        """Features of normalised images.

        Args:
            images: float [B, 3, H, W], H and W multiples of the patch size.
            masks: bool [B, N], True where a patch is replaced by the mask token.
        """
        return self.forward_crops([(images, masks)])[0]

    def forward_crops(
        self, crops: Sequence[tuple[Tensor, Tensor | None]], wanted: Sequence[Tensor | None] | None = None
    ) -> list[Features]:
        """Features of several crop sizes in one forward pass.

        The tokens of all sizes go through the linear layers together and attend to those of their own crop only. Models
        whose blocks are not timm's plain ones (rotary positions) run one size after another, with the same result.

        Args:
            crops: one (images, masks) pair a size, as `forward` takes them.
            wanted: which patches will be read, one entry a size: int64 [M], their places in the flattened [B * N], or
                None for none. The last block then computes the class tokens and these alone, exactly.

        Returns:
            One a size; where `wanted` is given, `patches` are [M, D] in its order.
        """
        for images, masks in crops:
            self._check(images, masks)
        if not self.packs:
            features = [next(self._through_blocks(images, masks, {self.depth - 1})) for images, masks in crops]
            if wanted is None:
                return features
            return [
                Features(each.cls, each.patches.flatten(0, 1)[slice(0) if patches is None else patches])
                for each, patches in zip(features, wanted, strict=True)
            ]
        embedded = [self.vit.norm_pre(self._positioned(images, masks)) for images, masks in crops]
        groups = tuple((len(tokens), tokens.shape[1]) for tokens in embedded)
        dtype = embedded[0].dtype
        tokens = torch.cat([part.flatten(0, 1).to(residual_dtype(part)) for part in embedded])
        if wanted is None:
            tokens = self.vit.norm(self._run_blocks(tokens, groups, None).to(dtype))
            parts = tokens.split([count * length for count, length in groups])
            return [self._features(part.unflatten(0, group)) for part, group in zip(parts, groups, strict=True)]
        places, counts = self._places(groups, wanted)
        parts = self.vit.norm(self._run_blocks(tokens, groups, places).to(dtype)).split(counts)
        return [Features(cls, patches) for cls, patches in zip(parts[::2], parts[1::2], strict=True)]

    @torch.no_grad()
    def forward_through(self, images: Tensor, layers: Sequence[int]) -> tuple[Features, list[Features]]:
        """What `forward` gives, to the bit, and the features that `intermediate` gives, taken on the same way."""
        taken = dict[int, Tensor]()

        def taker(k: int) -> Callable[[nn.Module, Any, Tensor], None]:
            return lambda _, __, tokens: taken.__setitem__(k, tokens.clone())  # the next block may overwrite them

        read = {layer % self.depth for layer in layers}
        hooks = [self.vit.blocks[k].register_forward_hook(taker(k)) for k in read - {self.depth - 1}]
        try:
            last = self(images)
        finally:
            for hook in hooks:
                hook.remove()
        found = {self.depth - 1: last}
        for k, tokens in taken.items():
            found[k] = self._features(self.vit.norm(tokens.view(len(images), -1, self.embed_dim)))
        return last, [found[layer % self.depth] for layer in layers]

    def intermediate(self, images: Tensor, layers: Sequence[int]) -> list[Features]:
        """Features after some of the blocks, each through the final norm; the last block's are those of `forward`.

        Args:
            images: as `forward` takes them.
            layers: blocks, 0 to depth - 1, negative ones counted from the end; features come in this order.
        """
        wrong = [layer for layer in layers if not -self.depth <= layer < self.depth]
        if wrong:
            valid = f"blocks {-self.depth} to {self.depth - 1}"
            raise SurgdinoError("the backbone has no such block", expected=valid, found=wrong[0])
        self._check(images, None)
        read = {layer % self.depth for layer in layers}
        found = dict(zip(sorted(read), self._through_blocks(images, None, read), strict=True))
        return [found[layer % self.depth] for layer in layers]

    def embedded(self, images: Tensor) -> Tensor:
        """Tokens [B, prefix + N, D] before the first block, for a head that walks through plain blocks itself."""
        self._check(images, None)
        return self.vit.norm_pre(self._positioned(images, None))

    def _through_blocks(self, images: Tensor, masks: Tensor | None, read: set[int]) -> Iterator[Features]:
        """Features after the blocks in `read`, each block called as timm calls it."""
        positioned = self._positioned(images, masks)
        # Models with rotary positions return them separately; the blocks apply them inside attention.
        tokens, rope = positioned if isinstance(positioned, tuple) else (positioned, None)
        tokens = self.vit.norm_pre(tokens)
        extra = {} if rope is None else {"rope": rope}
        recompute = self.vit.grad_checkpointing and torch.is_grad_enabled()
        for k, block in enumerate(self.vit.blocks[: max(read) + 1]):
            tokens = checkpoint(block, tokens, use_reentrant=False, **extra) if recompute else block(tokens, **extra)
            if k in read:
                yield self._features(self.vit.norm(tokens))

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

    def set_drop_path(self, rate: float, first: int = 0) -> None:
        """Stochastic depth: the share of sequences that block `first` and those after it leave out of a branch."""
        for block in self.vit.blocks[first:]:
            for name in ("drop_path1", "drop_path2"):
                setattr(block, name, timm.layers.DropPath(rate) if rate else nn.Identity())

    def _positioned(self, images: Tensor, masks: Tensor | None) -> Any:
        embeddings = embed_patches(self.vit.patch_embed, images)
        if masks is not None:
            where = masks.view(*embeddings.shape[:3], 1)
            embeddings = torch.where(where, self.mask_token.to(embeddings.dtype), embeddings)
        return self.vit._pos_embed(embeddings)

    def _features(self, tokens: Tensor) -> Features:
        return Features(tokens[:, 0], tokens[:, self.vit.num_prefix_tokens :])

    def _places(self, groups: Sequence[tuple[int, int]], wanted: Sequence[Tensor | None]) -> tuple[Tensor, list[int]]:
        """Where in the pack class tokens and wanted patches lie, and how many of each there are, size by size."""
        device, prefix = self.mask_token.device, self.vit.num_prefix_tokens
        places, counts, start = [], [], 0
        for (images, length), patches in zip(groups, wanted, strict=True):
            patches = torch.empty(0, dtype=torch.int64, device=device) if patches is None else patches
            image, patch = patches.div(length - prefix, rounding_mode="floor"), patches % (length - prefix)
            places.append(start + length * torch.arange(images, device=device))
            places.append(start + image * length + prefix + patch)
            counts += [images, len(patches)]
            start += images * length
        return torch.cat(places), counts

    def _run_blocks(self, tokens: Tensor, groups: tuple[tuple[int, int], ...], wanted: Tensor | None) -> Tensor:
        recompute = self.vit.grad_checkpointing and torch.is_grad_enabled()
        last, compiled = self.depth - 1, self.compiles and wanted is not None
        for k, kept in enumerate(draw_kept(self.vit.blocks, groups, tokens.device)):
            how = {"groups": groups, "kept": kept, "wanted": wanted if k == last else None, "compiled": compiled}
            block = partial(self.vit.blocks[k], **how)
            if recompute:  # from a copy: a block may overwrite its input, and a recomputed one gets it twice
                tokens = checkpoint(lambda x, f=block: f(x.clone()), tokens, use_reentrant=False)
            else:
                tokens = block(tokens)
        return tokens

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


def _keep_tables(rope: Any) -> None:
    """Let a rotary embedding that learns nothing make its table once a grid and device: timm makes it on the host, and
    moves it, at every call."""
    rope.make, rope.tables = rope.get_embed, {}
    rope.get_embed = partial(_table, rope)


def _table(rope: Any, shape: tuple[int, int]) -> Tensor:
    device = next(rope.buffers()).device
    if rope.training and getattr(rope, "aug_active", False):  # another one in every pass
        with device:  # timm would draw on the host, and the copy to a GPU would wait for it
            return rope.make(shape=shape)
    key = (shape, device)
    if key not in rope.tables:
        rope.tables[key] = rope.make(shape=shape)
    return rope.tables[key]


def embed_patches(patch_embed: Any, images: Tensor) -> Tensor:
    """timm's patch embedding, [B, 3, H, W] -> [B, H / patch, W / patch, D], as one matrix product over cut patches.

    The convolution's patches do not overlap, so it is the same sum; as a convolution, with its gradient, it takes 1.5
    times longer on a CPU.
    """
    projection = patch_embed.proj
    if not isinstance(projection, nn.Conv2d) or projection.kernel_size != projection.stride:
        return patch_embed(images)
    rows, columns = projection.kernel_size
    cut = images.unflatten(3, (-1, columns)).unflatten(2, (-1, rows))  # [B, 3, H / patch, patch, W / patch, patch]
    pixels = cut.permute(0, 2, 4, 1, 3, 5).flatten(3)
    return patch_embed.norm(F.linear(pixels, projection.weight.flatten(1), projection.bias))


def build_backbone(
    model: ModelSettings | Mapping[str, Any], drop_path: float | None = None, schedule: Schedule = "uniform"
) -> Backbone:
    """The backbone that a model's settings describe, freshly initialised.

    Args:
        model: a mapping has the keys of configs/model/*.yaml; `timm` (architecture), `timm_kwargs` and `patch_size` are
            read here.
        drop_path: stochastic depth: the share of sequences that a block's branch leaves out; the settings' own where
            None.
        schedule: `uniform` for all blocks, as DINOv2 and SimDINOv2 train, or `linear` from 0 in the first to
            `drop_path` in the last, as timm does.

    Raises:
        SurgdinoError: a setting out of its range, no vision transformer, or options that do not go together.
    """
    model = model if isinstance(model, ModelSettings) else ModelSettings.of(model)
    architecture, place = model.timm, f"model={model.name}"
    drop_path = model.drop_path if drop_path is None else drop_path
    if not re.fullmatch(r"\w+(\.\w+)?", architecture) or not timm.is_model(architecture):
        raise SurgdinoError(
            f"timm has no architecture {architecture!r}", place=place, fix=nearest(architecture, timm.list_models())
        )
    needed = ("patch_embed", "blocks", "norm", "norm_pre", "_pos_embed", "num_prefix_tokens", "cls_token")
    options = {**model.timm_kwargs.as_dict(), "dynamic_img_size": True}
    vit: Any = None
    try:
        if timm.models.is_model_in_modules(architecture, _MODULES):
            vit = timm.create_model(architecture, num_classes=0, drop_path_rate=drop_path, **options)
    except Exception as error:  # whatever a constructor raises on options that do not go together
        raise SurgdinoError(
            f"timm refuses these options for {architecture}",
            place=place,
            found=f"{type(error).__name__}: {error}",
            fix="use an architecture named vit_* and correct timm_kwargs",
        ) from error
    whole = all(hasattr(vit, name) for name in needed) and vit.cls_token is not None
    if not whole or not isinstance(vit.patch_embed, timm.layers.PatchEmbed):  # others cut patches after convolutions
        raise SurgdinoError(
            f"{architecture} is not a vision transformer with a class token",
            place=place,
            fix="use an architecture named vit_*, such as vit_small_patch16_224",
        )
    backbone = Backbone(vit, model)
    if schedule == "uniform":
        backbone.set_drop_path(drop_path)
    if model.patch_size is not None and model.patch_size != backbone.patch_size:
        expected, found = backbone.patch_size, model.patch_size
        raise SurgdinoError(f"patch_size is not that of {architecture}", place=place, expected=expected, found=found)
    return backbone
