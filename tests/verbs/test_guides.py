"""Guides as their user asks for them: what is known of each frame, a run with them, bad input in one line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from surgdino.cli.main import main
from surgdino.datasets.card import load_card
from surgdino.datasets.open import open_dataset
from surgdino.datasets.synthetic.cholect50 import write_cholect50
from surgdino.errors import SurgdinoError
from surgdino.frames.store import FrameStore, StoreSettings, build_store
from surgdino.inputs.datasets import RunDataset
from surgdino.inputs.facts import facts_of


@pytest.fixture(scope="module")
def triplets(tmp_path_factory) -> tuple[FrameStore, RunDataset]:
    """Three operations whose pictures have gaps in their numbers, the first of which is not 0."""
    root = tmp_path_factory.mktemp("cholect50")
    write_cholect50(root, videos=(1, 2, 4), frames=24, size=(96, 64), sparse=True)
    for first in sorted(root.glob("videos/VID01/*"))[:3]:
        first.unlink()
    card = load_card("cholect50")
    settings = StoreSettings.of(fps=1.0, short_side=32)
    manifest = open_dataset(card, root)
    store = build_store(manifest, tmp_path_factory.mktemp("store"), settings, workers=1, progress=False)
    return store, RunDataset(card, manifest, frozenset(), "", root, settings)


def table(folder: Path, text: str) -> Path:
    file = folder / "known.csv"
    file.write_text(text)
    return file


def test_the_time_in_the_operation_counts_from_frame_0_whatever_is_missing(triplets):
    store, dataset = triplets
    known = facts_of({"time", "operation", "video", "seconds"}, store, [dataset])
    for place in range(len(store.videos)):
        frames, numbers, times = store.of_video(place)
        last = int(store.videos[place].shard.columns["number"][-1])
        np.testing.assert_allclose(known["time"][frames], numbers / last, atol=1e-6)
        np.testing.assert_allclose(known["seconds"][frames], times)
        assert set(known["video"][frames]) == set(known["operation"][frames]) == {place}
    assert store.of_video(0)[1][0] > 0, "the first pictures are missing"


def test_without_a_table_the_card_is_asked(triplets):
    store, dataset = triplets
    card = replace(dataset.card, columns={"tower": {"b": (4,), "a": ("VID01",)}})
    known = facts_of({"column:tower"}, store, [replace(dataset, card=card)])["column:tower"]
    assert [set(known[store.of_video(place)[0]]) for place in range(3)] == [{0}, {-1}, {1}]


def test_excerpts_tell_no_time_but_their_order(triplets):
    store, dataset = triplets
    known = facts_of({"time", "seconds"}, store, [replace(dataset, recordings="excerpts")])
    assert np.isnan(known["time"]).all()
    assert np.isfinite(known["seconds"]).all()


@pytest.mark.parametrize(
    "text", ["video,hospital\nVID01,B\nVID04,A\n", "hospital; operation\n B; {0}\nA;4\n;VID02\nC;elsewhere\n"]
)
def test_a_column_is_read_by_video_or_operation(triplets, tmp_path, text):
    store, dataset = triplets
    known = facts_of({"column:hospital"}, store, [dataset], table(tmp_path, text.format(store.videos[0].operation)))[
        "column:hospital"
    ]
    assert [set(known[store.of_video(place)[0]]) for place in range(3)] == [{1}, {-1}, {0}]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "needs a table.*data.table"),
        ("video,tower\nVID01,A\n", "no column 'hospital'"),
        ("name,hospital\nVID01,A\n", "not a table of videos.*column video or operation"),
        ("video,hospital\nVID99,A\nVID98,B\n", "no row of the table is of a video of this run.*VID99"),
        ("video,hospital\nVID01,A\n{0},B\n", "row 3: two rows say different things"),
        ("", "not a table of videos"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_line(triplets, tmp_path, text, said):
    store, dataset = triplets
    file = None if text is None else table(tmp_path, text.format(store.videos[0].operation))
    with pytest.raises(SurgdinoError, match=said) as caught:
        facts_of({"column:hospital"}, store, [dataset], file)
    assert "\n" not in caught.value.line()


@pytest.mark.slow
def test_a_run_with_guides_logs_them_and_continues(synthetic_cholec80, tmp_path, capsys):
    run = tmp_path / "run"
    names = table(tmp_path, "video,hospital\nvideo01,A\nvideo02,A\nvideo03,B\n")
    words = ["pretrain", "recipe=demo", f"data.root={synthetic_cholec80}", f"data.store={tmp_path / 'store'}"]
    words += [f"run.dir={run}", f"data.table={names}", "guide=[time,order,operation,centre,column:hospital]"]
    words += ["guide.time.bins=10", "guide.column_hospital.weight=0.05", "train.batch_size=8", "data.fps=2"]
    words += ["crops.local_count=2", "method.head_hidden=64", "hardware.loader_workers=0", "probe.every=0"]
    assert main([*words, "train.steps=3"]) == 0
    assert main([*words, "train.steps=4"]) == 0, "resumed"
    said = capsys.readouterr().out
    assert "guide time error" in said
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    for figure in ("time_error", "order_accuracy", "operation_accuracy", "column_hospital_accuracy"):
        assert 0 <= last[f"guide_{figure}"] <= 100
    assert json.loads((run / "checkpoint" / "model.json").read_text())["guide"]["time"]["bins"] == 10
    assert main([*words, "train.steps=4", "guide.time.weight=0.5"]) == 2
    assert "guide.time.weight was 0.1, is 0.5" in " ".join(capsys.readouterr().err.split())


@pytest.mark.quick("there is no")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["guide=time", "data.recordings=excerpts"], "guide=time has nothing to learn from"),
        (
            ["guide=operation", "data.exclude=[video02,video03,video04]", "train.batch_size=4"],
            "two values of operation",
        ),
        (["guide=column:hospital"], "guide=column:hospital needs a table"),
        (["guide=[tiem]"], "there is no guide=tiem. Did you mean 'time'?"),
        (["guide=time", "guide.time.weight=2"], "guide.time.weight cannot be used"),
    ],
)
def test_bad_input_is_one_line(synthetic_cholec80, tmp_path, capsys, words, said):
    start = ["pretrain", "recipe=demo", f"data.root={synthetic_cholec80}", f"data.store={tmp_path / 'store'}"]
    more = [
        "probe.every=0",
        "data.fps=1",
        "crops.local_count=2",
        "hardware.loader_workers=0",
        f"run.dir={tmp_path / 'r'}",
    ]
    assert main([*start, *more, "train.batch_size=8", *words]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
