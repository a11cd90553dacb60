"""Whatever the file, the frame that is read is the frame that was asked for; a bad file is named in one line."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from surgdino import discovery
from surgdino.errors import SurgdinoError
from surgdino.frames.video.decode import probe, read_frames
from surgdino.frames.video.decoders import pyav as decode_pyav
from tests.frames.numbered_video import cut_start, number_in, picture, rotate, write_video

X265 = {"x265-params": "log-level=none:keyint=20:pools=1"}
IRREGULAR = np.cumsum(np.random.default_rng(0).choice([0.02, 0.04, 0.1, 0.5], 100))
FILES = {
    "h264.mp4": {},
    "b-frames.mkv": {"b_frames": 3, "gop": 30},
    "all-key.mp4": {"gop": 1, "b_frames": 0},
    "one-key.mp4": {"gop": 1000},
    "open-gop.mp4": {"options": {"x264-params": "open-gop=1:keyint=20:bframes=3"}},
    "intra-refresh.mkv": {"options": {"x264-params": "intra-refresh=1:keyint=20"}},
    "broadcast.ts": {},
    "hevc.mp4": {"codec": "libx265", "options": X265},
    "av1.mp4": {"codec": "libsvtav1", "options": {"preset": "8", "crf": "8", "svtav1-params": "keyint=20:lp=1"}},
    "mpeg4.mp4": {"codec": "mpeg4"},
    "mpeg4-b-frames.avi": {"codec": "mpeg4"},
    "h264-b-frames.avi": {},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"cpu-used": "8"}},
    "irregular.mp4": {"times": IRREGULAR},
    "irregular.mkv": {"times": IRREGULAR},
    "29.97.mp4": {"fps": 30000 / 1001},
    "Gallenblase Öffnung 胆囊.mp4": {},
}


def write(folder, name, **changes):
    settings = {**FILES[name], **changes}
    try:
        return write_video(folder / name, **settings)
    except ValueError as error:  # PyAV builds differ in the encoders they carry
        pytest.skip(f"this PyAV cannot write {name}: {error}")


def numbers_read(path, numbers, **options):
    return [(frame.number, number_in(frame.image)) for frame in read_frames(path, numbers, **options)]


@pytest.mark.parametrize("name", FILES)
def test_every_frame_is_the_one_asked_for(tmp_path, name):
    path = write(tmp_path, name)
    info = probe(path)
    assert info.frame_count == 100
    for numbers in (info.numbers, info.numbers[3::25], [0], [99], [57, 11, 11, 58]):
        asked = sorted(set(map(int, numbers)))
        assert numbers_read(path, numbers, info=info) == [(n, n) for n in asked]


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_an_encoder_leaves_no_priority_behind(tmp_path, name):
    before = os.sched_getscheduler(0), os.sched_getaffinity(0)
    write(tmp_path, name)
    assert (os.sched_getscheduler(0), os.sched_getaffinity(0)) == before


@pytest.mark.quick("h264.mp4", "b-frames", "ts", "hevc")
@pytest.mark.parametrize("name", FILES)
def test_what_is_skipped_changes_no_pixel_of_what_is_read(tmp_path, name):
    path = write(tmp_path, name)
    with decode_pyav.open_video(path) as (container, stream):
        everything = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    for frame in read_frames(path, range(2, 100, 9)):
        assert np.abs(frame.image.astype(int) - everything[frame.number]).max() <= 1


@pytest.mark.quick("7-")
@pytest.mark.parametrize(
    "name", ["h264.mp4", "b-frames.mkv", "all-key.mp4", "broadcast.ts", "hevc.mp4", "irregular.mp4"]
)
@pytest.mark.parametrize("step", [1, 2, 7, 40])
def test_ordinary_files_are_not_decoded_whole(tmp_path, monkeypatch, name, step):
    path = write(tmp_path, name)
    monkeypatch.setattr(decode_pyav, "_decode_everything", None)  # what the reader falls back on
    assert numbers_read(path, range(3, 100, step)) == [(n, n) for n in range(3, 100, step)]


def test_two_threads_read_the_same_as_one(tmp_path):
    path = write(tmp_path, "h264.mp4")
    one, two = (list(read_frames(path, range(0, 100, 7), threads=threads)) for threads in (1, 2))
    assert all(np.array_equal(a.image, b.image) and a.number == b.number for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("name", ["h264.mp4", "b-frames.mkv", "broadcast.ts", "h264-b-frames.avi"])
def test_times_start_at_the_first_frame_and_step_evenly(tmp_path, name):
    info = probe(write(tmp_path, name))
    assert np.allclose(info.times, np.arange(100) / 25, atol=0.001)
    assert info.fps == pytest.approx(25, abs=0.01)
    assert info.duration == pytest.approx(4.0, abs=0.01)


@pytest.mark.parametrize("name", ["irregular.mp4", "irregular.mkv"])
def test_times_of_a_variable_rate_are_those_of_its_frames(tmp_path, name):
    info = probe(write(tmp_path, name))
    assert np.allclose(info.times, IRREGULAR - IRREGULAR[0], atol=0.001)


@pytest.mark.parametrize("hidden", [1, 12, 30, 83])
def test_frames_that_an_edit_list_cuts_away_have_no_number(tmp_path, hidden):
    path = cut_start(write_video(tmp_path / "cut.mp4", gop=25), hidden)
    info = probe(path)
    assert info.frame_count == 100 - hidden
    assert info.times[0] == 0
    shown = range(0, info.frame_count, 5)
    assert numbers_read(path, shown) == [(n, n + hidden) for n in shown]


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_rotated_recording_is_read_upright(tmp_path, turns):
    path = rotate(write_video(tmp_path / "phone.mp4"), turns)
    info = probe(path)
    frame = next(read_frames(path, [37]))
    assert frame.image.shape == (info.height, info.width, 3)
    assert (info.width < info.height) == bool(turns % 2)
    assert number_in(np.rot90(frame.image, turns)) == 37  # the file asks for clockwise turns; undo them


def test_pixels_that_are_not_square_are_shown_square(tmp_path):
    path = write_video(tmp_path / "tape.mp4", 10, options={"x264-params": "sar=3/2"})
    info = probe(path)
    assert (info.width, info.height) == (192, 96)
    frame = next(read_frames(path, [7]))
    assert frame.image.shape == (96, 192, 3)
    assert number_in(frame.image) == 7


def test_short_side_shrinks_and_never_enlarges(tmp_path):
    path = write(tmp_path, "h264.mp4")
    shapes = {side: next(read_frames(path, [21], short_side=side)).image.shape for side in (48, 500)}
    assert shapes == {48: (48, 64, 3), 500: (96, 128, 3)}
    assert number_in(next(read_frames(path, [21], short_side=48)).image) == 21


def test_a_number_beyond_the_end_is_an_error(tmp_path):
    with pytest.raises(SurgdinoError, match=r"frame 100.*0 to 99"):
        list(read_frames(write(tmp_path, "h264.mp4"), [3, 100]))


def test_an_image_folder_is_numbered_by_its_file_names(tmp_path):
    import cv2

    folder = tmp_path / "VID 01"
    folder.mkdir()
    for number in (16, 23, 40):
        cv2.imwrite(str(folder / f"frame_{number:06d}.png"), picture(number))
    (folder / "notes.txt").write_text("not an image")
    info = probe(folder, fps=1)
    assert info.numbers.tolist() == [16, 23, 40]
    assert info.times.tolist() == [0, 7, 24]
    assert numbers_read(folder, [23, 40]) == [(23, 23), (40, 40)]


def broken(tmp_path, kind):
    path = tmp_path / f"{kind} ü.mp4"
    if kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("this is a text file\n" * 40)
    elif kind == "truncated":
        whole = write_video(tmp_path / "whole.mp4").read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "streamed":  # index first, as downloads have it: a demuxer reads this one without a word
        whole = write_video(tmp_path / "whole.mkv").read_bytes()
        path = path.with_suffix(".mkv")
        path.write_bytes(whole[: len(whole) // 3])
    elif kind == "folder":
        path.mkdir()
    return path


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("empty", "empty.*0 bytes"),
        ("text", "not a readable video"),
        ("truncated", "truncated.*expected.*found"),
        ("streamed", "truncated.*expected 4.0 s"),
        ("missing", "does not exist"),
        ("folder", "no images"),
    ],
)
def test_a_bad_file_is_named_in_one_line(tmp_path, kind, says):
    path = broken(tmp_path, kind)
    with pytest.raises(SurgdinoError, match=says) as caught:
        probe(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_truncated_file_with_its_index_in_front_is_told_by_its_boxes(tmp_path):
    path = write_video(tmp_path / "fast.mp4", container_options={"movflags": "faststart"})
    assert probe(path).frame_count == 100
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(SurgdinoError, match="truncated"):
        probe(path)


@pytest.mark.parametrize("seed", range(4))
def test_damaged_frames_are_left_out_and_not_passed_off_as_good(tmp_path, seed):
    """A plain decoder paints over damage. H.264 has no checksums, so a frame in a hundred may still slip through."""
    path = write_video(tmp_path / "whole.mp4", 150, gop=25)
    good = [frame.image for frame in read_frames(path, range(150))]
    data = bytearray(path.read_bytes())
    generator = np.random.default_rng(seed)
    start, end = data.index(b"mdat") + 8, data.index(b"moov") - 4
    for at in generator.integers(start + (end - start) // 4, end - 60, 3):
        data[at : at + 50] = generator.bytes(50)
    path.write_bytes(data)
    left = list(read_frames(path, range(150), damaged="skip"))
    assert 30 < len(left) < 150
    assert sum(not np.array_equal(frame.image, good[frame.number]) for frame in left) <= 2
    with pytest.raises(SurgdinoError, match=r"frame \d+: the frame does not decode"):
        list(read_frames(path, range(150)))


DECODE_DAMAGE = """
import sys, threading
from surgdino.frames.video.decode import read_frames

def work():
    for _ in range(20):
        list(read_frames(sys.argv[1], range(0, 200, 5), threads=2, damaged="skip"))

threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


@pytest.mark.slow
def test_damage_does_not_hang_decoder_threads(tmp_path):
    """FFmpeg's complaints must not be passed on to Python, which may be waiting for the thread that complains."""
    path = write_video(tmp_path / "a.mp4", 200, gop=25)
    data = bytearray(path.read_bytes())
    for at in range(data.index(b"mdat") + 500, len(data) - 8000, 700):
        data[at : at + 40] = bytes(40)
    path.write_bytes(data)
    subprocess.run([sys.executable, "-c", DECODE_DAMAGE, path], timeout=60, check=True)


def test_an_unknown_decoder_gets_the_nearest_name(tmp_path):
    with pytest.raises(SurgdinoError, match="'pyav'"):
        probe(write(tmp_path, "h264.mp4"), "pyvav")


def test_decoders_are_discovered():
    assert {"pyav", "decord", "images"} <= set(discovery.names("surgdino.frames.video.decoders"))


@pytest.mark.real
@pytest.mark.slow
def test_real_videos_read_the_same_whether_sampled_or_whole(real_data):
    path = sorted((real_data / "cholec80" / "videos").glob("*.mp4"))[0]
    info = probe(path)
    assert (info.codec, info.width, info.height, info.frame_count, info.fps) == ("h264", 854, 480, 800, 25)
    whole = {f.number: f.image for f in read_frames(path, range(500), info=info, short_side=96)}
    for frame in read_frames(path, range(0, 500, 25), info=info, short_side=96):
        assert np.array_equal(frame.image, whole[frame.number])
