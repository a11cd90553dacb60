"""The Dresden Surgical Anatomy Dataset: `<organ>/<surgery>/imageNN.png` with `maskNN.png`, and `multilabel/`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from surgdino.datasets.adapter import Adapter
from surgdino.datasets.card import Card
from surgdino.datasets.files import entries, is_image, is_mask, numbered_images
from surgdino.datasets.manifest import Labels, Manifest, Problem, Video
from surgdino.datasets.masks import FrameMasks, Mask, VideoMasks
from surgdino.datasets.presence import read_absent
from surgdino.errors import SurgdinoError, nearest

MULTILABEL, _PRESENCE = "multilabel", "weak_labels.csv"
RATERS = ("anno_1", "anno_2", "anno_3", "merged")
# multilabel/ has the masks of stomach's pictures, in some copies without the pictures themselves.
_PICTURES_OF_MULTILABEL = "stomach"
_MASK = re.compile(r"mask(\d+)(?:_(\w+))?", re.IGNORECASE)


class Dsad(Adapter):
    """A video a surgery and organ (`liver/04`, `multilabel/04`), its pictures in the place of frames.

    In an organ's folder the others are unlabelled, or absent (an empty mask) where `weak_labels.csv` says so; in
    `multilabel/` an organ without a file is absent. The card's `mask_classes` are the organs, its `multilabel` those
    that are labelled together. Option `organ` (one of them, or `multilabel`) leaves the others out; `rater` reads
    another's masks.
    """

    takes = ("organ", "rater")

    def __init__(self, card: Card, root: Path, options: Mapping[str, str]) -> None:
        super().__init__(card, root, options)
        self.unread: list[Problem] = []  # tables of presence that cannot be used
        self.differing: dict[Path, list[int]] = {}  # such a table -> pictures whose masks contradict it
        self.empty = Counter[Path]()  # picture -> empty masks that the presence labels give it

    def read(self) -> Manifest:
        organ, rater = self._checked_options()
        folders = (*self.card.mask_classes, MULTILABEL)
        for path in entries(self.root):
            if path.is_dir() and path.name not in folders:
                self.unexpected(path, "folders named after organs")
        classes = {None: self.card.mask_classes, MULTILABEL: self.card.multilabel}.get(organ, (str(organ),))
        videos, labels, elsewhere = [], {}, set()
        for name, number, folder in self._surgeries():
            operation = self.card.operation_of(number)
            if organ not in (None, name):
                elsewhere.add(operation)
                continue
            self.check_video(folder, number)
            pictures, images = self._images(name, folder)
            if images:
                video = Video(f"{name}/{number:02d}", operation, pictures, self.card.fps)
                videos.append(video)
                absent = self._absent(folder, pictures, classes, images)
                frames = self._frames(name, folder, rater, images, absent)
                if frames:
                    labels[video.id] = VideoMasks(frames, classes)
        if videos:
            here = elsewhere | {video.operation for video in videos}
            self.check_complete([n for n in self.card.videos if self.card.operation_of(n) in here], self.root)
        self._report_presence()
        return self.manifest(videos, [Labels("masks", classes, labels)], elsewhere)

    def _checked_options(self) -> tuple[str | None, str | None]:
        organ, rater = self.options.get("organ"), self.options.get("rater")
        for key, value, valid in (("organ", organ, (*self.card.mask_classes, MULTILABEL)), ("rater", rater, RATERS)):
            if value is not None and value not in valid:
                raise SurgdinoError(f"dsad has no {key} {value!r}", fix=nearest(value, valid))
        if rater and organ == MULTILABEL:
            what, fix = "multilabel/ has no masks by rater", "leave data.rater out"
            raise SurgdinoError(what, found=f"data.rater={rater}", fix=fix)
        return organ, rater

    def _surgeries(self) -> Iterator[tuple[str, int, Path]]:
        """(organ or `multilabel`, surgery's number, folder), organ by organ."""
        for name in (*self.card.mask_classes, MULTILABEL):
            for folder in entries(self.root / name):
                if folder.is_dir() and folder.name.isdecimal():
                    yield name, int(folder.name), folder

    def _images(self, name: str, folder: Path) -> tuple[Path, dict[int, Path]]:
        """The folder with a surgery's pictures, and the pictures by number."""
        try:
            images = numbered_images(folder)
            if not images and name == MULTILABEL:
                beside = self.root / _PICTURES_OF_MULTILABEL / folder.name
                if images := numbered_images(beside):
                    return beside, images
        except SurgdinoError as error:
            self.problems.append(Problem.of(error, "name it as the release does"))
            return folder, {}
        if not images:
            fix = "copy it again from the release"
            self.problem("error", "no images in this folder", folder, expected="image00.png, ...", fix=fix)
        return folder, images

    def _absent(
        self, folder: Path, pictures: Path, classes: tuple[str, ...], images: dict[int, Path]
    ) -> dict[int, set[str]]:
        """Picture's number -> the organs that the presence labels say are absent."""
        path = next((each / _PRESENCE for each in (folder, pictures) if (each / _PRESENCE).is_file()), None)
        if path is None:
            return {}
        try:
            return read_absent(path, classes, images)
        except SurgdinoError as error:
            self.unread.append(replace(Problem.of(error, "it is not used"), severity="warning"))
            return {}

    def _frames(
        self, name: str, folder: Path, rater: str | None, images: dict[int, Path], absent: Mapping[int, set[str]]
    ) -> dict[int, FrameMasks]:
        """Frame number -> masks of the labelled pictures."""
        if name == MULTILABEL:
            masks = self._multilabel_masks(folder)
            organs = self.card.multilabel
            frames = {n: FrameMasks(path, {c: masks.pop((n, c), None) for c in organs}) for n, path in images.items()}
        else:
            place = folder / rater if rater else folder
            found = ((path, _MASK.fullmatch(path.stem)) for path in entries(place) if is_image(path))
            masks = {(int(mask[1]), name): path for path, mask in found if mask and not mask[2]}
            files: dict[int, dict[str, Mask | None]] = {
                n: {name: masks.pop((n, name))} for n in images if (n, name) in masks
            }
            bare = [number for number in images if number not in files and name not in absent.get(number, ())]
            frames = {n: FrameMasks(path, files.get(n, {})) for n, path in images.items() if n not in bare}
            if bare:
                first = images[bare[0]].name
                self.problem(
                    "error",
                    f"{len(bare)} of {len(images)} images have no mask, the first is {first}",
                    place,
                    expected=f"mask{bare[0]:02d}.png",
                    found="no such file",
                    fix="copy the masks from the release; these images are left out",
                )
        frames = self._with_absent(frames, absent, folder)
        for number, organ in sorted(masks):
            path, expected, fix = masks[number, organ], f"image{number:02d}.png", "copy the image, or remove the mask"
            self.problem("error", "a mask without an image", path, expected=expected, fix=fix)
        return frames

    def _with_absent(
        self, frames: dict[int, FrameMasks], absent: Mapping[int, set[str]], folder: Path
    ) -> dict[int, FrameMasks]:
        """The same with empty masks of absent organs; where a mask and its presence label differ, the mask counts."""
        differing = [n for n, frame in frames.items() if any(frame.files.get(o) is not None for o in absent.get(n, ()))]
        if differing:
            self.differing[folder / _PRESENCE] = differing
        for number in absent.keys() & frames.keys() - set(differing):
            frame = frames[number]
            if added := {organ: None for organ in absent[number] if organ not in frame.files}:
                frames[number] = FrameMasks(frame.image, {**frame.files, **added})
                self.empty[frame.image] += len(added)
        return frames

    def _report_presence(self) -> None:
        """What the presence labels gave; what is amiss in them is told once for all folders."""
        if self.unread:
            first, more = self.unread[0], f", and {len(self.unread) - 1} more like it" if self.unread[1:] else ""
            self.problems.append(replace(first, message=f"{first.message}{more}"))
        for path, numbers in list(self.differing.items())[:1]:
            pictures = sum(map(len, self.differing.values()))
            what = f"{pictures:,} pictures have a mask of an organ that is labelled absent"
            fix = "the masks count, and nothing else is taken from these rows"
            self.problem("warning", what, path, found=f"the first is {numbers[0]}", fix=fix)
        if self.empty:
            count = f"{self.empty.total():,} masks in {len(self.empty):,} pictures"
            self.notes.append(f"{_PRESENCE}: an organ that is labelled absent has an empty mask: {count}")

    def _multilabel_masks(self, folder: Path) -> dict[tuple[int, str], Path]:
        masks = {}
        for path in entries(folder):
            if not (is_image(path) and is_mask(path)):
                continue
            found = _MASK.fullmatch(path.stem)
            organ = found[2].lower() if found and found[2] else "none"
            if found and organ in self.card.multilabel:
                masks[int(found[1]), organ] = path
            else:
                fix = nearest(organ, self.card.multilabel)
                what, expected = "a mask of an unknown organ", "mask00_<organ>.png"
                self.problem("error", what, path, expected=expected, found=organ, fix=fix)
        return masks
