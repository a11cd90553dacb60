"""A task's report shows its classes, its best and worst frames where they were asked for, and none where not."""

from __future__ import annotations

import shutil

import pytest

from surgdino.cli.main import main
from surgdino.report.blocks import Legend, Paragraph, Strips
from surgdino.report.record import read_run
from surgdino.runs.results import PER_FRAME
from surgdino.tasks import task_names
from surgdino.verbs.evaluate import frames_tested
from surgdino.verbs.report import examples_of
from tests.tasks.sets import set_of, words_of


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
    blocks = examples.of_run(record)
    strips = [strip for block in blocks if isinstance(block, Strips) for strip in block.strips]
    assert len([block for block in blocks if isinstance(block, Strips)]) >= 2
    assert all(each.uri.startswith("data:image/jpeg") for strip in strips for each in strip.pictures)
    assert all(each.caption for strip in strips for each in strip.pictures)
    sides = {tuple(each.caption for each in strip.pictures) for strip in strips if len(strip.pictures) > 1}
    assert sides == ({("frame", "truth", "prediction")} if task in ("segmentation", "instances") else set())
    assert any(isinstance(block, Legend) for block in blocks) == bool(sides)
    marks = {each.mark for strip in strips for each in strip.pictures}
    assert marks <= ({""} if sides else {"hit", "miss"})
    assert any("✓" in block.text for block in blocks if isinstance(block, Paragraph)) == (not sides)


@pytest.mark.slow
def test_frames_are_in_the_page_where_they_were_asked_for(runs, tmp_path):
    shutil.copytree(runs["segmentation"], tmp_path / "run")
    assert main(["report", str(tmp_path / "run"), "report.frames=true"]) == 0
    page = (tmp_path / "run" / "report.html").read_text()
    section = page.partition('<section id="examples">')[2].partition("</section>")[0]
    assert section.count("data:image/jpeg") >= 6
    assert "patient frames included" in page


@pytest.mark.slow
def test_a_run_that_was_asked_for_frames_has_them_in_its_page(tmp_path):
    set_of("phase").write(tmp_path / "data")
    assert main(words_of("phase", tmp_path / "data", tmp_path / "run", "train.steps=2", "report.frames=true")) == 0
    page = (tmp_path / "run" / "report.html").read_text()
    section = page.partition('<section id="timelines">')[2].partition("</section>")[0]
    assert section.count("data:image/jpeg") >= 6
    assert 'id="learned"' in page
