"""Videos: damaged, bombs, other containers, odd streams, clocks and matrices, hostile names, what is no file."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import av
import numpy as np

from tests.campaigns.hostile.case import Case, aside, done, either, refused, shows, used, used_or_aside
from tests.campaigns.hostile.making import PRETRAIN, TABLE, VERIFY, box, frames, operations, remux, video

CONTAINERS = ("mp4", "mkv", "avi", "ts", "mov", "mpg", "webm")
# What ends in the tables of an MP4 claims how much there is: (boxes, place in the box, bytes that are written there).
CLAIMS = {
    "80 million frames of one size": ((*TABLE, b"stsz"), 12, struct.pack(">II", 4096, 80_000_000)),
    "4 billion sizes": ((*TABLE, b"stsz"), 16, b"\xff\xff\xff\xff"),
    "4 billion times": ((*TABLE, b"stts"), 12, b"\xff\xff\xff\xff"),
    "one time for 80 million frames": ((*TABLE, b"stts"), 16, struct.pack(">II", 80_000_000, 1)),
    "4 billion chunks": ((*TABLE, b"stco"), 12, b"\xff\xff\xff\xff"),
    "chunks beyond the end": ((*TABLE, b"stco"), 16, b"\xff\xff\xff\xf0"),
    "65535 wide": ((*TABLE, b"stsd"), 48, struct.pack(">HH", 65535, 65535)),
    "no width": ((*TABLE, b"stsd"), 48, bytes(4)),
    "no time scale": ((b"moov", b"trak", b"mdia", b"mdhd"), 20, bytes(4)),
    "a duration of centuries": ((b"moov", b"trak", b"mdia", b"mdhd"), 24, b"\x7f\xff\xff\xff"),
    "a box longer than the file": ((b"moov", b"trak"), 0, b"\x7f\xff\xff\xff"),
    "a box of no length": ((*TABLE, b"stsd"), 0, bytes(4)),
}
NAMES = {
    "brackets": "[b]x[red].mp4",
    "a pattern": "x%03d.mp4",
    "a wildcard": "x*?.mp4",
    "a leading dash": "-x.mp4",
    "a clock": "x12:30:45.mp4",
    "quotes": "x'\"`.mp4",
    "a line break": "x\ny.mp4",
    "escape codes": "x\x1b[31m\x1b]0;t\x07.mp4",
    "no UTF-8": b"x\xfcller.mp4",
    "255 bytes": "x" * 251 + ".mp4",
    "three dots": "x...mp4",
    "a comma and an equals sign": "x,a=b.mp4",
    "a formula": "=x+1.mp4",
    "a colon like a protocol": "concat:x.mp4",
    "emoji and right to left": "x\U0001f600\u202e.mp4",
    "only spaces": "   x .mp4",
}
PLAYLISTS = {
    "ffconcat": "ffconcat version 1.0\nfile op1.mp4\nfile op2.mp4\n",
    "HLS": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:6,\nop1.mp4\n#EXT-X-ENDLIST\n",
    "HLS of an address": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:6,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n",
    "SDP": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    "DASH": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>op1.mp4</BaseURL></MPD>',
    "a web page": "<!DOCTYPE html><html><body>not found</body></html>",
    "a text": "this is no video\n" * 40,
}


def cases() -> Iterator[Case]:
    for fraction in (1, 2, 4, 6, 7):
        for container in ("mp4", "mkv", "avi", "ts"):
            made = partial(_damaged, container, partial(_cut, fraction / 8))
            yield _beside("truncated", f"{container}, {fraction} of 8 parts", made, used_or_aside("x"))
    for container in CONTAINERS:
        yield _beside("damaged", f"{container}, zeros in the middle", partial(_damaged, container, _zeros))
        yield _beside("damaged", f"{container}, bytes flipped", partial(_damaged, container, _flipped))
        yield _beside("containers", container, partial(_damaged, container, bytes), used(), sound=True)
    for seed in range(12):
        yield _beside(
            "damaged", f"mp4, its tables flipped, seed {seed}", partial(_damaged, "mp4", partial(_tables, seed))
        )
    for name, (path, place, content) in CLAIMS.items():
        made = partial(_damaged, "mp4", partial(_claim, path, place, content))
        yield _beside("claims", name, made)
        yield Case("claims", f"{name}, verify", partial(_with_healthy, made), VERIFY, shows())
    for name, text in PLAYLISTS.items():
        for suffix in ("mp4", "ts"):
            yield _beside(
                "openers", f"{name} as .{suffix}", lambda d, t=text, s=suffix: (d / f"x.{s}").write_text(t), aside("x")
            )
    for name, file in NAMES.items():
        yield _beside("names", name, lambda d, f=file: _named(d, f), either(used(), aside("")))
    yield from _no_files()
    yield from _streams()
    yield from _clocks()


def _beside(
    kind: str, name: str, make: Callable[[Path], object], right: Callable | None = None, sound: bool = False
) -> Case:
    """The odd video, written by `make` into folder d, beside four healthy ones; training uses these."""
    return Case(kind, name, partial(_with_healthy, make), PRETRAIN, right or used_or_aside("x"), sound=sound)


def _with_healthy(make: Callable[[Path], object], folder: Path) -> None:
    operations(folder / "d")
    make(folder / "d")


def _damaged(container: str, change: Callable[[bytes], bytes], folder: Path) -> None:
    codec = {"webm": "libvpx", "mpg": "mpeg2video"}.get(container, "libx264")
    path = video(folder / f"x.{container}", fps=25 if container == "mpg" else 10, seed=9, codec=codec)
    path.write_bytes(change(path.read_bytes()))


def _cut(part: float, content: bytes) -> bytes:
    return content[: int(len(content) * part)]


def _zeros(content: bytes) -> bytes:
    third = len(content) // 3
    return content[:third] + bytes(third) + content[2 * third :]


def _flipped(content: bytes) -> bytes:
    changed = np.frombuffer(content, np.uint8).copy()
    changed[np.random.default_rng(0).integers(0, len(changed), 200)] ^= 0xFF
    return changed.tobytes()


def _tables(seed: int, content: bytes) -> bytes:
    start, length = box(content, b"moov")
    changed, rng = bytearray(content), np.random.default_rng(seed)
    for place in rng.integers(start + 8, start + length, 6):
        changed[place] = int(rng.integers(256))
    return bytes(changed)


def _claim(path: tuple[bytes, ...], place: int, claim: bytes, content: bytes) -> bytes:
    start, _ = box(content, *path)
    changed = bytearray(content)
    changed[start + place : start + place + len(claim)] = claim
    return bytes(changed)


def _named(folder: Path, name: str | bytes) -> None:
    os.rename(video(folder / "x.mp4", seed=9), os.path.join(os.fsencode(folder), os.fsencode(name)))


def _no_files() -> Iterator[Case]:
    def bound(folder: Path) -> None:
        listener = socket.socket(socket.AF_UNIX)
        os.chdir(folder)  # the name of a socket is at most 107 bytes
        listener.bind("x.mp4")

    made: dict[str, Callable[[Path], object]] = {
        "named pipe": lambda d: os.mkfifo(d / "x.mp4"),
        "socket": bound,
        "link to a device": lambda d: (d / "x.mp4").symlink_to("/dev/zero"),
        "link to nothing": lambda d: (d / "x.mp4").symlink_to("nothing"),
        "link to itself": lambda d: (d / "x.mp4").symlink_to("x.mp4"),
        "empty file": lambda d: (d / "x.mp4").write_bytes(b""),
        "one byte": lambda d: (d / "x.mp4").write_bytes(b"x"),
        "random bytes": lambda d: (d / "x.mp4").write_bytes(np.random.default_rng(0).bytes(200_000)),
        "file of 4 GB without content": lambda d: (d / "x.mp4").touch() or os.truncate(d / "x.mp4", 4 << 30),
    }
    for name, make in made.items():
        yield _beside("no video", name, make, aside("x"))
        yield Case("no video", f"{name}, verify", partial(_with_healthy, make), VERIFY, shows("x.mp4"))
    for name in ("named pipe", "empty file", "random bytes", "link to a device"):
        words = ("predict", "x.mp4", "checkpoint=run", "hardware=cpu", "out=out")
        yield Case("no video", f"{name}, predict", made[name], words, refused("x.mp4"), base="phase")
    yield _beside("no video", "folder named as a video", lambda d: (d / "x.mp4").mkdir(), done(r"\bof 4 videos"))


def _streams() -> Iterator[Case]:
    def sound_only(path: Path) -> None:
        with av.open(str(path / "x.mp4"), "w") as out:
            stream = out.add_stream("aac", rate=16000)
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), "fltp", "mono")
            sound.rate = 16000
            out.mux(stream.encode(sound))
            out.mux(stream.encode())

    def cover_first(path: Path) -> None:
        with av.open(str(path / "x.mkv"), "w") as out:
            cover, film = out.add_stream("mjpeg", rate=1), out.add_stream("libx264", rate=10)
            cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
            film.width, film.height, film.pix_fmt = 96, 64, "yuv420p"
            out.mux(cover.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
            for each in frames(60, seed=9):
                out.mux(film.encode(av.VideoFrame.from_ndarray(each, format="rgb24")))
            out.mux(film.encode())
            out.mux(cover.encode())

    wide = [np.full((16, 16384, 3), 90, np.uint8)] * 4
    yield _beside("streams", "only sound", sound_only, aside("x"))
    yield _beside("streams", "a still picture before the film", cover_first, used(), sound=True)
    yield _beside(
        "streams",
        "16384 x 16",
        lambda d: video(d / "x.mov", codec="png", pixels="rgb24", pictures=wide, fps=2, size=(16384, 16)),
    )
    yield _beside("streams", "one frame", lambda d: video(d / "x.mp4", 1))
    yield _beside("streams", "2 x 2", lambda d: video(d / "x.mkv", 30, size=(2, 2), codec="ffv1"))
    for pixels in ("yuv444p", "yuv422p", "yuv420p10le", "gray"):
        yield _beside("streams", pixels, lambda d, p=pixels: video(d / "x.mp4", pixels=p, seed=9), sound=True)
    for codec, suffix, pixels in (
        *(("mpeg4", "avi", "yuv420p"), ("mjpeg", "avi", "yuvj420p"), ("ffv1", "mkv", "bgra")),
        *(("libvpx-vp9", "webm", "yuv420p"), ("huffyuv", "avi", "rgb24"), ("rawvideo", "avi", "yuv420p")),
    ):
        made = partial(_coded, codec, suffix, pixels)
        yield _beside("streams", f"{codec} {pixels} in {suffix}", made, used(), sound=True)
    yield _beside(
        "streams", "odd size", lambda d: video(d / "x.mkv", codec="ffv1", size=(95, 63), pixels="rgb24"), sound=True
    )


def _coded(codec: str, suffix: str, pixels: str, folder: Path) -> None:
    video(folder / f"x.{suffix}", codec=codec, pixels=pixels, seed=9)


def _clocks() -> Iterator[Case]:
    def joined(suffix: str, codec: str, folder: Path) -> None:
        parts = [video(folder.parent / f"{n}.{suffix}", fps=25, seed=n, codec=codec).read_bytes() for n in (8, 9)]
        (folder / f"x.{suffix}").write_bytes(b"".join(parts))

    def stamped(stamp: Callable[[int, int], int], suffix: str, folder: Path) -> None:
        remux(video(folder.parent / f"a.{suffix}", seed=9), folder / f"x.{suffix}", stamp)

    yield _beside("clocks", "two TS joined", partial(joined, "ts", "libx264"), used())
    yield _beside("clocks", "two MPG joined", partial(joined, "mpg", "mpeg2video"), used())
    stamps: dict[str, Callable[[int, int], int]] = {
        "33 bits overflow": lambda number, old: old + 90000 * 95438,
        "starts after a day": lambda number, old: old + 90000 * 86400,
        "negative": lambda number, old: old - 90000 * 2,
        "a jump of ten hours": lambda number, old: old + (90000 * 36000 if number > 30 else 0),
    }
    for name, stamp in stamps.items():
        yield _beside("clocks", f"TS, {name}", partial(stamped, stamp, "ts"))
    jump = 1_700_000_000 * 12_800
    yield _beside(
        "clocks", "MP4, a jump to the epoch", partial(stamped, lambda n, old: old + (jump if n > 30 else 0), "mp4")
    )
    yield _beside(
        "clocks", "MKV, a jump of years", partial(stamped, lambda n, old: old + (10**11 if n > 30 else 0), "mkv")
    )
    identity = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    turned = {"quarter": (0, 1, -1, 0), "half": (-1, 0, 0, -1), "mirror": (-1, 0, 0, 1), "transposed": (0, 1, 1, 0)}
    turned |= {"sheared": (1, 1, 0, 1), "nothing": (0, 0, 0, 0), "upside down": (1, 0, 0, -1)}
    for name, (a, b, c, d) in turned.items():
        matrix = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
        made = partial(_damaged, "mp4", lambda content, m=matrix: content.replace(identity, m[:24] + identity[24:]))
        yield _beside("matrix", name, made)
