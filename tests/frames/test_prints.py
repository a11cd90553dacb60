"""Prints: an operation is known again after what people do to recordings, and never taken for another one."""

from __future__ import annotations

import io
import zipfile
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from surgdino.datasets.card import load_card
from surgdino.datasets.manifest import Manifest
from surgdino.datasets.open import open_dataset
from surgdino.datasets.synthetic.cholec80 import write_cholec80
from surgdino.errors import SurgdinoError
from surgdino.frames.prints import ROW, Prints, print_of, recognise, references, unpack
from surgdino.frames.shard import read_shard
from surgdino.frames.store import FrameStore, StoreSettings, build_store

SECONDS = 30


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    """Two operations, 10 frames a second."""
    root = tmp_path_factory.mktemp("recordings")
    write_cholec80(root, 2, SECONDS, fps=10, size=(214, 160), annotations=False)
    return root / "videos"


def stored(folder: Path, place: Path) -> FrameStore:
    manifest: Manifest = open_dataset(load_card("folder"), folder)
    return build_store(manifest, place, StoreSettings.of(), workers=1, progress=False)


@pytest.fixture(scope="module")
def known(recordings, tmp_path_factory):
    store = stored(recordings, tmp_path_factory.mktemp("store"))
    return {Path(video.id).stem: references([store.prints(place)]) for place, video in enumerate(store.videos)}


def cropped(image):
    height, width = image.shape[:2]
    return image[height // 20 : -(height // 20), width // 20 : -(width // 20)]


def frames_of(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def video(path: Path, images, fps: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(fps))
        stream.height, stream.width = (side - side % 2 for side in images[0].shape[:2])
        stream.pix_fmt, stream.options = "yuv420p", {"qscale": "8"}
        for image in images:
            image = np.ascontiguousarray(image[: stream.height, : stream.width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def pictures(folder: Path, images, ending: str) -> None:
    folder.mkdir()
    for place, image in enumerate(images):
        cv2.imwrite(str(folder / f"{place:06d}.{ending}"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))


COPIES = {
    "encoded again at 5 fps": lambda images, to: video(to.with_suffix(".mp4"), images[::2], 5),
    "1 fps, half a second later": lambda images, to: video(to.with_suffix(".mp4"), images[5::10], 1),
    "smaller": lambda images, to: video(to.with_suffix(".mp4"), [cv2.resize(i, (108, 80)) for i in images[::2]], 5),
    "stretched": lambda images, to: video(to.with_suffix(".mp4"), [cv2.resize(i, (160, 160)) for i in images[::2]], 5),
    "border cropped": lambda images, to: video(to.with_suffix(".mp4"), [cropped(i) for i in images[::2]], 5),
    "brighter": lambda images, to: video(
        to.with_suffix(".mp4"), [np.clip(i * 1.1 + 6.0, 0, 255).astype(np.uint8) for i in images[::2]], 5
    ),
    "JPEG": lambda images, to: pictures(to, images[::10], "jpg"),
    "PNG, half of it": lambda images, to: pictures(to, images[: len(images) // 2 : 10], "png"),
}


@pytest.mark.quick("border cropped", "JPEG")
@pytest.mark.parametrize("copy", COPIES)
def test_a_copy_is_known_again_and_is_no_other_operation(copy, known, recordings, tmp_path):
    folder = tmp_path / "copies"
    folder.mkdir()
    for recording in recordings.iterdir():
        COPIES[copy](frames_of(recording), folder / f"other-{recording.stem}")
    store = stored(folder, tmp_path / "store")
    assert len(store.videos) == 2
    for place, each in enumerate(store.videos):
        found = recognise(known, [store.prints(place)])
        assert list(found) == [Path(each.id).stem.removeprefix("other-")]
        assert 0.3 < found[next(iter(found))] <= 1


def test_a_part_of_an_operation_is_told_by_its_share():
    noise = np.random.default_rng(0).integers(0, 256, (200, 9, 32), np.uint8)
    whole, other = (Prints(np.arange(100.0), noise[first : first + 100]) for first in (0, 100))
    half = Prints(np.arange(100.0), np.concatenate([noise[:50], noise[150:]]))
    known = {"this": references([whole]), "other": references([other])}
    assert recognise(known, [half]) == pytest.approx({"this": 0.5, "other": 0.5}, abs=0.05)
    assert recognise(known, [Prints(np.arange(30.0), noise[:30])]) == pytest.approx({"this": 1.0}, abs=0.02)
    strange = np.random.default_rng(1).integers(0, 256, (100, 9, 32), np.uint8)
    assert recognise(known, [Prints(np.arange(100.0), strange)]) == {}


def test_what_shows_nothing_is_not_printed():
    assert print_of(np.full((256, 400, 3), 90, np.uint8)) is None
    bars = np.full((256, 400, 3), 8, np.uint8)
    assert print_of(bars) is None
    nothing = references([Prints(np.empty(0), np.empty((0, 9, 32), np.uint8))])
    assert recognise({"nothing": nothing}, [Prints(np.empty(0), np.empty((0, 9, 32), np.uint8))]) == {}


def test_a_picture_that_stands_counts_once():
    still = np.tile(np.random.default_rng(0).integers(0, 256, (1, 9, 32), np.uint8), (600, 1, 1))
    assert len(references([Prints(np.arange(600.0), still)]).bits) == 1


def test_any_program_reads_them_and_an_older_shard_has_them_made(recordings, tmp_path):
    store = stored(recordings, tmp_path / "store")
    shard = store.videos[0].shard
    with zipfile.ZipFile(shard.path) as archive:
        rows = np.load(io.BytesIO(archive.read("prints.npy")))
    assert rows.dtype == ROW
    prints = store.prints(0)
    np.testing.assert_array_equal(rows["bits"], prints.bits)
    assert np.diff(prints.times).min() > 0.9
    assert len(prints.times) <= SECONDS
    header = {key: value for key, value in shard.header.items() if key != "prints"}
    object.__setattr__(shard, "header", header)
    again = FrameStore(store.videos).prints(0)
    np.testing.assert_array_equal(again.times, prints.times)
    differing = np.unpackbits(again.bits ^ prints.bits).mean()
    assert differing < 0.03, "made from JPEG instead of the picture"


def test_changed_prints_are_named(recordings, tmp_path):
    store = stored(recordings, tmp_path / "store")
    shard = store.videos[0].shard
    place = shard.header["prints"]["offset"] + shard.header["prints"]["size"] - 1
    with shard.path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)
        file.seek(place)
        file.write(bytes([byte[0] ^ 255]))
    assert read_shard(shard.path).header["prints"]
    with pytest.raises(SurgdinoError, match=r"damaged.*prints\.npy|prints\.npy.*damaged"):
        store.prints(0)


@pytest.mark.parametrize(
    "rows", [np.zeros(3, np.float32), np.zeros((2, 2), ROW), np.zeros(2, ROW), np.array([(9, 0)], ROW)]
)
def test_rows_that_are_no_prints_are_refused(rows):
    stream = io.BytesIO()
    np.save(stream, rows)
    with pytest.raises(ValueError, match="no prints"):
        unpack(stream.getvalue(), 5)
