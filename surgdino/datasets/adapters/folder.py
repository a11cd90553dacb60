"""Any folder: every video file and every folder of images below it, and which of them belong to one operation.

With labels where there are some: a CSV of phases beside videos, or `images/` with `masks/`.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from surgdino.datasets.adapter import Adapter
from surgdino.datasets.card import Card
from surgdino.datasets.exported_films import read_films
from surgdino.datasets.exported_pictures import find_exports, read_exports
from surgdino.datasets.files import (
    VIDEO_SUFFIXES,
    entries,
    is_image,
    is_table,
    is_video,
    plain_name,
    walk,
)
from surgdino.datasets.label_table import video_spellings
from surgdino.datasets.labelled_pictures import Picture, pairs_of_folders, places_by_name, read_pairs, without_parts
from surgdino.datasets.left_out import mask_folders, report_left_out
from surgdino.datasets.manifest import Labels, Manifest, Video
from surgdino.datasets.phases import read_label_tables
from surgdino.datasets.timelines import SUFFIXES, timeline_rows
from surgdino.errors import SurgdinoError

_LABELS = ("labels.csv", "labels.tsv", "labels.xlsx")
_LABEL_ENDING = re.compile(r"[ ._-]*(labels?|phases?|annotations?)$", re.IGNORECASE)
# `OP1 (2)`, `OP1_part2`, `OP1 Teil 2`; and `OP1-2`, which may as well be another operation.
_PART = re.compile(r"[ _-]*(\(\d+\)|[ _-](part|pt|teil|cd|disc)[ _.-]*\d+)$", re.IGNORECASE)
_COUNT = re.compile(r"[ _.-]+\(?\d+\)?$")


class Folder(Adapter):
    """Videos are named by their path inside the folder, operations by the subfolder they lie in or by their own name.

    A subfolder that holds all videos is taken for the folder itself; `train/` or `test/` say nothing of operations. A
    folder with `images/` and `masks/` holds pictures instead: each is a video of one frame, and those whose names
    differ in a counter alone are one operation, unless they lie in subfolders or a pattern says otherwise. The card's
    `operation` names the operation from `{place}`, `{content}` and `{root}`; its `phases` are the labels in the order
    of their ids where it lists them; its first `mask_classes` is what the masks show.

    Option `operation_pattern` is a regular expression on the path inside the folder (with `/` between its parts) whose
    one group is the operation; `labels` is a table of phases, an export of masks, or a folder of them, by its path or
    its name in the folder; without it `labels.csv` is read, or tables that are named after the videos.
    """

    takes = ("operation_pattern", "labels")

    def __init__(self, card: Card, root: Path, options: Mapping[str, str]) -> None:
        super().__init__(card, root, options)
        self.masks: list[Path] = []  # folders that are not read as videos

    def read(self) -> Manifest:
        pairs, named = pairs_of_folders(self.root), self._named_labels()
        exports = [] if pairs else find_exports(self, named)
        labels: list[Labels] = []
        films = any(export.films for export in exports)
        alone = bool(pairs or (exports and not films))  # each picture is a video of its own
        if alone:
            pictures, labels = read_pairs(self, pairs) if pairs else read_exports(self, exports)
        else:
            pictures = [Picture(name, path, self.root, "") for name, path in self._named_sources()]
        videos = self._videos(pictures, fps=None if alone else self.card.fps)
        for video in videos:
            self.check_not_empty(video.path)
        self._check_operations(videos)
        if films and videos:
            labels = read_films(self, exports, videos)
        used = {export.path for export in exports}
        tables = {} if (exports and not films) or not videos or named in used else self._tables(named, videos)
        if tables:
            phases, problems, understood = read_label_tables(tables, videos, self.card.phases)
            self.problems += problems
            source = next(iter(tables)).name if len(tables) == 1 else f"{len(tables)} tables"
            self.notes.append(f"{source}: {understood}")
            labels += [phases] if phases else []
        masks = [*self.masks, *(folder for pair in pairs for folder in pair)]
        report_left_out(self, [*(v.path for v in videos), *masks, *tables, *used])
        return self.manifest(videos, labels)

    def _check_operations(self, videos: Sequence[Video]) -> None:
        """Ask where the names suggest other operations than were found."""
        if self.pattern is not None or len(videos) < 2:
            return
        if any(is_image(video.path) for video in videos):  # single pictures
            if len({video.operation for video in videos}) == 1:
                fix = "set data.operation_pattern; '(.+)' makes each an operation"
                what = f"all {len(videos)} pictures count as one operation, by their names or their folder"
                self.problem("warning", what, self.root, found=videos[0].operation, fix=fix)
            return
        groups: dict[str, list[Video]] = {}
        names = {_plain(video.id) for video in videos}
        for video in videos:
            whole = _plain(_PART.sub("", video.id))
            # `OP1-2` is a part where there is an OP1, and `OP1_part2` anyway.
            short = _plain(_COUNT.sub("", video.id))
            is_part = short in names and short != _plain(video.id)
            groups.setdefault(short if is_part else whole, []).append(video)
        parts = [group for group in groups.values() if len({video.operation for video in group}) > 1]
        if parts:
            shown = ", ".join(video.id for video in parts[0][:3]) + (", ..." if len(parts[0]) > 3 else "")
            count = len({video.operation for video in parts[0]})
            more = f", and {len(parts) - 1} more like it" if len(parts) > 1 else ""
            what = f"videos that look like parts of one operation count as several{more}"
            fix = "move the parts into one subfolder, or set data.operation_pattern"
            self.problem(
                "warning", what, parts[0][0].path, expected="one operation", found=f"{count}: {shown}", fix=fix
            )

    def _videos(self, found: Sequence[Picture], fps: float | None) -> list[Video]:
        """Recordings or single pictures as videos, each with its operation."""
        places = [self.matched(each.path, each.prefix, each.top, each.name) if self.pattern else "" for each in found]
        if self.pattern is None and all(is_image(each.path) for each in found):
            places = places_by_name(self, found)
        elif self.pattern is None:
            places = self._places_on_disk(found)
        names: dict[str, str] = {}  # by the first recording of each operation
        for each, place in zip(found, places, strict=True):
            names.setdefault(place, self.named(place, each.path))
        root = plain_name(self.root.resolve().name)
        return [
            Video(
                each.name, names[place], each.path, fps, formerly=(f"{root}/{place if self.pattern else _old(each)}",)
            )
            for each, place in zip(found, places, strict=True)
        ]

    def _places_on_disk(self, found: Sequence[Picture]) -> list[str]:
        """The subfolder, else the recording itself, inside the folder that holds all of them."""
        if not found:
            return []
        top = _holder(each.path for each in found)
        if top != self.root and self.root in top.parents and len(found) > 1:
            where = plain_name(top.relative_to(self.root).as_posix())
            self.notes.append(f"all videos lie in {where}/; what lies in one subfolder of it is one operation")
        places = []
        for each in found:
            within = each.path.parent.relative_to(top).parts if each.path.is_file() else ()
            folders = without_parts(map(plain_name, within))
            places.append(
                "/".join(folders) or _name(each.path, top if each.path.is_dir() else each.path.parent, suffix=False)
            )
        return places

    def _named_labels(self) -> Path | None:
        """The file or folder that data.labels names."""
        if "labels" not in self.options:
            return None
        place = Path(self.options["labels"]).expanduser()
        path = next((p for p in (place, self.root / place) if p.is_file() or p.is_dir()), None)
        if path is None:
            fix = f"give its path, or its name in {self.root}"
            raise SurgdinoError("data.labels is not a file", file=place, fix=fix)
        return path

    def _tables(self, named: Path | None, videos: Sequence[Video]) -> dict[Path, Video | None]:
        """Tables of labels, with the video that a table is named after: data.labels, labels.csv, or each video's."""
        if named is not None and named.is_file():
            return {named: None}
        beside = [*entries(self.root), *entries(_holder(video.path for video in videos))]
        beside = [path for path in beside if path.name.lower() in _LABELS and path.is_file() and is_table(path)]
        if named is None and beside:
            return {beside[0]: None}
        spellings = video_spellings(videos)
        tables: dict[Path, Video | None] = {}
        for path in (path for _, files in walk(named or self.root) for path in files):
            if path.suffix.lower() in SUFFIXES and _is_timeline(path):
                tables[path] = None
            if not is_table(path):
                continue
            stem = plain_name(path.stem)
            names = (stem, stem.casefold(), _LABEL_ENDING.sub("", stem).casefold())
            own = next((spellings[name] for name in names if name in spellings), None)
            if own is not None or named is not None:
                tables[path] = own
        return tables

    def _named_sources(self) -> list[tuple[str, Path]]:
        """Video files, and folders that hold images but no video, with their names."""
        sources: list[Path] = []
        for folder, files in walk(self.root):
            videos = [path for path in files if is_video(path)]
            sources += videos
            # A picture or two beside videos is a logo; in a folder of its own, a numbered image is a frame.
            if not videos and any(is_image(path) and re.search(r"\d", path.stem) for path in files):
                sources.append(folder)
        self.masks += mask_folders(self, sources)
        sources = sorted(set(sources) - set(self.masks))
        # Two files may differ in their suffix alone; then it stays in the id.
        stems = Counter(_name(path, self.root, suffix=False) for path in sources)
        return [
            (_name(path, self.root, suffix=stems[_name(path, self.root, suffix=False)] > 1), path) for path in sources
        ]


def _is_timeline(path: Path) -> bool:
    """Whether a labelling tool has exported phases into this file; others may be any program's."""
    with suppress(SurgdinoError):
        return timeline_rows(path) is not None
    return False


def _plain(name: str) -> str:
    """A name without case and accents, and with one kind of separator."""
    plain = unicodedata.normalize("NFKD", name).casefold()
    return re.sub(r"[\s_.-]+", "_", "".join(letter for letter in plain if not unicodedata.combining(letter))).strip("_")


def _holder(paths: Iterable[Path]) -> Path:
    """The folder that holds all recordings."""
    return Path(os.path.commonpath([path.parent for path in paths]))


def _old(each: Picture) -> str:
    """How operations were called before they were grouped by name and named by content."""
    if each.path.is_file() and each.path.parent != each.top:
        return each.prefix + plain_name(each.path.parent.relative_to(each.top).as_posix())
    return each.prefix + _name(each.path, each.top, suffix=False)


def _name(path: Path, root: Path, *, suffix: bool) -> str:
    """The path inside `root`, with or without its suffix; the root's own name for the root itself."""
    inside = path.relative_to(root)
    if inside == Path("."):
        return plain_name(root.resolve().name)
    cut = (is_image(path) or path.suffix.lower() in VIDEO_SUFFIXES) and not suffix and path.is_file()
    return plain_name((inside.with_suffix("") if cut else inside).as_posix())
