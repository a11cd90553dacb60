"""Recordings of numbered pictures (or films) anywhere in a folder, with files that tell of their frames."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from surgdino.datasets.adapter import Adapter
from surgdino.datasets.files import entries, is_image, is_video, walk
from surgdino.datasets.manifest import Video
from surgdino.datasets.picture_layout import PairLayout


@dataclass(frozen=True)
class Recording:
    """One recording.

    Attributes:
        video: as the manifest has it.
        folder: that holds all of it.
        pictures: by frame number; empty of a film.
        files: what tells of its frames, by frame number.
    """

    video: Video
    folder: Path
    pictures: Mapping[int, Path]
    files: Mapping[int, Path]


class PairedPictures(Adapter):
    """Finds recordings by a card's `PairLayout`; what their files tell is for a subclass to read."""

    def recordings(self, layout: PairLayout, told: str) -> list[Recording]:
        """All recordings, in the order of their places; what is amiss between pictures and files is reported.

        Args:
            told: what the files are called, such as `mask`.
        """
        found: dict[str, Recording] = {}
        for place, (folder, path, pictures, files) in self._places(layout).items():
            where = re.search(layout.operation, place)
            if where is None or not where[1]:
                expected = f"a path that matches {layout.operation!r}"
                self.problem("error", "the folder does not say the operation", path, expected=expected, found=place)
                continue
            name = place[where.start() :]  # whatever else is there, and wherever it lies
            if name in found:
                fix = f"keep one of them; the other is {found[name].video.path}"
                self.problem("error", "two recordings of one name", path, found=name, fix=fix)
                continue
            video = Video(name, self.operation_at(where[1]), path, self.card.fps)
            self.check_not_empty(path)
            found[name] = Recording(video, folder, pictures, files)
            self._check_pairs(found[name], told, layout)
        numbers = [
            int(n) for n in (each.video.operation.rpartition("/")[2] for each in found.values()) if n.isdecimal()
        ]
        self.check_complete({*found, *numbers}, self.root)
        return list(found.values())

    def _check_pairs(self, recording: Recording, told: str, layout: PairLayout) -> None:
        pictures, files, path = recording.pictures, recording.files, recording.video.path
        if not pictures:
            return
        if (bare := [n for n in pictures if n not in files]) and not layout.sparse:
            what, shown = f"{len(bare)} of {len(pictures)} pictures have no {told}", pictures[bare[0]].name
            self.problem("warning", what, path, found=f"the first is {shown}", fix="copy it, if there is one")
        if alone := [n for n in files if n not in pictures]:
            what, fix = f"{len(alone)} files of a {told} without a picture", "copy the pictures, or remove these files"
            found = f"no picture {alone[0]} in {path.name}"
            self.problem("error", what, files[alone[0]], expected="a picture of the same number", found=found, fix=fix)

    def _places(self, layout: PairLayout) -> dict[str, tuple[Path, Path, dict[int, Path], dict[int, Path]]]:
        """Path inside the root -> the recording's folder, its video's path, pictures and files by number."""
        found: dict[str, tuple[int, tuple[Path, Path, dict[int, Path], dict[int, Path]]]] = {}
        for folder, _ in walk(self.root):
            for rank, (names, file) in enumerate(tuple(map(PurePosixPath, pair)) for pair in layout.pairs):
                inside = names.parent.parts
                if inside and folder.relative_to(self.root).parts[-len(inside) :] != inside:
                    continue
                recording = folder.parents[len(inside) - 1] if inside else folder
                for path, pictures in self._sources(folder, names.name, film="#" in file.name):
                    place = self.place_in(recording)
                    if place not in found or rank < found[place][0]:
                        files = self.numbered(recording / file.parent, file.name)
                        found[place] = rank, (recording, path, pictures, files)
        return {place: each for place, (_, each) in found.items()}

    def _sources(self, folder: Path, name: str, *, film: bool) -> Iterator[tuple[Path, dict[int, Path]]]:
        """The video's path and its pictures by number; at most one."""
        if "#" not in name and film:
            films = [path for path in entries(folder) if is_video(path) and path.stem == name]
            yield from ((path, dict[int, Path]()) for path in films[:1])
        elif pictures := self.numbered(folder, name):
            yield folder if "#" in name else pictures[0], pictures

    def numbered(self, folder: Path, name: str) -> dict[int, Path]:
        """The images of a folder whose names are `name`, by number; 0 where it has none."""
        pattern = re.compile(re.escape(name).replace(r"\#", r"(\d{1,15})"))
        matches = {path: pattern.fullmatch(path.stem) for path in entries(folder) if is_image(path)}
        found = {path: int(match[1]) if match.groups() else 0 for path, match in matches.items() if match}
        return self.keyed(found, found.__getitem__)
