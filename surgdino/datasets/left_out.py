"""What a folder holds that is not looked at: said, so that nobody believes it to be in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from PIL import Image

from surgdino.datasets.adapter import Adapter
from surgdino.datasets.files import EXPORT_DICOM, is_dicom, is_document, is_image, is_table, letters, walk
from surgdino.datasets.labelled_pictures import MASKS
from surgdino.datasets.spreadsheets import SHEETS
from surgdino.errors import from_os_error

_EXPORTS = (".json", ".xml", ".eaf")
_FEW = 2  # pictures beside videos are a logo
_MASK_MODES = ("1", "P", "L", "I", "I;16", "F")
_SHARED = 0.8  # of a folder's names are another's too: the masks of its pictures


def report_left_out(adapter: Adapter, used: Iterable[Path]) -> None:
    """Warn of files that nothing reads: recordings of another kind, tables of another name, pictures beside videos.

    Args:
        used: files, and folders whose pictures are read.
    """
    known = set(used)
    stems = {path.stem for path in known}
    left_out: list[Path] = []
    refused: dict[str, OSError] = {}
    for folder, files in walk(adapter.root, lambda error: refused.setdefault(str(error.filename), error)):
        # Text for people is no label, unless it lies where labels do or is named after a recording.
        of_labels = letters(folder.name) in MASKS and folder != adapter.root
        unread = [
            path
            for path in files
            if path not in known
            and (not is_document(path) or (path.suffix.lower() == ".txt" and (of_labels or path.stem in stems)))
        ]
        inside = any(parent in known for parent in (folder, *folder.parents))
        pictures = [path for path in unread if is_image(path)]
        if inside or len(pictures) <= _FEW:
            unread = [path for path in unread if not is_image(path)]
        left_out += unread
    for closed, error in refused.items():
        fault = from_os_error(error, closed)
        adapter.problem("warning", f"not looked into: {fault.what}", Path(closed), found=fault.found, fix=fault.fix)
    labels = [path for path in left_out if is_table(path) or path.suffix.lower() in (*SHEETS, *_EXPORTS, ".txt")]
    others = [path for path in left_out if path not in labels]
    fix = "call it labels.csv, name it after its video, or give data.labels="
    if labels and all(path.suffix.lower() in SHEETS and not is_table(path) for path in labels):
        fix = "save it as labels.csv, or as labels.xlsx with openpyxl installed (pip install 'surgdino[excel]')"
    _report(adapter, labels, "labels in a table or export that is read", fix)
    pictures, recordings = [path for path in others if is_image(path)], [path for path in others if not is_image(path)]
    fix = "move them into a folder of their own if they are frames"
    _report(adapter, pictures, "pictures in a folder without videos, with a number in their names", fix)
    fix = "rename or convert those that are videos"
    archived = [path for path in recordings if is_dicom(path)]
    _report(adapter, archived, "videos, not DICOM files", EXPORT_DICOM)
    recordings = [path for path in recordings if path not in archived]
    _report(adapter, recordings, "videos such as .mp4, .mov, .mts, .mod, .avi, .mkv, or images", fix)


def _report(adapter: Adapter, paths: Sequence[Path], expected: str, fix: str) -> None:
    if paths:
        suffixes = ", ".join(sorted({path.suffix.lower() or "no suffix" for path in paths})[:8])
        count = f"{len(paths)} files are" if len(paths) > 1 else "1 file is"
        what = f"{count} not read ({suffixes}), the first is {paths[0].name}"
        adapter.problem("warning", what, paths[0], expected=expected, fix=fix)


def mask_folders(adapter: Adapter, sources: Sequence[Path]) -> Iterator[Path]:
    """Folders of pictures that are the masks of another one's, by their names; each is reported and not read."""
    folders = [path for path in sources if path.is_dir()]
    stems = {folder: {p.stem.casefold() for p in folder.iterdir() if is_image(p)} for folder in folders}
    for folder in folders:
        for other in folders:
            shared = len(stems[folder] & stems[other]) >= _SHARED * len(stems[folder])
            if other is folder or not shared or _is_named_mask(other):
                continue
            if not (_is_named_mask(folder) or (_is_mask_like(folder) and not _is_mask_like(other))):
                continue
            what = f"{folder.name}/ has the names of {other.name}/ and looks like its masks: it is not read as a video"
            fix = "put the pictures into images/ and the masks into masks/, or move them elsewhere"
            adapter.problem("warning", what, folder, expected="images/ beside masks/", fix=fix)
            yield folder
            break


def _is_named_mask(folder: Path) -> bool:
    return letters(folder.name) in MASKS or letters(folder.name).startswith("segmentation")


def _is_mask_like(folder: Path) -> bool:
    first = min(path for path in folder.iterdir() if is_image(path))
    try:
        with Image.open(first) as image:
            return image.mode in _MASK_MODES
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False
