"""What `surgdino predict` writes of masks: PNGs of the picture's own size, overlays, and a table of areas."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from surgdino.datasets.files import is_image
from surgdino.frames.video.decode import Frame, probe, read_frames
from surgdino.paths import atomic_write
from surgdino.tasks.segmentation import task as segmentation
from surgdino.tasks.segmentation.files import write_masks
from surgdino.tasks.segmentation.overlay import overlay, with_legend

if TYPE_CHECKING:
    from surgdino.tasks.request import Request

PICTURES = True  # each picture is looked at by itself
_QUALITY = 92  # of the overlays, JPEG: a video has thousands


def write(request: Request) -> dict[str, Path]:
    """Predict picture by picture and write each down; what it is -> where it lies.

    Raises:
        SurgdinoError: the file system refused.
    """
    classes, folder = request.context.classes, request.folder
    table = folder / f"{request.source.name}.csv"
    alone = len(request.source.videos) > 1 or is_image(request.source.videos[0].path)
    predicted = segmentation.predict(request.context, request.head, request.frames)
    with atomic_write(table) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["video", "frame", "seconds", *classes])
        for (video, number, masks), frame in zip(predicted, source_frames(request), strict=True):
            write_masks(folder / "masks", video, None if alone else number, masks, classes)
            name = video if alone else f"{video}/{number:06d}"
            write_overlay(folder / "overlays" / f"{name}.jpg", frame.image, masks, classes)
            rows.writerow([video, number, f"{frame.time:.3f}", *(f"{share:.5f}" for share in masks.mean((1, 2)))])
    return {"table": table, "masks": folder / "masks", "pictures": folder / "overlays"}


def source_frames(request: Request) -> Iterator[Frame]:
    """The frames at their own size, in the order of `request.frames`: the store has smaller ones."""
    decoder, numbers = request.decoder, request.frames.numbers_of()
    videos = {video.id: video for video in request.source.videos}
    for video in (videos[name] for name in request.frames.videos):
        info = probe(video.path, decoder, fps=video.fps)
        yield from read_frames(video.path, numbers[video.id], decoder, info=info)


def write_overlay(path: Path, image: np.ndarray, masks: np.ndarray, classes: tuple[str, ...]) -> Path:
    """The picture with its masks and their names, as JPEG.

    Args:
        image: uint8 [H, W, 3] RGB.
        masks: bool [C, H, W].
    """
    drawn = with_legend(overlay(image, masks, classes), classes)
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    with atomic_write(path) as temporary:
        temporary.write_bytes(jpeg.tobytes())
    return path
