"""Pictures in folders named after their classes: `train/CLASS/...` and `val/CLASS/...`, or `CLASS/...` alone."""

from __future__ import annotations

from surgdino.datasets.picture_sets import Listed, PictureSet, part_folders


class ImageFolder(PictureSet):
    """`val` is what is tested where `test` is not there, or has no classes. Without two parts a fifth is tested."""

    def listed(self) -> Listed:
        folders = part_folders(self.root)
        found = {part: classes for part, folder in folders.items() if (classes := self.classes_in(folder))}
        if len(found) < 2:
            return {"": next(iter(found.values()), None) or self.classes_in(self.root)}
        if "test" not in found and "val" in found:
            found["test"] = found.pop("val")
        return found
