"""Food101: `images/CLASS/ID.jpg`, with the parts in `meta/train.txt` and `meta/test.txt` (or .json)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from surgdino.datasets.files import read_text
from surgdino.datasets.picture_sets import Listed, PictureSet, by_stem, numbered
from surgdino.errors import SurgdinoError
from surgdino.records import checked, parse_json


class Food101(PictureSet):
    """The released parts: 750 pictures a class teach, 250 are tested."""

    def listed(self) -> Listed:
        pictures, found = by_stem(self.root / "images"), {}
        for part in ("train", "test"):
            files = [self.root / "meta" / f"{part}{suffix}" for suffix in (".txt", ".json")]
            table = next((file for file in files if file.is_file()), None)
            if table is None:
                fix = "copy meta/ from the release"
                raise SurgdinoError("no list of pictures", file=files[0], found="no such file", fix=fix)
            found[part] = self.sorted_by(_rows(table), table, pictures)
        return found


def _rows(table: Path) -> Iterator[tuple[int, str, str]]:
    """(row, class, picture) of `apple_pie/1005649` a line, or {apple_pie: [apple_pie/1005649, ...], ...}."""
    text = read_text(table)
    if table.suffix == ".txt":
        rows = list(numbered(text.split("\n")))
    else:
        lists = checked(dict[str, list[str]], parse_json(text, table), table)
        rows = list(enumerate((name for names in lists.values() for name in names), start=1))
    for row, name in rows:
        yield row, name.partition("/")[0], name
