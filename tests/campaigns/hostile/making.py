"""Small makers of inputs: moving pictures, videos, damaged containers, bombs, sound runs to be damaged."""

from __future__ import annotations

import os
import struct
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from surgdino.cli.main import main

TOY = ("model=vit_toy", "hardware=cpu", "dataset=folder", "data.root=d", "data.store=s", "data.workers=1")
PRETRAIN = (
    *("pretrain", *TOY, "run.dir=run", "train.steps=2", "train.batch_size=4", "train.checkpoint_every=1"),
    *("train.warmup_steps=0", "train.head_warmup_steps=0", "probe.every=0", "hardware.loader_workers=0"),
    *("crops.global_size=32", "crops.local_size=16", "crops.local_count=1", "method.head_hidden=32"),
    "method.head_out=16",
)
PHASE = (
    *("finetune", "task=phase", *TOY, "run.dir=run", "task.temporal=none", "train.epochs=1", "train.batch_size=4"),
    "data.split={train: [op1, op2], val: [op3], test: [op4]}",
)
MASKS = (
    *("finetune", "task=segmentation", *TOY, "run.dir=run", "train.epochs=1", "train.batch_size=2"),
    "data.split={train: [p00, p01, p02], val: [p03], test: [p04, p05]}",
)
VERIFY = ("verify", "dataset=folder", "data.root=d")


def anew(*words: str) -> Callable[[Path], None]:
    """That command in a program of its own: threads that a video's masks are drawn with do not survive a fork."""
    return lambda folder: os.execv(sys.executable, [sys.executable, "-m", "surgdino.cli", *words])


def frames(count: int, size: tuple[int, int] = (96, 64), seed: int = 0) -> Iterator[np.ndarray]:
    """Reddish moving texture, uint8 [height, width, 3]: neither black nor out of the body."""
    rng = np.random.default_rng(seed)
    width, height = size
    base = rng.integers(-40, 40, (height // 8 + 2, width // 8 + 2, 3))
    for number in range(count):
        large = np.kron(np.roll(base, number, axis=1), np.ones((8, 8, 1)))[:height, :width]
        noise = rng.integers(-6, 6, (height, width, 1))
        yield np.clip(large + np.array((150, 80, 70)) + noise, 0, 255).astype(np.uint8)


def video(
    path: Path,
    count: int = 60,
    fps: int = 10,
    size: tuple[int, int] = (96, 64),
    seed: int = 0,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    pictures: Iterable[np.ndarray] | None = None,
    **more: Any,
) -> Path:
    """Write a video of `count` frames, a key frame a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    speed = {"preset": "ultrafast", "g": str(fps)} if codec == "libx264" else {}
    with av.open(str(path), "w", **more) as out:
        stream = out.add_stream(codec, rate=fps, options=speed)
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        for picture in pictures if pictures is not None else frames(count, size, seed):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        out.mux(stream.encode())
    return path


def remux(source: Path, path: Path, stamp: Callable[[int, int], int], **more: Any) -> None:
    """Copy the packets of a video with other time stamps; `stamp(number, old)` gives the new one."""
    with av.open(str(source)) as read, av.open(str(path), "w", **more) as out:
        stream = out.add_stream_from_template(read.streams.video[0])
        for number, packet in enumerate(p for p in read.demux(video=0) if p.dts is not None):
            packet.pts, packet.dts = stamp(number, packet.pts), stamp(number, packet.dts)
            packet.stream = stream
            out.mux(packet)


def operations(folder: Path, count: int = 4) -> None:
    """Healthy videos op1.mp4, op2.mp4, ..."""
    for number in range(1, count + 1):
        video(folder / f"op{number}.mp4", seed=number)


def picture(seed: int = 0, size: tuple[int, int] = (96, 64)) -> Image.Image:
    return Image.fromarray(next(frames(1, size, seed)))


def pictures(folder: Path, count: int = 4) -> None:
    """A folder of frames 000000.png, 000001.png, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        picture(number).save(folder / f"{number:06d}.png")


def picture_operations(folder: Path, count: int = 4) -> None:
    for number in range(1, count + 1):
        pictures(folder / f"op{number}")


def png_bomb(width: int, height: int, depth: int = 1, colour: int = 0) -> bytes:
    """A PNG of few bytes that holds width x height black pixels."""
    packer = zlib.compressobj(9)
    row = b"\0" * (1 + (width * depth * {0: 1, 2: 3}[colour] + 7) // 8)
    data = b"".join(packer.compress(row * min(500, height - y)) for y in range(0, height, 500)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(_chunk, (b"IHDR", b"IDAT", b"IEND"), (header, data, b"")))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def box(content: bytes | bytearray, *path: bytes) -> tuple[int, int]:
    """Start and length of an MP4 box, such as `box(content, b"moov", b"trak")`."""
    start, end = 0, len(content)
    for name in path:
        at = start
        while True:
            length, kind = struct.unpack(">I4s", content[at : at + 8])
            if kind == name:
                break
            at += length or end - at
        start, end = at + 8, at + length
    return start - 8, end - start + 8


TABLE = (b"moov", b"trak", b"mdia", b"minf", b"stbl")


def label_rows(folder: Path, text: str, name: str = "labels.csv", encoding: str = "utf-8") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(text.encode(encoding))


def phases(folder: Path, count: int = 4) -> None:
    """labels.csv of `operations`: half an operation is phase a, half phase b."""
    rows = [f"op{n},{f},{'ab'[f >= 30]}" for n in range(1, count + 1) for f in range(0, 60, 5)]
    label_rows(folder, "\n".join(["video,frame,label", *rows, ""]))


def squares(
    folder: Path, write: Callable[[np.ndarray, Path], object], images: str = "images", masks: str = "masks"
) -> None:
    """Six images of a square on texture; `write(mask, path without suffix)` stores the mask, bool [64, 96], of each."""
    (folder / images).mkdir(parents=True, exist_ok=True)
    (folder / masks).mkdir(parents=True, exist_ok=True)
    for number in range(6):
        image, mask = next(frames(1, seed=number)).copy(), np.zeros((64, 96), bool)
        mask[10 + number : 40 + number, 20:50] = True
        image[mask] = (40, 200, 60)
        Image.fromarray(image).save(folder / images / f"p{number:02d}.png")
        write(mask, folder / masks / f"p{number:02d}")


def grey(mask: np.ndarray, path: Path) -> None:
    """The usual mask: 0 and 255."""
    Image.fromarray((mask * 255).astype("uint8")).save(f"{path}.png")


SOUND = {"pretrained": PRETRAIN, "phase": PHASE, "masks": MASKS}


def sound_run(name: str, place: Path) -> None:
    """A sound run that cases damage, with its data d, its store s and its folder run; the current folder changes."""
    if name == "masks":
        squares(place / "d", grey)
    else:
        operations(place / "d")
    if name == "phase":
        phases(place / "d")
    os.chdir(place)
    if main(list(SOUND[name])):
        raise RuntimeError(f"the sound run {name!r} did not succeed")
