"""Features of the frames of whole videos, computed once by a backbone and kept on disk.

One file a video, `.npy` that any numpy opens, for all frames of its shard: what is labelled, and for which task, plays
no part in it, so that every task and split shares them. A file's path names everything it depends on (weights, input
size, precision, the shard), so a change of any of it computes anew; it is written aside and renamed, so it is whole or
not there, and an extraction that was interrupted goes on with the video it was at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from surgdino import distributed
from surgdino.backbone.preprocess import Preprocess, normalize
from surgdino.backbone.vit import Backbone
from surgdino.errors import SurgdinoError
from surgdino.frames.store import FrameStore
from surgdino.tasks.features.files import FeatureFile, FeatureRows, FileWriter, free_bytes, size_on_disk
from surgdino.tasks.labelled_frames import LabelledFrames
from surgdino.tasks.training.batches import load

FORMAT = 1
_WORTH_SAYING = 1e9  # bytes


class Extracted(NamedTuple):
    """Features of the frames `rows` of those asked for: `cls` [b, D], `mean` of the patch tokens [b, D], and `patches`
    [b, N, D * layers] (float16 on a GPU in half precision; empty unless layers were asked for)."""

    rows: slice
    cls: Tensor
    mean: Tensor
    patches: Tensor


@dataclass(frozen=True, eq=False)
class _Kind:
    """One kind of features: its folder's name, the shape and type of a frame's row, and where to find it."""

    name: str
    shape: tuple[int, ...]
    dtype: type
    part: Callable[[Extracted], Tensor]


@dataclass
class FeatureCache:
    """What a backbone says of frames, from disk where it was computed before.

    `pooled`, `cls` and `patches` are for all processes to call, each of which extracts its share of the videos.

    Attributes:
        folder: of the files.
        backbone: on its device. Its weights are hashed at every call, so a backbone that was trained meanwhile is
            another one.
        preprocess: size and normalisation of its input.
        autocast: the context in which it runs; `precision` is its name.
        workers: processes that read and decode ahead of it.
        batch_size: pictures at a time; always as many, since the last digits of a product depend on its size.
        rank, world: this process among those that share the work.
        say: prints a sentence.
        tick: called with (pictures done, pictures in all).
    """

    folder: Path
    backbone: Backbone
    preprocess: Preprocess
    autocast: Callable[[], Any]
    precision: str = "float32"
    workers: int = 0
    batch_size: int = 32
    rank: int = 0
    world: int = 1
    say: Callable[[str], None] = print
    tick: Callable[[int, int], None] = lambda done, total: None

    def alone(self) -> FeatureCache:
        """The same cache for one process to ask, while the others wait elsewhere."""
        return replace(self, rank=0, world=1)

    def pooled(self, frames: LabelledFrames) -> np.ndarray:
        """float32 [n, 2D]: the class token, then the mean of the patch tokens."""
        return self.pooled_rows(frames)[np.arange(len(frames))]

    def pooled_rows(self, frames: LabelledFrames) -> FeatureRows:
        """The same, float32 [n, 2D], left on disk: for videos too long to hold."""
        return self._cached(frames, [self._pooled()], None)

    def cls(self, frames: LabelledFrames) -> np.ndarray:
        """float32 [n, D]: the class token."""
        return np.ascontiguousarray(self.pooled(frames)[:, : self.backbone.embed_dim])

    def patches(self, frames: LabelledFrames, layers: Sequence[int] = (-1,)) -> FeatureRows:
        """float16 [n, N, D * layers] on disk: the patch tokens after these blocks, beside each other.

        Where the last block is among them, what `pooled` and `cls` ask for is kept on the way.
        """
        layers = tuple(layer % self.backbone.depth for layer in layers)
        grid = self.preprocess.image_size // self.backbone.patch_size
        shape = (grid * grid, self.backbone.embed_dim * len(layers))
        name = "patches-" + "-".join(map(str, layers))
        kinds = [_Kind(name, shape, np.float16, lambda extracted: extracted.patches)]
        return self._cached(frames, [*kinds, self._pooled()] if self._is_last(layers) else kinds, layers)

    def stream(self, frames: LabelledFrames, layers: Sequence[int] | None = None) -> Iterator[Extracted]:
        """The same without keeping anything: for a backbone that is being tuned, and for one look at a long video."""
        yield from self._extract(frames.store, frames.index, layers)

    def identity(self) -> dict[str, Any]:
        """What all features depend on, shards aside."""
        return {
            "format": FORMAT,
            "weights": weights_hash(self.backbone),
            "image_size": self.preprocess.image_size,
            "mean": list(self.preprocess.mean),
            "std": list(self.preprocess.std),
            "precision": self.precision,
        }

    def _pooled(self) -> _Kind:
        return _Kind("pooled", (2 * self.backbone.embed_dim,), np.float32, pool)

    def _is_last(self, layers: Sequence[int]) -> bool:
        return [layer % self.backbone.depth for layer in layers] == [self.backbone.depth - 1]

    def _cached(self, frames: LabelledFrames, kinds: Sequence[_Kind], layers: Sequence[int] | None) -> FeatureRows:
        """The first of the kinds; where it has to be computed, the others are written with it."""
        identity = self.identity()
        store = frames.store.select(frames.videos, flagged=True)
        files = [
            [FeatureFile.of(self.folder, identity, kind.name, video, kind.shape, kind.dtype) for video in store.videos]
            for kind in kinds
        ]
        mine = [place for place in range(self.rank, len(store.videos), self.world) if not files[0][place].is_whole()]
        if mine:
            self._announce([of_kind[place] for of_kind in files for place in mine])
            self._write(store, mine, dict(zip(kinds, files, strict=True)), layers)
        if self.world > 1:
            distributed.meet()
        return FeatureRows.of(frames, store, files[0])

    def _announce(self, files: Sequence[FeatureFile]) -> None:
        """Say what large files will take, and refuse where the disk has no room for them."""
        needed, free = size_on_disk(files), free_bytes(self.folder)
        if needed > free:
            raise SurgdinoError(
                "the features do not fit on the disk",
                file=self.folder,
                expected=f"{needed / 1e9:.1f} GB",
                found=f"{free / 1e9:.1f} GB free",
                fix="point data.store at a larger disk",
            )
        if needed > _WORTH_SAYING:
            self.say(f"the features of {len(files)} videos will take {needed / 1e9:.1f} GB in {self.folder}")

    def _write(
        self,
        store: FrameStore,
        places: Sequence[int],
        files: Mapping[_Kind, Sequence[FeatureFile]],
        layers: Sequence[int] | None,
    ) -> None:
        """Extract the videos at `places` in one stream, so that a set of single pictures fills its batches too."""
        spans = [store.of_video(place)[0] for place in places]
        ends = np.cumsum([len(span) for span in spans])
        with ExitStack() as stack:
            writers = {
                kind: stack.enter_context(FileWriter([of_kind[place] for place in places], ends))
                for kind, of_kind in files.items()
            }
            for extracted in self._extract(store, np.concatenate(spans), layers):
                for kind, writer in writers.items():
                    writer.add(kind.part(extracted).cpu().numpy())
                self.tick(extracted.rows.stop, int(ends[-1]))

    @torch.no_grad()
    def _extract(self, store: FrameStore, index: np.ndarray, layers: Sequence[int] | None) -> Iterator[Extracted]:
        size = self.batch_size
        jobs = [index[start : start + size] for start in range(0, len(index), size)]
        device = self.backbone.mask_token.device
        was_training = self.backbone.training
        self.backbone.eval()
        start = 0
        try:
            for images in load(_Read(store, self.preprocess), jobs, self.workers, ahead=4):
                count = len(images)
                with self.autocast():
                    found = self._features(_padded(images, size).to(device, non_blocking=True), layers)
                yield Extracted(slice(start, start + count), *(tensor[:count] for tensor in found))
                start += count
        finally:
            self.backbone.train(was_training)

    def _features(self, images: Tensor, layers: Sequence[int] | None) -> tuple[Tensor, Tensor, Tensor]:
        pixels = normalize(images, self.preprocess.mean, self.preprocess.std)
        if layers is None or self._is_last(layers):
            # One way to the last block's tokens: `pooled` has the same bits, whichever call computed it.
            features = self.backbone(pixels)
            patches = features.patches if layers else features.patches[:, :0]
            return features.cls.float(), features.patches.float().mean(1), patches
        parts = self.backbone.intermediate(pixels, layers)
        patches = torch.cat([each.patches for each in parts], dim=2)
        return parts[-1].cls.float(), parts[-1].patches.float().mean(1), patches


@dataclass
class _Read:
    """Positions in the store in, uint8 [b, 3, S, S] out; runs in the workers."""

    store: FrameStore
    preprocess: Preprocess

    def __call__(self, index: np.ndarray) -> Tensor:
        side = self.preprocess.image_size
        images = np.empty((len(index), side, side, 3), np.uint8)
        for i, position in enumerate(index):
            images[i] = self.preprocess.resize(self.store.read(int(position)))
        return torch.from_numpy(images).permute(0, 3, 1, 2)


def pool(extracted: Extracted) -> Tensor:
    """float32 [b, 2D]: the class token, then the mean of the patch tokens."""
    return torch.cat([extracted.cls, extracted.mean], dim=1)


def _padded(images: Tensor, size: int) -> Tensor:
    """The last batch filled up with copies of its last picture."""
    missing = size - len(images)
    return images if not missing else torch.cat([images, images[-1:].expand(missing, -1, -1, -1)])


def weights_hash(backbone: Backbone) -> str:
    """SHA-256 over the names and values of the weights, in hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in sorted(backbone.vit.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
