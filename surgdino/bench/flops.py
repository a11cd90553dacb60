"""The floating-point operations of a training step, counted from the shapes.

The count is the model's: a multiplication with its addition is 2, a backward pass is twice its forward pass, and only
matrix products count. What an implementation skips (sequences that drop a path, tokens of the last block that are not
used) or does twice (activation checkpointing) does not change it unless asked for, so figures can be compared.

By hand, because torch's FlopCounterMode counts what runs: with recomputation, without dropped paths, and it knows
neither attention on the CPU nor packed attention on the GPU. Tests compare our count of a forward pass with its count.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from surgdino.backbone.vit import Backbone
from surgdino.crops.settings import GLOBAL_VIEWS
from surgdino.engine.session import Session

# A backward pass computes two gradients, of the input and of the weights, for each product of the forward pass.
_FORWARD_AND_BACKWARD = 3


@dataclass(frozen=True)
class ViTShape:
    """The sizes of a vision transformer that the count depends on.

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
    """Elements of the head's matrices for a class token and for a patch token; 0 where no patch tokens are used."""

    cls_weights: int
    patch_weights: int


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
        masked_share: share of the global views' patches that go through both heads; half of the views are masked by
            10 to 50 %, so 0.15.
        drop_path: share of sequences that the student's blocks skip; 0 counts them in full.
    """
    global_view, local_view = vit.forward(global_size), vit.forward(local_size) if local_count else 0.0
    masked = masked_share * GLOBAL_VIEWS * (global_size // vit.patch_size) ** 2 * (head.patch_weights > 0)
    student_cls = GLOBAL_VIEWS + local_count
    student = (GLOBAL_VIEWS * global_view + local_count * local_view) * (1 - drop_path)
    student += 2 * (student_cls * head.cls_weights + masked * head.patch_weights)
    teacher = GLOBAL_VIEWS * global_view + 2 * (GLOBAL_VIEWS * head.cls_weights + masked * head.patch_weights)
    return _FORWARD_AND_BACKWARD * student + teacher


def session_flops(session: Session, drop_path: float) -> float:
    """FLOPs of a step of a session for each of its images."""
    crops, method = session.plan.crops, session.student
    return image_flops(
        vit_shape(session.student.backbone),
        head_shape(session.student.head, method.mask_probability),
        global_size=crops.global_size,
        local_size=crops.local_size,
        local_count=crops.local_count,
        masked_share=method.mask_probability * sum(method.mask_ratio) / 2,
        drop_path=drop_path,
    )


def vit_shape(backbone: Backbone) -> ViTShape:
    """The sizes of a backbone; the weights of a block are counted, so gated MLPs are right too."""
    block = _weights(backbone.vit.blocks[0])
    return ViTShape(backbone.embed_dim, backbone.depth, backbone.patch_size, backbone.vit.num_prefix_tokens, block)


def head_shape(head: nn.Module, mask_probability: float) -> HeadShape:
    """The sizes of a method's head: one for all tokens, or `.cls` and `.patch`; patches only where any are masked."""
    parts = dict(head.named_children())
    patch = _weights(parts.get("patch", head)) if mask_probability else 0
    return HeadShape(_weights(parts.get("cls", head)), patch)


def _weights(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.ndim == 2)
