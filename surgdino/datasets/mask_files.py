"""One mask file: the mask of one class, or several classes by their ids or colours. Anything else is refused.

Nothing is guessed: what cannot be told (more values than classes are named, a colour that no class has) is an error
with the file, what was expected and what was found, and never an empty or a full mask.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from surgdino.datasets.class_names import from_one
from surgdino.datasets.files import image_size
from surgdino.errors import SurgdinoError

# Masks kept as JPEG are blurred at their edges: 0..5 and 250..255 where 0 and 255 were meant.
THRESHOLD = 127
_DARK = 15  # grey values that JPEG makes of black; as many below white
_PLATEAU = 0.002  # of the pixels may lie inside of areas of one grey; edges have none
_VOID = 255  # an id of pixels that are unlabelled, as in PASCAL VOC
_VOID_COLOUR = (224, 224, 192)  # its colour there
_SHOWN = 6
_LOSSY = frozenset(("JPEG", "MPO"))
_NAME_THEM = "name the classes: 'dataset.masks={liver: 1, tool: [255, 0, 0]}', by id or colour; or export one a class"

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Legend:
    """Which id or colour stands for which class; 0 and black are none, 255 and VOC's border colour unlabelled.

    Attributes:
        values: class -> its id, or its colour as RGB.
        background: the id of none of them.
        strays: share of the pixels that may have any other value and are unlabelled then.
    """

    values: Mapping[str, int | Colour]
    background: int = 0
    strays: float = 0.0

    @property
    def by_colour(self) -> bool:
        """Whether the classes are told apart by colours; a mixture is read as colours, ids being greys."""
        return any(not isinstance(value, int) for value in self.values.values())

    def __str__(self) -> str:
        return ", ".join(f"{_shown(value)} {name}" for name, value in self.values.items())


@dataclass(frozen=True)
class Layer:
    """One class of a mask file that shows several.

    Attributes:
        path: the file.
        name: the class.
        legend: of all classes in it.
    """

    path: Path
    name: str
    legend: Legend


@dataclass(frozen=True)
class _Pixels:
    """A mask's pixels as stored and as shown.

    Attributes:
        values: [H, W] grey values or palette indices; None of a coloured picture.
        colours: uint8 [H, W, 3], where they are needed: of a palette or a coloured picture; black where transparent.
        lossy: whether the format changes values.
    """

    values: np.ndarray | None
    colours: np.ndarray | None
    lossy: bool

    @property
    def speaks_by_index(self) -> bool:
        """Whether a palette shows no black, such as a colour map: its indices then stand for themselves."""
        return self.values is not None and self.colours is not None and bool(self.colours.any(-1).all())


def read_mask(path: Path) -> np.ndarray:
    """The mask of one class as bool [H, W], turned by its EXIF orientation as pictures are.

    Two values (grey of any depth, palette colours, colours, or transparent and not): what is not 0, black or
    transparent is the class. Grey masks with soft edges, as JPEG writes them: more than 127 of 255.

    Raises:
        SurgdinoError: not a readable image, or one of more classes or colours.
    """
    pixels = _read(path)
    grey = pixels.values if pixels.colours is None or pixels.speaks_by_index else _one_colour(pixels.colours)
    if grey is None:
        assert pixels.colours is not None
        found = _listed(np.unique(_codes(pixels.colours)), by_colour=True)
    else:
        values = _values(grey)
        if (len(values) == 2 and values[0] == 0) or (len(values) == 1 and values[0] in (0, 1, 255, 65535)):
            return grey > 0
        if _is_soft(grey, values, pixels.lossy):
            return grey > THRESHOLD
        found = _listed(values)
    expected = "two values or two colours, one of them black"
    raise SurgdinoError("not a mask of one class", file=path, expected=expected, found=found, fix=_NAME_THEM)


def read_layers(path: Path, legend: Legend) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The masks of all classes in a file, bool [H, W] each, all empty where it shows none; and the unlabelled pixels.

    Raises:
        SurgdinoError: not a readable image, with an id or a colour that the legend does not have, or with none but that
            of unlabelled pixels: a mask of one class, most likely.
    """
    masks, unlabelled = layers_and_unlabelled(path, legend)
    if unlabelled.any() and not any(mask.any() for mask in masks.values()):
        found = f"{_shown(_VOID_COLOUR if legend.by_colour else _VOID)} alone"
        raise _not_of(path, legend, found, "export ids, or one file a class")
    return masks, unlabelled


def layers_and_unlabelled(path: Path, legend: Legend) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """As `read_layers`, and bool [H, W] of the pixels of which nothing is known; there may be nothing else."""
    pixels = _read(path)
    if legend.by_colour:
        colours = np.repeat(pixels.values[..., None], 3, 2) if pixels.colours is None else pixels.colours  # type: ignore[index]
        codes, void = _codes(colours), _code(_VOID_COLOUR)
        known = {name: _code(value) for name, value in legend.values.items()}
    else:
        codes, void = _ids(path, pixels, legend), _VOID
        known = {name: value for name, value in legend.values.items() if isinstance(value, int)}
    masks = {name: np.asarray(codes == code) for name, code in known.items()}
    unlabelled = np.zeros(codes.shape, bool) if void in known.values() else np.asarray(codes == void)
    other = ~np.any([*masks.values(), unlabelled, codes == legend.background], axis=0)
    odd = codes[other]
    if len(odd) > legend.strays * codes.size:
        found = f"{_listed(np.unique(odd), legend.by_colour)} ({len(odd) / codes.size:.1%} of the pixels)"
        fix = "JPEG changes values: export it as PNG" if pixels.lossy else "name its class, or correct the mask"
        if (
            not legend.by_colour
            and max(known.values()) == len(known)
            and from_one(np.unique(codes[~unlabelled]).tolist(), len(known) + 1)
        ):
            fix = "its ids seem to count none as 1 and the first class as 2: none is 0"
        raise _not_of(path, legend, found, fix)
    return masks, unlabelled | other


def _not_of(path: Path, legend: Legend, found: str, fix: str = _NAME_THEM) -> SurgdinoError:
    what = "a value of no class in the mask"
    return SurgdinoError(
        what, file=path, expected=f"{legend.background or '0 or black'} for none, {legend}", found=found, fix=fix
    )


def _ids(path: Path, pixels: _Pixels, legend: Legend) -> np.ndarray:
    if pixels.values is None:
        assert pixels.colours is not None
        if (pixels.colours != pixels.colours[..., :1]).any():
            raise _not_of(path, legend, _listed(np.unique(_codes(pixels.colours)), by_colour=True))
        return np.asarray(pixels.colours[..., 0])
    if pixels.colours is not None and pixels.colours[pixels.values == 0].any() and not pixels.speaks_by_index:
        raise _not_of(path, legend, "a palette in which 0 is not black", "name its colours instead of ids")
    return pixels.values


def _read(path: Path) -> _Pixels:
    image_size(path)  # refuses what is no image, is cut short, or has too many pixels
    what, fix = "is not a readable mask", "copy it again, or export it as PNG of 8 bits"
    try:
        with Image.open(path) as opened:
            with suppress(EOFError):
                opened.seek(1)
                raise SurgdinoError(what, file=path, expected="one picture", found="several in one file", fix=fix)
            opened.seek(0)
            deep = any("16B" in str(tile[3]) for tile in opened.tile if opened.mode in ("RGB", "RGBA", "LA"))
            lossy = opened.format in _LOSSY
            image = ImageOps.exif_transpose(opened)
            if deep:
                raise SurgdinoError(what, file=path, expected="colours of 8 bits", found="16 bits", fix=fix)
            if image.mode == "1":
                return _Pixels(np.asarray(image, np.uint8), None, lossy)
            if image.mode in ("L", "I", "F") or image.mode.startswith("I;16"):
                return _Pixels(_whole(np.asarray(image), path), None, lossy)
            shown = np.asarray(image.convert("RGBA"))
            indices = np.asarray(image) if image.mode == "P" else None
    except (OSError, SyntaxError, ValueError) as error:
        raise SurgdinoError(what, file=path, expected="an image", fix=fix) from error
    alpha, colours = shown[..., 3], np.where(shown[..., 3:] > 0, shown[..., :3], 0)
    if indices is not None:
        # A palette that shows two indices alike says nothing; its indices then stand for themselves.
        _, places = np.unique(indices, return_index=True)
        used = colours.reshape(-1, 3)[places]
        alike = len(np.unique(used, axis=0)) < len(used)
        return _Pixels(indices, None if alike else colours, lossy)
    if not colours.any() and (alpha < 255).any():
        return _Pixels(alpha, None, lossy)
    return _Pixels(None, colours, lossy)


def _whole(values: np.ndarray, path: Path) -> np.ndarray:
    """Values of any depth as whole numbers from 0; 0 to 1 in fractions would be a probability and not a mask."""
    if values.dtype.kind == "f" and (not np.isfinite(values).all() or (values != np.round(values)).any()):
        found = "NaN or infinity" if not np.isfinite(values).all() else f"fractions up to {values.max():g}"
    elif values.min() < 0:
        found = f"{values.min():g}"
    else:
        return values if values.dtype.kind == "u" else values.astype(np.int64)
    fix = "threshold it: 0 and 1"
    raise SurgdinoError("not a mask", file=path, expected="whole numbers from 0", found=found, fix=fix)


def _one_colour(colours: np.ndarray) -> np.ndarray | None:
    """[H, W] of a picture that is grey, or has one colour besides black; None of any other."""
    if (colours == colours[..., :1]).all():
        return np.asarray(colours[..., 0])
    coloured = np.asarray(colours.any(axis=-1))
    found = colours[coloured]
    return np.asarray(coloured, np.uint8) if (found == found[0]).all() else None


def _is_soft(grey: np.ndarray, values: np.ndarray, lossy: bool) -> bool:
    """Whether greys between black and white are the soft edge of one class, and not classes of their own."""
    top = int(values[-1])
    if not THRESHOLD < top <= 255:
        return False
    middle = np.where((grey > _DARK) & (grey < 255 - _DARK), grey, 0).astype(np.uint8)
    if 2 * np.count_nonzero(middle) > np.count_nonzero(grey > _DARK) or _plateaus(middle) > _PLATEAU:
        return False
    # Ids with 255 for unlabelled: JPEG would have greys just below white where it has greys just above black.
    near_white = ((values >= 255 - _DARK) & (values < 255)).any()
    near_black = np.where(grey <= _DARK, grey, 0).astype(np.uint8)
    return lossy or bool(near_white) or _plateaus(near_black) <= _PLATEAU


def _plateaus(grey: np.ndarray) -> float:
    """Share of the pixels that are not 0 and whose eight neighbours have the same value."""
    if min(grey.shape) < 3:
        return 0.0
    around = np.ones((3, 3), np.uint8)
    inside = (cv2.erode(grey, around) == cv2.dilate(grey, around)) & (grey > 0)
    return float(inside[1:-1, 1:-1].mean())


def _values(grey: np.ndarray) -> np.ndarray:
    """The values that occur, ascending."""
    return np.flatnonzero(np.bincount(grey.ravel())) if grey.dtype == np.uint8 else np.unique(grey)


def _code(value: int | Colour) -> int:
    red, green, blue = (value,) * 3 if isinstance(value, int) else value
    return (red << 16) + (green << 8) + blue


def _codes(colours: np.ndarray) -> np.ndarray:
    wide = colours.astype(np.int32)
    return (wide[..., 0] << 16) + (wide[..., 1] << 8) + wide[..., 2]


def _shown(value: int | Colour) -> str:
    return str(value) if isinstance(value, int) else f"#{_code(value):06x}"


def _listed(values: np.ndarray, by_colour: bool = False) -> str:
    """The first of many ids or colour codes."""
    more = f", ... {len(values)} in all" if len(values) > _SHOWN else ""
    return ", ".join(f"#{value:06x}" if by_colour else str(value) for value in values[:_SHOWN].tolist()) + more
