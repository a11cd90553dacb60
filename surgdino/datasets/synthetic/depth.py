"""Small sets of pictures with depth, generated, in the layouts of SimCol3D, C3VD, Hamlyn and SCARED's keyframes.

A picture looks into a tube that is lit from where it is seen: the farther a wall, the darker it is.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from surgdino.datasets.synthetic.cholec80 import mark_generated
from surgdino.paths import write_text

_NEAR, _FAR = 12.0, 90.0  # mm
Writer = Callable[[Path, int, int, np.ndarray, np.ndarray], str]


def write_depth(
    root: str | Path,
    layout: str = "simcol3d",
    recordings: int = 4,
    frames: int = 4,
    size: tuple[int, int] = (64, 48),
    seed: int = 0,
    *,
    public_ids: bool = False,
) -> dict[str, dict[int, np.ndarray]]:
    """Write a synthetic set under `root`. The same arguments give the same files.

    Args:
        layout: the name of the card.
        recordings, frames: how many, and frames of each; of SCARED animals and keyframes.
        size: (width, height).
        public_ids: as in `write_cholec80`.

    Returns:
        Video id -> frame number -> depth in mm, float64 [height, width]; NaN where the file does not know it.
    """
    root, truth = Path(root), dict[str, dict[int, np.ndarray]]()
    if not public_ids:
        mark_generated(root)
    for recording in range(recordings):
        rng = np.random.default_rng([seed, recording])
        tint, drift = rng.uniform(0.8, 1.2, 3), rng.uniform(-0.2, 0.2, 2)
        for frame in range(frames):
            depth = _tube(size, drift * (1 + frame / frames))
            light = (_NEAR / depth) ** 0.8 + rng.normal(0, 0.01, depth.shape)
            picture = np.clip(light[..., None] * np.array([220, 130, 110]) * tint, 0, 255).astype(np.uint8)
            if layout in ("hamlyn", "scared"):
                depth[rng.random(depth.shape) < 0.3] = np.nan
            name = _WRITERS[layout](root, recording, frame, picture[..., ::-1], depth)
            number = 0 if layout == "scared" else frame
            truth.setdefault(name, {})[number] = depth
    return truth


def _tube(size: tuple[int, int], middle: np.ndarray) -> np.ndarray:
    """Depth of a wall around an axis that is seen at `middle`, in half widths and heights from the centre."""
    x, y = np.meshgrid(*(np.linspace(-1, 1, side) for side in size))
    return np.clip(_NEAR / np.maximum(np.hypot(x - middle[0], y - middle[1]), 1e-3), _NEAR, _FAR)


def _simcol3d(root: Path, recording: int, frame: int, bgr: np.ndarray, depth: np.ndarray) -> str:
    name = f"Frames_S{recording + 1}"
    folder = _made(root / "SyntheticColon_I" / name)
    opaque = np.full((*bgr.shape[:2], 1), 65535, np.uint16)
    cv2.imwrite(str(folder / f"FrameBuffer_{frame:04d}.png"), np.dstack([bgr.astype(np.uint16) * 257, opaque]))
    cv2.imwrite(str(folder / f"Depth_{frame:04d}.png"), (np.round(depth / 200 * 255) * 256).astype(np.uint16))
    return name


def _c3vd(root: Path, recording: int, frame: int, bgr: np.ndarray, depth: np.ndarray) -> str:
    name = f"{('cecum', 'desc', 'sigmoid', 'trans')[recording % 4]}_t{recording // 4 + 1}_a"
    folder = _made(root / name)
    cv2.imwrite(str(folder / f"{frame:04d}_color.png"), bgr)
    cv2.imwrite(str(folder / f"{frame:04d}_depth.tiff"), np.round(depth / 100 * 65535).astype(np.uint16))
    for kind in ("normals", "flow"):
        cv2.imwrite(str(folder / f"{frame:04d}_{kind}.tiff"), np.full(bgr.shape, 32768, np.uint16))
    cv2.imwrite(str(folder / f"{frame:04d}_occlusion.png"), np.zeros(depth.shape, np.uint8))
    write_text(folder / "pose.txt", "1,0,0,0,0,1,0,0,0,0,1,0,0,0,0,1\n" * (frame + 1))
    return name


def _hamlyn(root: Path, recording: int, frame: int, bgr: np.ndarray, depth: np.ndarray) -> str:
    name = f"rectified{recording + 1:02d}"
    for eye in ("image01", "image02"):
        cv2.imwrite(str(_made(root / name / eye) / f"{frame:010d}.jpg"), bgr)
    for eye in ("depth01", "depth02"):
        values = np.round(np.nan_to_num(depth)).astype(np.uint16)
        cv2.imwrite(str(_made(root / name / eye) / f"{frame:010d}.png"), values)
    write_text(root / name / "intrinsics.txt", "60 0 32 0\n0 60 24 0\n0 0 1 0\n")
    return name


def _scared(root: Path, recording: int, frame: int, bgr: np.ndarray, depth: np.ndarray) -> str:
    name = f"dataset_{recording + 1}/keyframe_{frame + 1}"
    folder = _made(root / name)
    for eye in ("Left", "Right"):
        cv2.imwrite(str(folder / f"{eye}_Image.png"), bgr)
    x, y = np.meshgrid(*(np.arange(side, dtype=np.float32) - side / 2 for side in depth.shape[::-1]))
    points = np.dstack([depth, y * depth / 60, x * depth / 60]).astype(np.float32)  # OpenCV stores x first
    cv2.imwrite(str(folder / "left_depth_map.tiff"), points)
    return name


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


_WRITERS: dict[str, Writer] = {"simcol3d": _simcol3d, "c3vd": _c3vd, "hamlyn": _hamlyn, "scared": _scared}
