"""Features of the frames of whole videos, computed once by a backbone and kept on disk.

One `.npy` file a video, for all frames of its shard whatever is labelled, so that every task and split shares them. A
file's path names everything that it depends on (weights, input size, precision, the shard): where one changes, features
are computed anew. A file is whole or not there, and an interrupted extraction continues with the video it was at.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from surgdino import console, distributed
from surgdino.backbone.preprocess import Preprocess, normalize
from surgdino.backbone.vit import Backbone, Features
from surgdino.crops.workers import load
from surgdino.engine.memory import within_memory
from surgdino.errors import SurgdinoError
from surgdino.frames.store import FrameStore, StoredVideo
from surgdino.paths import write_text
from surgdino.tasks.features.files import FeatureFile, FeatureRows
from surgdino.tasks.labelled_frames import LabelledFrames
from surgdino.transfers import fetched, host_copy

FORMAT = 1
Layers = Sequence[int] | None
Blocks = tuple[int, ...]
Kept = dict[int, list[FeatureFile]]  # block -> a file a video
_LARGE = 1e9  # bytes
_FREE_IT = "end other programs on the GPU or choose another one, use a smaller image_size, or hardware=cpu"


class Extracted(NamedTuple):
    """Features of the frames `rows` of those asked for: `cls` [b, D], `mean` of the patch tokens [b, D], and of the
    layers asked for `patches` [b, N, D * layers] (float16 on a GPU in half precision) and `classes` [b, D * layers]."""

    rows: slice
    cls: Tensor
    mean: Tensor
    patches: Tensor
    classes: Tensor


@dataclass(frozen=True, eq=False)
class _Kind:
    """One kind of features: its folder's name, shape and type of a frame's row, and its part of what is extracted."""

    name: str
    shape: tuple[int, ...]
    dtype: type
    part: Callable[[Extracted], Tensor]


@dataclass
class FeatureCache:
    """A backbone's features of frames, from disk where they were computed before.

    All processes call `pooled`, `cls` and `patches`, and each extracts its share of the videos.

    Attributes:
        folder: of the files.
        backbone: on its device. Its weights are hashed at every call: a backbone that learned meanwhile is another one.
        preprocess: size and normalisation of its input.
        autocast: the context in which it runs; `precision` is its name.
        workers: processes that read and decode ahead of it.
        batch_size: images at a time; always as many, since the last digits of a product depend on its size.
        rank, world: this process among those that share the work.
        elsewhere: fills the files of these videos instead of this process; see `surgdino.tasks.features.elsewhere`.
        progress: whether to draw a bar.
    """

    folder: Path
    backbone: Backbone
    preprocess: Preprocess
    autocast: Callable[[], AbstractContextManager[Any]]
    precision: str = "float32"
    workers: int = 0
    batch_size: int = 32
    rank: int = 0
    world: int = 1
    elsewhere: Callable[[FeatureCache, dict[Path, StoredVideo], Blocks, Blocks], None] | None = None
    progress: bool = True

    def alone(self) -> FeatureCache:
        """The same cache for one process, while the others wait elsewhere."""
        return replace(self, rank=0, world=1)

    def pooled(self, frames: LabelledFrames) -> np.ndarray:
        """float32 [n, 2D]: the class token, then the mean of the patch tokens."""
        return self.pooled_rows(frames)[np.arange(len(frames))]

    def pooled_rows(self, frames: LabelledFrames) -> FeatureRows:
        """The same, float32 [n, 2D], left on disk: for videos too long to hold."""
        return FeatureRows.of(frames, self._store(frames), self._filled(frames, [], [], [])[-1])

    def cls(self, frames: LabelledFrames) -> np.ndarray:
        """float32 [n, D]: the class token."""
        return np.ascontiguousarray(self.pooled(frames)[:, : self.backbone.embed_dim])

    def patches(self, frames: LabelledFrames, layers: Sequence[int] = (-1,)) -> FeatureRows:
        """float16 [n, N, D * layers] on disk: the patch tokens after these blocks, beside each other."""
        return self._beside(frames, self.keep(frames, layers)[0], layers)

    def classes(self, frames: LabelledFrames, layers: Sequence[int]) -> FeatureRows:
        """float32 [n, D * layers] on disk: the class tokens after these blocks, beside each other."""
        return self._beside(frames, self.keep(frames, classes=layers)[1], layers)

    def keep(self, frames: LabelledFrames, patches: Sequence[int] = (), classes: Sequence[int] = ()) -> list[Kept]:
        """The files of the patch tokens after some blocks, and of the class tokens after some: block -> a file a video.

        One pass computes all that are missing, with what `pooled` and `cls` ask for.
        """
        asked = [sorted({layer % self.backbone.depth for layer in layers}) for layers in (patches, classes)]
        kinds = self._kinds(*asked)
        files = self._filled(frames, kinds, *asked)
        return [dict(zip(asked[0], files, strict=False)), dict(zip(asked[1], files[len(asked[0]) :], strict=False))]

    def fits(self, frames: LabelledFrames, layers: Sequence[int] = (-1,)) -> bool:
        """Whether the disk has room for what `patches` would write; every process has the main one's answer."""
        kinds = self._kinds(sorted({layer % self.backbone.depth for layer in layers}), [])
        folder, store = self.identified(), self._store(frames)
        files = [file for kind in kinds for file in _files(folder, kind, store) if not file.is_whole()]
        needed = sum(file.bytes for file in files)
        return bool(distributed.from_main(lambda: needed <= shutil.disk_usage(folder).free))

    def stream(self, frames: LabelledFrames, layers: Layers = None) -> Iterator[Extracted]:
        """The same without keeping anything: for a backbone that learns, and for a video that is read once."""
        yield from self.extract(frames.store, frames.index, layers)

    @torch.no_grad()
    def dense(self, images: Tensor) -> Tensor:
        """float32 [b, N, D]: the patch tokens of `encode`."""
        return self.encode(images).patches.float()

    @torch.no_grad()
    def encode(self, images: Tensor) -> Features:
        """The tokens after the last block of pictures of any size; nothing is kept.

        Args:
            images: uint8 [b, 3, H, W], sides that are multiples of the patch.
        """
        device, was_training = self.backbone.mask_token.device, self.backbone.training
        self.backbone.eval()
        asked = "{} pictures of {}x{} px".format(len(images), *images.shape[:1:-1])
        try:
            with within_memory(device, place="features", asked=asked, fix=_FREE_IT), self.autocast():
                pixels = normalize(images.to(device, non_blocking=True), self.preprocess.mean, self.preprocess.std)
                return self.backbone(pixels)
        finally:
            self.backbone.train(was_training)

    def _kinds(self, patches: Sequence[int], classes: Sequence[int]) -> list[_Kind]:
        """Of the patch tokens after these blocks, then of the class tokens after those; ascending, as in a pass."""
        grid, width = self.preprocess.image_size // self.backbone.patch_size, self.backbone.embed_dim
        passed = sorted({*patches, *classes})

        def columns(layer: int) -> slice:
            return slice(width * passed.index(layer), width * (passed.index(layer) + 1))

        of_patches = (grid * grid, width), np.float16, lambda at: lambda extracted: extracted.patches[..., at]
        of_classes = (width,), np.float32, lambda at: lambda extracted: extracted.classes[:, at]
        found = []
        for name, layers, (shape, dtype, part) in (("patches", patches, of_patches), ("classes", classes, of_classes)):
            found += [_Kind(f"{name}-{layer}", shape, dtype, part(columns(layer))) for layer in layers]
        return found

    def _beside(self, frames: LabelledFrames, kept: Kept, layers: Sequence[int]) -> FeatureRows:
        return FeatureRows.of(frames, self._store(frames), *(kept[layer % self.backbone.depth] for layer in layers))

    def _store(self, frames: LabelledFrames) -> FrameStore:
        """All frames of their videos."""
        return frames.store.select(frames.videos, flagged=True)

    def _pooled(self) -> _Kind:
        return _Kind("pooled", (2 * self.backbone.embed_dim,), np.float32, pool)

    def _filled(
        self, frames: LabelledFrames, kinds: Sequence[_Kind], patches: Sequence[int], classes: Sequence[int]
    ) -> list[list[FeatureFile]]:
        """The files of each of the kinds and of the pooled features, all of them whole, video by video."""
        folder, store = self.identified(), self._store(frames)
        kinds = [*kinds, self._pooled()]
        files = [_files(folder, kind, store) for kind in kinds]
        missing = [[file for file in of_video if not file.is_whole()] for of_video in zip(*files, strict=True)]
        mine = [place for place in range(self.rank, len(store.videos), self.world) if missing[place]]
        if mine:
            self._check_space([file for place in mine for file in missing[place]])
            if self.elsewhere is None:
                self._write(store, mine, dict(zip(kinds, files, strict=True)), sorted({*patches, *classes}))
            else:
                jobs = {missing[place][0].path: store.videos[place] for place in mine}
                self.elsewhere(self, jobs, tuple(patches), tuple(classes))
        if self.world > 1:
            distributed.meet()
        return files

    def identified(self) -> Path:
        """The folder that is named by all that features depend on, shards aside; identity.json in it says what."""
        identity = {
            "format": FORMAT,
            "weights": weights_hash(self.backbone.vit.state_dict()),
            "image_size": self.preprocess.image_size,
            "mean": list(self.preprocess.mean),
            "std": list(self.preprocess.std),
            "precision": self.precision,
            **({"mirrored": True} if self.preprocess.mirrored else {}),
        }
        name = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
        description = self.folder / name / "identity.json"
        if not description.is_file():
            write_text(description, json.dumps(identity, indent=2) + "\n")
        return description.parent

    def _check_space(self, files: Sequence[FeatureFile]) -> None:
        """Say how much large files will take, and refuse where the disk has no room for them."""
        needed = sum(file.bytes for file in files)
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise SurgdinoError(
                "the features do not fit on the disk",
                file=self.folder,
                expected=f"{needed / 1e9:.1f} GB",
                found=f"{free / 1e9:.1f} GB free",
                fix="point data.store at a larger disk",
            )
        if needed > _LARGE:
            console.warn(f"the features of {len(files)} videos will take {needed / 1e9:.1f} GB in {self.folder}")

    def _write(
        self,
        store: FrameStore,
        places: Sequence[int],
        files: Mapping[_Kind, Sequence[FeatureFile]],
        layers: Layers,
    ) -> None:
        """Extract the videos at `places` in one stream, so that a set of single images fills its batches too."""
        index = [store.of_video(place)[0] for place in places]
        blocks = fetched(_parts(self.extract(store, np.concatenate(index), layers), files))
        done, block, parts = 0, slice(0), {}
        with console.bar("features", sum(map(len, index)), shown=self.progress, stays=False) as bar:
            for place, of_video in zip(places, index, strict=True):
                end = done + len(of_video)
                with ExitStack() as stack:
                    append = {kind: stack.enter_context(of_kind[place].writer()) for kind, of_kind in files.items()}
                    while done < end:
                        if done == block.stop:
                            block, found = next(blocks)
                            parts = {kind: part.numpy() for kind, part in found.items()}
                        until = min(end, block.stop)
                        for kind, write in append.items():
                            write(parts[kind][done - block.start : until - block.start])
                        bar.update(done := until)

    @torch.no_grad()
    def extract(self, store: FrameStore, index: np.ndarray, layers: Layers = None) -> Iterator[Extracted]:
        """The same of any positions in a store."""
        size = self.batch_size
        jobs = [index[start : start + size] for start in range(0, len(index), size)]
        device = self.backbone.mask_token.device
        was_training = self.backbone.training
        self.backbone.eval()
        start = 0
        try:
            read, workers = ReadFrames(store, self.preprocess), min(self.workers, len(jobs))
            pinned = device.type == "cuda"
            for images in load(read, jobs, workers, pinned, ahead=4, result_bytes=read.bytes_of(size)):
                count = len(images)
                asked = f"{size} pictures of {self.preprocess.image_size} px"
                with within_memory(device, place="features", asked=asked, fix=_FREE_IT), self.autocast():
                    images = images.to(device, non_blocking=True)
                    if count < size:  # the last batch, filled up with copies of its last image
                        images = torch.cat([images, images[-1:].expand(size - count, -1, -1, -1)])
                    found = self._features(images, layers)
                yield Extracted(slice(start, start + count), *(tensor[:count] for tensor in found))
                start += count
        finally:
            self.backbone.train(was_training)

    def _features(self, images: Tensor, layers: Layers) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        pixels = normalize(images, self.preprocess.mean, self.preprocess.std)
        # One way to the last block's tokens: `pooled` has the same bits, whichever call computed it.
        last, parts = self.backbone.forward_through(pixels, layers or ())
        patches = torch.cat([each.patches for each in parts], dim=2) if parts else last.patches[:, :0]
        classes = torch.cat([each.cls.float() for each in parts], dim=1) if parts else last.cls[:, :0]
        return last.cls.float(), last.patches.float().mean(1), patches, classes


def _files(folder: Path, kind: _Kind, store: FrameStore) -> list[FeatureFile]:
    """Of the videos of a store."""
    return [FeatureFile.of(folder / kind.name, video.shard, kind.shape, kind.dtype) for video in store.videos]


def _parts(blocks: Iterable[Extracted], kinds: Iterable[_Kind]) -> Iterator[tuple[slice, dict[_Kind, Tensor]]]:
    for extracted in blocks:
        yield extracted.rows, {kind: kind.part(extracted) for kind in kinds}


@dataclass
class ReadFrames:
    """Positions in the store in, uint8 [b, 3, S, S] of the whole frames out; runs in the workers."""

    store: FrameStore
    preprocess: Preprocess

    def __call__(self, index: np.ndarray) -> Tensor:
        images = np.stack([self.preprocess.resize(self.store.read(int(position))) for position in index])
        return torch.from_numpy(images).permute(0, 3, 1, 2)

    def bytes_of(self, images: int) -> int:
        """Of what comes out for so many."""
        return images * 3 * self.preprocess.image_size**2


def pool(extracted: Extracted) -> Tensor:
    """float32 [b, 2D]: the class token, then the mean of the patch tokens."""
    return torch.cat([extracted.cls, extracted.mean], dim=1)


def weights_hash(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 over the names and values of a state dict, in hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in sorted(host_copy(dict(weights), copy=False)().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\0".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
