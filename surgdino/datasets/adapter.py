"""A reader of one folder layout: `adapters/NAME.py` holds one subclass of Adapter, found by the file's name."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, TypeVar

from surgdino.datasets.card import Card, Entry, compact
from surgdino.datasets.files import content_hash, name_of, plain_name, time_limit
from surgdino.datasets.manifest import Labels, Manifest, Problem, Video
from surgdino.errors import SurgdinoError

Key = TypeVar("Key", int, str)
_PATTERN_SECONDS = 5.0
_END = 1 << 14  # bytes of a recording's ends that go into its operation's name


class Adapter(ABC):
    """Reads a folder in one layout. Everything wrong in it becomes a Problem, so that all are reported at once.

    Attributes:
        takes: the keys of `data` that this layout uses, such as `operation_pattern`.
        card: the dataset's card.
        root: its folder.
        options: the values given for `takes`; a key that was not given is missing.
        problems: found so far, in this order.
        notes: how files without a fixed format were understood.
    """

    takes: ClassVar[tuple[str, ...]] = ()

    def __init__(self, card: Card, root: Path, options: Mapping[str, str]) -> None:
        self.card, self.root, self.options = card, root, options
        self.problems: list[Problem] = []
        self.notes: list[str] = []

    @abstractmethod
    def read(self) -> Manifest:
        """The folder's videos and labels.

        Raises:
            SurgdinoError: the folder has another layout, or an option has no valid value.
        """

    def manifest(self, videos: Iterable[Video], labels: Iterable[Labels], elsewhere: Iterable[str] = ()) -> Manifest:
        """The result of `read`; labels without any video are left out."""
        read = {found.task: found for found in labels if found.values}
        return Manifest(
            self.card.name,
            self.root,
            tuple(videos),
            read,
            tuple(self.problems),
            frozenset(elsewhere),
            tuple(self.notes),
        )

    def problem(self, severity: Literal["error", "warning"], message: str, file: Path, **detail: object) -> None:
        """Add a Problem; `detail` are its place, expected, found and fix."""
        self.problems.append(Problem(severity, message, file, **detail))  # type: ignore[arg-type]

    def keyed(
        self, paths: Iterable[Path], key_of: Callable[[Path], Key | None], expected: str | None = None
    ) -> dict[Key, Path]:
        """Video -> file. A second file of a video is an error.

        Args:
            paths: the files.
            key_of: a file's video by number or id; None for a file that is not one of these.
            expected: an example of a right name; a file that is not one of these is then a warning.
        """
        files: dict[Key, Path] = {}
        for path in paths:
            key = key_of(path)
            if key is not None and files.setdefault(key, path) != path:
                found = f"{files[key].name} too"
                self.problem("error", "two files for one video", path, found=found, fix="keep one of them")
            elif key is None and expected is not None:
                self.unexpected(path, expected)
        return files

    def pair(
        self,
        kind: str,
        videos: Mapping[Key, Path],
        labels: Mapping[Key, Path],
        label_file: Callable[[Key], Path],
        video_file: Callable[[Key], str],
    ) -> None:
        """Report videos without labels and labels without a video; no labels at all is one warning.

        Args:
            kind: of the labels, such as `phase`.
            videos, labels: key -> file.
            label_file: where a video's labels should be; the file's stem begins with the video's id.
            video_file: where a label's video should be.
        """
        if not labels:
            example = label_file(min(videos)) if videos else self.root
            fix = "pretraining needs none; copy them from the release"
            self.problem("warning", f"no {kind} annotations", example.parent, expected=f"{example.name}, ...", fix=fix)
            return
        for key in sorted(videos.keys() - labels.keys()):
            what, fix = f"{self.video_id(key)} has no {kind} labels", "copy it from the release"
            self.problem("error", what, label_file(key), found="no such file", fix=fix)
        for key in sorted(labels.keys() - videos.keys()):
            fix = "copy the video, or remove the labels"
            self.problem(
                "error", "labels without a video", labels[key], expected=video_file(key), found="missing", fix=fix
            )

    def video_id(self, key: int | str) -> str:
        """The id of a video, from its number or name."""
        return str(key)

    def place_in(self, path: Path) -> str:
        """A recording's path inside the root, without suffix; the root's own name for the root."""
        place = name_of(path, self.root)
        return plain_name(self.root.resolve().name) if place == "." else place

    def operation_at(self, place: str, content: str = "") -> str:
        """The operation of a recording that lies at `place`, as the card names it."""
        root = plain_name(self.root.resolve().name)
        return self.card.operation.format(root=root, place=place, number=place, content=content)

    def named(self, place: str, first: Path) -> str:
        """The operation's name by the card, from where it lies and its first recording."""
        content = ""
        if "{content}" in self.card.operation:
            try:
                content = content_hash(first, _END)[:8]
            except (OSError, SurgdinoError):  # told where the recording is read
                content = "0" * 8
        return self.operation_at(place, content)

    def unexpected(self, path: Path, expected: str) -> None:
        """Report a file that does not belong where it is."""
        fix = "it is ignored; move it elsewhere if it is here by mistake"
        self.problem("warning", "an unexpected file", path, expected=expected, fix=fix)

    @cached_property
    def pattern(self) -> re.Pattern[str] | None:
        """The operation pattern, checked."""
        pattern = self.options.get("operation_pattern", self.card.operation_pattern)
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

    def matched(self, path: Path, prefix: str, top: Path, name: str) -> str:
        """The pattern's group; a file that it does not match is an error, and its own name stands in.

        Args:
            path, top: it is searched in the path inside `top`, with `prefix` before it.
            name: of the file in the dataset.
        """
        assert self.pattern is not None
        with time_limit(_PATTERN_SECONDS, f"data.operation_pattern takes too long on {path.name!r}"):
            found = self.pattern.search(prefix + plain_name(path.relative_to(top).as_posix()))
        if found and found[1]:
            return found[1]
        what, expected = "the name does not say the operation", f"a path that matches {self.pattern.pattern!r}"
        fix = "widen data.operation_pattern: files of one operation must belong together"
        self.problem("error", what, path, expected=expected, found=name, fix=fix)
        return name

    def check_video(self, path: Path, entry: Entry) -> None:
        """Report an empty file, which a copy leaves on a full disk, and a video that the dataset does not have."""
        self.check_not_empty(path)
        if self.card.videos and entry not in self.card.videos:
            expected = f"numbers {compact(self.card.videos)}"
            self.problem("warning", f"not a video of {self.card.name}", path, expected=expected, found=entry)

    def check_not_empty(self, path: Path) -> None:
        """Report a video file of 0 bytes."""
        if path.is_file() and not path.stat().st_size:
            fix = "copy it again; pretraining leaves it out"
            self.problem("error", "the file is empty", path, expected="a video", found="0 bytes", fix=fix)

    def check_complete(self, present: Collection[Entry], folder: Path) -> None:
        """Report the dataset's videos that are not in the folder, as one warning."""
        absent = [video for video in self.card.videos if video not in present]
        if absent:
            message = f"{len(absent)} of {len(self.card.videos)} videos are not here: {compact(absent)}"
            self.problem("warning", message, folder, fix="fine for pretraining; published splits need all of them")
