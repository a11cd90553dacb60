"""One pretraining on several datasets: their frames in one store, their operations counted once, none slipping in."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from surgdino.cli.main import main
from surgdino.config import shipped
from surgdino.datasets.card import load_card
from surgdino.datasets.synthetic.cholec80 import write_cholec80
from surgdino.datasets.synthetic.cholect50 import write_cholect50
from surgdino.errors import SurgdinoError
from surgdino.inputs.datasets import (
    RunDataset,
    data_hash,
    joined_store,
    licence_note,
    no_test_after,
    open_datasets,
    overlap_warnings,
    summaries,
    without,
)
from surgdino.inputs.settings import DataSettings

# Of these 1, 2 and 4 are in both; 3 is Cholec80's alone and 43 is CholecT50's alone.
BOTH = ["camma/1", "camma/2", "camma/4"]


@pytest.fixture(scope="module")
def cholect50(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("cholect50")
    write_cholect50(root, videos=(1, 2, 4, 43), frames=8, public_ids=True)
    return root


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def opened(synthetic_cholec80, cholect50, stored):
    """Sources with `data` changed as given, and one further dataset with its entry changed as given."""

    def build(
        entry: dict | None = None, more: tuple[dict, ...] = (), **changes
    ) -> tuple[list[RunDataset], DataSettings]:
        also = [{"dataset": "cholect50", "root": str(cholect50), **(entry or {})}, *more]
        section = {"root": str(synthetic_cholec80), "store": str(stored), "short_side": 64, "workers": 1}
        data = shipped(DataSettings, "data", **{**section, "also": also, **changes})
        return open_datasets(load_card("cholec80"), data), data

    return build


def operations(sources: list[RunDataset]) -> list[list[str]]:
    return [list(source.manifest.operations) for source in sources]


def test_all_frames_are_in_one_store_under_ids_that_nobody_shares(opened):
    sources, data = opened({"fps": 0.5})
    store = joined_store(sources, data, progress=False)
    ids = [video.id for video in store.videos]
    assert ids == ["video01", "video02", "video03", "video04", *(f"cholect50/VID{n:02d}" for n in (1, 2, 4, 43))]
    assert [store.operation(i) for i in (0, len(store) - 1)] == ["camma/1", "camma/43"]
    assert store.read(len(store) - 1).dtype == np.uint8
    rows = summaries(sources, store)
    assert [(row["name"], row["fps"], row["operations"]) for row in rows] == [
        ("cholec80", 1.0, ["camma/1", "camma/2", "camma/3", "camma/4"]),
        ("cholect50", 0.5, ["camma/1", "camma/2", "camma/4", "camma/43"]),
    ]
    assert sum(row["frames"] for row in rows) == len(store)
    assert all(row["licence"] == "CC BY-NC-SA 4.0" for row in rows)
    assert licence_note(sources) == "cholec80: CC BY-NC-SA 4.0; cholect50: CC BY-NC-SA 4.0"


@pytest.mark.parametrize(
    "exclude",
    [
        {"exclude": ["camma/2"]},
        {"exclude": ["video02"]},
        {"exclude": ["VID02"]},
        {"entry": {"exclude": ["VID02"]}},
        {"entry": {"exclude": ["camma/2"]}},
    ],
    ids=["operation", "its video", "its video in the other dataset", "entry: its video", "entry: operation"],
)
def test_an_operation_excluded_by_any_name_is_excluded_from_all(opened, exclude):
    sources, _ = opened(**exclude)
    assert operations(sources) == [["camma/1", "camma/3", "camma/4"], ["camma/1", "camma/4", "camma/43"]]


def test_a_test_set_is_left_out_of_all(opened):
    sources, _ = opened(exclude=["test-of:cholect50/fold1"])
    tested = {f"camma/{n}" for n in load_card("cholect50").splits["fold1"]["test"]}
    assert "camma/2" in tested
    assert not tested & {operation for part in operations(sources) for operation in part}


def test_operations_held_out_later_leave_all_datasets(opened):
    sources, _ = opened()
    assert operations(without(sources, {"camma/1", "camma/43"})) == [
        ["camma/2", "camma/3", "camma/4"],
        ["camma/2", "camma/4"],
    ]


def test_what_two_datasets_share_is_told_in_a_line(opened):
    sources, _ = opened()
    [line] = overlap_warnings(sources)
    assert line == "3 operations are in more than one dataset and count once: " + ", ".join(BOTH)


def test_test_operations_that_come_in_through_the_other_dataset_are_told(opened):
    sources, _ = opened(split="40-40", part="train")
    assert any("split of cholec80 keeps" in line and "camma/43" in line for line in overlap_warnings(sources))
    inline, _ = opened(split={"train": [1, 3], "test": [2, 4]}, part="train")
    assert operations(inline)[0] == ["camma/1", "camma/3"]
    assert any(
        "2 operations that the split" in line and "camma/2, camma/4" in line for line in overlap_warnings(inline)
    )
    kept, _ = opened({"exclude": ["VID02", "VID04"]}, split={"train": [1, 3], "test": [2, 4]}, part="train")
    assert not any("comes in" in line or "come in" in line for line in overlap_warnings(kept))


def test_what_can_be_tested_no_more_is_said(opened, tmp_path):
    sources, _ = opened()
    line = next(no_test_after(sources, {each for of in operations(sources) for each in of}))
    assert line.startswith("no test any more on cholec80 (40-40, 32-8-40); cholect45 (")
    assert "challenge" not in line, "none of its operations was seen"
    kept, _ = opened({"exclude": ["camma/43"]})
    assert "cholec80" not in "".join(no_test_after(kept, {each for of in operations(kept) for each in of}))
    assert "cholec80 (40-40" in "".join(no_test_after(kept, {"camma/43"})), "what chooses the state is no test either"
    for name in "abcdef":
        (tmp_path / f"{name}.mp4").write_text(name)
    for words, said in (({}, "these 6 operations of your own"), ({"split": "fifth", "part": "train"}, "")):
        own = open_datasets(load_card("folder"), shipped(DataSettings, "data", root=str(tmp_path), **words))
        lines = list(no_test_after(own, own[0].manifest.operations))
        assert len(lines) == bool(said)
        assert said in "".join(lines)


def test_the_data_hash_covers_every_dataset_and_its_density(opened, synthetic_cholec80):
    alone, _ = opened(also=[])
    assert data_hash(alone) == alone[0].manifest.fingerprint()
    hashes = {data_hash(opened(entry)[0]) for entry in ({}, {"fps": 0.5}, {"exclude": ["VID43"]})}
    assert len({*hashes, data_hash(alone)}) == 4


def test_a_second_folder_of_the_same_dataset_has_its_own_shards(opened, tmp_path, stored):
    write_cholec80(tmp_path, videos=2, seconds=6, size=(120, 80), seed=5, public_ids=True)
    more = ({"dataset": "cholec80", "root": str(tmp_path)},)
    sources, data = opened(more=more)
    joined_store(sources, data, progress=False)
    store = joined_store(sources, data, progress=False)
    assert [video.id for video in store.videos][-2:] == ["cholec80-2/video01", "cholec80-2/video02"]
    first, second = (store.videos[place].shard.path for place in (0, -2))
    assert first.name == second.name
    assert first != second
    assert store.read(0).shape != store.read(len(store) - 1).shape


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"exclude": ["VID99"]}, "VID99"),
        ({"entry": {"exclude": ["video03"]}}, "video03"),
        ({"entry": {"dataset": "cholect51"}}, "cholect50"),
        ({"entry": {"part": "train"}}, "split beside it"),
        ({"entry": {"fps": 0}}, "at least 0.0001"),
        ({"entry": {"fpss": 1}}, r"data.also\[0\].fps"),
        ({"entry": {"organ": "liver"}}, "organ"),
        ({"entry": {"exclude": ["VID01", "VID02", "VID04", "VID43"]}}, "no videos to work on"),
        ({"more": ({"dataset": "cholect50", "root": "SAME"},)}, "name this folder 2 times"),
    ],
)
def test_a_wrong_entry_is_one_line(opened, cholect50, changes, said):
    for entry in changes.get("more", ()):
        entry["root"] = str(cholect50)
    with pytest.raises(SurgdinoError, match=said) as caught:
        opened(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_pretraining_on_two_datasets_from_the_command_line(synthetic_cholec80, cholect50, tmp_path, capsys):
    def pretrain(root: Path, *more: str) -> int:
        also = f"data.also=[{{dataset:cholect50,root:{root},exclude:[VID02]}}]"
        words = ["pretrain", "recipe=demo", f"data.root={synthetic_cholec80}", f"data.store={tmp_path / 'store'}", also]
        small = ["train.steps=2", "train.batch_size=8", "crops.local_count=2", "method.head_hidden=64"]
        return main(
            [*words, *small, f"run.dir={tmp_path / 'run'}", "hardware.loader_workers=0", "probe.every=0", *more]
        )

    assert pretrain(cholect50) == 0
    assert "2 operations are in more than one dataset and count once: camma/1, camma/4" in capsys.readouterr().out
    info = json.loads((tmp_path / "run" / "checkpoint" / "model.json").read_text())
    assert info["operations"] == ["camma/1", "camma/3", "camma/4", "camma/43"]
    assert [row["name"] for row in info["datasets"]] == ["cholec80", "cholect50"]
    assert info["dataset_licence"].count("CC BY-NC-SA 4.0") == 2

    moved = tmp_path / "moved"
    moved.symlink_to(cholect50)
    assert pretrain(moved) == 0
    assert "This run is finished" in capsys.readouterr().out
    assert pretrain(cholect50, "data.also=[]") == 2
    assert "data.also" in capsys.readouterr().err
