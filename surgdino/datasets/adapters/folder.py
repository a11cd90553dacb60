"""Any folder: every video file and every folder of images below it, and which of them belong to one operation.

With labels where there are some: a CSV of phases beside videos, or `images/` with `masks/`.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import cached_property
from pathlib import Path

from surgdino.datasets.adapter import Adapter
from surgdino.datasets.files import (
    VIDEO_SUFFIXES,
    entries,
    is_document,
    is_image,
    is_video,
    plain_name,
    time_limit,
    walk,
)
from surgdino.datasets.label_table import read_label_table
from surgdino.datasets.labelled_pictures import find_exports, pairs_of_folders, read_exports, read_pairs
from surgdino.datasets.manifest import Labels, Manifest, Video
from surgdino.errors import SurgdinoError

_LABELS = "labels.csv"
_PATTERN_SECONDS = 5.0


class Folder(Adapter):
    """Videos are named by their path inside the folder, operations by the subfolder they lie in or by their own name.

    A folder with `images/` and `masks/` holds pictures instead: each is a video of one frame, and an operation by
    itself unless it lies in a subfolder or a pattern says otherwise. The card's `operation` names the operation from
    `{root}`, the folder's name, and `{place}`; its `phases` are the labels in the order of their ids where it lists
    them; its first `mask_classes` is what the masks show.

    Option `operation_pattern` is a regular expression on the path inside the folder (with `/` between its parts) whose
    one group is the operation; `labels` is a CSV of phases by its path or its name in the folder, without which
    `labels.csv` is read if it exists.
    """

    takes = ("operation_pattern", "labels")

    def read(self) -> Manifest:
        pairs, file = pairs_of_folders(self.root), self._label_file()
        exports = [] if pairs else find_exports(self, file)
        labels: list[Labels] = []
        if pairs or exports:
            pictures, labels = read_pairs(self, pairs) if pairs else read_exports(self, exports)
            videos = [Video(p.name, self._operation(p.name, p.path, p.top, p.prefix), p.path) for p in pictures]
        else:
            sources = self._named_sources()
            operations = [self._operation(name, path, self.root) for name, path in sources]
            found = zip(sources, operations, strict=True)
            videos = [Video(name, operation, path, self.card.fps) for (name, path), operation in found]
            self._report_left_out()
        for video in videos:
            self.check_not_empty(video.path)
        if self.pattern is None and len(videos) > 1 and len({video.operation for video in videos}) == 1:
            what = f"all {len(videos)} videos lie in one subfolder and count as one operation"
            here = videos[0].path.parent
            fix = f"point data.root at {here} if each is an operation, or set data.operation_pattern"
            self.problem("warning", what, self.root, found=videos[0].operation, fix=fix)
        if file is not None and videos and not exports:
            phases, problems, understood = read_label_table(file, videos, self.card.phases)
            self.problems += problems
            self.notes.append(f"{file.name}: {understood}")
            labels += [phases] if phases else []
        return self.manifest(videos, labels)

    @cached_property
    def pattern(self) -> re.Pattern[str] | None:
        """The operation pattern, checked."""
        pattern = self.options.get("operation_pattern")
        if pattern is None:
            return None
        what = "data.operation_pattern cannot be used"
        fix = "write a regular expression with one group in parentheses, such as '(OP[0-9]+)_'"
        try:
            compiled = re.compile(plain_name(pattern))
        except re.error as error:
            found = f"{pattern!r}: {error}"
            raise SurgdinoError(what, expected="a regular expression", found=found, fix=fix) from error
        if compiled.groups != 1:
            found = f"{compiled.groups} in {pattern!r}"
            raise SurgdinoError(what, expected="exactly one group", found=found, fix=fix)
        return compiled

    def _operation(self, name: str, path: Path, top: Path, prefix: str = "") -> str:
        """Named by the pattern's group, else by the subfolder, else by the file itself."""
        place: str | None = prefix + _name(path, top, suffix=False)
        if self.pattern is not None:
            with time_limit(_PATTERN_SECONDS, f"data.operation_pattern takes too long on {path.name!r}"):
                found = self.pattern.search(prefix + plain_name(path.relative_to(top).as_posix()))
            place = found[1] if found else None
        elif path.is_file() and path.parent != top:
            place = prefix + plain_name(path.parent.relative_to(top).as_posix())
        if not place and self.pattern is not None:
            what, expected = "the name does not say the operation", f"a path that matches {self.pattern.pattern!r}"
            fix = "widen data.operation_pattern: files of one operation must belong together"
            self.problem("error", what, path, expected=expected, found=name, fix=fix)
        place = place or name
        return self.card.operation.format(root=plain_name(self.root.resolve().name), place=place, number=place)

    def _label_file(self) -> Path | None:
        if "labels" not in self.options:
            return next((path for path in entries(self.root) if path.name.lower() == _LABELS and path.is_file()), None)
        place = Path(self.options["labels"]).expanduser()
        path = next((p for p in (place, self.root / place) if p.is_file() or p.is_dir()), None)
        if path is None:
            fix = f"give its path, or its name in {self.root}"
            raise SurgdinoError("data.labels is not a file", file=place, fix=fix)
        return path

    def _named_sources(self) -> list[tuple[str, Path]]:
        """Video files, and folders that hold images but no video, with their names."""
        sources: list[Path] = []
        for folder, files in walk(self.root):
            videos = [path for path in files if is_video(path)]
            sources += videos
            # A picture or two beside videos is a logo; in a folder of its own, a numbered image is a frame.
            if not videos and any(is_image(path) and re.search(r"\d", path.stem) for path in files):
                sources.append(folder)
        sources.sort()
        # Two files may differ in their suffix alone; then it stays in the id.
        stems = Counter(_name(path, self.root, suffix=False) for path in sources)
        return [
            (_name(path, self.root, suffix=stems[_name(path, self.root, suffix=False)] > 1), path) for path in sources
        ]

    def _report_left_out(self) -> None:
        """One warning for the files that nothing reads and that may be recordings."""
        left_out = [
            path
            for _, files in walk(self.root)
            for path in files
            if not (is_video(path) or is_image(path) or is_document(path))
        ]
        if left_out:
            suffixes = ", ".join(sorted({path.suffix.lower() or "no suffix" for path in left_out})[:8])
            fix = "rename or convert those that are videos; export DICOM videos as MP4"
            self.problem(
                "warning",
                f"{len(left_out)} files are not read ({suffixes}), the first is {left_out[0].name}",
                left_out[0],
                expected="videos such as .mp4, .mov, .mts, .mod, .avi, .mkv, or images",
                fix=fix,
            )


def _name(path: Path, root: Path, *, suffix: bool) -> str:
    """The path inside `root`, with or without its suffix; the root's own name for the root itself."""
    inside = path.relative_to(root)
    if inside == Path("."):
        return plain_name(root.resolve().name)
    cut = (is_image(path) or path.suffix.lower() in VIDEO_SUFFIXES) and not suffix and path.is_file()
    return plain_name((inside.with_suffix("") if cut else inside).as_posix())
