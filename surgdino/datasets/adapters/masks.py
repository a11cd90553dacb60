"""Pictures or films with masks of ids or colours: recordings laid out as the card's `mask_files` says."""

from __future__ import annotations

from surgdino.datasets.files import image_size, walk
from surgdino.datasets.manifest import Labels, Manifest, Problem
from surgdino.datasets.mask_files import Layer, Legend
from surgdino.datasets.masks import FrameMasks, VideoMasks
from surgdino.datasets.paired_pictures import PairedPictures, Recording
from surgdino.datasets.picture_layout import MaskLayout
from surgdino.errors import SurgdinoError
from surgdino.paths import read_bytes
from surgdino.records import parse_json

_LEGEND = "labels.json"  # classes and colours as EndoVis 2018 lists them: [{"name": ..., "color": [r, g, b]}]
_MOST = 1 << 20  # bytes of it


class Masks(PairedPictures):
    """A recording is a folder of numbered pictures, or a film; its masks are labels of the kind `masks`."""

    def read(self) -> Manifest:
        recordings = self.recordings(self.layout, "mask")
        self._check_legends()
        classes, values = self.card.mask_classes, dict[str, VideoMasks]()
        for each in recordings:
            if frames := self.frames(each):
                values[each.video.id] = VideoMasks(frames, classes)
        labels = [Labels("masks", classes, values), *self.more_labels(recordings)]
        return self.manifest((each.video for each in recordings), labels)

    @property
    def layout(self) -> MaskLayout:
        """Of the card.

        Raises:
            SurgdinoError: it has none, or says no class.
        """
        if self.card.mask_files is None or not self.card.masks:
            fix = "the card must say where they lie and what they show: dataset.mask_files={pairs: ...}, dataset.masks"
            raise SurgdinoError(f"dataset={self.card.name} does not say what its masks are", fix=fix)
        return self.card.mask_files

    def more_labels(self, recordings: list[Recording]) -> list[Labels]:
        """Labels of other kinds that the dataset has."""
        return []

    def frames(self, recording: Recording) -> dict[int, FrameMasks]:
        """Frame number -> masks of those that have a file."""
        legend = Legend(self.card.masks, self.layout.background, self.layout.strays)
        frames: dict[int, FrameMasks] = {}
        size: tuple[int, int] | None = None
        for number, path in recording.files.items():
            if recording.pictures and number not in recording.pictures:
                continue
            if not recording.pictures and size is None:  # a film's masks have one size
                try:
                    size = image_size(path)
                except SurgdinoError as error:
                    self.problems.append(Problem.of(error, "copy it again"))
                    continue
            files = {name: Layer(path, name, legend) for name in self.card.masks}
            frames[number] = FrameMasks(recording.pictures.get(number, recording.video.path), files, size)
        return frames

    def _check_legends(self) -> None:
        """Classes and colours that came with the masks, against the card's."""
        if not Legend(self.card.masks).by_colour:
            return
        for path in (path for _, files in walk(self.root) for path in files if path.name == _LEGEND):
            try:
                rows = parse_json(read_bytes(path, _MOST), path, "copy it again")
            except SurgdinoError as error:
                self.problems.append(Problem.of(error))
                continue
            for row in rows if isinstance(rows, list) else []:
                name, colour = (row.get("name"), row.get("color")) if isinstance(row, dict) else (None, None)
                known = self.card.masks.get(str(name))
                given = tuple(colour) if isinstance(colour, list) else colour
                if given != known and not (known is None and isinstance(given, tuple) and not any(given)):
                    fix = "set dataset.masks to what the file says, if the masks show it"
                    what = "another colour of a class than the card has"
                    self.problem("error", what, path, place=str(name), expected=known, found=given, fix=fix)
