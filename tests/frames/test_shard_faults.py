"""A damaged shard is named by one line, and built again."""

from __future__ import annotations

import json
import os
import struct
import zipfile
import zlib

import cv2
import numpy as np
import pytest

from surgdino.datasets.manifest import Manifest
from surgdino.errors import SurgdinoError
from surgdino.frames.store import StoreSettings, build_store, open_store
from tests.frames.faults import SETTINGS, build
from tests.frames.numbered_video import number_in


@pytest.mark.parametrize("damage", ["end missing", "empty", "overwritten index", "not a zip"])
def test_a_damaged_shard_is_named_and_built_again(videos, tmp_path, damage, caplog):
    one = Manifest("folder", videos.root, videos.videos[:1])
    shard = build(one, tmp_path).videos[0].shard
    data = bytearray(shard.path.read_bytes())
    if damage == "overwritten index":
        data[-3000:-2000] = bytes(1000)
    shard.path.write_bytes({"end missing": data[:-100], "empty": b"", "not a zip": b"text"}.get(damage, data))
    with pytest.raises(SurgdinoError, match="lacks this shard"):
        open_store(tmp_path, one, SETTINGS)
    store = build(one, tmp_path)
    assert len(store) == 20
    assert "damaged" in caplog.text
    assert str(shard.path) in caplog.text


def test_a_shard_replaced_while_the_store_is_open_is_noticed(videos, tmp_path):
    one = Manifest("folder", videos.root, videos.videos[:1])
    store = build(one, tmp_path)
    build_store(one, tmp_path / "other", StoreSettings.of(fps=2), workers=1, progress=False)
    other = next((tmp_path / "other").rglob("*.zip"))
    os.replace(other, store.videos[0].shard.path)
    with pytest.raises(SurgdinoError, match="replaced while it was in use"):
        store.read(0)


def test_a_damaged_picture_is_named(videos, tmp_path):
    store = build(Manifest("folder", videos.root, videos.videos[:1]), tmp_path)
    shard = store.videos[0].shard
    data = bytearray(shard.path.read_bytes())
    offset, size = int(shard.columns["offset"][2]), int(shard.columns["size"][2])
    data[offset : offset + size] = bytes(size)
    shard.path.write_bytes(data)
    with pytest.raises(SurgdinoError, match="frame 10"):
        store.read(2)
    assert number_in(store.read(3)) == 15


def rewrite(shard, change, jpeg=None):
    """Write the shard with a changed index that has the right checksum, and maybe another first picture behind it."""
    with zipfile.ZipFile(shard.path) as archive:
        index = json.loads(archive.read("index.json"))
        entry = archive.getinfo("index.json")
    data = shard.path.read_bytes()[: entry.header_offset]
    if jpeg is not None:
        index["frames"]["number"][-1] += 1
        name = f"frames/{index['frames']['number'][-1]:08d}.jpg".encode()
        data += struct.pack(
            "<4s5H3I2H", b"PK\3\4", 20, 0, 0, 0, 33, zlib.crc32(jpeg), len(jpeg), len(jpeg), len(name), 0
        )
        index["frames"]["offset"][-1], index["frames"]["size"][-1] = len(data) + len(name), len(jpeg)
        data += name + jpeg
    text = change(index) or json.dumps(index).encode()
    comment = f"surgdino index at {len(data):020d} size {len(text):012d} crc32 {zlib.crc32(text):08x}".encode()
    shard.path.write_bytes(data + text + b"PK" * 10 + comment)


WRONG = {
    "no frames": lambda i: i.pop("frames") and None,
    "a list": lambda i: b"[1, 2]",
    "no JSON": lambda i: b"{{{",
    "deep": lambda i: b"[" * 100_000 + b"]" * 100_000,
    "beyond the file": lambda i: i["frames"].update(offset=[10**12] * 20),
    "overflow": lambda i: i["frames"]["offset"].__setitem__(5, 2**63 - 5),
    "negative sizes": lambda i: i["frames"].update(size=[-5] * 20),
    "overlapping": lambda i: i["frames"].update(offset=[i["frames"]["offset"][0]] * 20),
    "a column short": lambda i: i["frames"]["time"].pop() and None,
    "a fraction of a frame": lambda i: i["frames"]["number"].__setitem__(0, 0.5),
    "a huge number": lambda i: i["frames"]["number"].__setitem__(-1, 10**30),
    "text": lambda i: i["frames"].update(time=["now"] * 20),
    "no order": lambda i: i["frames"]["number"].reverse(),
    "a million wide": lambda i: i.update(height=10**6, width=10**6),
    "a disc of nothing": lambda i: i["content"].update(kind="disc"),
    "a box outside": lambda i: i["content"].update(box=[0, 0, 9999, 5]),
    "another format": lambda i: i.update(format="1"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_index_is_named_and_the_shard_built_again(videos, tmp_path, kind, caplog):
    one = Manifest("folder", videos.root, videos.videos[:1])
    shard = build(one, tmp_path).videos[0].shard
    whole = shard.path.read_bytes()
    rewrite(shard, WRONG[kind])
    assert len(build(one, tmp_path)) == 20
    assert str(shard.path) in caplog.text
    assert shard.path.read_bytes() == whole


def test_a_stored_picture_has_the_size_that_its_shard_says(videos, tmp_path):
    one = Manifest("folder", videos.root, videos.videos[:1])
    shard = build(one, tmp_path).videos[0].shard
    jpeg = bytearray(cv2.imencode(".jpg", np.zeros((16, 16), np.uint8))[1].tobytes())
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", 65_500, 65_500)
    rewrite(shard, lambda i: None, bytes(jpeg))
    store = build(one, tmp_path)
    assert number_in(store.read(0)) == 0
    with pytest.raises(SurgdinoError, match=r"damaged"):
        store.read(19)


def test_a_flipped_bit_is_noticed(videos, tmp_path):
    one = Manifest("folder", videos.root, videos.videos[:1])
    store = build(one, tmp_path)
    shard = store.videos[0].shard
    data = bytearray(shard.path.read_bytes())
    data[int(shard.columns["offset"][3]) + int(shard.columns["size"][3]) // 2] ^= 1
    shard.path.write_bytes(data)
    with pytest.raises(SurgdinoError, match=r"video0\.zip, frame 15: .*damaged"):
        store.read(3)


def test_a_pipe_in_the_place_of_a_shard_is_replaced(videos, tmp_path):
    one = Manifest("folder", videos.root, videos.videos[:1])
    path = build(one, tmp_path).videos[0].shard.path
    path.unlink()
    os.mkfifo(path)
    assert len(build(one, tmp_path)) == 20
