"""Any folder: every video file and every folder of images below it, and which of them belong to one operation.

With labels where there are some: a CSV of phases beside videos, or `images/` with `masks/`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from surgdino.datasets.card import Card
from surgdino.datasets.complaints import empty_video
from surgdino.datasets.image_pairs import find_pairs, has_pairs
from surgdino.datasets.label_table import read_label_table
from surgdino.datasets.listing import VIDEO_SUFFIXES, is_image, is_video, plain_name, walk
from surgdino.datasets.manifest import Labels, Manifest, Problem, Video
from surgdino.errors import SurgdinoError

OPTIONS = ("operation_pattern", "labels")
_LABELS = "labels.csv"


def build(card: Card, root: Path, options: Mapping[str, Any]) -> Manifest:
    """Videos are named by their path inside the folder, operations by the subfolder they lie in or by their own name.

    A folder with `images/` and `masks/` holds pictures instead: each is a video of one frame, and an operation by
    itself unless it lies in a subfolder or a pattern says otherwise.

    Args:
        card: its `operation` names the operation from `{root}`, the folder's name, and `{place}`; its `phases` are the
            labels in the order of their ids where it lists them, its first `mask_classes` what the masks show.
        root: the folder.
        options: `operation_pattern`, a regular expression on the path inside the folder (with `/` between its parts)
            whose one group is the operation, for names that say more than folders do; `labels`, a CSV of phases by its
            path or its name in the folder, without which `labels.csv` is read if it is there.

    Raises:
        SurgdinoError: a pattern that is none, or has not exactly one group; a CSV that is none.
    """
    pattern = _compiled(options.get("operation_pattern"))
    problems: list[Problem] = []
    labels: dict[str, Labels] = {}
    if has_pairs(root):
        sources, masks, problems = find_pairs(root, card.mask_classes)
        labels = {"masks": masks} if masks else {}
    else:
        sources = _named_sources(root)
    top = root / "images" if has_pairs(root) else root
    videos = []
    for name, path in sources:
        place = _place(path, top, pattern)
        if place is None:
            problems.append(_unmatched(path, pattern, name))
        operation = card.operation.format(
            root=plain_name(root.resolve().name), place=place or name, number=place or name
        )
        videos.append(Video(name, operation, path, card.fps))
        problems += empty_video(path)
    if pattern is None and len(videos) > 1 and len({video.operation for video in videos}) == 1:
        problems.append(_all_one(videos, root))
    table = _label_file(root, options.get("labels"))
    if table is not None and videos:
        phases, faults = read_label_table(table, videos, card.phases)
        problems += faults
        labels |= {"phase": phases} if phases else {}
    return Manifest(card.name, root, tuple(videos), labels, tuple(problems))


def _label_file(root: Path, name: str | None) -> Path | None:
    if name is None:
        return root / _LABELS if (root / _LABELS).is_file() else None
    place = Path(name).expanduser()
    path = next((p for p in (place, root / place) if p.is_file()), None)
    if path is None:
        raise SurgdinoError("data.labels is not a file", file=place, fix=f"give its path, or its name in {root}")
    return path


def _named_sources(root: Path) -> list[tuple[str, Path]]:
    sources = _sources(root)
    # Two files may differ in their suffix alone; then it stays in the id.
    stems = Counter(_name(path, root, suffix=False) for path in sources)
    return [(_name(path, root, suffix=stems[_name(path, root, suffix=False)] > 1), path) for path in sources]


def _sources(root: Path) -> list[Path]:
    """Video files, and folders that hold images but no video, by their names."""
    found: list[Path] = []
    for folder, files in walk(root):
        videos = [path for path in files if is_video(path)]
        found += videos
        # A picture or two beside videos is a logo; in a folder of its own, a numbered image is a frame.
        if not videos and any(is_image(path) and re.search(r"\d", path.stem) for path in files):
            found.append(folder)
    return sorted(found)


def _name(path: Path, root: Path, *, suffix: bool) -> str:
    inside = path.relative_to(root)
    if inside == Path("."):
        return plain_name(root.resolve().name)
    cut = (is_image(path) or path.suffix.lower() in VIDEO_SUFFIXES) and not suffix and path.is_file()
    return plain_name((inside.with_suffix("") if cut else inside).as_posix())


def _place(path: Path, root: Path, pattern: re.Pattern[str] | None) -> str | None:
    """What names the operation: the pattern's group, else the subfolder, else the file itself. None: no match."""
    if pattern is not None:
        found = pattern.search(plain_name(path.relative_to(root).as_posix()))
        return found[1] if found and found[1] else None
    if path.is_file() and path.parent != root:
        return plain_name(path.parent.relative_to(root).as_posix())
    return _name(path, root, suffix=False)


def _all_one(videos: list[Video], root: Path) -> Problem:
    message = f"all {len(videos)} videos lie in one subfolder and count as one operation"
    fix = f"point data.root at {videos[0].path.parent} if each is an operation, or set data.operation_pattern"
    return Problem("warning", message, root, found=videos[0].operation, fix=fix)


def _compiled(pattern: str | None) -> re.Pattern[str] | None:
    if pattern is None:
        return None
    what = "data.operation_pattern cannot be used"
    fix = "write a regular expression with one group in parentheses, such as '(OP[0-9]+)_'"
    try:
        compiled = re.compile(plain_name(pattern))
    except re.error as error:
        raise SurgdinoError(what, expected="a regular expression", found=f"{pattern!r}: {error}", fix=fix) from error
    if compiled.groups != 1:
        raise SurgdinoError(what, expected="exactly one group", found=f"{compiled.groups} in {pattern!r}", fix=fix)
    return compiled


def _unmatched(path: Path, pattern: re.Pattern[str] | None, name: str) -> Problem:
    expected = f"a path that matches {pattern.pattern!r}" if pattern else None
    fix = "widen data.operation_pattern: files of one operation must not be told apart"
    return Problem("error", "the operation cannot be told from its name", path, expected=expected, found=name, fix=fix)
