"""The generated set is what it says it is: Cholec80's layout and encoding, a disc, black frames, drawn tools."""

from __future__ import annotations

import hashlib

import av
import numpy as np
import pytest

from surgdino.datasets.card import load_card
from surgdino.datasets.open import open_dataset
from surgdino.datasets.synthetic.cholec80 import PHASES, write_cholec80
from surgdino.datasets.synthetic.cholect50 import write_cholect50
from surgdino.datasets.synthetic.tools import TOOLS, Use, draw, is_visible
from surgdino.errors import SurgdinoError

pytestmark = pytest.mark.slow

SIZE = (240, 160)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    return root, write_cholec80(root, videos=2, seconds=12, size=SIZE, seed=3)


def decoded(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_the_video_is_encoded_like_cholec80(made):
    _, videos = made
    with av.open(str(videos[0].path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.profile, stream.pix_fmt) == ("h264", "High", "yuv420p")
        assert stream.average_rate == 25
        frames = list(container.decode(stream))
    assert len(frames) == 12 * 25
    assert len({frame.pict_type for frame in frames}) == 3, "I, P and B frames"


def test_the_same_seed_gives_the_same_files(made, tmp_path):
    root, _ = made
    write_cholec80(tmp_path, videos=1, seconds=12, size=SIZE, seed=3, first=2)
    for file in ("videos/video02.mp4", "phase_annotations/video02-phase.txt", "tool_annotations/video02-tool.txt"):
        digests = {hashlib.sha256((folder / file).read_bytes()).hexdigest() for folder in (root, tmp_path)}
        assert len(digests) == 1, file


def test_the_picture_is_a_disc_on_black(made):
    _, videos = made
    for video in videos:
        frames = decoded(video.path)
        body = np.max([frames[i] for i in range(30, 300, 30) if not video.black[i]], axis=0).max(axis=2)
        y, x = np.mgrid[: SIZE[1], : SIZE[0]]
        distance = np.hypot(x - video.centre[0], y - video.centre[1])
        assert body[distance > video.radius + 4].max() < 24
        assert np.median(body[distance < video.radius - 4]) > 60
    assert videos[0].radius != videos[1].radius


def test_black_frames_are_black_and_the_others_are_not(made):
    _, videos = made
    for video in videos:
        brightness = np.array([frame.mean() for frame in decoded(video.path)])
        assert video.black.sum() == 25
        assert brightness[video.black].max() < 3
        assert brightness[~video.black].min() > 10


def test_drapes_are_not_red_and_tissue_is(made):
    _, videos = made
    for video in videos:
        frames = decoded(video.path)
        drapes = np.mean([frames[i] for i in np.flatnonzero(video.outside)[::8]], axis=(0, 1, 2))
        tissue = np.mean([frames[i] for i in np.flatnonzero(~video.outside & ~video.black)[::20]], axis=(0, 1, 2))
        assert drapes[0] < drapes[2]
        assert tissue[0] > 1.3 * tissue[2]


def test_all_phases_come_in_an_order_that_a_cholecystectomy_allows(made):
    _, videos = made
    allowed = {(0, 1), (1, 2), (2, 3), (3, 4), (3, 5), (4, 5), (4, 6), (5, 4), (5, 6), (6, 5)}
    for video in videos:
        steps = {(int(a), int(b)) for a, b in zip(video.phases, video.phases[1:], strict=False) if a != b}
        assert steps <= allowed
        assert set(video.phases) == set(range(len(PHASES)))


def test_annotation_files_end_a_tool_row_apart_as_in_the_release(made):
    root, _ = made
    phases = (root / "phase_annotations/video01-phase.txt").read_text().splitlines()
    tools = (root / "tool_annotations/video01-tool.txt").read_text().splitlines()
    assert phases[0] == "Frame\tPhase"
    assert tools[0] == "Frame\t" + "\t".join(TOOLS)
    assert len(phases) == 1 + 300
    assert [row.split("\t")[0] for row in tools[1:]] == [str(25 * k) for k in range(11)]


def test_tools_are_labelled_in_many_frames_but_never_where_nothing_is_seen(made):
    _, videos = made
    assert all(video.tools.any(axis=0).sum() >= 4 for video in videos)
    assert not any(video.tools[video.black | video.outside].any() for video in videos)


@pytest.mark.parametrize("tool", TOOLS)
def test_every_instrument_is_drawn_from_its_trocar_to_its_tip(tool):
    image, centre, radius = np.full((160, 240, 3), 90, np.uint8), (120.0, 80.0), 75.0
    use = Use(tool, 0.0, 10.0, angle=0.0, reach=(0.2, 0.0), wander=0.0)
    assert use.tip(-1.0, centre, radius) is None
    assert not is_visible(use.tip(0.01, centre, radius), SIZE, centre, radius), "still in its trocar"
    tip = use.tip(5.0, centre, radius)
    assert is_visible(tip, SIZE, centre, radius)
    draw(image, use, tip, centre, radius)
    changed = (image != 90).any(axis=2)
    assert changed[:, 200:].any(), "the shaft comes in from the right"
    assert changed[int(tip[1]) - 8 : int(tip[1]) + 9, int(tip[0]) - 8 : int(tip[0]) + 9].any()
    assert not changed[:, :60].any()


def test_short_and_odd_requests(tmp_path):
    (video,) = write_cholec80(tmp_path, videos=1, seconds=0.4, fps=10, size=(64, 48))
    assert len(decoded(video.path)) == 4
    with pytest.raises(SurgdinoError, match="even size"):
        write_cholec80(tmp_path, size=(241, 160))
    with pytest.raises(SurgdinoError, match="at least one video"):
        write_cholec80(tmp_path, videos=0)


def test_progress_counts_every_frame(tmp_path):
    seen = []
    write_cholec80(
        tmp_path, videos=2, seconds=1, fps=5, size=(64, 48), on_frame=lambda done, total: seen.append((done, total))
    )
    assert seen == [(n, 10) for n in range(1, 11)]


@pytest.mark.parametrize("dataset", ["cholec80", "cholect50", "cholect45"])
def test_a_generated_set_shows_no_published_operation(tmp_path, dataset):
    """Whatever its files are called; in the layouts that bear the same numbers, its operations are the same ones."""
    for public in (False, True):
        root = tmp_path / str(public)
        if dataset == "cholec80":
            write_cholec80(root, videos=2, seconds=0.4, fps=5, size=(64, 48), public_ids=public)
        else:
            write_cholect50(root, (1, 2), frames=2, size=(64, 48), layout=dataset, public_ids=public)
        manifest = open_dataset(load_card(dataset), root, split={"train": [1], "test": [2]})
        assert manifest.operations == (("camma/1", "camma/2") if public else ("demo/1", "demo/2"))
        assert [video.split for video in manifest.videos] == ["train", "test"]
        assert not any("unexpected" in problem.message or "read" in problem.message for problem in manifest.problems)
        assert any("generated" in note for note in manifest.notes) is not public
