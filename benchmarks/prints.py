"""How surely an operation is known again by its prints: `python benchmarks/prints.py FOLDER...`.

Each video of the folders, and each folder of frames, counts as an operation, or as the one that `--operation` finds in
its name. Copies of all videos are made: re-encoded at low quality and at other rates, scaled, stretched to 4:3, cropped
at the border, brighter, exported as JPEG and PNG. Printed are, for each kind of copy, how many operations were known
again (and the smallest share), and between different operations the nearest prints and how many were taken for another.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from surgdino.datasets.card import load_card
from surgdino.datasets.manifest import Manifest
from surgdino.datasets.open import open_dataset
from surgdino.frames.prints import Prints, References, recognise, references
from surgdino.frames.store import FrameStore, StoreSettings, build_store

Edit = Callable[[np.ndarray], np.ndarray]


def scaled(x: float, y: float) -> Edit:
    """Resize by these factors."""
    return lambda image: cv2.resize(image, None, fx=x, fy=y, interpolation=cv2.INTER_AREA)


def cropped(left: float, top: float, right: float, bottom: float) -> Edit:
    """Cut these shares of the sides off."""

    def cut(image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        return image[
            round(top * height) : round((1 - bottom) * height), round(left * width) : round((1 - right) * width)
        ]

    return cut


def recoloured(image: np.ndarray) -> np.ndarray:
    """Brighter, with more contrast and warmer."""
    return np.clip(image * np.array([1.15, 1.08, 1.0]) + 6, 0, 255).astype(np.uint8)


COPIES: dict[str, tuple[str, Edit, float, float]] = {
    # name: (kind, edit, frames a second, seconds left out at the start)
    "re-encoded, crf 35": ("libx264", lambda image: image, 25, 0),
    "MPEG-4, 10 fps": ("mpeg4", lambda image: image, 10, 0),
    "1 fps": ("libx264", lambda image: image, 1, 0),
    "half size": ("libx264", scaled(0.5, 0.5), 5, 0),
    "stretched to 4:3": ("libx264", scaled(0.75, 1.0), 5, 0),
    "border cropped 3 %": ("libx264", cropped(0.03, 0.03, 0.03, 0.03), 5, 0),
    "border cropped 5 %": ("libx264", cropped(0.05, 0.05, 0.05, 0.05), 5, 0),
    "left side cropped 5 %": ("libx264", cropped(0.05, 0, 0, 0), 5, 0),
    "brighter, warmer": ("libx264", recoloured, 5, 0),
    "begins 0.5 s later": ("libx264", lambda image: image, 5, 0.5),
    "half size, 5 %, 0.5 s": (
        "libx264",
        lambda image: scaled(0.5, 0.5)(cropped(0.05, 0.05, 0.05, 0.05)(image)),
        10,
        0.5,
    ),
    "JPEG a second": ("jpg", lambda image: image, 1, 0),
    "PNG a second, half size": ("png", scaled(0.5, 0.5), 1, 0.5),
}


def frames_of(source: Path) -> Iterator[tuple[float, np.ndarray]]:
    """(seconds, uint8 [H, W, 3] RGB) of a video, or of a folder of pictures a second apart."""
    if source.is_dir():
        for place, file in enumerate(sorted(source.iterdir())):
            image = cv2.imread(str(file))
            if image is not None:
                yield float(place), cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        return
    with av.open(str(source)) as container:
        for place, frame in enumerate(container.decode(video=0)):
            yield place / float(container.streams.video[0].average_rate or 25), frame.to_ndarray(format="rgb24")


def copy(source: Path, target: Path, kind: str, edit: Edit, fps: float, later: float) -> None:
    """Write an edited copy: a video `target`.mp4, or a folder of pictures."""
    due, place, stream, container = later, 0, None, None
    for seconds, image in frames_of(source):
        if seconds < due - 1e-6:
            continue
        due = max(due + 1 / fps, seconds + 1 / fps - 0.02)
        picture = np.ascontiguousarray(edit(image))
        if kind in ("jpg", "png"):
            target.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(target / f"{place:06d}.{kind}"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        else:
            if container is None:
                container = av.open(str(target.with_suffix(".mp4")), "w")
                stream = container.add_stream(kind, rate=Fraction(1 if source.is_dir() else fps).limit_denominator(100))
                height, width = (side - side % 2 for side in picture.shape[:2])
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
                stream.options = {"crf": "35", "preset": "ultrafast"} if kind == "libx264" else {"qscale": "9"}
            picture = np.ascontiguousarray(picture[: stream.height, : stream.width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        place += 1
    if container is not None:
        container.mux(stream.encode())
        container.close()


def printed(folder: Path, store: Path, operation: Callable[[str], str]) -> dict[str, list[Prints]]:
    """Operation -> the prints of its videos, all of them in one folder."""
    manifest: Manifest = open_dataset(load_card("folder"), folder)
    built: FrameStore = build_store(manifest, store, StoreSettings.of(), workers=2, progress=False, max_bad_share=1.0)
    found: dict[str, list[Prints]] = {}
    for place, video in enumerate(built.videos):
        found.setdefault(operation(video.id), []).append(built.prints(place))
    return found


def main() -> None:
    """Make the copies and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--operation", default=r"(.*)", help="a pattern whose first group is the operation")
    arguments = parser.parse_args()
    pattern = re.compile(arguments.operation)

    def operation(video: str) -> str:
        found = pattern.search(Path(video).stem)
        return found[1] if found else video

    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        originals = place / "originals"
        originals.mkdir()
        sources = [entry for folder in arguments.folders for entry in sorted(folder.iterdir())]
        for source in sources:
            (originals / source.name).symlink_to(source.resolve())
        whole = printed(originals, place / "store", operation)
        known: dict[str, References] = {name: references(videos) for name, videos in whole.items()}
        print(f"{len(known)} operations; prints carried: {', '.join(str(len(each.bits)) for each in known.values())}")
        between(known, whole)
        print("| copy | known again | smallest share | others taken for it |\n| --- | --- | --- | --- |")
        for name, (kind, edit, fps, later) in COPIES.items():
            folder = place / re.sub(r"\W+", "-", name)
            folder.mkdir()
            for source in sources:
                copy(source, folder / source.stem, kind, edit, fps, later)
            shares, wrong = [], 0
            for called, videos in printed(folder, place / "copies" / folder.name, operation).items():
                found = recognise(known, videos)
                shares.append(found.pop(called, 0.0))
                wrong += len(found)
            again = sum(share > 0 for share in shares)
            print(f"| {name} | {again} of {len(shares)} | {min(shares):.0%} | {wrong} |", flush=True)


def between(known: dict[str, References], whole: dict[str, list[Prints]]) -> None:
    """Print what different operations are taken for, and how long that takes."""
    begun = time.perf_counter()
    wrong = {name: set(recognise(known, videos)) - {name} for name, videos in whole.items()}
    took = time.perf_counter() - begun
    print(
        f"different operations taken for one another: {sum(map(len, wrong.values()))} of {len(whole) ** 2 - len(whole)}"
    )
    print(f"comparing took {took:.2f} s")


if __name__ == "__main__":
    main()
