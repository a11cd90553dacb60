"""Small sets of pictures with masks, generated, in the layouts of CholecSeg8k, EndoVis 2017/18, SAR-RARP50, Endoscapes.

A class is a patch in a colour of its own on tissue, which moves a little from frame to frame.
"""

from __future__ import annotations

import colorsys
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np

from surgdino.datasets.card import Card, load_card
from surgdino.datasets.synthetic.cholec80 import mark_generated
from surgdino.paths import write_text

_SHOWN = 3  # classes of a recording
_PER_SECOND = 60  # frames of a film
Pictures = Sequence[tuple[np.ndarray, np.ndarray]]  # BGR and class ids from 1, 0 for none, of each frame
Truth = dict[int, np.ndarray]


@dataclass(frozen=True)
class Written:
    """One recording: its video's id, and class ids uint8 [height, width] by frame number."""

    video: str
    masks: Truth


def write_masks(
    root: str | Path,
    layout: str = "cholecseg8k",
    recordings: int = 4,
    frames: int = 3,
    size: tuple[int, int] = (64, 48),
    seed: int = 0,
    *,
    public_ids: bool = False,
) -> dict[str, Truth]:
    """Write a synthetic set under `root`. The same arguments give the same files.

    Args:
        layout: the name of the card.
        recordings, frames: how many, and frames with a mask of each.
        size: (width, height), even numbers.
        public_ids: as in `write_cholec80`.

    Returns:
        Video id -> frame number -> uint8 [height, width]: places of the card's `mask_classes` from 1, 0 for none, 255
        where nothing is known.
    """
    root, card, truth = Path(root), load_card(layout), dict[str, Truth]()
    if not public_ids:
        mark_generated(root)
    for place in range(recordings):
        rng = np.random.default_rng([seed, place])
        shown = [1 + (_SHOWN * place + step) % len(card.mask_classes) for step in range(_SHOWN)]
        written = _WRITERS[layout](root, card, place, list(_pictures(rng, shown, len(card.mask_classes), frames, size)))
        truth[written.video] = written.masks
    return truth


def _pictures(
    rng: np.random.Generator, shown: Sequence[int], classes: int, frames: int, size: tuple[int, int]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    width, height = size
    tissue = cv2.resize(rng.uniform(60, 120, (4, 5, 3)).astype(np.float32), size) + np.array([20, 10, 60], np.float32)
    places, steps = rng.uniform(0.3, 0.7, (len(shown), 2)) * size, rng.uniform(-0.02, 0.02, (len(shown), 2)) * size
    for frame in range(frames):
        picture, ids = tissue.copy(), np.zeros((height, width), np.uint8)
        for name, start, step in zip(shown, places, steps, strict=True):
            centre = tuple(int(value) for value in start + frame * step)
            colour = tuple(255 * part for part in colorsys.hsv_to_rgb(name / classes, 0.8, 0.9))
            for image, value in ((picture, colour), (ids, name)):
                cv2.ellipse(image, centre, (width // 6, height // 6), 30.0 * name, 0, 360, value, -1)  # type: ignore[call-overload]
        noisy = picture + rng.normal(0, 4, picture.shape)
        yield np.clip(noisy, 0, 255).astype(np.uint8), ids


def _values(card: Card, ids: np.ndarray) -> np.ndarray:
    """[H, W] ids or [H, W, 3] colours (RGB) as the card has them, of places of its classes."""
    values = np.array(list(card.masks.values()), np.uint8)
    return np.concatenate([np.zeros_like(values[:1]), values])[ids]


def _save(path: Path, picture: np.ndarray) -> None:
    """A picture, or a mask; RGB masks are turned by the caller."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture)


def _cholecseg8k(root: Path, card: Card, place: int, pictures: Pictures) -> Written:
    video, masks = f"video{card.videos[place]:02d}", Truth()
    folder = root / video / f"{video}_00080"
    for number, (picture, ids) in enumerate(pictures, start=80):
        border = cv2.morphologyEx(ids, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
        values = np.where(ids > 0, _values(card, ids), 50).astype(np.uint8)
        values[border] = 255  # an edge of white
        values[0, :3] = (0, 35, 36)  # pixels of no class
        masks[number] = np.where(border, 255, ids).astype(np.uint8)
        masks[number][0, :3] = 255
        _save(folder / f"frame_{number}_endo.png", picture)
        _save(folder / f"frame_{number}_endo_watershed_mask.png", np.dstack([values] * 3))
        _save(folder / f"frame_{number}_endo_mask.png", np.dstack([values] * 3))
        _save(folder / f"frame_{number}_endo_color_mask.png", cv2.applyColorMap(values, cv2.COLORMAP_JET))
    return Written(folder.name, masks)


def _endovis18(root: Path, card: Card, place: int, pictures: Pictures) -> Written:
    name = str(card.videos[place])
    release = root / f"miccai_challenge_release_{1 + place // 4}"
    for number, (picture, ids) in enumerate(pictures):
        _save(release / name / "left_frames" / f"frame{number:03d}.png", picture)
        _save(release / name / "right_frames" / f"frame{number:03d}.png", picture)
        _save(release / name / "labels" / f"frame{number:03d}.png", _values(card, ids)[..., ::-1])
    rows = [{"name": "background-tissue", "color": [0, 0, 0], "classid": 0}]
    rows += [{"name": n, "color": [*c], "classid": k} for k, (n, c) in enumerate(card.masks.items(), start=1)]  # type: ignore[misc]
    write_text(release / "labels.json", json.dumps(rows))
    return Written(name, {number: ids for number, (_, ids) in enumerate(pictures)})


def _endovis17(root: Path, card: Card, place: int, pictures: Pictures) -> Written:
    """Eight sequences of training with a folder an instrument; then those of the test set."""
    name, trains, first = f"instrument_dataset_{place + 1}", place < 8, 0 if place < 8 else 225
    top = root / ("instrument_1_4_training" if trains else "instrument_9_10_testing") / name
    tested = root / "instrument_2017_test" / name / "gt"
    bands = np.linspace(0, 3, pictures[0][1].shape[1], endpoint=False).astype(int)
    parts = np.array([*card.parts.values()], np.uint8)[bands]  # of every column of a picture
    kinds, masks = list(card.masks), Truth()
    shown = sorted({int(kind) for _, ids in pictures for kind in np.unique(ids)} - {0})
    for number, (picture, ids) in enumerate(pictures, start=first):
        masks[number], file = ids, f"frame{number:03d}.png"
        _save(top / "left_frames" / file, picture)
        for kind in shown if trains else ():
            side = "" if kinds[kind - 1] == "other" else "Left_"
            folder = top / "ground_truth" / f"{side}{kinds[kind - 1].title()}_labels"
            _save(folder / file, np.where(ids == kind, parts, 0).astype(np.uint8))
        if not trains:
            _save(tested / "TypeSegmentation" / file, ids)
            _save(tested / "PartsSegmentation" / file, np.where(ids > 0, parts, 0).astype(np.uint8))
            _save(tested / "BinarySegmentation" / file, np.where(ids > 0, 255, 0).astype(np.uint8))
    return Written(name if trains else f"instrument_9_10_testing/{name}", masks)


def _sar_rarp50(root: Path, card: Card, place: int, pictures: Pictures) -> Written:
    name = f"video_{place + 1}"
    folder, masks = root / "train1" / name, Truth()
    film = [picture for picture, _ in pictures for _ in range(_PER_SECOND)]
    for second, (_, ids) in enumerate(pictures):
        masks[second * _PER_SECOND] = ids
        _save(folder / "segmentation" / f"{second * _PER_SECOND:09d}.png", ids)
    rows = [f"{frame:09d},{frame // _PER_SECOND % len(card.actions)}" for frame in range(0, len(film), 6)]
    write_text(folder / "action_discrete.txt", "\n".join(rows) + "\n")
    height, width = film[0].shape[:2]
    with av.open(str(folder / "video_left.avi"), "w", format="avi") as container:
        stream = container.add_stream("mpeg4", rate=_PER_SECOND)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = width, height, "yuv420p", 2_000_000
        for picture in film:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        container.mux(stream.encode())
    return Written(name, masks)


def _endoscapes(root: Path, card: Card, place: int, pictures: Pictures) -> Written:
    """Four videos: two of training, one of validation, one of the test; every fifth frame is annotated."""
    video, part = ((1, "train"), (5, "train"), (122, "val"), (162, "test"))[place % 4]
    numbers, masks = [25 * (1175 + 5 * second) for second in range(len(pictures))], Truth()
    table, header = root / "all_metadata.csv", "vid,frame,avg_cvs,C1,C2,C3,is_ds_keyframe,cvs_annotator_1,"
    rows = (
        table.read_text().splitlines() if place else [f"{header}cvs_annotator_2,cvs_annotator_3,mask_path,label_path"]
    )
    boxes = root / part / "annotation_coco.json"
    told = json.loads(boxes.read_text()) if boxes.is_file() else {"images": [], "annotations": []}
    told["categories"] = [{"id": k, "name": name} for k, name in enumerate(card.mask_classes, start=1)]
    for number, (picture, ids) in zip(numbers, pictures, strict=True):
        masks[number], name, identity = ids, f"{video}_{number}", video * 10**6 + number
        _save(root / part / f"{name}.jpg", picture)
        _save(root / part / f"{video}_{number + 25}.jpg", picture)  # nobody has looked at it
        _save(root / "semseg" / f"{name}.png", np.dstack([ids] * 3))
        told["images"].append({"id": identity, "file_name": f"{name}.jpg", "height": len(ids), "width": len(ids[0])})
        shown = sorted({*np.unique(ids).tolist()} - {0})
        for kind in shown:
            box = [int(value) for value in cv2.boundingRect((ids == kind).astype(np.uint8))]
            told["annotations"].append(
                {"image_id": identity, "category_id": kind, "bbox": box, "area": box[2] * box[3]}
            )
        two, three = [int(k in shown) for k in (1, 2, 3)], [int(k in shown) for k in (1, 2, 4)]
        rows.append(f'{video},{number},,0,0,0,True,"{two}","{two}","{three}",,')
        rows.append(f"{video},{number + 25},,0.5,0.5,0.5,False,,,,,")
    write_text(table, "\n".join(rows) + "\n")
    write_text(boxes, json.dumps(told))
    return Written(str(video), masks)


_WRITERS: dict[str, Callable[[Path, Card, int, Pictures], Written]] = {
    "cholecseg8k": _cholecseg8k,
    "endoscapes": _endoscapes,
    "endovis17": _endovis17,
    "endovis18": _endovis18,
    "sar_rarp50": _sar_rarp50,
}
LAYOUTS = tuple(_WRITERS)
