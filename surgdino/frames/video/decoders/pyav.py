"""Frames of a video file through PyAV, the default: truthful time stamps, edit lists honoured, exact frame numbers.

A frame is known by its presentation time stamp, which the index of packets translates into its number, so what is
jumped over or skipped makes reading faster but never shifts a label.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from surgdino.errors import SurgdinoError
from surgdino.frames.video.decode import Frame, VideoInfo
from surgdino.frames.video.packets import PacketIndex, PacketQueue, index_packets, open_video

Numbered = Iterator[tuple[int, av.VideoFrame]]


def probe(path: Path) -> VideoInfo:
    """See `decode.probe`. One frame is decoded: its side data tells the rotation, and that anything decodes at all."""
    with open_video(path) as (container, stream):
        index = index_packets(path, container, stream)
    with open_video(path) as (container, stream):
        first = next(container.decode(stream), None)
        if first is None:
            raise SurgdinoError("no frame decodes", file=path, expected="a video", fix="copy or re-encode it")
        codec = stream.codec_context.codec.canonical_name
        pixel_aspect = float(stream.sample_aspect_ratio or 1)
        fps = float(stream.average_rate or stream.guessed_rate or 25)
    times = (index.ticks - index.ticks[0]) * index.time_base
    steps = np.diff(times)
    if steps.size:
        fps = len(steps) / float(times[-1])
    rotation = round(first.rotation / 90) % 4 * 90
    # Video from tape has pixels that are not square; a disc is only round as it is shown.
    width, height = round(first.width * pixel_aspect), first.height
    width, height = (width, height) if rotation % 180 == 0 else (height, width)
    return VideoInfo(
        path=path,
        codec=codec,
        width=width,
        height=height,
        frame_count=len(times),
        fps=fps,
        duration=float(times[-1]) + 1 / fps,
        rotation=rotation,
        # Time stamps in milliseconds (Matroska) make 40 ms steps of 33 and 34: that is rounding, not a variable rate.
        variable_rate=bool(steps.size) and float(np.ptp(steps)) > max(2.1 * index.time_base, 0.002),
        numbers=np.arange(len(times), dtype=np.int64),
        times=times,
        key_numbers=np.flatnonzero(np.isin(index.ticks, index.key_pts)),
        source=index,
    )


def read(info: VideoInfo, numbers: np.ndarray, size: tuple[int, int], threads: int) -> Iterator[Frame]:
    """See `decode.read_frames`; `numbers` are ascending and exist. Frames that do not decode are left out."""
    position = 0
    to_image = _Upright(size, info.rotation)
    for decode in (_decode_groups, _decode_everything):
        if position == len(numbers):
            return
        with open_video(info.path) as (container, stream):
            stream.codec_context.thread_count = threads
            stream.codec_context.thread_type = "AUTO" if threads > 1 else "NONE"
            for number, picture in decode(info, container, stream, numbers[position:]):
                if decode is _decode_groups and number != numbers[position]:
                    break  # the short way lost a frame (damage, or a key frame that is none): decode everything instead
                position = int(np.searchsorted(numbers, number)) + 1
                yield Frame(number, float(info.times[number]), to_image(picture))


def _decode_groups(
    info: VideoInfo, container: av.container.InputContainer, stream: av.VideoStream, numbers: np.ndarray
) -> Numbered:
    """Decode no more than the wanted frames need, one key frame's group at a time.

    Groups without a wanted frame, the end of a group after its last one, and pictures that no other picture refers to
    are never decoded. Ends early where anything is not as the index says.
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
                    continue  # a picture of the next group, which was needed for the last ones of this
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
        # Dropping B-pictures that nothing refers to changes no other picture and saves up to half of the work.
        context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
        yield from context.decode(packet)
    yield from context.decode(None)
    context.flush_buffers()


def _decode_everything(
    info: VideoInfo, container: av.container.InputContainer, stream: av.VideoStream, numbers: np.ndarray
) -> Numbered:
    """Decode from the start, past damage: after an error or loss nothing is trusted until the next key frame."""
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
        raise SurgdinoError(
            "frames cannot be numbered: the container has no presentation times, and packets and frames differ",
            file=info.path,
            expected=f"{info.frame_count} frames",
            found=following,
            fix="convert it to MP4",
        )


class _Upright:
    """Turns pictures into uint8 [H, W, 3] RGB at the size (width, height) in which they are shown."""

    def __init__(self, size: tuple[int, int], rotation: int) -> None:
        self._size = size if rotation % 180 == 0 else size[::-1]
        self._quarter_turns = rotation // 90
        self._reformatter = VideoReformatter()  # one for all frames: it keeps what it has worked out

    def __call__(self, picture: av.VideoFrame) -> np.ndarray:
        # Scaling belongs to the colour conversion: half the time of converting at full size and shrinking after.
        width, height = self._size
        image = self._reformatter.reformat(picture, width, height, "rgb24", interpolation="AREA").to_ndarray()
        return np.ascontiguousarray(np.rot90(image, self._quarter_turns)) if self._quarter_turns else image
