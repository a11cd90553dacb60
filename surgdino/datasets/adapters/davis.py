"""DAVIS 2017's layout: `JPEGImages/480p/SEQ`, `Annotations/480p/SEQ`, and `ImageSets/2017/val.txt`."""

from __future__ import annotations

from pathlib import Path

from surgdino.datasets.adapter import Adapter
from surgdino.datasets.files import entries, numbered_images, read_text
from surgdino.datasets.manifest import Labels, Manifest, Problem, Video
from surgdino.datasets.mask_files import Layer, Legend
from surgdino.datasets.masks import FrameMasks, VideoMasks
from surgdino.errors import SurgdinoError, nearest

_LIST = "ImageSets/2017/val.txt"


class Davis(Adapter):
    """A sequence is a video and an operation; its masks, of kind `objects`, show the card's classes by their ids.

    The list names the sequences that are read; without it all are. Masks may be sparse, but for the first frame's.
    """

    def read(self) -> Manifest:
        images, masks = (self.root / kind / "480p" for kind in ("JPEGImages", "Annotations"))
        here = [path.name for path in entries(images) if path.is_dir()]
        listed, videos, values = self._listed(here), [], {}
        for name in here if listed is None else listed:
            try:
                frames = self._frames(images / name, masks / name)
            except SurgdinoError as error:
                self.problems.append(Problem.of(error))
                continue
            videos.append(Video(name, self.operation_at(name), images / name, self.card.fps))
            values[name] = VideoMasks(frames, self.card.mask_classes)
        elsewhere = {self.operation_at(name) for name in here} - {video.operation for video in videos}
        return self.manifest(videos, [Labels("objects", self.card.mask_classes, values)], elsewhere)

    def _listed(self, here: list[str]) -> list[str] | None:
        """The sequences of the list that are here; None where there is no list."""
        path = self.root / _LIST
        if not path.is_file():
            return None
        found: list[str] = []
        for row, line in enumerate(read_text(path).split("\n"), start=1):
            name = line.strip()
            if name and name not in here:
                what, expected = "a sequence of the list is not here", f"the folder JPEGImages/480p/{name}"
                fix = nearest(name, here)
                self.problem("error", what, path, place=f"row {row}", expected=expected, found=name, fix=fix)
            elif name and name not in found:
                found.append(name)
        return found

    def _frames(self, pictures: Path, masks: Path) -> dict[int, FrameMasks]:
        """Frame number -> the masks of a sequence.

        Raises:
            SurgdinoError: it cannot be followed: less than two frames, or no mask of the first.
        """
        images, files = numbered_images(pictures), numbered_images(masks)
        if len(images) < 2:
            found = f"{len(images)} pictures"
            raise SurgdinoError("too few frames", file=pictures, expected="two or more", found=found)
        first = next(iter(images))
        if first not in files:
            what, expected = "no mask of the first frame", f"{images[first].stem}.png"
            found = next((path.name for path in files.values()), "no mask at all")
            raise SurgdinoError(what, file=masks, expected=expected, found=found, fix="copy it from the release")
        for number in files.keys() - images.keys():
            raise SurgdinoError(
                "a mask without a frame", file=files[number], expected=f"{pictures.name}/{number:05d}.jpg"
            )
        legend = Legend(self.card.masks)
        return {
            number: FrameMasks(images[number], {name: Layer(path, name, legend) for name in self.card.mask_classes})
            for number, path in files.items()
        }
