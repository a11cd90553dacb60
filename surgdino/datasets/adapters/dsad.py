"""The Dresden Surgical Anatomy Dataset: `<organ>/<surgery>/imageNN.png` with `maskNN.png`, and `multilabel/`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from surgdino.datasets.adapter import Adapter
from surgdino.datasets.files import entries, is_image, is_mask, numbered_images
from surgdino.datasets.manifest import Labels, Manifest, Problem, Video
from surgdino.datasets.masks import FrameMasks, VideoMasks
from surgdino.errors import SurgdinoError, nearest

MULTILABEL = "multilabel"
RATERS = ("anno_1", "anno_2", "anno_3", "merged")
# multilabel/ has the masks of stomach's pictures, in some copies without the pictures themselves.
_PICTURES_OF_MULTILABEL = "stomach"
_MASK = re.compile(r"mask(\d+)(?:_(\w+))?", re.IGNORECASE)


class Dsad(Adapter):
    """A video a surgery and organ (`liver/04`, `multilabel/04`), its pictures in the place of frames.

    In an organ's folder the others are unlabelled; in `multilabel/` an organ without a file is absent. The card's
    `mask_classes` are the organs, its `multilabel` those that are labelled together. Option `organ` (one of them, or
    `multilabel`) leaves the others out; `rater` reads another's masks.
    """

    takes = ("organ", "rater")

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
                frames = self._frames(name, folder, rater, images)
                if frames:
                    labels[video.id] = VideoMasks(frames, classes)
        if videos:
            here = elsewhere | {video.operation for video in videos}
            self.check_complete([n for n in self.card.videos if self.card.operation_of(n) in here], self.root)
        return self.manifest(videos, [Labels("masks", classes, labels)], elsewhere)

    def _checked_options(self) -> tuple[str | None, str | None]:
        organ, rater = self.options.get("organ"), self.options.get("rater")
        for key, value, valid in (
            ("organ", organ, (*self.card.mask_classes, MULTILABEL)),
            ("rater", rater, RATERS),
        ):
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

    def _frames(self, name: str, folder: Path, rater: str | None, images: dict[int, Path]) -> dict[int, FrameMasks]:
        """Frame number -> masks of the labelled pictures."""
        if name == MULTILABEL:
            masks = self._multilabel_masks(folder)
            organs = self.card.multilabel
            frames = {n: FrameMasks(path, {c: masks.pop((n, c), None) for c in organs}) for n, path in images.items()}
        else:
            place = folder / rater if rater else folder
            found = ((path, _MASK.fullmatch(path.stem)) for path in entries(place) if is_image(path))
            masks = {(int(mask[1]), name): path for path, mask in found if mask and not mask[2]}
            bare = [number for number in images if (number, name) not in masks]
            frames = {n: FrameMasks(p, {name: masks.pop((n, name))}) for n, p in images.items() if (n, name) in masks}
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
        for number, organ in sorted(masks):
            path, expected, fix = masks[number, organ], f"image{number:02d}.png", "copy the image, or remove the mask"
            self.problem("error", "a mask without an image", path, expected=expected, fix=fix)
        return frames

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
