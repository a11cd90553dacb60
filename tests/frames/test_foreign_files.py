"""Videos as people, and strangers, hand them in: read as players show them, or refused in one line."""

from __future__ import annotations

import os
import struct

import av
import numpy as np
import pytest

from surgdino.errors import SurgdinoError
from surgdino.frames.video.decode import probe, read_frames
from tests.frames.numbered_video import number_in, picture, restamp, show_by_matrix, write_video

TABLES = {b"stsz": (8, ">II", (1, 80_000_000)), b"stts": (12, ">I", (80_000_000,)), b"stss": (8, ">I", (1 << 29,))}
TABLES |= {b"stco": (8, ">I", (1 << 31,)), b"stsc": (8, ">I", (1 << 32) - 1)}
LISTS = {
    "ffconcat": "ffconcat version 1.0\nfile video.mp4\n",
    "HLS": "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nvideo.mp4\n#EXT-X-ENDLIST\n",
    "SDP": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    "DASH": "<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011'></MPD>",
    "address": "http://127.0.0.1:9/video.mp4\n",
}
NAMES = [
    "12:30:45.mp4",
    "http:/127.0.0.1:9/x.mp4",
    "concat:a|b.mp4",
    "pipe:0.mp4",
    "x%03d.mp4",
    "-x.mp4",
    "a\nb [/b].mp4",
]
# The place that the picture's upper left corner is shown at, as FFmpeg shows it: (rows, columns) from the start or end.
MATRICES = {
    (1, 0, 0, 1): lambda a: a,
    (-1, 0, 0, 1): lambda a: a[:, ::-1],
    (1, 0, 0, -1): lambda a: a[::-1],
    (-1, 0, 0, -1): lambda a: a[::-1, ::-1],
    (0, 1, 1, 0): lambda a: a.transpose(1, 0, 2),
    (0, -1, -1, 0): lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    (0, 1, -1, 0): lambda a: np.rot90(a, -1),
    (0, -1, 1, 0): lambda a: np.rot90(a, 1),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("whole") / "video.mp4", 40)


def refused(path, says):
    with pytest.raises(SurgdinoError, match=says) as caught:
        probe(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("table", TABLES)
def test_what_a_table_claims_is_held_against_the_size_of_the_file(whole, tmp_path, table):
    at, form, values = TABLES[table]
    data = bytearray(whole.read_bytes())
    struct.pack_into(form, data, data.index(table) + at, *np.atleast_1d(values).tolist())
    (tmp_path / "x.mp4").write_bytes(data)
    refused(tmp_path / "x.mp4", "claims more frames than it can hold")


def test_what_a_fragment_claims_too(tmp_path):
    path = write_video(tmp_path / "x.mp4", 40, container_options={"movflags": "frag_keyframe+empty_moov"})
    assert probe(path).frame_count == 40
    data = bytearray(path.read_bytes())
    struct.pack_into(">I", data, data.index(b"trun") + 8, (1 << 31) - 1)
    path.write_bytes(data)
    refused(path, "claims more frames than it can hold")


@pytest.mark.parametrize("kind", LISTS)
def test_lists_of_other_files_and_addresses_are_no_recordings(whole, tmp_path, kind):
    (tmp_path / "video.mp4").write_bytes(whole.read_bytes())
    (tmp_path / "x.mp4").write_text(LISTS[kind])
    refused(tmp_path / "x.mp4", "found text")


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_never_an_address_or_a_pattern(whole, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = tmp_path.relative_to(tmp_path) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(whole.read_bytes())
    assert probe(path).frame_count == 40


def test_a_codec_that_nobody_knows_is_one_line(whole, tmp_path):
    (tmp_path / "x.mp4").write_bytes(whole.read_bytes().replace(b"avc1", b"zzzz"))
    refused(tmp_path / "x.mp4", "no video stream.*unknown codec")


def test_a_title_in_an_old_encoding_is_no_obstacle(tmp_path):
    path = write_video(tmp_path / "x.mkv", 3)
    data = path.read_bytes()
    assert b"Lavf" in data
    path.write_bytes(data.replace(b"Lavf", b"L\xfcvf"))
    assert probe(path).frame_count == 3


def test_pipes_and_devices_are_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "zero.mp4").symlink_to("/dev/zero")
    (tmp_path / "images").mkdir()
    os.mkfifo(tmp_path / "images/1.png")
    refused(tmp_path / "pipe.mp4", "a named pipe")
    refused(tmp_path / "zero.mp4", "a device")
    with pytest.raises(SurgdinoError, match=r"1\.png.*a named pipe"):
        probe(tmp_path / "images")


def test_a_dicom_file_is_told_how_to_be_exported(tmp_path):
    (tmp_path / "x.mp4").write_bytes(bytes(128) + b"DICM" + bytes(1000))
    refused(tmp_path / "x.mp4", "DICOM.*Export")


@pytest.mark.parametrize("matrix", MATRICES)
def test_mirrored_and_turned_pictures_are_shown_as_players_show_them(tmp_path, matrix):
    path = show_by_matrix(write_video(tmp_path / "x.mp4", 2), *matrix)
    info = probe(path)
    image = next(read_frames(path, [1], info=info)).image
    wanted = MATRICES[matrix](picture(1))
    assert image.shape == wanted.shape == (info.height, info.width, 3)
    assert np.abs(image.astype(int) - wanted).mean() < 12
    a, b, c, d = matrix
    assert bool(info.remarks) == (a * d < b * c)


def joined(folder, suffix):
    """A recording of two parts of 20 frames, put together byte by byte."""
    codec = "mpeg2video" if suffix == "mpg" else "libx264"
    parts = [write_video(folder / f"{k}.{suffix}", 20, codec=codec, b_frames=0) for k in (1, 2)]
    path = folder / f"x.{suffix}"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


@pytest.mark.parametrize("suffix", ["ts", "mpg", "mkv"])
def test_parts_that_are_joined_byte_by_byte_have_one_growing_clock(tmp_path, suffix):
    info = probe(joined(tmp_path, suffix))
    assert info.frame_count == 40
    assert info.duration == pytest.approx(1.6, abs=0.05)
    assert "frame 20" in info.remarks[0]
    frames = list(read_frames(info.path, [3, 19, 20, 33], info=info))
    assert [number_in(frame.image) for frame in frames] == [3, 19, 0, 13]
    assert np.allclose([frame.time for frame in frames], np.array([3, 19, 20, 33]) / 25, atol=0.03)


def test_parts_of_which_players_show_one_are_refused(tmp_path):
    refused(joined(tmp_path, "mp4"), "several recordings.*concat")


def test_a_clock_that_begins_to_tell_the_date_goes_on(tmp_path):
    whole = write_video(tmp_path / "whole.mp4", 40, b_frames=0)
    path = restamp(whole, tmp_path / "x.mkv", lambda k, ticks: ticks + (1_700_000_000 * 90_000 if k >= 30 else 0))
    info = probe(path)
    assert info.frame_count == 40
    assert info.duration == pytest.approx(1.6, abs=0.15)
    assert "frame 30" in info.remarks[0]


def test_a_clock_that_runs_over_is_no_truncation(tmp_path):
    source = write_video(tmp_path / "a.ts", 120, b_frames=0)
    path = restamp(source, tmp_path / "x.ts", lambda k, ticks: ticks + (1 << 33) - 2 * 90_000)
    assert (probe(path).frame_count, round(probe(path).duration, 1)) == (120, 4.8)


@pytest.mark.parametrize("declared", [True, False])
def test_a_cover_or_a_still_before_the_film_is_not_the_film(tmp_path, declared):
    path = tmp_path / ("x.mp4" if declared else "x.mov")
    with av.open(str(path), "w") as container:
        still, film = container.add_stream("mjpeg", rate=25), container.add_stream("libx264", rate=25)
        still.width, still.height, still.pix_fmt = 320, 240, "yuvj420p"
        film.width, film.height, film.pix_fmt = 128, 96, "yuv420p"
        if declared:
            still.disposition = av.stream.Disposition.attached_pic
        frame = av.VideoFrame.from_ndarray(np.zeros((240, 320, 3), np.uint8), format="rgb24")
        container.mux(still.encode(frame))
        container.mux(still.encode(None))
        for number in range(30):
            container.mux(film.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")))
        container.mux(film.encode(None))
    info = probe(path)
    assert (info.codec, info.width, info.frame_count) == ("h264", 128, 30)
    assert number_in(next(read_frames(path, [7], info=info)).image) == 7
