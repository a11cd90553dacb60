"""The store: right frames under right numbers, built once, open to common tools, rebuilt when its source changes."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import zipfile
from dataclasses import replace

import cv2
import numpy as np
import pytest

from surgdino.datasets.manifest import Manifest, Video
from surgdino.errors import SurgdinoError
from surgdino.frames import store as store_module
from surgdino.frames.store import StoreSettings, build_store, open_store
from tests.frames.numbered_video import number_in, picture, write_video

PLAIN = StoreSettings.of(fps=5, content_crop=False)


def manifest_of(root, paths, dataset="folder"):
    return Manifest(dataset, root, tuple(Video(p.stem, f"op/{p.stem}", p, 25.0) for p in paths))


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    names = ["video01", "zweite Öffnung 2", "kurz"]
    paths = [write_video(root / f"{name}.mp4", 100 if name != "kurz" else 4) for name in names]
    return manifest_of(root, paths)


@pytest.fixture(scope="module")
def built(videos, tmp_path_factory):
    return build_store(videos, tmp_path_factory.mktemp("store"), PLAIN, workers=1, progress=False)


def shards(folder):
    return sorted(folder.rglob("*.zip"))


def stamps(folder):
    return {path.name: path.stat().st_mtime_ns for path in shards(folder)}


def test_every_stored_frame_is_the_one_its_number_says(built):
    assert len(built) == 20 + 20 + 1
    for i in range(len(built)):
        assert number_in(built.read(i)) == built.number(i)
        assert built.time(i) == pytest.approx(built.number(i) / 25, abs=1e-4)


def test_ids_operations_and_positions_agree(built):
    ids = [built.video_id(i) for i in range(len(built))]
    assert ids == ["video01"] * 20 + ["zweite Öffnung 2"] * 20 + ["kurz"]
    assert built.operation(25) == "op/zweite Öffnung 2"
    with pytest.raises(IndexError):
        built.read(len(built))


def test_near_frames_are_those_of_the_same_video_within_the_seconds(built):
    for i in range(len(built)):
        for seconds in (0.1, 0.2, 0.5, 100.0):
            expected = [
                j
                for j in range(len(built))
                if built.video_id(j) == built.video_id(i) and abs(built.time(j) - built.time(i)) < seconds + 0.005
            ]
            assert list(built.near(i, seconds)) == expected
    assert list(built.near(40, 100.0)) == [40]


def test_near_frames_leave_out_flagged_ones(built):
    shard = built.videos[0].shard
    flags = shard.columns["flags"].copy()
    flags[2:5] = 1
    columns = {**shard.columns, "flags": flags}
    store = store_module.FrameStore([replace(built.videos[0], shard=replace(shard, columns=columns))])
    assert [store.number(i) // 5 for i in store.near(2, 0.6)] == [5, 6, 7, 8]
    assert [store.number(i) // 5 for i in store.near(0, 0.6)] == [0, 1]


def test_a_video_shorter_than_the_step_gives_its_first_frame(videos, tmp_path):
    store = build_store(videos, tmp_path, StoreSettings.of(fps=0.1), workers=1, progress=False)
    assert [store.number(i) for i in range(len(store))] == [0, 0, 0]


def test_it_can_be_pickled_and_read_in_another_process(built, tmp_path):
    built.read(0)
    (tmp_path / "store.pkl").write_bytes(pickle.dumps(built))
    script = "import pickle, sys; s = pickle.load(open(sys.argv[1], 'rb')); print(s.read(30).sum(), s.number(30))"
    answer = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "store.pkl"], capture_output=True, text=True, check=True
    )
    assert answer.stdout.split() == [str(built.read(30).sum()), str(built.number(30))]


def test_select_keeps_the_frames_of_some_videos(built):
    one = built.select(["zweite Öffnung 2"])
    assert len(one) == 20
    assert np.array_equal(one.read(3), built.read(23))
    with pytest.raises(SurgdinoError, match="no video 'video99'"):
        built.select(["video99"])


def test_a_shard_is_a_zip_of_jpegs_named_by_frame_number(built):
    with zipfile.ZipFile(built.videos[0].shard.path) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert names[:3] == ["frames/00000000.jpg", "frames/00000005.jpg", "frames/00000010.jpg"]
        jpeg = np.frombuffer(archive.read("frames/00000095.jpg"), np.uint8)
        assert number_in(cv2.imdecode(jpeg, cv2.IMREAD_COLOR)) == 95
        index = json.loads(archive.read("index.json"))
        assert index["settings"]["fps"] == 5
        assert index["source"]["path"] == "video01.mp4"
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())


def test_several_processes_build_the_same_bytes_as_one(videos, built, tmp_path):
    build_store(videos, tmp_path, PLAIN, workers=2, progress=False)
    assert [p.name for p in shards(tmp_path)] == sorted(v.shard.path.name for v in built.videos)
    for video in built.videos:
        twin = next(p for p in shards(tmp_path) if p.name == video.shard.path.name)
        assert twin.read_bytes() == video.shard.path.read_bytes()


def test_what_is_finished_is_not_built_again(videos, tmp_path, monkeypatch):
    build_store(videos, tmp_path, PLAIN, workers=1, progress=False)
    before = stamps(tmp_path)
    monkeypatch.setattr(store_module, "ShardTask", None)  # making a task would now fail
    assert len(build_store(videos, tmp_path, PLAIN, progress=False)) == 41
    assert stamps(tmp_path) == before


def test_a_changed_source_is_built_again_and_the_others_are_not(tmp_path):
    paths = [write_video(tmp_path / f"{name}.mp4", 60) for name in ("a", "b")]
    manifest, folder = manifest_of(tmp_path, paths), tmp_path / "store"
    build_store(manifest, folder, PLAIN, workers=1, progress=False)
    before = stamps(folder)
    write_video(paths[1], 80)
    with pytest.raises(SurgdinoError, match="out of date"):
        open_store(folder, manifest, PLAIN)
    store = build_store(manifest, folder, PLAIN, workers=1, progress=False)
    assert len(store.select(["b"])) == 16
    after = stamps(folder)
    assert after["a.zip"] == before["a.zip"]
    assert after["b.zip"] > before["b.zip"]


@pytest.mark.parametrize("change", [{"fps": 2.0}, {"short_side": 64}, {"quality": 70}, {"content_crop": True}])
def test_other_settings_have_their_own_shards(videos, tmp_path, change):
    one = replace(videos, videos=videos.videos[:1])
    build_store(one, tmp_path, PLAIN, workers=1, progress=False)
    before = stamps(tmp_path)
    other = replace(PLAIN, **change)
    build_store(one, tmp_path, other, workers=1, progress=False)
    assert len(shards(tmp_path)) == 2
    assert len(open_store(tmp_path, one, PLAIN)) == 20, "the first one is still there"
    assert before.items() <= {p.name: p.stat().st_mtime_ns for p in shards(tmp_path / "folder" / PLAIN.folder)}.items()
    if "short_side" in change:
        assert open_store(tmp_path, one, other).read(0).shape == (64, 85, 3)


def disc_video(path, frames=40, black=(), extra=()):
    y, x = np.ogrid[:120, :200]
    pictures = []
    for number in range(frames):
        image = np.full((120, 200, 3), (170, 80, 70), np.uint8)
        image[40:60, 60 + number : 80 + number] = (210, 160, 90)
        image[(x - 96) ** 2 + (y - 58) ** 2 > 70**2] = 0
        pictures.append(np.zeros_like(image) if number in black else image)
    return write_video(path, frames, pictures=pictures)


def test_frames_are_cropped_to_the_disc_and_know_where_it_is(tmp_path):
    path = disc_video(tmp_path / "a.mp4")
    store = build_store(
        manifest_of(tmp_path, [path]), tmp_path / "s", StoreSettings.of(fps=5), workers=1, progress=False
    )
    image, content = store.read(3), store.content(3)
    assert image.shape[0] == 120
    assert abs(image.shape[1] - 141) <= 2
    assert content.kind == "disc"
    assert abs(content.cx - 70) < 2
    assert abs(content.radius - 70) < 2
    assert store.summary()["content"]["a"]["source_size"] == (200, 120)


def test_flagged_frames_are_left_out_counted_and_still_there(tmp_path):
    path = disc_video(tmp_path / "a.mp4", black=range(10, 21))
    store = build_store(
        manifest_of(tmp_path, [path]), tmp_path / "s", StoreSettings.of(fps=5), workers=1, progress=False
    )
    assert [store.number(i) for i in range(len(store))] == [0, 5, 25, 30, 35]
    assert store.summary()["left_out"] == {"black": 3}
    everything = store.select(flagged=True)
    assert len(everything) == 8


def test_images_go_through_the_same_store(tmp_path):
    folder = tmp_path / "VID01"
    folder.mkdir()
    for number in (16, 23, 40, 41):
        cv2.imwrite(str(folder / f"{number:06d}.png"), picture(number)[..., ::-1])
    manifest = Manifest("cholect50", tmp_path, (Video("VID01", "camma/1", folder, 1.0),))
    store = build_store(manifest, tmp_path / "s", StoreSettings.of(content_crop=False), workers=1, progress=False)
    assert [(store.number(i), number_in(store.read(i))) for i in range(len(store))] == [
        (n, n) for n in (16, 23, 40, 41)
    ]
    cv2.imwrite(str(folder / "000050.png"), picture(50)[..., ::-1])
    assert (
        len(build_store(manifest, tmp_path / "s", StoreSettings.of(content_crop=False), workers=1, progress=False)) == 5
    )


def test_a_long_video_finds_its_content_without_being_held_in_memory(tmp_path):
    path = disc_video(tmp_path / "a.mp4", frames=150)
    store = build_store(
        manifest_of(tmp_path, [path]), tmp_path / "s", StoreSettings.of(fps=25), workers=1, progress=False
    )
    assert len(store) == 150
    assert {store.content(i).kind for i in range(150)} == {"disc"}
    assert abs(store.read(0).shape[1] - 141) <= 2


def test_ids_that_differ_only_in_what_a_file_name_cannot_carry_have_their_own_shards(tmp_path):
    paths = [write_video(tmp_path / "a.mp4", 30), write_video(tmp_path / "b.mp4", 60)]
    videos = tuple(Video(i, i, p, 25.0) for i, p in zip(("op/1", "op 1"), paths, strict=True))
    store = build_store(Manifest("folder", tmp_path, videos), tmp_path / "s", PLAIN, workers=1, progress=False)
    assert [len(store.select([i])) for i in ("op/1", "op 1")] == [6, 12]
    assert all(os.sep not in p.name for p in shards(tmp_path / "s"))
