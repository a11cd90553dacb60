"""Pictures sorted into classes, unrelated to each other: ImageNet, Food101, and folders in their layouts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from surgdino.datasets.adapter import Adapter
from surgdino.datasets.files import entries, is_image, letters, name_of, plain_name, walk
from surgdino.datasets.manifest import FrameLabels, Labels, Manifest, Video, place_of
from surgdino.errors import SurgdinoError, nearest

CLASS = "class"  # the kind of their labels
PARTS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val"}
PARTS |= {"test": "test", "testing": "test"}
Listed = Mapping[str, Mapping[str, Sequence[Path]]]  # part -> class -> pictures
_EVERY = 5  # where nobody says which pictures are tested: the second, seventh, ... of a class


class PictureSet(Adapter):
    """Reads a layout by `listed`. All pictures of one class and part are one video, called `train/CLASS`.

    What is tested is the part `test`. Pictures have no operations: all of a part count as one, so that a leak guard can
    tell the parts apart. `operation_pattern` finds those of surgical pictures, by their paths.
    """

    takes = ("operation_pattern",)

    def listed(self) -> Listed:
        """Part (`train`, `val`, `test`) -> class -> pictures; a part "" is to be divided.

        Raises:
            SurgdinoError: another layout.
        """
        raise NotImplementedError

    def read(self) -> Manifest:
        listed = self.listed()
        if set(listed) == {""}:
            listed = self._divided(listed[""])
        else:
            self._check_classes(listed)
        self._check_apart(listed)
        classes = sorted({name for of_part in listed.values() for name in of_part})
        videos, values = [], {}
        for part, of_part in listed.items():
            names = self._operations(part, of_part)
            for name, files in of_part.items():
                for operation, some in _grouped(files, names).items():
                    inside = f"/{place_of(operation)}" if self.pattern else ""
                    video = self._video(f"{part}/{plain_name(name)}{inside}", operation, some)
                    videos.append(video)
                    values[video.id] = FrameLabels(np.arange(len(some)), np.full(len(some), classes.index(name)))
        count = sum(len(video.pictures) for video in videos)
        self.notes.append(f"{count:,} pictures of {len(classes):,} classes; each is cut to its central square")
        return self.manifest(videos, [Labels(CLASS, tuple(map(plain_name, classes)), values)])

    def _video(self, name: str, operation: str, files: Sequence[Path]) -> Video:
        folder = files[0].parent if len({file.parent for file in files}) == 1 else self.root
        pictures = tuple(str(file.relative_to(folder)) for file in files)
        return Video(name, operation, folder, pictures=pictures)

    def _operations(self, part: str, of_part: Mapping[str, Sequence[Path]]) -> dict[Path, str]:
        """The operation of each picture of a part."""
        files = [file for some in of_part.values() for file in some]
        places = [self._group(file) or f"{part} pictures" for file in files]
        first: dict[str, Path] = {}
        for file, place in zip(files, places, strict=True):
            first.setdefault(place, file)
        names = {place: self.named(place, file) for place, file in first.items()}
        return {file: names[place] for file, place in zip(files, places, strict=True)}

    def _group(self, file: Path) -> str:
        """What the pattern says of a picture; "" without one."""
        return self.matched(file, "", self.root, file.name) if self.pattern else ""

    def _divided(self, of_class: Mapping[str, Sequence[Path]]) -> Listed:
        """Every fifth operation is tested, in an order that looks random and is the same everywhere; or, where nobody
        knows operations, every fifth picture of a class."""
        tested: set[Path] = set()
        if self.pattern:
            group = {file: self._group(file) for files in of_class.values() for file in files}
            chosen = set(sorted(set(group.values()), key=_shuffled)[1::_EVERY])
            tested = {file for file, name in group.items() if name in chosen}
        else:
            for files in of_class.values():
                tested |= set(sorted(files, key=lambda file: _shuffled(file.name))[1::_EVERY])
        fifth = "operations" if self.pattern else "pictures of every class (data.operation_pattern: of the operations)"
        self.notes.append(f"there is no train/ beside val/ or test/: split official tests a fifth of the {fifth}")
        parts: dict[str, dict[str, list[Path]]] = {"train": {}, "test": {}}
        for name, files in of_class.items():
            for file in files:
                parts["test" if file in tested else "train"].setdefault(name, []).append(file)
        return parts

    def _check_classes(self, listed: Listed) -> None:
        """Report a class that one part has and another lacks: the numbers would be of other classes."""
        train = listed.get("train", {})
        for part in ("val", "test"):
            of_part = listed.get(part, {})
            if not train or not of_part:
                continue
            for name in sorted(train.keys() - of_part.keys()):
                what, fix = f"a class is missing in the {part} part", "copy it, or leave it out of both parts"
                self.problem("error", what, self.root, expected=f"pictures of {name}", found="none", fix=fix)
            for name in sorted(of_part.keys() - train.keys()):
                what, fix = "a class that nothing teaches", nearest(name, train)
                self.problem("error", what, of_part[name][0].parent, expected="a class of train/", found=name, fix=fix)

    def _check_apart(self, listed: Listed) -> None:
        """Report a picture that is in two parts."""
        part_of: dict[Path, str] = {}
        for part, of_part in listed.items():
            for file in (file for files in of_part.values() for file in files):
                if part_of.setdefault(file, part) != part:
                    what, fix = "a picture is in two parts", "keep it in one of them"
                    self.problem("error", what, file, expected="one", found=f"{part_of[file]} and {part}", fix=fix)
                    return

    def classes_in(self, folder: Path) -> dict[str, list[Path]]:
        """Class -> its pictures: those below each subfolder, which is named after it."""
        found = {}
        for path in entries(folder):
            if path.is_dir():
                pictures = [file for _, files in walk(path) for file in files if is_image(file)]
                if pictures:
                    found[path.name] = pictures
                else:
                    what, fix = "a class without a picture", "copy its pictures, or remove the folder"
                    self.problem("error", what, path, expected="pictures", found="none", fix=fix)
            elif is_image(path):
                self.unexpected(path, "a picture in the folder of its class")
        return found

    def sorted_by(
        self, rows: Iterable[tuple[str | int, str, str]], table: Path, pictures: Mapping[str, Path]
    ) -> dict[str, list[Path]]:
        """Class -> pictures, as a table has it; a row that names no file, or one twice, is an error.

        Args:
            rows: (row, class, picture).
            pictures: by the names that the table gives them.
        """
        found: dict[str, list[Path]] = {}
        taken: set[str] = set()
        faults: dict[str, list[tuple[str | int, str]]] = {}
        for row, name, picture in rows:
            if picture not in pictures or picture in taken:
                what = "a second row of a picture" if picture in taken else "a row names no file"
                faults.setdefault(what, []).append((row, picture))
            else:
                taken.add(picture)
                found.setdefault(name, []).append(pictures[picture])
        for what, each in faults.items():
            more = f", and {len(each) - 1} more like it" if len(each) > 1 else ""
            row, picture = each[0]
            fix = "copy it from the release" if "no file" in what else "keep one of the rows"
            self.problem("error", what + more, table, place=f"row {row}", found=picture, fix=fix)
        return found


def by_stem(folder: Path) -> dict[str, Path]:
    """The pictures below a folder by their paths inside it without suffix."""
    files = (file for _, some in walk(folder) for file in some if is_image(file))
    return {name_of(file, folder): file for file in files}


def _grouped(files: Sequence[Path], names: Mapping[Path, str]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for file in files:
        found.setdefault(names[file], []).append(file)
    return found


def _shuffled(name: str) -> str:
    return hashlib.sha256(plain_name(name).encode()).hexdigest()


def part_folders(root: Path) -> dict[str, Path]:
    """Part -> its folder, for folders called `train`, `val` or `test` (or `training`, `validation`, ...).

    Raises:
        SurgdinoError: two folders of one part.
    """
    found: dict[str, Path] = {}
    for path in entries(root):
        part = PARTS.get(letters(path.name)) if path.is_dir() else None
        if part is not None and found.setdefault(part, path) != path:
            what, fix = f"two folders of the {part} part", "keep one of them"
            raise SurgdinoError(what, file=path, expected="one", found=f"{found[part].name} too", fix=fix)
    return found


def numbered(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """(row, text) of the lines that are not empty."""
    return ((row, line.strip()) for row, line in enumerate(lines, start=1) if line.strip())
