"""The page in a real browser: at every width, in light, in the dark and on paper; and small enough to be sent."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from surgdino.report.blocks import (
    Block,
    Legend,
    Maps,
    Pictures,
    Ribbon,
    Scale,
    Strip,
    Strips,
    Timeline,
    picture,
    pixel_picture,
)
from surgdino.report.feature_map import legend, map_svg
from surgdino.report.page import write_page
from surgdino.report.record import RunRecord, read_run
from surgdino.report.sections import Section
from surgdino.report.shrink import LIMIT, shrink
from tests.report.browser import Browser
from tests.report.test_page import SECTIONS, write_results, write_run

# What lies outside its card, and not inside something that scrolls by itself.
OUTSIDE = """[...document.querySelectorAll('section, header')].flatMap(card =>
  [...card.querySelectorAll('*')].filter(each => {
  const box = each.getBoundingClientRect(), scrolls = each.parentElement.closest('.scroll, .wide figure, pre')
  return box.width && !scrolls && box.right > card.getBoundingClientRect().right + 1
}).map(each => each.outerHTML.slice(0, 120)))"""
# Words whose colour stands out from what is behind them by less than 4.5 to 1 (WCAG 2.2, 1.4.3).
FAINT = """(() => {
  const pen = document.createElement('canvas').getContext('2d', {willReadFrequently: true})
  const rgba = text => {
    pen.clearRect(0, 0, 1, 1); pen.fillStyle = text; pen.fillRect(0, 0, 1, 1)
    return [...pen.getImageData(0, 0, 1, 1).data] }
  const line = v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4
  const light = ([r, g, b]) => [r, g, b].map(v => line(v / 255)).reduce(
    (sum, v, k) => sum + v * [.2126, .7152, .0722][k], 0)
  const behind = each => { for (; each; each = each.parentElement) {
    const colour = rgba(getComputedStyle(each).backgroundColor); if (colour[3] > 250) return colour }
    return [255, 255, 255] }
  const speaks = each => [...each.childNodes].some(node => node.nodeType == 3 && node.data.trim())
  return [...document.querySelectorAll('body *')].filter(each => {
    if (!each.getClientRects().length || !speaks(each)) return false
    const style = getComputedStyle(each), inside = each.closest('svg')
    const pair = [light(rgba(inside ? style.fill : style.color)), light(behind(each))].sort((a, b) => b - a)
    return (pair[0] + .05) / (pair[1] + .05) < 4.5
  }).map(each => each.outerHTML.slice(0, 160)) })()"""
HEADINGS = "[...document.querySelectorAll('h1, h2, h3, h4')].map(each => +each.tagName[1])"
UNSAID = """[...document.querySelectorAll('img:not([alt]), img[alt=""], svg:not(svg svg)')].filter(each =>
  !each.alt && !each.getAttribute('aria-label') && each.getAttribute('aria-hidden') != 'true').length"""
FOLDED = """[...document.querySelectorAll('details > :not(summary)')].filter(each =>
  each.checkVisibility({contentVisibilityAuto: true}) && each.getBoundingClientRect().height > 0).length"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    """A page of every kind."""
    folder = tmp_path_factory.mktemp("pages")
    pretrained = [
        read_run(write_run(folder / name, gain=gain, fallen=0.08)) for name, gain in (("a", 0.1), ("b", 0.05))
    ]
    tasks = [
        write_results(folder / f"task{k}", {f"camma/{op}": 0.6 - 0.1 * k + op / 100 for op in range(8)}, leak="shared")
        for k in range(2)
    ]
    for task in tasks:
        write_classes(task)
    frames = [Frames(6, 200)]
    kinds = {
        "pretraining": (pretrained[:1], frames),
        "two pretrained": (pretrained, ()),
        "task": ([read_run(tasks[0])], [*frames, EveryPicture()]),
        "two tasks": ([read_run(task) for task in tasks], ()),
        "benchmark": ([benchmark(folder)], ()),
    }
    return {
        kind: write_page(records, folder / f"{kind}.html", pictures=pictures)
        for kind, (records, pictures) in kinds.items()
    }


class Frames(Section):
    """Pictures that cannot be made much smaller: noise."""

    id, title, order = "frames", "Frames", 8

    def __init__(self, count: int, side: int) -> None:
        rng = np.random.default_rng(0)
        self.images = rng.integers(0, 255, (count, side, side, 3), np.uint8)

    def of_run(self, record: RunRecord) -> list[Block]:
        return [Pictures([picture(image, f"operation {k}") for k, image in enumerate(self.images)], 6)]


class EveryPicture(Section):
    """One of every kind of picture, with names longer than there is room for."""

    id, title, order = "every", "Every picture", 9

    def of_run(self, record: RunRecord) -> list[Block]:
        image, name = (
            np.full((60, 80, 3), 90, np.uint8),
            "A name of a class or operation that is very long indeed",
        )
        marked = [picture(image, f"{mark} {name}", mark) for mark in ("query", "hit", "miss", "open", "hit")]
        grid, colours = pixel_picture(np.zeros((4, 4, 3), np.uint8), "after"), {name: "#88ccee", "b": "#332288"}
        points = np.random.default_rng(0).normal(size=(20, 2))
        maps = [map_svg("before, by phase", points, [name, "b"] * 10, colours, [name] * 20)] * 2
        parts = [(k / 40, 1 / 40, "#88ccee", f"{name}, 0:0{k % 10}") for k in range(40)]
        ribbons = [Ribbon(kind, kind, parts) for kind in ("classes", "wrong", "present")]
        frames = [(k / 12, picture(image, "0:01")) for k in range(12)]
        ticks, named = [(k / 12, "10:00") for k in range(12)], [("#88ccee", name)]
        return [
            Strips([Strip(f"{name}, {k}", marked) for k in range(3)]),
            Strips([Strip(name, [picture(image, "frame"), grid, grid]) for _ in range(3)]),
            Strips([Strip(name, [picture(image, name)]) for _ in range(3)]),
            Scale(["#000000", "#ffffff"], ("0", "2"), "times an even share"),
            Legend(named),
            Maps(maps, legend(colours, "others")),
            Timeline(name, "80 % right", 2400, ribbons, "0,100 0,50 1000,50 1000,100", ticks, frames, named),
        ]


def write_classes(folder: Path, count: int = 9) -> None:
    """Classes and a confusion, beside the results that are there."""
    results = json.loads((folder / "results.json").read_text())
    names = [f"A long name of class number {k}" for k in range(count)]
    rows = {name: {"f1": k / count, "frames": k} for k, name in enumerate(names)}
    results["classes"] = [{"title": "phase", "protocol": "phase/script", "rows": rows}]
    counts = np.random.default_rng(0).integers(0, 90, (count, count)).tolist()
    confusion = {"title": "phase", "rows": names, "columns": names, "counts": counts, "unit": "frames"}
    (folder / "results.json").write_text(json.dumps(results | {"confusions": [confusion]}))


def benchmark(folder: Path) -> RunRecord:
    """Two backbones on seven operations, one measure risen and one that is less when it is better."""
    rows = []
    for measure, better, change in (("accuracy", "higher", 0.1), ("calibration error", "lower", 0.05)):
        each = {f"own/{k}": change + k / 1000 for k in range(7)}
        values = {"value": 0.5, "interval_95": [0.4, 0.6], "per_operation": dict.fromkeys(each, 0.5)}
        moved = {"value": change, "interval_95": [change - 0.01, change + 0.01], "per_operation": each}
        row = {"dataset": "cholec80", "evaluation": "linear", "labels": "phase", "measure": measure, "curve": None}
        row |= {"better": better, "unit": "fraction", "changes": {"adapted": moved}}
        rows.append(row | {"values": {"natural": values, "adapted": values | {"value": 0.5 + change}}})
    cost = {"dataset": "cholec80", "evaluation": "linear", "seconds": 3.0, "frames": 90}
    results = {
        "suite": "surgical",
        "backbones": {"natural": "vit_small_patch16", "adapted": "vit_small_patch16"},
        "datasets": {"cholec80": {"tested": 7, "split": None}},
        "rows": rows,
        "cost": [cost | {"backbone": name} for name in ("natural", "adapted")],
        "unused": [],
        "failed": {},
        "leakage": {"stamp": None},
    }
    return RunRecord(folder / "benchmark", {"suite": "surgical"}, {}, {}, [], benchmark=results)


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 900, 1440])
def test_every_kind_of_page_is_whole_at_every_width(browser, pages, width, dark):
    for kind, page in pages.items():
        browser.open(page, width, dark=dark)
        assert not browser.requests, kind
        assert not browser.complaints, kind
        browser.value("document.querySelectorAll('details').forEach(each => each.open = true)")
        assert browser.value("document.documentElement.scrollWidth") <= width, f"{kind} scrolls sideways"
        assert browser.value(OUTSIDE) == [], f"{kind}: beyond its card"
        assert browser.value(FAINT) == [], f"{kind}: hard to read"
        levels = browser.value(HEADINGS)
        assert levels[0] == levels.count(1) == 1, kind
        assert all(after <= before + 1 for before, after in pairwise(levels)), kind
        assert browser.value(UNSAID) == 0, f"{kind}: a picture without words"


@pytest.mark.slow
def test_every_section_has_a_height_and_every_figure_a_width(browser, pages):
    browser.open(pages["pretraining"])
    tall = "[...document.querySelectorAll('section')].filter(each => each.clientHeight > 60).map(each => each.id)"
    assert set(browser.value(tall)) == {*SECTIONS, "frames"}
    narrow = "[...document.querySelectorAll('figure')].filter(each => each.getBoundingClientRect().width < 90).length"
    assert browser.value(narrow) == 0


@pytest.mark.slow
def test_on_paper_nothing_is_folded_and_the_ground_is_white(browser, pages, tmp_path):
    for kind, page in pages.items():
        browser.open(page, 800, media="print", dark=True)
        folded = browser.value("document.querySelectorAll('details > :not(summary)').length")
        assert browser.value(FOLDED) == folded > 0, kind
        assert browser.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert browser.value(FAINT) == [], f"{kind}: hard to read"
        data = browser.pdf(tmp_path / "page.pdf").read_bytes()
        assert re.search(rb"/MediaBox \[0 0 59[45][.\d]* 84[12]", data), "not A4"


@pytest.mark.slow
def test_a_page_of_very_much_stays_below_five_megabytes_and_loses_nothing(tmp_path):
    folder = write_results(tmp_path / "run", {f"camma/{op}": 0.5 + op / 3000 for op in range(1000)})
    results = json.loads((folder / "results.json").read_text())
    results["scores"] += [{**results["scores"][0], "name": f"measure {k}"} for k in range(9)]
    (folder / "results.json").write_text(json.dumps(results))
    write_classes(folder, 120)
    row = {"loss": 1.0, "lr": 1e-4, "comp": 0.3}
    lines = (json.dumps({"step": k, **row, "loss": 1 + (k % 7) / 90}) for k in range(1, 20001))
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    page = write_page([read_run(folder)], tmp_path / "page.html", pictures=[Frames(160, 256)])
    text = page.read_text()
    assert page.stat().st_size < LIMIT == 5_000_000
    assert text.count("<img") == 160
    assert re.search(r"160 of 160 pictures are drawn smaller .* below 5 MB", text)


def test_pictures_over_the_budget_are_made_smaller_and_the_page_says_so():
    uris = [picture(image).uri for image in Frames(3, 96).images]
    text = "".join(f'<img src="{uri}">' for uri in uris) + "<!-- size -->"
    assert shrink(text, len(text)) == text
    smaller = shrink(text, len(text) - 2000)
    assert len(smaller) <= len(text) - 1800
    assert smaller.count("<img") == 3
    assert re.search("[12] of 3 pictures are drawn smaller", smaller)
    assert any(uri in smaller for uri in uris), "no more than needed"
    assert "MB all the same" in shrink(text, 10)
