"""A task's report shows its classes, its best and worst frames where they were asked for, and none where not."""

from __future__ import annotations

import shutil

import pytest

from surgdino.cli.main import main
from surgdino.report.blocks import Pictures
from surgdino.report.record import read_run
from surgdino.runs.results import PER_FRAME
from surgdino.tasks import task_names
from surgdino.verbs.evaluate import frames_tested
from surgdino.verbs.report import examples_of


@pytest.mark.quick("segmentation")
@pytest.mark.parametrize("task", task_names())
def test_the_report_of_a_task_shows_classes_and_has_frames_to_show(runs, task):
    page = (runs[task] / "report.html").read_text()
    assert 'id="classes"' in page
    assert "no patient frames" in page
    assert "examples" not in page
    if not (runs[task] / PER_FRAME).is_file():
        pytest.skip("the task says nothing of single frames")
    record = read_run(runs[task])
    examples = examples_of(record, *frames_tested(runs[task]))
    shown = [block for block in examples.of_run(record) if isinstance(block, Pictures)]
    assert len(shown) >= 2
    assert all(each.uri.startswith("data:image/jpeg") for block in shown for each in block.pictures)


@pytest.mark.slow
def test_frames_are_in_the_page_where_they_were_asked_for(runs, tmp_path):
    shutil.copytree(runs["segmentation"], tmp_path / "run")
    assert main(["report", str(tmp_path / "run"), "report.frames=true"]) == 0
    page = (tmp_path / "run" / "report.html").read_text()
    section = page.partition('<section id="examples">')[2].partition("</section>")[0]
    assert "Left the truth" in section
    assert section.count("data:image/jpeg") >= 6
    assert "patient frames included" in page


@pytest.mark.slow
def test_a_timeline_has_frames_where_they_were_asked_for(runs, tmp_path):
    shutil.copytree(runs["phase"], tmp_path / "run")
    assert main(["report", str(tmp_path / "run"), "report.frames=true"]) == 0
    page = (tmp_path / "run" / "report.html").read_text()
    section = page.partition('<section id="timelines">')[2].partition("</section>")[0]
    assert section.count("data:image/jpeg") >= 6
    assert 'id="learned"' in page
