"""k-NN's speed: `knn_scores` beside the bare matrix products of the same shapes, by turns in one run.

    OMP_NUM_THREADS=1 python benchmarks/knn.py [--train 1000000] [--queries 1000] [--width 384] [--turns 3]

Time is the process's own CPU time: other programs cost little of the ratio. The products include neither the
normalisation of the features nor the search for the highest, which k-NN adds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from surgdino.engine.probing.folds import _AT_ONCE, knn_scores


def seconds(function: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    began = time.process_time()
    function()
    return time.process_time() - began


def main() -> None:
    """Print both times and their ratio, turn by turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("train", 1_000_000), ("queries", 1000), ("width", 384), ("classes", 7), ("turns", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    wanted = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    train, queries = (torch.randn(n, wanted.width, generator=generator) for n in (wanted.train, wanted.queries))
    targets = np.eye(wanted.classes, dtype=np.float32)[np.arange(wanted.train) % wanted.classes]

    def products() -> None:
        for part in queries.split(max(_AT_ONCE // len(train), 1)):
            part @ train.T

    for turn in range(wanted.turns):
        bare, ours = seconds(products), seconds(lambda: knn_scores(train, targets, queries))
        print(f"turn {turn + 1}: products {bare:.2f} s, k-NN {ours:.2f} s, ratio {bare / ours:.2f}", flush=True)


if __name__ == "__main__":
    main()
