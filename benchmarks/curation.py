"""Curation against a known truth: an archive with copies, idle stretches and an operation shown five times as long.

    python benchmarks/curation.py --root CHOLEC80 --weights vit_tiny.safetensors --out FOLDER

`FOLDER/archive` is made of the videos in ROOT/videos: each once as it is, again at another size and quality, the first
one also with a picture that stands for 40 s, the second one at a fifth of its speed. Precision is the share of frames
that were left out as copies and are copies of the frame that stands for them (within half a second); recall the share
of the copied frames that were left out so.
"""

from __future__ import annotations

import argparse
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from surgdino.cli.main import main as surgdino
from surgdino.curation.stages import COPY
from surgdino.curation.table import Curation, read_curation

_STILL, _SLOWER = 40, 5  # seconds; times


def encode(source: Path, target: Path, *, height: int | None, crf: int, slower: int = 1, still: int = 0) -> None:
    """Write a video again: smaller, at another quality, slower, or with its middle frame standing for some seconds."""
    if target.exists():
        return
    with av.open(str(source)) as film, av.open(str(target.with_suffix(".tmp.mp4")), "w") as made:
        given = film.streams.video[0]
        rate = given.average_rate or Fraction(25)
        wanted = height or given.height
        width = round(given.width * wanted / given.height / 2) * 2
        stream = made.add_stream("libx264", rate=rate, width=width, height=wanted, pix_fmt="yuv420p")
        stream.options = {"crf": str(crf), "preset": "veryfast"}
        count = 0
        for place, frame in enumerate(film.decode(given)):
            times = slower + (round(still * rate) if place == (given.frames or 0) // 2 else 0)
            picture = frame.reformat(width, wanted, "yuv420p")
            for _ in range(times):
                picture.pts, picture.time_base, count = count, 1 / rate, count + 1
                made.mux(stream.encode(picture))
        made.mux(stream.encode())
    target.with_suffix(".tmp.mp4").rename(target)


def write_archive(root: Path, archive: Path) -> list[Path]:
    """The archive's videos; `a` before `b`, so that the first is the original."""
    archive.mkdir(parents=True, exist_ok=True)
    videos = sorted((root / "videos").glob("*.mp4"))
    for place, video in enumerate(videos):
        encode(video, archive / f"a-{video.stem}.mp4", height=None, crf=18)
        encode(video, archive / f"b-{video.stem}.mp4", height=360, crf=30)
        if place == 0:
            encode(video, archive / f"c-{video.stem}-idle.mp4", height=None, crf=20, still=_STILL)
        if place == 1:
            encode(video, archive / f"c-{video.stem}-slow.mp4", height=None, crf=20, slower=_SLOWER)
    return videos


def of_copies(curation: Curation) -> tuple[float, float, int]:
    """Precision, recall and number of the frames that were left out as copies, of the videos `b`."""
    names = np.array([name.rpartition("/")[2] for name in curation.videos])[curation.video_of]
    known = np.array([name.startswith("b-") for name in names]) & (curation.reason != "black")
    out = (curation.reason == COPY) & known
    stands = curation.group[out]
    right = np.array([mine[2:] == theirs[2:] for mine, theirs in zip(names[out], names[stands], strict=True)])
    right &= np.abs(curation.time[out] - curation.time[stands]) <= 0.5
    return float(right.mean()), float(out.sum() / known.sum()), int(known.sum())


def main() -> None:
    """Make the archive, curate it, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="a Cholec80 folder")
    parser.add_argument("--weights", type=Path, required=True, help="of vit_tiny_patch16")
    parser.add_argument("--out", type=Path, required=True)
    words = parser.parse_args()
    write_archive(words.root, words.out / "archive")
    run = words.out / "curation"
    surgdino(
        [
            *("curate", "dataset=folder", f"data.root={words.out / 'archive'}", f"data.store={words.out / 'store'}"),
            *("model=vit_tiny_patch16", f"model.weights={words.weights}", f"run.dir={run}", "run.names=plain"),
            # Else a copy's group is that of the frame that stands for its original.
            *("duplicates.along_quantile=null", "duplicates.across_quantile=null"),
        ]
    )
    curation = read_curation(run)
    precision, recall, count = of_copies(curation)
    print(f"copies     precision {precision:.3f}, recall {recall:.3f} of {count} copied frames; goal 0.99 and 0.99")
    for name in curation.videos:
        mine = np.array(curation.videos)[curation.video_of] == name
        print(f"{name:40} {mine.sum():5} frames, {curation.keep[mine].sum():5} kept")


if __name__ == "__main__":
    main()
