"""What structure from motion knows of the depth of frames: points, cameras, and which frame sees which point.

The files are those of Liu et al. 2020 (IEEE TMI, arXiv 1902.07766; lppllppl920/EndoscopyDepthEstimation-Pytorch). A
reconstruction has no scale: its depths are given in shares of their own median.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from zlib import crc32

import numpy as np
from scipy.spatial.transform import Rotation

from surgdino.datasets.depth import DepthMap
from surgdino.datasets.files import read_text
from surgdino.errors import SurgdinoError

NEAREST, FARTHEST = 0.05, 20.0  # medians
_POSE = "xyzxyzw"  # position, then a quaternion
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_FIX = "copy it again from the release"


@dataclass(frozen=True, eq=False)
class SparseDepth(DepthMap):
    """The points that one picture sees.

    Attributes:
        path: of the points' file.
        points: float64 [n, 3], column and row as shares of the picture's sides, and depth in medians.
    """

    points: np.ndarray
    relative: ClassVar[bool] = True

    def read(self, width: int, height: int) -> np.ndarray:
        """Depth in medians, float32 [height, width]; NaN but for the pixels that show a point, the nearest one."""
        depth = np.full((height, width), np.nan, np.float32)
        farthest_first = self.points[np.argsort(-self.points[:, 2])]
        known = (farthest_first[:, 2] > self.nearest) & (farthest_first[:, 2] < self.farthest)
        x, y, z = farthest_first[known].T
        depth[(y * height).astype(int), (x * width).astype(int)] = z
        return depth

    @property
    def facts(self) -> tuple[object, ...]:
        """What the depths depend on beside the file at `path`."""
        return *super().facts, crc32(np.ascontiguousarray(self.points).data)


@dataclass(frozen=True)
class Reconstruction:
    """One sequence.

    Attributes:
        points: float64 [n, 3], in the world.
        frames: int64 [v], the numbers of the frames that have a camera.
        poses: float64 [v, 3, 4], from each camera to the world: its axes, then its place.
        intrinsics: float64 [v, 4]: focal lengths and principal point, in pixels.
        seen: bool [v, n], which camera sees which point.
    """

    points: np.ndarray
    frames: np.ndarray
    poses: np.ndarray
    intrinsics: np.ndarray
    seen: np.ndarray

    @classmethod
    def read(cls, folder: Path) -> Reconstruction:
        """That of a folder.

        Raises:
            SurgdinoError: a file is missing, broken, or of another reconstruction than the others.
        """
        points = read_points(folder / "structure.ply")
        frames = _whole_numbers(folder / "visible_view_indexes")
        if len(np.unique(frames)) < len(frames) or not len(frames):
            raise _odd(folder / "visible_view_indexes", "frame numbers, each once", f"{len(frames)} lines")
        poses = read_poses(folder / "motion.yaml")
        if len(poses) != len(frames):
            raise _odd(folder / "motion.yaml", f"{len(frames)} poses, as visible_view_indexes", str(len(poses)))
        return cls(points, frames, poses, _intrinsics(folder, len(frames)), _seen(folder, frames, len(points)))

    def projected(self, camera: int) -> tuple[np.ndarray, np.ndarray]:
        """Pixels [m, 2] (column, row) and depths [m] of the points that a camera sees."""
        pose = self.poses[camera]
        at = (self.points[self.seen[camera]] - pose[:, 3]) @ pose[:, :3]
        with np.errstate(divide="ignore", invalid="ignore"):
            return at[:, :2] / at[:, 2:] * self.intrinsics[camera, :2] + self.intrinsics[camera, 2:], at[:, 2]


def read_points(path: Path) -> np.ndarray:
    """float64 [n, 3], the vertices of a PLY in text."""
    head, _, body = read_text(path).partition("end_header\n")
    first = re.search(r"^element (\w+) (\d{1,9})$", head, re.MULTILINE)
    names = re.findall(r"^property \w+ (\w+)$", head.split("element", 2)[1] if first else "", re.MULTILINE)
    if not head.startswith("ply\nformat ascii") or first is None or first[1] != "vertex" or names[:3] != list("xyz"):
        raise _odd(path, "PLY in text whose first element is `vertex` with x, y and z", head[:40])
    rows = body.split("\n")[: int(first[2])]
    try:
        points = np.array([[float(cell) for cell in row.split()[:3]] for row in rows], np.float64)
    except ValueError:
        points = np.empty((0, 0))
    if points.shape != (int(first[2]), 3) or not len(points) or not np.isfinite(points).all():
        raise _odd(path, f"{first[2]} rows of x, y and z", f"{len(points)} that can be read")
    return points


def read_poses(path: Path) -> np.ndarray:
    """float64 [v, 3, 4] from each camera to the world, of ROS' way of printing them: positions and quaternions."""
    found = re.findall(rf"^\s*([xyzw]):\s*({_NUMBER})\s*$", read_text(path), re.MULTILINE)
    keys = "".join(key for key, _ in found)
    values = np.array([float(value) for _, value in found]).reshape(-1, 1)
    if not found or keys != _POSE * (len(keys) // len(_POSE)):
        raise _odd(path, "poses, each a position (x, y, z) and an orientation (x, y, z, w)", f"{len(keys)} numbers")
    values = values.reshape(-1, len(_POSE))
    if not (np.abs(np.linalg.norm(values[:, 3:], axis=1) - 1) < 1e-2).all():
        raise _odd(path, "quaternions of length 1", "another length")
    return np.concatenate([Rotation.from_quat(values[:, 3:]).as_matrix(), values[:, :3, None]], 2)


def _intrinsics(folder: Path, views: int) -> np.ndarray:
    path = folder / "camera_intrinsics_per_view"
    lines = read_text(path).split()
    expected = f"4 numbers (focal lengths and principal point) or 4 for each of {views} frames"
    try:
        values = np.array([float(line) for line in lines])
    except ValueError:
        values = np.empty(0)
    if len(values) not in (4, 4 * views):
        raise _odd(path, expected, f"{len(lines)} values")
    values = values.reshape(-1, 4)
    if not np.isfinite(values).all() or (values[:, :2] <= 0).any():
        raise _odd(path, expected, "a focal length of 0, or no number")
    return np.broadcast_to(values, (views, 4))


def _seen(folder: Path, frames: np.ndarray, points: int) -> np.ndarray:
    path = folder / "view_indexes_per_point"
    numbers = _whole_numbers(path)
    opens = numbers == -1
    if opens.sum() != points or not opens[0]:
        raise _odd(path, f"{points} lists, each opened by -1", f"{opens.sum()}")
    column = {int(frame): place for place, frame in enumerate(frames)}
    views = np.array([column.get(int(number), -1) for number in numbers])
    owner = np.cumsum(opens) - 1
    seen = np.zeros((len(frames), points), bool)
    seen[views[views >= 0], owner[views >= 0]] = True
    return seen


def _whole_numbers(path: Path) -> np.ndarray:
    words = read_text(path).split()
    odd = next((word for word in words if not re.fullmatch(r"-1|\d{1,12}", word)), None)
    if odd is not None or not words:
        raise _odd(path, "whole numbers, one a line", "nothing" if odd is None else odd[:40])
    return np.array([int(word) for word in words], np.int64)


def _odd(path: Path, expected: str, found: str) -> SurgdinoError:
    return SurgdinoError("not of a structure from motion", file=path, expected=expected, found=found, fix=_FIX)
