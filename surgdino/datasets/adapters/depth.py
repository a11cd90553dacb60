"""Pictures with depth maps: recordings anywhere in the folder, laid out as the card's `depth` says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from surgdino.datasets.adapter import Adapter
from surgdino.datasets.depth import DEPTH, DepthLayout, DepthMap
from surgdino.datasets.files import entries, is_image, plain_name, walk
from surgdino.datasets.labelled_pictures import name_of
from surgdino.datasets.manifest import Labels, Manifest, Video
from surgdino.datasets.masks import FrameMasks, VideoMasks
from surgdino.errors import SurgdinoError


class Depth(Adapter):
    """A recording is a folder of numbered pictures, or one picture; its depth maps are labels of the kind `depth`."""

    def read(self) -> Manifest:
        layout = self.card.depth
        if layout is None:
            fix = "the card must say the files' names and their unit: dataset.depth={pairs: ..., millimetres: ...}"
            raise SurgdinoError(f"dataset={self.card.name} does not say what its depth maps are", fix=fix)
        videos: dict[str, Video] = {}
        labels: dict[str, VideoMasks] = {}
        for place, path, pictures, maps in self._recordings(layout):
            where = re.search(layout.operation, place)
            if where is None or not where[1]:
                expected = f"a path that matches {layout.operation!r}"
                self.problem("error", "the folder does not say the operation", path, expected=expected, found=place)
                continue
            name = place[where.start(1) :]  # whatever else is there, and wherever it lies
            if name in videos:
                fix = f"keep one of them; the other is {videos[name].path}"
                self.problem("error", "two recordings of one name", path, found=name, fix=fix)
                continue
            videos[name] = Video(name, self.operation_at(where[1]), path, self.card.fps)
            self.check_not_empty(path)
            told = (layout.millimetres, layout.nearest, layout.farthest)
            files = {
                n: FrameMasks(picture, {DEPTH: DepthMap(maps[n], *told)})
                for n, picture in pictures.items()
                if n in maps
            }
            if files:
                labels[name] = VideoMasks(files, (DEPTH,))
            if bare := [n for n in pictures if n not in maps]:
                what, shown = f"{len(bare)} of {len(pictures)} pictures have no depth map", pictures[bare[0]].name
                self.problem("warning", what, path, found=f"the first is {shown}", fix="copy it, if there is one")
        self.check_complete(videos, self.root)
        return self.manifest(videos.values(), [Labels(DEPTH, (DEPTH,), labels)])

    def _recordings(self, layout: DepthLayout) -> Iterator[tuple[str, Path, dict[int, Path], dict[int, Path]]]:
        """(its path inside the root, its folder of pictures or its picture, pictures and depth maps by number)."""
        for folder, _ in walk(self.root):
            for names, depth in (map(PurePosixPath, pair) for pair in layout.pairs):
                inside = names.parent.parts
                if inside and folder.relative_to(self.root).parts[-len(inside) :] != inside:
                    continue
                recording = folder.parents[len(inside) - 1] if inside else folder
                if pictures := self._numbered(folder, names.name):
                    place = name_of(recording, self.root)
                    place = plain_name(self.root.resolve().name) if place == "." else place
                    maps = self._numbered(recording / depth.parent, depth.name)
                    yield place, folder if "#" in names.name else pictures[0], pictures, maps

    def _numbered(self, folder: Path, name: str) -> dict[int, Path]:
        """The images of a folder whose names are `name`, by number; 0 where it has none."""
        pattern = re.compile(re.escape(name).replace(r"\#", r"(\d{1,15})"))
        matches = {path: pattern.fullmatch(path.stem) for path in entries(folder) if is_image(path)}
        found = {path: int(match[1]) if match.groups() else 0 for path, match in matches.items() if match}
        return self.keyed(found, found.__getitem__)
