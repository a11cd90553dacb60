"""The report: one file, nothing fetched, the verdict that the numbers allow, and no patient frame unasked."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from surgdino.errors import SurgdinoError
from surgdino.report.blocks import Table
from surgdino.report.evidence import changes
from surgdino.report.page import write_page
from surgdino.report.record import RunRecord, read_run
from surgdino.report.sections.seen import Seen
from surgdino.report.verdict import of_pretraining, verdict_of

OPERATIONS = ("camma/1", "camma/2", "camma/3", "camma/4", "camma/5", "camma/6")
SECTIONS = ["before-after", "curves", "data", "seen", "settings"]


def write_run(
    folder: Path,
    *,
    gain: float = 0.1,
    spread: float = 0.01,
    seen=("camma/68", "camma/1"),
    probes=True,
    operations=OPERATIONS,
    fallen: float | None = None,
) -> Path:
    """A pretraining run folder whose probes rose by `gain`, differently by `spread` from operation to operation."""
    (folder / "checkpoint").mkdir(parents=True)
    rows = [
        {
            "step": step,
            "loss": -2 - step / 10,
            "comp": 0.4,
            "lr": 1e-4,
            "effective_rank": 30 + step,
            "gradient_norm": 1.0,
        }
        | {"images_per_second": 10.0, "data_wait": 0.01, "memory_mb": 900}
        for step in (1, 5, 10)
    ]
    for step in (0, 10) if probes else ():
        values = {op: 0.5 + (gain + spread * k) * step / 10 for k, op in enumerate(operations)}
        mean = sum(values.values()) / len(values)
        measured = {"score": mean, "phase_linear_balanced_accuracy": mean, "effective_rank": 30.0 + step}
        per_operation = {"phase_linear_balanced_accuracy": values}
        if fallen is not None:
            per_operation["tool_linear_ap"] = {
                op: 0.5 - (fallen + 0.001 * k) * step / 10 for k, op in enumerate(values)
            }
            measured["tool_linear_ap"] = sum(per_operation["tool_linear_ap"].values()) / len(values)
        rows.append(
            {"step": step, **{f"probe_{k}": v for k, v in measured.items()}, "probe_per_operation": per_operation}
        )
    rows.append({"step": 10, "warning": "the loop waits for data: 50 % of the time"})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {"train": {"batch_size": 16, "seed": 0, "lr": gain}, "dataset": {"name": "cholec80"}, "data": {"fps": 1.0}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    environment = {"surgdino": "0.1.0", "command": "surgdino pretrain <b>&</b>", "packages": {"torch": "2.13"}}
    (folder / "environment.json").write_text(json.dumps(environment))
    model = {"name": "vit_toy", "operations": list(seen), "steps": 10, "method": {"name": "simdinov2"}}
    (folder / "checkpoint" / "model.json").write_text(json.dumps(model))
    video = {
        "id": "video01",
        "operation": "camma/1",
        "frames": 90,
        "left_out": {"black": 3},
        "kind": "disc",
        "share": 0.9,
    }
    data = {"videos": [video], "left_out": {"black": 3}, "set_aside": {"video02": "video02.mp4: is empty"}}
    (folder / "data.json").write_text(json.dumps(data))
    return folder


def write_results(folder: Path, values: dict[str, float], *, leak: str | None = None) -> Path:
    """A fine-tuned run folder with those accuracies."""
    write_run(folder, probes=False)
    row = {
        "name": "accuracy",
        "protocol": "phase/script",
        "value": sum(values.values()) / len(values),
        "unit": "fraction",
    }
    row |= {"std_over_operations": 0.02, "interval_95": [0.6, 0.8], "operations": len(values), "per_operation": values}
    results = {
        "task": "phase",
        "headline": {"name": "accuracy", "protocol": "phase/script"},
        "scores": [row],
        "notes": [],
    }
    (folder / "results.json").write_text(json.dumps(results | {"leakage": {"stamp": leak}}))
    return folder


class Page(HTMLParser):
    """What the page holds: ids of its sections, everything it would fetch, its tags."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.fetched: list[str] = []
        self.tags: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        given = dict(attrs)
        if tag == "section":
            self.ids.append(given["id"])
        if tag != "a":
            self.fetched += [
                v for k, v in given.items() if k in ("src", "href", "xlink:href") and not v.startswith("#")
            ]


def test_the_page_has_its_sections_and_fetches_nothing(tmp_path):
    page = Page(write_page([read_run(write_run(tmp_path / "run"))], tmp_path / "report.html"))
    assert page.ids == SECTIONS
    assert not page.fetched
    assert not page.tags & {"script", "link", "iframe", "img"}
    assert not re.search(r"url\((?!#)", (tmp_path / "report.html").read_text()), "a style that fetches"


def test_what_comes_from_outside_is_escaped(tmp_path):
    write_page([read_run(write_run(tmp_path / "run"))], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "surgdino pretrain &lt;b&gt;&amp;&lt;/b&gt;" in text
    assert "<b>" not in text


@pytest.mark.slow
def test_the_same_run_gives_the_same_bytes(tmp_path):
    record = read_run(write_run(tmp_path / "run"))
    first, second = (write_page([record], tmp_path / f"{k}.html").read_bytes() for k in "ab")
    assert first == second


@pytest.mark.parametrize(
    ("gain", "spread", "tone"), [(0.1, 0.01, "better"), (-0.1, 0.01, "worse"), (-0.05, 0.02, "open")]
)
def test_the_verdict_is_what_the_interval_over_operations_allows(tmp_path, gain, spread, tone):
    verdict = of_pretraining(read_run(write_run(tmp_path / "run", gain=gain, spread=spread)).rows)
    assert verdict.tone == tone
    if tone == "better":
        assert "50.0 % to 62.5 % (+12.5 points, 95 % interval" in verdict.sentence
        assert "of 6 operations 6 better, 0 worse" in verdict.sentence


@pytest.mark.parametrize("count", [1, 2, 5])
def test_below_six_operations_every_value_stands_and_no_word_says_better(tmp_path, count):
    verdict = of_pretraining(read_run(write_run(tmp_path / "run", gain=0.3, operations=OPERATIONS[:count])).rows)
    assert verdict.tone == "open"
    assert not re.search("better|worse|interval", verdict.sentence)
    for place, operation in enumerate(OPERATIONS[:count]):
        assert f"{operation} +{30 + place}.0" in verdict.sentence


def test_a_fall_of_another_measure_stands_in_the_verdict_with_the_same_weight(tmp_path):
    verdict = of_pretraining(read_run(write_run(tmp_path / "run", fallen=0.08)).rows)
    assert verdict.tone != "better"
    lost = [sentence for tone, sentence in verdict.lines if tone == "worse"]
    assert len(lost) == 1
    assert "50.0 % to 41.8 % (-8.3 points, 95 % interval" in lost[0]


def test_a_fall_that_chooses_nothing_is_a_loss_all_the_same(tmp_path):
    folder = write_run(tmp_path / "run", gain=0.1)
    text = (folder / "metrics.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    for row in rows:
        if each := row.get("probe_per_operation"):
            values = {op: 0.6 - row["step"] / 100 - k / 1000 for k, op in enumerate(OPERATIONS)}
            each["phase_knn_balanced_accuracy"] = values
            row["probe_phase_knn_balanced_accuracy"] = sum(values.values()) / len(values)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    verdict = of_pretraining(read_run(folder).rows)
    assert verdict.tone == "open"
    assert any(tone == "worse" and "k-NN" in sentence for tone, sentence in verdict.lines)


def test_the_score_of_an_operation_is_the_mean_of_the_labels_it_has():
    def probe(step, phase, tools):
        score = (sum(phase.values()) / len(phase) + sum(tools.values()) / len(tools)) / 2
        values = {"probe_phase_linear_balanced_accuracy": 0.0, "probe_tool_linear_ap": 0.0, "probe_score": score}
        each = {"phase_linear_balanced_accuracy": phase, "tool_linear_ap": tools}
        return {"step": step, **values, "probe_per_operation": each}

    phase = dict.fromkeys(OPERATIONS, 0.5)
    rows = [probe(0, phase, {"camma/1": 0.7}), probe(9, {op: v + 0.1 for op, v in phase.items()}, {"camma/1": 0.9})]
    score = next(change for change in changes(rows) if change.name == "score")
    assert score.difference.n == len(OPERATIONS), "not only the one that has every label"
    assert score.by_operation["camma/1"] == pytest.approx(0.15)
    assert score.after - score.before == pytest.approx(score.difference.value), "the ends are of the same operations"


@pytest.mark.parametrize(
    ("state", "tone"),
    [("shared", "shared"), ("unknown", "unknown"), (None, "shared")],
    ids=["shared", "unknown", "old"],
)
def test_the_stamp_has_the_colour_of_what_is_known(tmp_path, state, tone):
    run = write_results(tmp_path / "run", {"camma/1": 0.7}, leak="Nobody knows")
    results = json.loads((run / "results.json").read_text())
    results["leakage"] |= {"state": state}
    (run / "results.json").write_text(json.dumps(results))
    write_page([read_run(run)], tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert f'class="stamp {tone}">Nobody knows' in text
    assert ("it is not known whether it was trained on" in text) == (state == "unknown")


def test_what_the_initial_weights_knew_of_the_probes_operations_is_stamped(tmp_path):
    run = write_run(tmp_path / "run")
    model = json.loads((run / "checkpoint" / "model.json").read_text())
    model["probe_leakage"] = {"state": "unknown", "stamp": "Nobody knows"}
    (run / "checkpoint" / "model.json").write_text(json.dumps(model))
    write_page([read_run(run)], tmp_path / "page.html")
    assert 'class="stamp unknown">Probes: Nobody knows' in (tmp_path / "page.html").read_text()


def test_without_held_out_operations_nothing_is_claimed(tmp_path):
    verdict = of_pretraining(read_run(write_run(tmp_path / "run", probes=False)).rows)
    assert verdict.tone == "unknown"
    assert "not known" in verdict.sentence


@pytest.mark.slow
def test_both_networks_share_a_chart_and_what_measuring_cost_has_none(tmp_path):
    folder = write_run(tmp_path / "run")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        if "probe_score" in row:
            row |= {"probe_teacher_phase_linear_balanced_accuracy": 0.4, "probe_seconds": 7.0}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = write_page([read_run(folder)], tmp_path / "report.html").read_text()
    charts = [chart for chart in re.findall(r"<svg.*?</svg>", text, re.S) if "balanced accuracy" in chart]
    assert len([chart for chart in charts if ">teacher<" in chart]) == 1
    assert not any("balanced accuracy), teacher" in chart for chart in charts)
    assert ">seconds<" not in text


def leak_table(model: dict, results: dict | None = None) -> tuple[list[str], dict[str, list[str]], Table | None, str]:
    """Heads, rows by their first cell, the table and the sentence of the section."""
    blocks = Seen().of_run(RunRecord(Path("run"), {}, {}, model, [], results=results))
    [table] = [block for block in blocks if isinstance(block, Table)] or [None]
    rows = {row[0]: list(row[1:]) for row in table.rows} if table else {}
    return list(table.heads) if table else [], rows, table, blocks[0].text


def seen_row(dataset: str, *operations: str, how: str = "trained on") -> dict:
    return {"by": "pretrain", "how": how, "dataset": dataset, "split": None, "part": None, "operations": operations}


def test_the_leak_table_counts_what_published_tests_share_with_each_training():
    seen = [seen_row("cholect50", "camma/73"), seen_row("cholect50", "camma/73", how="chosen on")]
    seen.append(seen_row("cholec80", "camma/1"))
    heads, rows, table, _ = leak_table({"operations": ["camma/1", "camma/73"], "seen": seen})
    assert heads[2:] == [
        "cholect50, 1 operation: pretrain, trained on; pretrain, chosen on",
        "cholec80, 1 operation: pretrain, trained on",
    ]
    assert rows["cholect50 rdv"][1:] == ["✗ shared 1 of 10", "✓ disjoint"]  # VID73 is one of RDV's ten test videos
    place = list(rows).index("cholect50 rdv")
    assert table.tones[place, 2] == "worse"
    assert (place, 3) not in table.tones


def test_what_is_not_known_has_a_sign_and_a_word_of_its_own():
    heads, rows, table, _ = leak_table({"operations": ["camma/73"], "history_unknown": ["nobody knows"]})
    assert heads[-1] == "the weights before"
    assert {row[-1] for row in rows.values()} == {"? not known"}
    assert table.tones[0, 3] == "open"
    assert "nobody knows." in table.caption
    _, _, none, text = leak_table({"operations": ["hospital/9"], "seen": [seen_row("folder", "hospital/9")]})
    assert none is None
    assert "No published test set" in text
    assert "Operations of folder have no public names" in text
    _, _, none, text = leak_table({"operations": ["demo/9"], "seen": [seen_row("cholec80", "demo/9")]})
    assert none is None
    assert "public names" not in text
    text = leak_table({"operations": ["m2cai16/3"], "seen": [seen_row("m2cai16", "m2cai16/3")]})[-1]
    assert "more nobody knows whether it has seen" in text, "what m2cai16 shares with Cholec80 is not known"


def test_the_run_s_own_test_comes_first_in_the_leak_table():
    told = {"a/1": ["pretrain, trained on cholec80"], "a/2": ["pretrain, trained on cholec80, told by its frames"]}
    leakage = {"tested_on": 'folder {"test": [1]} test', "tested_operations": 3, "seen_operations": told}
    model = {"operations": ["camma/73"], "seen": [seen_row("cholec80", "camma/73"), seen_row("x", "x/1")]}
    _, rows, table, _ = leak_table(model, {"leakage": leakage})
    name = "this run's test: folder own split test"
    assert next(iter(rows)) == name
    assert rows[name] == ["3", "✗ shared 2 of 3", "✓ disjoint"]
    assert table.strong == {0}


def test_a_leak_is_stamped_on_the_page(tmp_path):
    folder = write_results(tmp_path / "run", {"camma/1": 0.7}, leak="tested on camma/1, which pretraining has seen")
    text = write_page([read_run(folder)], tmp_path / "report.html").read_text()
    assert re.search(r'class="stamp shared">tested on camma/1', text)


def test_results_come_first_with_their_protocol(tmp_path):
    folder = write_results(tmp_path / "run", {"camma/1": 0.7, "camma/2": 0.6})
    path = write_page([read_run(folder)], tmp_path / "report.html")
    assert Page(path).ids[0] == "results"
    assert "Accuracy 65.0 % on 2 operations that no training has seen" in path.read_text()
    assert "2 operations are too few for an interval: camma/1 70.0 %, camma/2 60.0 %." in path.read_text()
    assert "protocol phase/script" in path.read_text()


@pytest.mark.slow
def test_two_runs_stand_side_by_side_with_the_settings_that_differ(tmp_path):
    records = [read_run(write_run(tmp_path / name, gain=gain)) for name, gain in (("one", 0.0), ("two", 0.2))]
    text = write_page(records, tmp_path / "compare.html").read_text()
    assert verdict_of(records).tone == "better"
    assert "two is better" in text
    assert re.search(r"<td[^>]*>train.lr</td><td[^>]*>0.0</td><td[^>]*>0.2</td>", text)


@pytest.mark.slow
def test_on_operations_in_common_both_values_are_of_these(tmp_path):
    first = write_results(tmp_path / "a", {f"camma/{k}": 0.60 + 0.01 * k for k in range(1, 9)})
    second = write_results(tmp_path / "b", {f"camma/{k}": 0.65 + 0.01 * k for k in range(3, 12)})
    write_page([read_run(first), read_run(second)], tmp_path / "page.html")
    text = " ".join(re.sub("<[^>]+>", " ", (tmp_path / "page.html").read_text()).split())
    assert "accuracy, mean of the operations in common 65.5 % 70.5 % +5.0" in text


def test_two_fine_tuned_runs_are_compared_operation_by_operation(tmp_path):
    few = [read_run(write_results(tmp_path / name, {"a": value})) for name, value in (("x", 0.5), ("y", 0.4))]
    assert verdict_of(few).tone == "open"
    assert "By operation: a -10.0" in verdict_of(few).sentence
    first = write_results(tmp_path / "one", {"a": 0.5, "b": 0.9, "c": 0.7, "d": 0.5, "e": 0.9, "f": 0.7})
    second = write_results(tmp_path / "two", {"a": 0.4, "b": 0.8, "c": 0.65, "d": 0.4, "e": 0.8, "f": 0.65})
    verdict = verdict_of([read_run(first), read_run(second)])
    assert verdict.tone == "worse"
    assert "0 better, 6 worse" in verdict.sentence
    text = write_page([read_run(first), read_run(second)], tmp_path / "compare.html").read_text()
    table = re.search(r'id="side-by-side".*?</section>', text, re.S).group()
    assert re.findall(r"<th[^>]*><span>([^<]*)</span></th>", table)[:4] == ["measure", "one", "two", "change"]
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", table)
    assert cells[:4] == ["accuracy", "70.0 %", "61.7 %", "-8.3"]
    assert cells[5] == "6"
    assert 'class="number worse"' in table
    other = write_results(tmp_path / "three", {"x": 0.4})
    assert verdict_of([read_run(first), read_run(other)]).tone == "unknown"


@pytest.mark.parametrize("damage", ["no folder", "no config", "bad yaml"])
def test_what_is_no_run_folder_is_told_in_one_line(tmp_path, damage):
    folder = tmp_path / "run"
    if damage != "no folder":
        write_run(folder)
    if damage == "no config":
        (folder / "config.yaml").unlink()
    if damage == "bad yaml":
        (folder / "config.yaml").write_text("a: [")
    with pytest.raises(SurgdinoError) as caught:
        read_run(folder)
    assert "\n" not in caught.value.line()
    assert str(folder) in caught.value.line()
