"""Frames of a video file through PyAV, the default: exact time stamps and frame numbers, edit lists applied.

A frame is identified by its presentation time stamp, which the packet index translates into its number. So seeking and
skipping make reading faster but never shift a label.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterator
from pathlib import Path

import av
import numpy as np
from av.sidedata.sidedata import SideData
from av.video.reformatter import VideoReformatter

from surgdino.errors import SurgdinoError
from surgdino.frames.video.container import open_video
from surgdino.frames.video.decode import Decoder, Frame, VideoInfo
from surgdino.frames.video.packets import PacketIndex, PacketQueue, index_packets

Numbered = Iterator[tuple[int, av.VideoFrame]]


class PyAV(Decoder):
    """FFmpeg through PyAV."""

    def probe(self, path: Path, fps: float | None) -> VideoInfo:
        """Decodes one frame, for the rotation in its side data, and to know that anything decodes."""
        with open_video(path) as (container, stream):
            index = index_packets(path, container, stream)
        with open_video(path, index.stream) as (container, stream):
            first = next(container.decode(stream), None)
            if first is None:
                raise SurgdinoError("no frame decodes", file=path, expected="a video", fix="copy or re-encode it")
            codec = stream.codec_context.codec.canonical_name
            pixel_aspect = float(stream.sample_aspect_ratio or 1)
            rate = float(stream.average_rate or stream.guessed_rate or 25)
        times = (index.ticks - index.ticks[0]) * index.time_base
        if times[-1] > 0:
            rate = (len(times) - 1) / float(times[-1])
        rotation, mirrored = _orientation(first)
        # Video from tape has pixels that are not square; a disc is round only at its display size.
        width, height = round(first.width * pixel_aspect), first.height
        width, height = (width, height) if rotation % 180 == 0 else (height, width)
        return VideoInfo(
            path=path,
            codec=codec,
            width=width,
            height=height,
            frame_count=len(times),
            fps=rate,
            duration=float(times[-1]) + 1 / rate,
            rotation=rotation,
            mirrored=mirrored,
            remarks=_remarks(index, mirrored),
            numbers=np.arange(len(times), dtype=np.int64),
            times=times,
            key_numbers=np.flatnonzero(np.isin(index.ticks, index.key_pts)),
            source=index,
        )

    def read(self, info: VideoInfo, numbers: np.ndarray, size: tuple[int, int], threads: int) -> Iterator[Frame]:
        """Group by group; from the first frame lost that way on, everything is decoded."""
        position = 0
        upright = _Upright(size, info.rotation, info.mirrored)
        for decode in (_decode_groups, _decode_everything):
            if position == len(numbers):
                return
            with open_video(info.path, info.source.stream) as (container, stream):
                stream.codec_context.thread_count = threads
                stream.codec_context.thread_type = "AUTO" if threads > 1 else "NONE"
                for number, picture in decode(info, container, stream, numbers[position:]):
                    if decode is _decode_groups and number != numbers[position]:
                        break  # a frame was lost: damage, or a key frame that is none
                    position = int(np.searchsorted(numbers, number)) + 1
                    yield Frame(number, float(info.times[number]), upright(picture))


def _decode_groups(
    info: VideoInfo, container: av.container.InputContainer, stream: av.VideoStream, numbers: np.ndarray
) -> Numbered:
    """Decode only what the wanted frames need, one key frame's group at a time.

    Groups without a wanted frame, the rest of a group after its last one, and pictures that no other picture refers to
    are not decoded. Ends early where anything differs from the index.
    """
    index: PacketIndex = info.source
    if not index.exact:
        return
    ticks = index.ticks[numbers]
    number_of = dict(zip(ticks.tolist(), numbers.tolist(), strict=True))
    group_of = np.searchsorted(index.key_pts, ticks, side="right") - 1
    packets, previous = PacketQueue(container, stream), -1
    for group in np.unique(group_of).tolist():
        if group != previous + 1:
            packets.seek(int(index.key_dts[group]))
        previous = group
        try:
            last_wanted = int(ticks[group_of == group][-1])
            for picture in _group(stream.codec_context, packets, int(index.key_pts[group]), last_wanted, number_of):
                if picture.pts is None or picture.pts > last_wanted:
                    continue  # of the next group, needed for the last pictures of this one
                if picture.is_corrupt:
                    return
                if picture.pts in number_of:
                    yield number_of[picture.pts], picture
        except av.error.FFmpegError:
            return


def _group(
    context: av.VideoCodecContext, packets: PacketQueue, key: int, last_wanted: int, wanted: Container[int]
) -> Iterator[av.VideoFrame]:
    for packet in packets.from_key(key):
        if packet.dts is not None and packet.dts > last_wanted:
            packets.put_back(packet)
            break
        # Skipping B-pictures that nothing refers to changes no other picture and saves up to half of the work.
        context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
        yield from context.decode(packet)
    yield from context.decode(None)
    context.flush_buffers()


def _decode_everything(
    info: VideoInfo, container: av.container.InputContainer, stream: av.VideoStream, numbers: np.ndarray
) -> Numbered:
    """Decode from the start, past damage: after an error or a lost frame, all waits for the next key frame."""
    index: PacketIndex = info.source
    wanted = set(numbers.tolist())
    trusted_from = following = 0  # numbers of frames
    for packet in container.demux(stream):
        try:
            pictures = packet.decode()
        except av.error.FFmpegError:
            trusted_from = index.next_key(packet.pts)
            continue
        for picture in pictures:
            number = index.number_of(picture.pts) if index.exact else following
            if number is None:
                continue
            if number > following or picture.is_corrupt:
                trusted_from = max(trusted_from, index.next_key(int(index.ticks[min(following, number)])))
            following = number + 1
            if number in wanted and number >= trusted_from:
                yield number, picture
    if not index.exact and following != info.frame_count:
        why, fix = "the container has no presentation times", "convert it to MP4"
        if index.resets:
            why = f"the clock is set anew at frame {index.resets[0]}"
            fix = "join the parts of the recording with FFmpeg's concat, not byte by byte"
        raise SurgdinoError(
            f"frames cannot be numbered: {why}, and packets and frames differ",
            file=info.path,
            expected=f"{info.frame_count} frames",
            found=following,
            fix=fix,
        )


def _orientation(picture: av.VideoFrame) -> tuple[int, bool]:
    """Degrees anticlockwise by which a picture is turned before it is shown, and whether it is mirrored before that."""
    matrix = picture.side_data.get("DISPLAYMATRIX")
    if not isinstance(matrix, SideData):
        return 0, False
    a, b, _, c, d, *_ = np.frombuffer(bytes(matrix), np.int32).astype(float).tolist()  # x' = a x + c y, y' = b x + d y
    mirrored = a * d < b * c
    if mirrored:
        a, b = -a, -b
    return round(-math.degrees(math.atan2(b, a)) / 90) % 4 * 90, mirrored


def _remarks(index: PacketIndex, mirrored: bool) -> tuple[str, ...]:
    remarks = ["it is stored mirrored, and shown as players show it"] if mirrored else []
    if index.resets:
        place = ", ".join(map(str, index.resets[:3])) + (", ..." if len(index.resets) > 3 else "")
        remarks.append(f"its clock is set anew at frame {place}: the parts count as one recording")
    return tuple(remarks)


class _Upright:
    """Turns pictures into uint8 [H, W, 3] RGB at the size (width, height) in which they are shown."""

    def __init__(self, size: tuple[int, int], rotation: int, mirrored: bool) -> None:
        self._mirrored = mirrored
        self._size = size if rotation % 180 == 0 else size[::-1]
        self._quarter_turns = rotation // 90
        self._reformatter = VideoReformatter()  # one for all frames: it caches its tables

    def __call__(self, picture: av.VideoFrame) -> np.ndarray:
        # Scaling within the colour conversion takes half the time of scaling after it.
        width, height = self._size
        image = self._reformatter.reformat(picture, width, height, "rgb24", interpolation="AREA").to_ndarray()
        image = image[:, ::-1] if self._mirrored else image
        return np.ascontiguousarray(np.rot90(image, self._quarter_turns))
