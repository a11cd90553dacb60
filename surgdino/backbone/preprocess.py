"""From PIL images, arrays or tensors to the normalised batch that a backbone takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
import torch
from torch import Tensor

from surgdino.backbone.settings import IMAGENET_MEAN, IMAGENET_STD
from surgdino.errors import SurgdinoError


def normalize(
    images: Tensor, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype = torch.float32
) -> Tensor:
    """(images / 255 - mean) / std, on the images' own device.

    Args:
        images: uint8 [B, 3, H, W], RGB.
        mean, std: per channel, in the 0..1 range.
        dtype: of the result; the arithmetic is in float32.
    """
    scale, shift = _scale_and_shift(tuple(mean), tuple(std), images.device)
    return torch.addcmul(shift, images.float(), scale).to(dtype)


@lru_cache(maxsize=16)  # made anew they would have the host wait for a GPU, at every batch
def _scale_and_shift(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    scale = torch.tensor([1.0 / (255.0 * s) for s in std], device=device).view(1, 3, 1, 1)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=device).view(1, 3, 1, 1)
    return scale, shift


@dataclass(frozen=True)
class Preprocess:
    """Resize to a square of `image_size` pixels and normalise with the weights' own mean and standard deviation.

    This keeps the whole picture and changes its aspect ratio: in surgical video what matters often lies at the edge.
    """

    image_size: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    mirrored: bool = False  # left and right; for predictions that are averaged over views

    def __call__(self, images) -> Tensor:
        """float32 [B, 3, image_size, image_size] of one picture or many.

        Args:
            images: a PIL image, uint8 array [H, W, 3] (RGB) or a list of these; uint8 array [B, H, W, 3];
                or uint8 tensor [B, 3, H, W] or [3, H, W].

        Raises:
            SurgdinoError: anything else.
        """
        if isinstance(images, Tensor):
            batch = self._resize_tensor(images)
        else:
            several = isinstance(images, (list, tuple)) or (isinstance(images, np.ndarray) and images.ndim == 4)
            pictures = list(images) if several else [images]
            if not pictures:
                raise SurgdinoError("no images to preprocess", expected="at least one", found="an empty list")
            batch = torch.from_numpy(np.stack([self.resize(_as_array(p)) for p in pictures])).permute(0, 3, 1, 2)
        return normalize(batch, self.mean, self.std).contiguous()

    def resize(self, picture: np.ndarray) -> np.ndarray:
        """uint8 [H, W, 3] -> uint8 [image_size, image_size, 3], what is then normalised."""
        if self.mirrored:
            return np.ascontiguousarray(replace(self, mirrored=False).resize(picture)[:, ::-1])
        side = self.image_size
        if picture.shape[:2] == (side, side):
            return picture
        # Only area averaging keeps a strong reduction free of aliasing; enlarging wants cubic.
        shrinks = min(picture.shape[:2]) > side
        return cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)

    def _resize_tensor(self, images: Tensor) -> Tensor:
        images = images[None] if images.ndim == 3 else images
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise _not_pictures(f"{images.dtype} {tuple(images.shape)}")
        if images.shape[-2:] == (self.image_size, self.image_size) and not self.mirrored:
            return images
        arrays = images.permute(0, 2, 3, 1).cpu().numpy()
        resized = np.stack([self.resize(np.ascontiguousarray(a)) for a in arrays])
        return torch.from_numpy(resized).permute(0, 3, 1, 2).to(images.device)


def _as_array(picture) -> np.ndarray:
    if hasattr(picture, "convert"):  # A PIL image, recognised without importing PIL.
        picture = picture.convert("RGB")
    array = np.asarray(picture)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise _not_pictures(f"{array.dtype} {array.shape}")
    return array


def _not_pictures(found: str) -> SurgdinoError:
    return SurgdinoError(
        "not images that a backbone can take",
        expected="PIL images, uint8 arrays [H, W, 3] or a uint8 tensor [B, 3, H, W], RGB",
        found=found,
    )
