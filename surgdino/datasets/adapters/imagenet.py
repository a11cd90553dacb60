"""ImageNet (ILSVRC2012): `train/n01440764/*.JPEG`; `val` sorted the same way, or flat beside a file of its classes."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path

from surgdino.csv_files import csv_rows
from surgdino.datasets.files import entries, read_text
from surgdino.datasets.picture_sets import Listed, PictureSet, by_stem, numbered
from surgdino.errors import SurgdinoError
from surgdino.paths import read_bytes

_INSIDE = (".", "Data/CLS-LOC", "ILSVRC/Data/CLS-LOC")  # where train/ and val/ lie: Kaggle has them deeper
_SOLUTION = "LOC_val_solution.csv"
_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
_DEVKIT = (".", "data", "ILSVRC2012_devkit_t12/data", "devkit/data")
_MOST_META = 64 << 20  # bytes


class ImageNet(PictureSet):
    """The 50,000 pictures of `val` are what is tested; classes are called by their synsets."""

    def listed(self) -> Listed:
        top = next((path for name in _INSIDE if ((path := self.root / name) / "train").is_dir()), self.root)
        found = {"train": self.classes_in(top / "train")}
        val = top / "val"
        if val.is_dir():
            is_sorted = any(path.is_dir() for path in entries(val))
            found["test"] = self.classes_in(val) if is_sorted else self._flat(val)
        return {part: classes for part, classes in found.items() if classes}

    def _flat(self, val: Path) -> dict[str, list[Path]]:
        pictures = by_stem(val)
        for folder in (self.root, val.parent):
            if (table := folder / _SOLUTION).is_file():
                return self._complete(self.sorted_by(_solution(table), table, pictures), table, pictures)
        for name in _DEVKIT:
            if (truth := self.root / name / _TRUTH).is_file():
                return self._complete(self.sorted_by(_ground_truth(truth), truth, pictures), truth, pictures)
        what, expected = "nothing says the classes of val/", f"{_SOLUTION}, ILSVRC2012_devkit_t12/, or class folders"
        raise SurgdinoError(what, file=val, expected=expected, fix=f"copy one of them into {self.root}")

    def _complete(
        self, found: dict[str, list[Path]], table: Path, pictures: Mapping[str, Path]
    ) -> dict[str, list[Path]]:
        """The same; pictures that the table does not have are an error."""
        taken = {file for files in found.values() for file in files}
        if left := [file for file in pictures.values() if file not in taken]:
            what = f"{len(left)} picture{'s' * (len(left) > 1)} that no row names"
            self.problem(
                "error", what, table, expected="a row for each", found=left[0].name, fix="copy the table again"
            )
        return found


def _solution(table: Path) -> Iterator[tuple[int, str, str]]:
    """(row, class, picture) of Kaggle's `ILSVRC2012_val_00048981,n03995372 85 1 499 272`."""
    for row, cells in enumerate(csv_rows(read_text(table), table), start=1):
        if row > 1 and cells:
            if len(cells) < 2 or not cells[1].split():
                expected = "ImageId,PredictionString"
                raise SurgdinoError("a row without a class", file=table, place=f"row {row}", expected=expected)
            yield row, cells[1].split()[0], cells[0].strip()


def _ground_truth(truth: Path) -> Iterator[tuple[int, str, str]]:
    """The same of the development kit: the id of the class of each picture, a line each."""
    classes = _synsets(truth.with_name("meta.mat"))
    for row, text in numbered(read_text(truth).split("\n")):
        if not text.isdecimal() or int(text) not in classes:
            what, expected = "not a class", "an id of meta.mat"
            raise SurgdinoError(what, file=truth, place=f"row {row}", expected=expected, found=text[:40])
        yield row, classes[int(text)], f"ILSVRC2012_val_{row:08d}"


def _synsets(meta: Path) -> dict[int, str]:
    """Id -> synset of the classes that have no others below them."""
    from scipy.io import loadmat  # takes a third of a second

    data = read_bytes(meta, _MOST_META)
    try:
        synsets = loadmat(io.BytesIO(data), squeeze_me=True)["synsets"]
        rows = zip(synsets["ILSVRC2012_ID"], synsets["WNID"], synsets["num_children"], strict=True)
        return {int(number): str(synset) for number, synset, children in rows if not int(children)}
    except Exception as error:  # the reader raises whatever a damaged file leads it to
        found, expected = f"{type(error).__name__}: {error}", "synsets with ILSVRC2012_ID, WNID, num_children"
        raise SurgdinoError("not the classes of ImageNet", file=meta, expected=expected, found=found) from error
