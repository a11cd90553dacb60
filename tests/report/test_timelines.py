"""A timeline shows what was predicted where it was predicted, scrolls, and has frames only where a page may."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from surgdino.errors import SurgdinoError
from surgdino.report.blocks import Timeline
from surgdino.report.operation import ENDING, read_timelines, timeline_of, write_timeline
from surgdino.report.page import write_page
from surgdino.report.record import RunRecord
from surgdino.report.sections.timelines import Timelines

CLASSES = ("Preparation", "CalotTriangleDissection", "ClippingCutting")
TIMES = np.arange(600.0)


def written(folder: Path, truth: np.ndarray | None = None) -> RunRecord:
    prediction, sure = np.repeat([0, 1, 2], 200), np.linspace(0, 1, 600)
    known = {"grasper": (TIMES, TIMES < 60), "hook": (TIMES, np.zeros(600, bool))}
    (folder / "predictions").mkdir()
    write_timeline(folder / "predictions", timeline_of("v<1>", TIMES, CLASSES, prediction, sure, truth, known))
    return RunRecord(folder, {}, {}, {}, [], results={"task": "phase", "scores": [], "headline": {}})


def shown(record: RunRecord, section: Timelines) -> Timeline:
    [found] = [block for block in section.of_run(record) if isinstance(block, Timeline)]
    return found


def test_bands_are_truth_prediction_what_is_wrong_and_what_is_there(tmp_path):
    record = written(tmp_path, np.repeat([0, 1, 1, -1], [200, 200, 100, 100]))
    timeline = shown(record, Timelines())
    assert [ribbon.name for ribbon in timeline.ribbons] == ["Truth", "Prediction", "Wrong", "grasper"]
    truth, prediction, wrong, grasper = (ribbon.parts for ribbon in timeline.ribbons)
    assert [(round(part[0], 3), round(part[1], 3)) for part in prediction] == [
        (0, 0.333),
        (0.333, 0.333),
        (0.667, 0.333),
    ]
    assert [part[3] for part in truth] == ["Preparation, 0:00 to 3:20", "Calot triangle dissection, 3:20 to 8:20"]
    assert [(round(part[0], 3), round(part[1], 3)) for part in wrong] == [(0.667, 0.167)]
    assert [part[1] for part in grasper] == [0.1]
    assert timeline.said == "80.0 % of frames right"
    assert [name for _, name in timeline.legend] == ["Preparation", "Calot triangle dissection", "Clipping cutting"]
    assert not timeline.pictures
    [whole] = read_timelines(tmp_path, 9)
    assert whole.durations() == dict.fromkeys(CLASSES, 200.0)
    assert [ribbon.name for ribbon in shown(written_alone(tmp_path), Timelines()).ribbons] == ["Prediction", "grasper"]


def written_alone(folder: Path) -> RunRecord:
    (folder / "alone").mkdir()
    return written(folder / "alone")


def test_frames_stand_where_they_are_from_and_never_on_each_other(tmp_path):
    asked: list[float] = []

    def frames(video: str, seconds):
        assert video == "v<1>"
        asked.extend(seconds)
        return [(second, np.full((90, 160, 3), 80, np.uint8)) for second in [*seconds, seconds[-1] + 0.1]]

    timeline = shown(written(tmp_path), Timelines(frames, "Handle it so."))
    assert asked == list(np.arange(15.0, 600, 30))
    assert [picture.caption for _, picture in timeline.pictures][:2] == ["0:15", "0:45"]
    places = np.array([at for at, _ in timeline.pictures])
    assert len(places) == len(asked), "the one that lies on another is left out"
    assert (np.diff(places) * timeline.width >= 112).all()


@pytest.mark.parametrize("with_frames", [False, True])
def test_the_page_has_a_region_to_scroll_with_the_keyboard(tmp_path, with_frames):
    record = written(tmp_path)
    frames = Timelines(lambda video, seconds: [(seconds[0], np.zeros((9, 16, 3), np.uint8))])
    write_page([record], tmp_path / "page.html", pictures=[frames] if with_frames else ())
    text = (tmp_path / "page.html").read_text()
    section = text.partition('<section id="timelines">')[2].partition("</section>")[0]
    assert text.count('id="timelines"') == 1
    assert 'class="scroll" tabindex="0" role="region" aria-label="v&lt;1&gt; in time"' in section
    assert section.count("<title>Preparation, 0:00 to 3:20</title>") == 1
    assert ("data:image/jpeg" in section) == with_frames


def test_a_damaged_timeline_is_one_line_and_costs_its_own_part(tmp_path):
    record = written(tmp_path)
    [file] = (tmp_path / "predictions").glob(f"*{ENDING}")
    file.write_text('{"video": 3}')
    with pytest.raises(SurgdinoError) as caught:
        read_timelines(tmp_path, 1)
    assert str(file) in caught.value.line()
    write_page([record], tmp_path / "page.html")
    assert "This part could not be shown" in (tmp_path / "page.html").read_text()
