"""Depth maps: how a card says where they lie and what they count in, and how a file is read. Depth is in mm."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import cv2
import numpy as np
from pydantic import Field

from surgdino.datasets.files import size_of
from surgdino.datasets.picture_layout import PairLayout
from surgdino.errors import SurgdinoError
from surgdino.paths import read_bytes

Millimetres = Annotated[float, Field(gt=0, le=1e5, allow_inf_nan=False)]
DEPTH = "depth"  # the kind of these labels, and their one class
_MOST_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True)
class DepthLayout(PairLayout):
    """The `depth` of a card: pictures and depth maps.

    Attributes:
        millimetres: of one unit of the file.
        nearest, farthest: mm; depth outside of them counts as unknown.
    """

    millimetres: Millimetres
    nearest: Millimetres
    farthest: Millimetres

    def __post_init__(self) -> None:
        if self.nearest >= self.farthest:
            expected, found = f"less than farthest, {self.farthest:g}", f"{self.nearest:g}"
            raise SurgdinoError("dataset.depth.nearest cannot be used", expected=expected, found=found)
        super().__post_init__()


@dataclass(frozen=True)
class DepthMap:
    """The depth map of one picture.

    Attributes:
        path: one channel of whole numbers or fractions; of three channels of fractions (a point a pixel: x, y, z) z.
        millimetres, nearest, farthest: as in `DepthLayout`.
        relative: whether depths have no unit, so that only errors after an alignment mean something.
    """

    path: Path
    millimetres: float
    nearest: float
    farthest: float
    relative: ClassVar[bool] = False

    @property
    def facts(self) -> tuple[object, ...]:
        """What the depths depend on beside the file at `path`."""
        return self.millimetres, self.nearest, self.farthest

    def read(self, width: int, height: int) -> np.ndarray:
        """Depth in mm, float32 [height, width]; NaN where it is unknown: 0, not finite, or out of range.

        Args:
            width, height: of the picture.

        Raises:
            SurgdinoError: not a readable depth map, or one of another size.
        """
        data = read_bytes(self.path, _MOST_BYTES)
        if self.path.suffix.lower() not in (".tif", ".tiff"):  # Pillow does not know all kinds of TIFF
            size_of(io.BytesIO(data), self.path)
        values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
        if values is None:
            found = "a file that cannot be read" if data else "0 bytes"
            raise SurgdinoError(
                "not a depth map", file=self.path, expected="an image", found=found, fix="copy it again"
            )
        if values.ndim == 3 and values.shape[2] == 3 and values.dtype.kind == "f":
            values = values[..., 0]  # OpenCV turns the channels around
        if values.ndim != 2:
            found = f"{values.shape[2]} channels of {values.dtype}"
            fix = "colours are for people: export the depth itself"
            raise SurgdinoError("not a depth map", file=self.path, expected="one channel", found=found, fix=fix)
        if values.shape != (height, width):
            raise SurgdinoError(
                "the depth map has another size than its picture",
                file=self.path,
                expected=f"{width}x{height}",
                found=f"{values.shape[1]}x{values.shape[0]}",
                fix="make the depth map again at the picture's size",
            )
        depth = values.astype(np.float32) * np.float32(self.millimetres)
        with np.errstate(invalid="ignore"):
            depth[~((depth > self.nearest) & (depth < self.farthest))] = np.nan
        return depth
