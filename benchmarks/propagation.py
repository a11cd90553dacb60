"""How fast masks are carried on from frame to frame, beside a script's plain loop over whole affinity matrices.

    python benchmarks/propagation.py

Both get the same features of DAVIS' grid (480p, patch 16) and give the same labels; times are of this process's CPU.
"""

from __future__ import annotations

import statistics
import time

import torch
import torch.nn.functional as F
from torch import Tensor

from surgdino.evaluations.propagation import Reach, carry

GRID, DIM, CONTEXT, OBJECTS = (28, 52), 192, 8, 3
RADIUS, NEIGHBOURS, TEMPERATURE = 12, 5, 0.1
REPEATS = 5


def plain(target: Tensor, context: Tensor, labels: Tensor, near: Tensor) -> Tensor:
    """Every patch by every patch of every frame, masked: float32 [h, w, k] of the same arguments as `carry`."""
    height, _, width, dim = context.shape
    frames, of_frames = (each.transpose(0, 1).reshape(-1, each.shape[-1]) for each in (context, labels))
    affinity = (target.reshape(-1, dim) @ frames.T).div(TEMPERATURE).exp() * near
    votes, where = affinity.topk(NEIGHBOURS, dim=1)
    kept = torch.zeros_like(affinity).scatter_(1, where, votes)
    return (kept / kept.sum(1, keepdim=True) @ of_frames).view(height, width, -1)


def main() -> None:
    """Print both times and their ratio."""
    torch.manual_seed(0)
    height, width = GRID
    target = F.normalize(torch.randn(height, width, DIM), dim=-1)
    context = F.normalize(torch.randn(height, CONTEXT, width, DIM), dim=-1)
    labels = torch.rand(height, CONTEXT, width, OBJECTS + 1).softmax(-1)
    reach = Reach.of(width, RADIUS, disc=False, device=torch.device("cpu"))
    y, x = (each.flatten() for each in torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))
    near = ((y[:, None] - y).abs() <= RADIUS) & ((x[:, None] - x).abs() <= RADIUS)
    near = near.float().repeat(1, CONTEXT)
    ways = {
        "plain loop": lambda: plain(target, context, labels, near),
        "surgdino": lambda: carry(target, context, labels, reach, NEIGHBOURS, TEMPERATURE),
    }
    torch.testing.assert_close(*(way() for way in ways.values()))
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(REPEATS):
        for name, way in ways.items():
            began = time.process_time()
            way()
            seconds[name].append(time.process_time() - began)
    for name, each in seconds.items():
        print(f"{name:12s} {1000 * statistics.median(each):7.0f} ms a frame")
    ratios = [slow / fast for slow, fast in zip(*seconds.values(), strict=True)]
    print(f"{statistics.median(ratios):.2f} times as fast ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
