"""Pictures with depth maps: recordings anywhere in the folder, laid out as the card's `depth` says."""

from __future__ import annotations

from surgdino.datasets.depth import DEPTH, DepthMap
from surgdino.datasets.manifest import Labels, Manifest
from surgdino.datasets.masks import FrameMasks, VideoMasks
from surgdino.datasets.paired_pictures import PairedPictures
from surgdino.errors import SurgdinoError


class Depth(PairedPictures):
    """A recording is a folder of numbered pictures, or one picture; its depth maps are labels of the kind `depth`."""

    def read(self) -> Manifest:
        layout = self.card.depth
        if layout is None:
            fix = "the card must say the files' names and their unit: dataset.depth={pairs: ..., millimetres: ...}"
            raise SurgdinoError(f"dataset={self.card.name} does not say what its depth maps are", fix=fix)
        labels: dict[str, VideoMasks] = {}
        told = (layout.millimetres, layout.nearest, layout.farthest)
        recordings = self.recordings(layout, "depth map")
        for each in recordings:
            both = {n: picture for n, picture in each.pictures.items() if n in each.files}
            files = {n: FrameMasks(path, {DEPTH: DepthMap(each.files[n], *told)}) for n, path in both.items()}
            if files:
                labels[each.video.id] = VideoMasks(files, (DEPTH,))
        return self.manifest((each.video for each in recordings), [Labels(DEPTH, (DEPTH,), labels)])
