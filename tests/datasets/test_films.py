"""Masks on frames of videos, as CVAT exports them: tracks, and pictures that are called after their frame."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from surgdino.datasets.card import load_card
from surgdino.datasets.held import Length, held_against
from surgdino.datasets.manifest import Manifest
from surgdino.datasets.masks import read_masks
from surgdino.datasets.open import open_dataset

CARD = load_card("folder")
META = """<meta><task><id>5</id><size>20</size><start_frame>{start}</start_frame><stop_frame>{stop}</stop_frame>
<frame_filter>{filter}</frame_filter><labels><label><name>liver</name></label></labels><segments><segment><id>9</id>
<start>0</start></segment></segments><original_size><width>40</width><height>30</height></original_size></task>
<dumped>now</dumped><source>{source}</source></meta>"""


def document(tracks: str, start=0, stop=19, filter="", source="a.mp4") -> str:
    head = META.format(start=start, stop=stop, filter=filter, source=source)
    return f'<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version>{head}{tracks}</annotations>'


def square(frame: int, x: int, outside: int = 0) -> str:
    points = f"{x},5;{x + 10},5;{x + 10},15;{x},15"
    return f'<polygon frame="{frame}" keyframe="1" outside="{outside}" occluded="0" points="{points}" z_order="0"/>'


def track(*shapes: str, label: str = "liver", more: str = "") -> str:
    return f'<track id="0" label="{label}" source="manual"{more}>{"".join(shapes)}</track>'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        (tmp_path / f"{name}.mp4").write_bytes(name.encode() * 100)
    return tmp_path


def opened(root: Path, text: str, name: str = "annotations.xml") -> Manifest:
    (root / name).write_text(text)
    return open_dataset(CARD, root)


def left_edges(manifest: Manifest, video: str = "a", name: str = "liver") -> dict[int, int]:
    found = {}
    for number, frame in manifest.labels["masks"].values[video].items():
        masks, _ = read_masks(frame, [name])
        found[number] = int(np.flatnonzero(masks[0].any(0))[0])
        assert masks.shape == (1, 30, 40)
    return found


def test_a_track_is_held_moved_between_and_ended(root):
    points = "20,20;30,20;30,28"  # another number of points: the shape before it waits
    jump = f'<polygon frame="12" keyframe="1" outside="0" occluded="0" points="{points}"/>'
    manifest = opened(root, document(track(square(0, 2), square(4, 10), square(6, 10, outside=1), square(9, 5), jump)))
    assert manifest.errors == ()
    moved = {0: 2, 1: 4, 2: 6, 3: 8, 4: 10, 5: 10, 9: 5, 10: 5, 11: 5}
    assert left_edges(manifest) == moved | dict.fromkeys(range(12, 20), 21)
    assert manifest.notes[-1] == "annotations.xml (CVAT): 17 masks of 1 classes on 17 frames, 1 of 2 videos: liver"


def test_frames_count_as_in_the_film_in_the_steps_of_the_task(root):
    manifest = opened(root, document(track(square(10, 2), square(20, 12)), 10, 25, "step=5"))
    assert left_edges(manifest) == {10: 2, 15: 7, 20: 12, 25: 12}
    other = opened(root, document(track(square(0, 2), square(10, 2)), 10, 25, "step=5"))
    (problem,) = other.errors
    assert (
        problem.error()
        .line()
        .partition(".xml, ")[2]
        .startswith("track 0: a frame that was not labelled; expected frames 10 to 25 in steps of 5, found 0.")
    )


def test_masks_ellipses_and_what_is_none(root):
    mask = '<mask frame="3" keyframe="1" outside="0" rle="1,2,1" left="7" top="0" width="2" height="2"/>'
    end = mask.replace('"3"', '"4"').replace('outside="0"', 'outside="1"')
    ellipse = '<ellipse frame="2" keyframe="1" outside="0" cx="20" cy="15" rx="10" ry="4" rotation="90"/>'
    shut = ellipse.replace('"2"', '"3"').replace('outside="0"', 'outside="1"')
    box = '<box frame="5" keyframe="1" outside="0" xtl="1" ytl="1" xbr="5" ybr="5"/>'
    skeleton = '<skeleton frame="5" keyframe="1"><points label="tip" outside="0" points="3,3"/></skeleton>'
    tracks = track(mask, end) + track(ellipse, shut, label="tool") + track(box) + track(skeleton, label="hook")
    manifest = opened(root, document(tracks))
    labels = manifest.labels["masks"]
    assert labels.classes == ("liver", "tool")
    masks, known = read_masks(labels.values["a"][3], labels.classes)
    assert (masks.sum(), int(masks[0].sum()), known.all()) == (2, 2, True)
    oval = read_masks(labels.values["a"][2], labels.classes)[0][1]
    assert [int(np.ptp(np.flatnonzero(oval.any(axis)))) + 1 for axis in (0, 1)] == [8, 20]
    assert list(labels.values["a"]) == [2, 3]
    assert "shapes that are no masks are left out" in [p.message for p in manifest.problems]


def test_which_video_it_is_of(root):
    text = document(track(square(0, 2)), source="", stop=0)
    assert "frames of a video that is not here" in [p.message for p in opened(root, text).errors]
    (root / "annotations.xml").unlink()
    assert list(opened(root, text, "b.xml").labels["masks"].values) == ["b"]
    (root / "b.mp4").unlink()
    (root / "b.xml").unlink()
    manifest = opened(root, document(track(square(0, 2)), source="other.mp4"))
    assert manifest.errors == ()
    assert "the export names another video" in [p.message for p in manifest.problems]
    shutil.copy(root / "annotations.xml", root / "again.xml")
    assert "frames that two exports draw: the first counts" in [p.message for p in open_dataset(CARD, root).problems]


def test_a_project_of_several_tasks(root):
    task = "<task><id>{}</id><start_frame>0</start_frame><stop_frame>1</stop_frame><source>{}</source><original_size>"
    task += "<width>40</width><height>30</height></original_size></task>"
    tasks = "".join(task.format(n, name) for n, name in ((3, "b.mp4"), (4, "a.mp4")))
    tracks = track(square(0, 2), more=' task_id="4"') + track(square(1, 9), more=' task_id="3"')
    meta = f"<meta><project><id>1</id><tasks>{tasks}</tasks></project></meta>"
    manifest = opened(root, f"<annotations>{meta}{tracks}</annotations>")
    assert (left_edges(manifest, "a"), left_edges(manifest, "b")) == ({0: 2, 1: 2}, {1: 9})
    counted_on = tracks.replace('frame="0"', 'frame="2"')  # as newer versions do
    meta = meta.replace("<task>", "<task><size>2</size>")
    manifest = opened(root, f"<annotations>{meta}{counted_on}</annotations>")
    assert (left_edges(manifest, "a"), left_edges(manifest, "b")) == ({0: 2, 1: 2}, {1: 9})


def test_what_cvat_wrote_between_key_frames_is_not_filled_up(root):
    between = square(2, 5).replace('keyframe="1"', 'keyframe="0"')  # frame 1 was deleted in the tool
    manifest = opened(root, document(track(square(0, 2), between, square(3, 6), square(4, 6, outside=1))))
    assert left_edges(manifest) == {0: 2, 2: 5, 3: 6}


def test_labels_are_held_against_the_video(root):
    manifest = opened(root, document(track(square(0, 2))))
    video, labels = manifest["a"], manifest.labels["masks"]
    assert list(held_against(video, Length(20, 0.8, (40, 30)), labels)) == []
    (beyond,) = held_against(video, Length(2, 0.4, (40, 30)), labels)
    assert "masks of 8 frames beyond the video's end" in beyond.message
    (size,) = held_against(video, Length(20, 0.8, (80, 60)), labels)
    assert "drawn on a video of another size; expected 40x30, found 80x60" in size.error().line()


def test_a_folder_of_images_counts_its_pictures(tmp_path):
    (tmp_path / "op").mkdir()
    for number in (10, 25, 70):
        Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(tmp_path / f"op/{number:04d}.png")
    text = document(track(square(1, 3)), stop=3, source="").replace("<width>40</width><height>30</height>", "")
    manifest = opened(tmp_path, text)
    assert left_edges(manifest, "op") == {25: 3, 70: 3}
    assert "a frame of no picture" in [p.message for p in manifest.errors]


def test_pictures_that_are_frames_of_a_video(root):
    shape = '<polygon label="liver" points="5,5;15,5;15,15;5,15"/>'
    image = f'<image id="25" name="frame_000025" width="40" height="30">{shape}</image>'
    assert left_edges(opened(root, document(image))) == {25: 5}


def test_tracks_of_endless_films_are_refused(root):
    text = document(track(square(0, 2)), stop=99_999_999)
    assert "tracks of too many frames" in opened(root, text).problems[0].message
