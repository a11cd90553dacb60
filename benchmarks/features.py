"""Frozen feature extraction, from stored JPEG to file, against the bare backbone on the same pictures, in one run.

    python benchmarks/features.py                                              # ViT-Ti/16 at 224 px, generated frames
    python benchmarks/features.py --root CHOLECT50 --dataset cholect50         # real frames
    python benchmarks/features.py --curate                                     # as surgdino curate embeds

Extraction is what `surgdino finetune backbone=frozen` does: reading, decoding, resizing and normalising in workers,
the forward pass, and writing the features to disk. The bare backbone gets the same batches as normalised tensors that
lie on the device already. Rounds alternate, so that a busy machine slows both alike. Memory is the growth of this
process's peak while it extracts the second half of the frames: none, if it does not depend on a video's length.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from surgdino.backbone.preprocess import Preprocess
from surgdino.backbone.vit import build_backbone
from surgdino.config import shipped, shipped_settings
from surgdino.curation.embeddings import BLOCK, write_unit
from surgdino.datasets.card import load_card
from surgdino.datasets.open import open_dataset
from surgdino.datasets.synthetic.cholec80 import write_cholec80
from surgdino.engine.hardware import Hardware, loader_workers
from surgdino.engine.log import memory_mb
from surgdino.engine.settings import HardwareSettings
from surgdino.frames.store import StoreSettings, build_store
from surgdino.tasks.features.cache import FeatureCache
from surgdino.tasks.labelled_frames import LabelledFrames, every_frame

GOAL = 0.9
Seconds = tuple[float, float]
_WHO = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


def main() -> None:
    """Measure and print."""
    arguments = parse()
    with tempfile.TemporaryDirectory() as folder:
        frames = frames_of(arguments, Path(folder))
        cache = cache_of(arguments, Path(folder) / "features")
        batches = prepared(cache, frames)
        print(f"{arguments.model}, {arguments.size} px, {len(frames)} frames, batch {cache.batch_size}")
        where = cache.backbone.mask_token.device
        print(f"{torch.get_num_threads()} threads, {cache.workers} workers, {cache.precision}, {where}")
        bare, whole, memory = measure(cache, frames, batches, arguments)
    for name, rounds in (("bare backbone", bare), ("extraction", whole)):
        wall, cpu = (len(frames) / statistics.median(seconds) for seconds in zip(*rounds, strict=True))
        print(f"{name:14} {wall:8.1f} images/s   {cpu:8.1f} per CPU second")
    wall, cpu = (statistics.median(b[k] / w[k] for b, w in zip(bare, whole, strict=True)) for k in (0, 1))
    print(f"{'ratio':14} {wall:8.3f}   goal: at least {GOAL}; median of {len(bare)} rounds")
    print(f"{'ratio, CPU':14} {cpu:8.3f}   seconds of all processes, workers included")
    print(f"{'memory':14} {memory:+8.1f} MB  while the second half of the frames was extracted")


def measure(
    cache: FeatureCache, frames: LabelledFrames, batches: list[Tensor], arguments: argparse.Namespace
) -> tuple[list[Seconds], list[Seconds], float]:
    """Seconds (wall, CPU) of every round of both, after one of each to warm up; growth of the peak in MB."""
    bare, whole = [], []
    peaks: list[float] = []
    autocast = cache.autocast

    def watched() -> AbstractContextManager[Any]:
        peaks.append(memory_mb())  # before every batch
        return autocast()

    for _ in range(arguments.rounds + 1):
        bare.append(timed(lambda: bare_pass(cache, batches)))
        shutil.rmtree(cache.folder, ignore_errors=True)
        cache.autocast = watched
        peaks.clear()
        whole.append(timed(lambda: extract(cache, frames, arguments)))
    return bare[1:], whole[1:], peaks[-1] - peaks[len(peaks) // 2]


def extract(cache: FeatureCache, frames: LabelledFrames, arguments: argparse.Namespace) -> None:
    """What is measured: nothing is there, and everything is written."""
    if arguments.patches:
        cache.patches(frames)
    elif arguments.curate:
        rows, width = cache.pooled_rows(frames), cache.backbone.embed_dim
        blocks = (rows[start : start + BLOCK][:, :width] for start in range(0, len(rows), BLOCK))
        write_unit(cache.folder / "embeddings.npy", blocks, len(rows), width)
    else:
        cache.pooled(frames)


@torch.no_grad()
def bare_pass(cache: FeatureCache, batches: list[Tensor]) -> None:
    """The backbone alone."""
    for batch in batches:
        with cache.autocast():
            cache.backbone(batch)


def timed(work: Callable[[], None]) -> Seconds:
    """Seconds, wall and CPU; the device's work and that of processes which have ended meanwhile are included."""
    began, cpu = time.perf_counter(), cpu_seconds()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began, cpu_seconds() - cpu


def cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    return sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, _WHO))


def prepared(cache: FeatureCache, frames: LabelledFrames) -> list[Tensor]:
    """The same pictures as normalised batches on the device, the last as small as it is."""
    device = cache.backbone.mask_token.device
    pictures = [frames.store.read(int(index)) for index in frames.index]
    size = cache.batch_size
    return [cache.preprocess(pictures[i : i + size]).to(device) for i in range(0, len(pictures), size)]


def cache_of(arguments: argparse.Namespace, folder: Path) -> FeatureCache:
    """As `surgdino finetune` makes it."""
    hardware = shipped(HardwareSettings, "hardware/auto", device=arguments.device)
    here = Hardware.of(hardware)
    device, dtype = here.device, here.dtype
    model = shipped_settings("model", arguments.model)
    workers = arguments.workers
    return FeatureCache(
        folder,
        build_backbone(model, drop_path=0.0).to(device).eval(),
        Preprocess(arguments.size, tuple(model["mean"]), tuple(model["std"])),
        here.autocast,
        precision=str(dtype).removeprefix("torch."),
        workers=loader_workers(hardware) if workers is None else workers,
        batch_size=128 if device.type == "cuda" else 32,
    )


def frames_of(arguments: argparse.Namespace, folder: Path) -> LabelledFrames:
    """Frames of a real set, or of a generated one."""
    root = arguments.root
    if root is None:
        root = folder / "cholec80"
        write_cholec80(root, videos=2, seconds=arguments.frames / 2 / 5, size=(480, 270), annotations=False)
    manifest = open_dataset(load_card(arguments.dataset), root)
    settings = StoreSettings.of(fps=5 if arguments.root is None else 1)
    return every_frame(build_store(manifest, folder / "store", settings, progress=False))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_tiny_patch16")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--dataset", default="cholec80")
    parser.add_argument("--root", type=Path, default=None)
    parser.add_argument("--frames", type=int, default=320, help="of the generated set")
    parser.add_argument("--patches", action="store_true", help="keep patch tokens, not class token and mean")
    parser.add_argument("--curate", action="store_true", help="with the unit vectors that surgdino curate compares")
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    return parser.parse_args()


if __name__ == "__main__":
    main()
