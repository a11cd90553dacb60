"""Frames through decord, selectable for sites that rely on it, and watched.

Decord is accepted for a file only after its frame count and its time stamps agree with the container's: on a video
cut by an edit list it counts frames that must not be shown, and what it then gives for a number depends on what was
read before. It can hang while it holds the interpreter's lock, so it works in a process of its own, which is killed
when it falls silent.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from surgdino.errors import SurgdinoError
from surgdino.frames.video.decode import Frame, VideoInfo, resize
from surgdino.frames.video.decoders import pyav as decode_pyav

# Seconds that decord may take for the next frame, or for looking through a file; a frame takes it well under one.
PATIENCE = 120.0
_USE_PYAV = "use data.decoder=pyav"


def probe(path: Path) -> VideoInfo:
    """See `decode.probe`; the container is asked first, then decord must agree.

    Raises:
        SurgdinoError: decord counts other frames, times them otherwise, ignores a rotation, hangs or crashes.
    """
    info = decode_pyav.probe(path)
    if info.rotation:
        raise SurgdinoError("decord ignores the rotation that the file asks for", file=path, fix=_USE_PYAV)
    with _process(path, []) as replies:
        found = replies.line()
    if len(found["times"]) != info.frame_count:
        raise SurgdinoError(
            "decord does not see the frames that the container presents",
            file=path,
            expected=f"{info.frame_count} frames",
            found=len(found["times"]),
            fix=_USE_PYAV,
        )
    times = np.array(found["times"]) - found["times"][0]
    away = np.abs(times - info.times)
    if away.max() > 0.5 / info.fps:
        worst = int(away.argmax())
        raise SurgdinoError(
            "decord times a frame otherwise than the container",
            file=path,
            place=f"frame {worst}",
            expected=f"{info.times[worst]:.3f} s",
            found=f"{times[worst]:.3f} s",
            fix=_USE_PYAV,
        )
    return info


def read(info: VideoInfo, numbers: np.ndarray, size: tuple[int, int], threads: int) -> Iterator[Frame]:
    """See `decode.read_frames`; decord's process uses one thread."""
    with _process(info.path, numbers.tolist()) as replies:
        replies.line()
        for number in numbers.tolist():
            height, width = replies.line()["shape"]
            image = np.frombuffer(replies.exactly(height * width * 3), np.uint8).reshape(height, width, 3)
            yield Frame(number, float(info.times[number]), resize(image, size))


class _Replies:
    """What decord's process writes: JSON lines, and raw pictures after some of them."""

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
            raise SurgdinoError(f"decord fell silent for {PATIENCE:.0f} s", file=self._path, fix=_USE_PYAV)
        data = os.read(self._stream.fileno(), 1 << 20)
        if not data:
            self._errors.seek(0)
            said = self._errors.read().decode(errors="replace").strip().splitlines()
            raise SurgdinoError("decord failed", file=self._path, found=said[-1] if said else None, fix=_USE_PYAV)
        self._buffer += data


@contextmanager
def _process(path: Path, numbers: list[int]) -> Iterator[_Replies]:
    with tempfile.TemporaryFile() as request, tempfile.TemporaryFile() as errors:
        request.write(json.dumps({"path": str(path), "numbers": numbers}).encode())
        request.seek(0)
        command = [sys.executable, "-m", "surgdino.frames.video.decord_process"]
        process = subprocess.Popen(command, stdin=request, stdout=subprocess.PIPE, stderr=errors, bufsize=0)
        assert process.stdout is not None  # it was asked for
        try:
            yield _Replies(path, process.stdout, errors)
        finally:
            process.kill()
            process.stdout.close()
            process.wait()
