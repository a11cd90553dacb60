"""Frames through decord, for sites that rely on it.

Decord is accepted for a file only if its frame count and time stamps agree with the container's: on a video cut by an
edit list it counts frames that must not be shown, and the frame it returns for a number depends on what was read
before. It can hang while it holds the interpreter's lock, so it runs in a process of its own, which is killed when it
stops answering.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from surgdino.errors import SurgdinoError
from surgdino.frames.video.decode import Decoder, Frame, VideoInfo, resize
from surgdino.frames.video.decoders.pyav import PyAV
from surgdino.frames.worker import start

# Seconds that decord may take for the next frame, or for looking through a file; a frame takes it well under one.
PATIENCE = 120.0
_USE_PYAV = "use data.decoder=pyav"


class Decord(Decoder):
    """Decord in a process of its own, on one thread."""

    def probe(self, path: Path, fps: float | None) -> VideoInfo:
        """The container's account of the file, with which decord must agree.

        Raises:
            SurgdinoError: decord counts or times frames differently, ignores a rotation, hangs or crashes.
        """
        info = PyAV().probe(path, fps)
        if info.rotation or info.mirrored:
            what = "decord ignores the rotation or mirroring that the file asks for"
            raise SurgdinoError(what, file=path, fix=_USE_PYAV)
        with _process(path, []) as replies:
            found = np.array(replies.line()["times"])
        if len(found) != info.frame_count:
            raise SurgdinoError(
                "decord does not see the frames that the container presents",
                file=path,
                expected=f"{info.frame_count} frames",
                found=len(found),
                fix=_USE_PYAV,
            )
        times = found - found[0]
        away = np.abs(times - info.times)
        if away.max() > 0.5 / info.fps:
            worst = int(away.argmax())
            raise SurgdinoError(
                "decord and the container disagree on a frame's time",
                file=path,
                place=f"frame {worst}",
                expected=f"{info.times[worst]:.3f} s",
                found=f"{times[worst]:.3f} s",
                fix=_USE_PYAV,
            )
        return info

    def read(self, info: VideoInfo, numbers: np.ndarray, size: tuple[int, int], threads: int) -> Iterator[Frame]:
        """Frame by frame, as decord's process sends them."""
        with _process(info.path, numbers.tolist()) as replies:
            replies.line()
            for number in numbers.tolist():
                height, width = replies.line()["shape"]
                image = np.frombuffer(replies.exactly(height * width * 3), np.uint8).reshape(height, width, 3)
                yield Frame(number, float(info.times[number]), resize(image, size))


class _Replies:
    """The output of decord's process: JSON lines, and raw pictures after some of them."""

    def __init__(self, path: Path, stream: IO[bytes], errors: IO[bytes]) -> None:
        self._path, self._stream, self._errors = path, stream, errors
        self._buffer = bytearray()

    def line(self) -> dict[str, Any]:
        while (end := self._buffer.find(b"\n")) < 0:
            self._receive()
        return json.loads(self._take(end + 1))

    def exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._receive()
        return self._take(size)

    def _take(self, size: int) -> bytes:
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def _receive(self) -> None:
        ready, _, _ = select.select([self._stream], [], [], PATIENCE)
        if not ready:
            raise SurgdinoError(f"decord did not answer for {PATIENCE:.0f} s", file=self._path, fix=_USE_PYAV)
        data = os.read(self._stream.fileno(), 1 << 20)
        if not data:
            self._errors.seek(0)
            lines = self._errors.read().decode(errors="replace").strip().splitlines()
            raise SurgdinoError("decord failed", file=self._path, found=lines[-1] if lines else None, fix=_USE_PYAV)
        self._buffer += data


@contextmanager
def _process(path: Path, numbers: list[int]) -> Iterator[_Replies]:
    with tempfile.TemporaryFile() as request, tempfile.TemporaryFile() as errors:
        # An absolute path is never taken for an address, and the container was looked at before.
        request.write(json.dumps({"path": str(path.absolute()), "numbers": numbers}).encode())
        request.seek(0)
        module = "surgdino.frames.video.decord_process"
        process = start(module, "main", stdin=request, stdout=subprocess.PIPE, stderr=errors, bufsize=0)
        assert process.stdout is not None  # it was asked for
        try:
            yield _Replies(path, process.stdout, errors)
        finally:
            process.kill()
            process.stdout.close()
            process.wait()
