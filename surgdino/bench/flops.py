"""How many floating-point operations a training step asks for, counted from the shapes.

The count is the model's: a multiplication with its addition is 2, a backward pass is twice its forward pass, and only
matrix products count. What an implementation leaves out (sequences that drop a path, tokens of the last block that
nobody reads) or does twice (activation checkpointing) does not enter unless asked for, so figures can be compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from surgdino.backbone.vit import Backbone

GLOBAL_VIEWS = 2
# A backward pass computes two gradients, of the input and of the weights, for each product of the forward pass.
_FORWARD_AND_BACKWARD = 3


@dataclass(frozen=True)
class ViTShape:
    """What the count depends on of a vision transformer.

    Attributes:
        width, depth, patch_size: D, blocks, pixels of a patch's side.
        prefix_tokens: class token and registers.
        block_weights: elements of a block's matrices; None: 12 D^2, an MLP of four times the width.
    """

    width: int
    depth: int
    patch_size: int
    prefix_tokens: int = 1
    block_weights: int | None = None

    def forward(self, size: int) -> float:
        """FLOPs of one square crop of `size` pixels.

        Each of N tokens meets every matrix once (2 FLOPs an element), and in each block all N tokens twice, for the
        products with keys and with values (2 N D each).
        """
        patches = (size // self.patch_size) ** 2
        tokens = patches + self.prefix_tokens
        embedding = 2 * 3 * self.patch_size**2 * self.width * patches
        weights = 12 * self.width**2 if self.block_weights is None else self.block_weights
        return embedding + self.depth * tokens * (2 * weights + 4 * tokens * self.width)


@dataclass(frozen=True)
class HeadShape:
    """Elements of the matrices that a class token and a patch token meet in the head; patches 0 where none are read."""

    cls_weights: int
    patch_weights: int

    @classmethod
    def mlp(cls, width: int, hidden: int = 2048, out: int = 256) -> HeadShape:
        """SimDINOv2's: one head of three layers for class and patch tokens."""
        weights = width * hidden + hidden * hidden + hidden * out
        return cls(weights, weights)


def image_flops(
    vit: ViTShape,
    head: HeadShape,
    *,
    global_size: int = 224,
    local_size: int = 96,
    local_count: int = 8,
    masked_share: float = 0.15,
    drop_path: float = 0.0,
) -> float:
    """FLOPs of a training step for each of its images: student forward and backward, teacher forward, heads.

    Args:
        masked_share: of all patches of the global views, those that go through both heads; half of the views are masked
            by 10 to 50 %, so 0.15.
        drop_path: share of sequences that the student's blocks leave out, where what is left out is not to count.
    """
    global_view, local_view = vit.forward(global_size), vit.forward(local_size) if local_count else 0.0
    masked = masked_share * GLOBAL_VIEWS * (global_size // vit.patch_size) ** 2 * (head.patch_weights > 0)
    student_cls = GLOBAL_VIEWS + local_count
    student = (GLOBAL_VIEWS * global_view + local_count * local_view) * (1 - drop_path)
    student += 2 * (student_cls * head.cls_weights + masked * head.patch_weights)
    teacher = GLOBAL_VIEWS * global_view + 2 * (GLOBAL_VIEWS * head.cls_weights + masked * head.patch_weights)
    return _FORWARD_AND_BACKWARD * student + teacher


def vit_shape(backbone: Backbone) -> ViTShape:
    """The shape of a backbone, its blocks' matrices as they are (gated MLPs included)."""
    block = _weights(backbone.vit.blocks[0])
    return ViTShape(backbone.embed_dim, backbone.depth, backbone.patch_size, backbone.vit.num_prefix_tokens, block)


def head_shape(head: nn.Module, mask_probability: float) -> HeadShape:
    """The shape of a method's head: one for all tokens, or `.cls` and `.patch` apart; patches where any are masked."""
    parts = dict(head.named_children())
    patch = _weights(parts.get("patch", head)) if mask_probability else 0
    return HeadShape(_weights(parts.get("cls", head)), patch)


def _weights(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.ndim == 2)
