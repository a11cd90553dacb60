"""Learned position embeddings on another grid of patches; rotary ones follow the size of a crop by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from surgdino.backbone.key_styles import resize_positions
from surgdino.backbone.vit import Backbone, build_backbone
from surgdino.errors import SurgdinoError

Grid = tuple[int, int]  # rows and columns of patches


def on_grid(backbone: Backbone, grid: Grid, drop_path: float) -> Backbone:
    """A new backbone with the same weights whose position embedding is interpolated to `grid`; on the CPU.

    The backbone itself where it has that grid. The new one's `settings` say `img_size`, and so will its model.json.
    """
    if grid == backbone.grid:
        return backbone
    rows, columns = (side * backbone.patch_size for side in grid)
    size = rows if rows == columns else (rows, columns)
    settings = backbone.settings
    settings = replace(settings, timm_kwargs=replace(settings.timm_kwargs, img_size=size))
    moved = build_backbone(settings, drop_path=drop_path)
    moved.load_state_dict(interpolated(backbone.state_dict(), backbone.vit, backbone.grid, grid))
    return moved


def interpolated(state: Mapping[str, Tensor], vit: Any, old: Grid, new: Grid) -> dict[str, Tensor]:
    """Weights of a network around a backbone, or of parts of it, for one with another grid.

    Args:
        vit: a timm model of the same architecture, whatever its grid.
    """
    prefix = 0 if vit.no_embed_class else vit.num_prefix_tokens
    return {
        name: resize_positions(tensor, old, new, prefix) if is_positions(name) else tensor
        for name, tensor in state.items()
    }


def rescale_rotary(backbone: Backbone, most: float) -> None:
    """In training, stretch the coordinates of rotary positions at random by a factor between 1 / most and `most`.

    One draw for each pass of a crop size, log-uniform from torch's random numbers; DINOv3 takes 2 (Siméoni et al. 2025,
    arXiv 2508.10104). Its coordinates are relative to the crop: its middle is 0, its edges -1 and 1 at any size.

    Raises:
        SurgdinoError: the model has no such positions.
    """
    rope: Any = getattr(backbone.vit, "rope", None)
    if not hasattr(rope, "rescale_coords"):
        what, found = "the model has no rotary positions to rescale", backbone.settings.timm
        raise SurgdinoError(what, place="train.rope_rescale", found=found, fix="leave it out, or use a dinov3 model")
    rope.rescale_coords, rope.aug_active = most, True


def is_positions(name: str) -> bool:
    """Whether a parameter's name, dotted or not, is that of the learned position embedding."""
    return name.rpartition(".")[2] == "pos_embed"
