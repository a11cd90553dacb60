"""What a training step of each model keeps in memory, and so what batch a card can take.

    python benchmarks/memory.py                            # counted on the CPU, about two minutes
    python benchmarks/memory.py --models vit_base_patch16 --budget 12

Activations are counted, not estimated: the bytes that autograd holds between the forward and the backward pass of one
image, every storage once, under bf16 autocast, in the loop's own passes. Weights, gradients, AdamW's moments and the
teacher are counted from the parameters. What a card adds (allocator's fragments, cuDNN and cuBLAS workspaces, a CUDA
context of about half a gigabyte) is not in the figures; leave a tenth and that free.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from surgdino.backbone.vit import build_backbone
from surgdino.config import shipped, shipped_settings
from surgdino.engine.methods.simdinov2 import Settings, SimDINOv2

GIB = 2**30
# Student and its gradient, two moments of AdamW, the teacher: five numbers of fp32 a parameter.
BYTES_A_PARAMETER = 5 * 4


def held_bytes(network: SimDINOv2, crops: list[tuple[Tensor, None]]) -> int:
    """Bytes that one forward pass leaves for its backward pass, the parameters themselves left out."""
    own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    storages: dict[int, Tensor] = {}  # kept alive, so that no address is used twice

    def hold(tensor: Tensor) -> Tensor:
        storages.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        features = network.backbone.forward_crops(crops)
        kept = network.head(torch.cat([f.cls for f in features])).sum()
    total = sum(t.untyped_storage().nbytes() for pointer, t in storages.items() if pointer not in own)
    del kept
    return total


def figures(name: str, crops: list[tuple[Tensor, None]]) -> tuple[int, int, int]:
    """Parameters of backbone and head, and bytes an image without and with activation checkpointing."""
    settings = shipped_settings("model", name)
    backbone = build_backbone(settings, drop_path=0.0)
    network = SimDINOv2(shipped(Settings, "method/simdinov2"), backbone).train()
    plain = held_bytes(network, crops)
    backbone.set_grad_checkpointing(True)
    parameters = sum(p.numel() for p in network.parameters())
    return parameters, plain, held_bytes(network, crops)


def most_images(budget: float, fixed: float, an_image: float) -> int:
    """Images of a micro-batch in `budget` GiB, a tenth left free."""
    return max(0, int((0.9 * budget - fixed) / an_image))


def main() -> None:
    """Count and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["vit_tiny_patch16", "vit_small_patch16", "vit_base_patch16"])
    parser.add_argument("--local-count", type=int, default=8)
    parser.add_argument("--budget", type=float, default=12.0, help="GiB of the card")
    words = parser.parse_args()
    crops = [(torch.zeros(2, 3, 224, 224), None), (torch.zeros(words.local_count, 3, 96, 96), None)]
    print(f"2 x 224 + {words.local_count} x 96, bf16 autocast; images a micro-batch on {words.budget:g} GiB")
    print(f"{'model':<20} {'fixed':>9} {'an image':>12} {'images':>7}   {'checkpointed':>12} {'images':>7}")
    for name in words.models:
        parameters, plain, recomputed = figures(name, crops)
        fixed = parameters * BYTES_A_PARAMETER / GIB
        cells = [(each / 2**20, most_images(words.budget, fixed, each / GIB)) for each in (plain, recomputed)]
        row = "   ".join(f"{mib:>8.0f} MiB {images:>7}" for mib, images in cells)
        print(f"{name:<20} {fixed:>5.2f} GiB {row}")


if __name__ == "__main__":
    main()
