"""Sequences with structure from motion: pictures, points, cameras, and which picture sees which point."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from surgdino.datasets.adapter import Adapter
from surgdino.datasets.depth import DEPTH
from surgdino.datasets.files import image_size, numbered_images, walk
from surgdino.datasets.manifest import Labels, Manifest, Problem, Video
from surgdino.datasets.masks import FrameMasks, VideoMasks
from surgdino.datasets.structure_from_motion import FARTHEST, NEAREST, Reconstruction, SparseDepth
from surgdino.errors import SurgdinoError

_STRUCTURE = "structure.ply"
_SHRUNK = (1, 2, 3, 4, 6, 8)  # how much smaller than the intrinsics say pictures may be
_INSIDE = 0.99  # of the points that a picture sees must lie in it, in front of the camera


class StructureFromMotion(Adapter):
    """A folder with `structure.ply` is a sequence, its pictures beside it or in `frames/`; the first folder of its path
    is the operation. Its sparse depths are labels of the kind `depth`, of relative scale."""

    def read(self) -> Manifest:
        videos, values = [], dict[str, VideoMasks]()
        for folder, inside in walk(self.root):
            structure = next((path for path in inside if path.name == _STRUCTURE), None)
            if structure is None:
                continue
            place = self.place_in(folder)
            pictures = folder / "frames" if (folder / "frames").is_dir() else folder
            videos.append(Video(place, self.operation_at(place.split("/")[0]), pictures, self.card.fps))
            try:
                numbered = numbered_images(pictures)
                depths = self._depths(Reconstruction.read(folder), numbered, structure)
            except SurgdinoError as error:
                self.problems.append(Problem.of(error))
                continue
            files = {n: SparseDepth(structure, 1.0, NEAREST, FARTHEST, points) for n, points in depths.items()}
            frames = {n: FrameMasks(numbered[n], {DEPTH: file}) for n, file in files.items()}
            values[place] = VideoMasks(frames, (DEPTH,))
        return self.manifest(videos, [Labels(DEPTH, (DEPTH,), values)])

    def _depths(self, built: Reconstruction, pictures: Mapping[int, Path], structure: Path) -> dict[int, np.ndarray]:
        """Frame number -> its points as shares of the picture, with depths in medians; of frames that see any."""
        cameras = [k for k, number in enumerate(built.frames.tolist()) if number in pictures and built.seen[k].any()]
        if not cameras:
            what, expected = "no picture of these has a camera", f"pictures such as {built.frames[0]:08d}.jpg"
            raise SurgdinoError(what, file=structure, expected=expected, found=f"{len(pictures)} pictures")
        width, height = image_size(pictures[int(built.frames[cameras[0]])])
        each = {int(built.frames[k]): built.projected(k) for k in cameras}
        pixels, depths = (np.concatenate(parts) for parts in zip(*each.values(), strict=True))
        shares = {
            shrunk: float((_inside(pixels / shrunk / (width, height)) & (depths > 0)).mean()) for shrunk in _SHRUNK
        }
        shrunk = next((shrunk for shrunk in _SHRUNK if shares[shrunk] >= _INSIDE), None)
        if shrunk is None:
            what, found = "the points do not lie in the pictures that see them", f"{max(shares.values()):.0%} at most"
            fix = "poses lead from the camera to the world, and intrinsics count in the pictures' pixels"
            raise SurgdinoError(what, file=structure, expected=f"{_INSIDE:.0%} of them", found=found, fix=fix)
        if shrunk > 1:
            self.notes.append(f"{structure.parent.name}: the cameras are of pictures {shrunk} times as large")
        middle, points = np.median(depths[depths > 0]), dict[int, np.ndarray]()
        for number, (at, depth) in each.items():
            shares_of = at / shrunk / (width, height)
            good = _inside(shares_of) & (depth > 0)
            if good.any():
                points[number] = np.column_stack([shares_of[good], depth[good] / middle])
        return points


def _inside(shares: np.ndarray) -> np.ndarray:
    return np.asarray(((shares >= 0) & (shares < 1)).all(1))
