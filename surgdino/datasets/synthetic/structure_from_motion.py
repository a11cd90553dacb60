"""A small set with structure from motion, generated, in the files of EndoscopyDepthEstimation-Pytorch."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from surgdino.datasets.synthetic.cholec80 import mark_generated
from surgdino.paths import write_text

_RADIUS, _FOCAL = 1.0, 0.7  # of the tube; of the picture's width
_HEAD = ("x", "y", "z")
_CAMERA = ["view_px", "view_py", "view_pz", "focal", "scalex", "scaley", "centerx", "centery"]


def write_structure_from_motion(
    root: str | Path,
    recordings: int = 2,
    frames: int = 6,
    size: tuple[int, int] = (64, 48),
    points: int = 120,
    seed: int = 0,
    *,
    shrunk: int = 2,
    public_ids: bool = False,
) -> dict[str, dict[int, np.ndarray]]:
    """Write a synthetic set under `root`. The same arguments give the same files.

    Args:
        size: (width, height) of the pictures.
        points: of each reconstruction, on the wall of a tube that the camera is in.
        shrunk: how many times larger the pictures were that the cameras are of.
        public_ids: as in `write_cholec80`.

    Returns:
        Video id -> frame number -> float64 [m, 3]: column, row, and depth in the reconstruction's unit.
    """
    root, truth = Path(root), dict[str, dict[int, np.ndarray]]()
    if not public_ids:
        mark_generated(root)
    width, height = size
    focal, centre = _FOCAL * width, np.array([0.55 * width, 0.45 * height])
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    rays = np.stack([(columns - centre[0]) / focal, (rows - centre[1]) / focal, np.ones_like(rows)], 2)
    for recording in range(recordings):
        rng, first = np.random.default_rng([seed, recording]), 10 * (recording + 1)
        name = f"bag_{recording + 1}/_start_{first:06d}_end_{first + frames - 1:06d}_stride_1_segment_00"
        folder, tint = root / name, rng.uniform(0.8, 1.2, 3)
        folder.mkdir(parents=True, exist_ok=True)
        angle, along = rng.uniform(0, 2 * np.pi, points), rng.uniform(1, 6, points)
        world = np.column_stack([_RADIUS * np.cos(angle), _RADIUS * np.sin(angle), along])
        seen: list[list[int]] = [[] for _ in world]
        poses, truth[name] = [], {}
        for number in range(first, first + frames):
            place = np.array([*rng.uniform(-0.3, 0.3, 2), 0.1 * (number - first)])
            turned = Rotation.from_rotvec(rng.uniform(-0.1, 0.1, 3))
            poses.append((place, turned.as_quat()))
            depth = _wall(place, turned.apply(rays.reshape(-1, 3))).reshape(height, width)
            light = (0.5 / depth) ** 0.8 + rng.normal(0, 0.01, depth.shape)
            picture = np.clip(light[..., None] * np.array([220, 130, 110]) * tint, 0, 255).astype(np.uint8)
            cv2.imwrite(str(folder / f"{number:08d}.jpg"), picture[..., ::-1])
            at = turned.inv().apply(world - place)
            pixels = at[:, :2] / at[:, 2:] * focal + centre
            inside = (at[:, 2] > 0.1) & ((pixels >= 0) & (pixels < size)).all(1) & (rng.random(points) < 0.8)
            truth[name][number] = np.column_stack([pixels, at[:, 2]])[inside]
            for point in np.flatnonzero(inside):
                seen[point].append(number)
        camera = shrunk * np.array([focal, focal, *centre])
        _write_files(folder, world, seen, poses, camera, range(first, first + frames), size)
    return truth


def _wall(place: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """How far along each ray, whose depth is 1 in the camera, the tube's wall is; at most 30."""
    a, b, c = (rays[:, :2] ** 2).sum(1), rays[:, :2] @ place[:2], (place[:2] ** 2).sum() - _RADIUS**2
    return np.minimum((-b + np.sqrt(b**2 - a * c)) / np.maximum(a, 1e-9), 30)


def _write_files(
    folder: Path,
    world: np.ndarray,
    seen: list[list[int]],
    poses: list[tuple[np.ndarray, np.ndarray]],
    camera: np.ndarray,
    frames: range,
    size: tuple[int, int],
) -> None:
    properties = [f"element vertex {len(world)}", *(f"property float {axis}" for axis in _HEAD)]
    properties += ["element camera 1", *(f"property float {name}" for name in _CAMERA)]
    points = [" ".join(f"{value:.8g}" for value in point) for point in world]
    lines = ["ply", "format ascii 1.0", "comment PCL generated", *properties, "end_header", *points, "0 0 0 1 0 0 0 0"]
    write_text(folder / "structure.ply", "\n".join(lines) + "\n")
    lines = ["header: ", "  seq: 0", "  stamp: 0.000000000", "  frame_id: ", "poses[]: "]
    for number, (place, turned) in enumerate(poses):
        lines += [f"  poses[{number}]: ", "    position: ", *_axes("xyz", place)]
        lines += ["    orientation: ", *_axes("xyzw", turned)]
    write_text(folder / "motion.yaml", "\n".join(lines) + "\n")
    write_text(folder / "camera_intrinsics_per_view", "".join(f"{value:.6g}\n" for value in camera))
    text = "".join("-1\n" + "".join(f"{number}\n" for number in views) for views in seen)
    write_text(folder / "view_indexes_per_point", text)
    for name in ("visible_view_indexes", "selected_indexes"):
        write_text(folder / name, "".join(f"{number}\n" for number in frames))
    cv2.imwrite(str(folder / "undistorted_mask.bmp"), np.full(size[::-1], 255, np.uint8))


def _axes(names: str, values: np.ndarray) -> list[str]:
    return [f"      {name}: {value:.8g}" for name, value in zip(names, values, strict=True)]
