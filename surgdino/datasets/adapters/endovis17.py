"""EndoVis 2017: in training a folder of masks an instrument, in the test set one a kind of mask."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from surgdino.datasets.files import entries, letters, walk
from surgdino.datasets.manifest import Labels, Manifest
from surgdino.datasets.mask_files import Layer, Legend
from surgdino.datasets.masks import FrameMasks, Mask, VideoMasks
from surgdino.datasets.paired_pictures import PairedPictures, Recording
from surgdino.errors import SurgdinoError, nearest

_TYPES, _PARTS, _BINARY = "types", "parts", "binary"
_TESTED = {_TYPES: "TypeSegmentation", _PARTS: "PartsSegmentation", _BINARY: "BinarySegmentation"}
_SEQUENCE = re.compile(r"instrument_dataset_0*(\d+)", re.IGNORECASE)
_OTHER = "other"  # an instrument that is no robot's: published binary masks leave it out
_INSTRUMENT = "instrument"


class EndoVis17(PairedPictures):
    """Masks of the types of instruments (the card's `masks`), of their `parts`, or of both as one class (`binary`).

    Option `masks` says which. The masks of the test set may lie in a tree of their own, as released.
    """

    takes = ("masks",)

    def read(self) -> Manifest:
        kind = self.options.get("masks", _TYPES)
        if kind not in _TESTED:
            raise SurgdinoError(f"{self.card.name} has no masks={kind!r}", fix=nearest(kind, _TESTED))
        layout = self.card.mask_files
        if layout is None:
            raise SurgdinoError(f"dataset={self.card.name} does not say where its frames lie", fix="use its own card")
        classes = {_TYPES: tuple(self.card.masks), _PARTS: tuple(self.card.parts), _BINARY: (_INSTRUMENT,)}[kind]
        recordings, values = self.recordings(layout, "mask"), dict[str, VideoMasks]()
        for each in recordings:
            if frames := self._frames(each, kind, classes):
                values[each.video.id] = VideoMasks(frames, classes)
        return self.manifest((each.video for each in recordings), [Labels("masks", classes, values)])

    def _frames(self, recording: Recording, kind: str, classes: tuple[str, ...]) -> dict[int, FrameMasks]:
        """Frame number -> masks of the frames that have all of them."""
        instruments = self._instruments(recording.folder / "ground_truth")
        if instruments:
            folders = {path: self._files(path) for path in instruments}
        elif tested := self._tested(recording, kind):
            folders = {tested: self._files(tested)}
        else:
            fix = "pretraining needs none; unpack the training masks, or instrument_2017_test"
            self.problem("warning", "no masks of a sequence", recording.video.path, found="no ground_truth", fix=fix)
            return {}
        bare = [n for n in recording.pictures if not all(n in files for files in folders.values())]
        if bare:
            place = next(path for path, files in folders.items() if bare[0] not in files)
            what = f"{len(bare)} of {len(recording.pictures)} pictures have no mask, or not of every instrument"
            expected = f"a mask of frame {bare[0]}"
            self.problem(
                "error", what, place, expected=expected, found="no such file", fix="copy it; they are left out"
            )
        for files in folders.values():
            if alone := [n for n in files if n not in recording.pictures]:
                what, fix = f"{len(alone)} masks without a picture", "copy the pictures, or remove the masks"
                expected = f"a picture {alone[0]} in {recording.video.path.name}"
                self.problem("error", what, files[alone[0]], expected=expected, found="no such file", fix=fix)
        frames = {}
        for number, picture in recording.pictures.items():
            if number not in bare:
                masks = {path: files[number] for path, files in folders.items()}
                if instruments:
                    shown = self._of_instruments(instruments, masks, kind, classes)
                else:
                    shown = self._of_one(next(iter(masks.values())), kind, classes)
                frames[number] = FrameMasks(picture, shown)
        return frames

    def _of_instruments(
        self, instruments: Mapping[Path, str], files: Mapping[Path, Path], kind: str, classes: tuple[str, ...]
    ) -> dict[str, Mask | None]:
        """Class -> what shows it in one frame's masks, a file an instrument with the ids of its parts."""
        legend = Legend(self.card.parts)
        shown: dict[str, Mask | None] = {}
        for name in classes:
            of_class = {
                _TYPES: [path for path, instrument in instruments.items() if instrument == name],
                _PARTS: list(instruments),
                _BINARY: [path for path, instrument in instruments.items() if instrument != _OTHER],
            }[kind]
            parts = (name,) if kind == _PARTS else tuple(self.card.parts)
            shown[name] = tuple(Layer(files[path], part, legend) for path in of_class for part in parts) or None
        return shown

    def _of_one(self, file: Path, kind: str, classes: tuple[str, ...]) -> dict[str, Mask | None]:
        """Class -> what shows it in one file with all of them."""
        if kind == _BINARY:
            return {_INSTRUMENT: file}
        legend = Legend(self.card.masks if kind == _TYPES else self.card.parts)
        return {name: Layer(file, name, legend) for name in classes}

    def _instruments(self, folder: Path) -> dict[Path, str]:
        """Folder of masks -> its instrument: `Left_Prograsp_Forceps_labels` is a prograsp_forceps."""
        found: dict[Path, str] = {}
        for path in entries(folder):
            if path.is_dir() and path.name not in _TESTED.values():
                names = [name for name in self.card.masks if letters(name) in letters(path.name)]
                if len(names) == 1:
                    found[path] = names[0]
                else:
                    fix = nearest(path.name, self.card.masks)
                    expected = "the name of an instrument in the folder's"
                    self.problem("error", "masks of no instrument", path, expected=expected, found=path.name, fix=fix)
        return found

    def _tested(self, recording: Recording, kind: str) -> Path | None:
        """The folder of the test set's masks of a sequence: its own, or in another tree."""
        inside = (recording.folder / place / _TESTED[kind] for place in ("gt", "ground_truth", "."))
        number = recording.video.operation.rpartition("/")[2]
        own = next((path for path in inside if path.is_dir()), None)
        elsewhere = self._elsewhere.get((number, _TESTED[kind])) if "test" in recording.video.id else None
        return own or elsewhere

    @cached_property
    def _elsewhere(self) -> dict[tuple[str, str], Path]:
        """(sequence, kind of masks) -> the folder."""
        found = {}
        for folder, _ in walk(self.root):
            inside = folder.relative_to(self.root).parts
            if folder.name in _TESTED.values():
                numbers = [match[1] for match in map(_SEQUENCE.fullmatch, inside) if match]
                found.update({(number, folder.name): folder for number in numbers})
        return found

    def _files(self, folder: Path) -> dict[int, Path]:
        return self.numbered(folder, "frame#")
