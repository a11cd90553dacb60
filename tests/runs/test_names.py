"""Own operations leave a run as pseudonyms, come back by name on this machine, and are known to the leak guard."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from surgdino.datasets.card import load_card
from surgdino.datasets.manifest import Manifest, Video
from surgdino.datasets.open import open_dataset
from surgdino.runs.history import History, Seen
from surgdino.runs.leaks import find_leaks
from surgdino.runs.names import PSEUDONYM, TABLE, Pseudonyms, real_config

OWN = load_card("folder")
CONFIG = {
    "data": {
        "root": "/srv/klinik/d",
        "store": "",
        "split": {"train": ["Mueller", "test"], "test": "every 5th"},
        "exclude": ["d/Schmidt"],
        "part": "test",
        "also": [{"dataset": "cholec80", "root": "/srv/cholec80", "exclude": ["camma/1"]}],
    },
    "probe": {"hold_out": ["Schmidt"], "root": None},
    "run": {"dir": "runs/a", "names": "pseudonyms"},
    "checkpoint": "/home/anna/run",
    "train": {"lr": 0.1},
}


def manifest_of(root: Path, *names: str, content: str = "") -> Manifest:
    root.mkdir(exist_ok=True)
    for name in names:
        (root / f"{name}.mp4").write_text(content or name)
    return Manifest("folder", root, tuple(Video(n, f"{root.name}/{n}", root / f"{n}.mp4") for n in names))


@pytest.fixture
def manifest(tmp_path) -> Manifest:
    return manifest_of(tmp_path / "d", "Mueller", "Schmidt", "test")


def names_of(store: Path, manifest: Manifest, mode: str = "pseudonyms") -> Pseudonyms:
    names = Pseudonyms.open(mode, store)
    names.add(OWN, manifest)
    return names


def test_one_store_gives_one_pseudonym_and_the_table_is_beside_the_frames(manifest, tmp_path):
    first, again, other = (names_of(tmp_path / store, manifest) for store in ("s", "s", "t"))
    assert PSEUDONYM.fullmatch(first.hide("d/Mueller"))
    assert first.hide("d/Mueller") == again.hide("d/Mueller") != other.hide("d/Mueller")
    table = json.loads((tmp_path / "s" / TABLE).read_text())
    assert table["names"][first.hide("d/Mueller")] == "d/Mueller"


def test_public_ids_stay(tmp_path):
    names = Pseudonyms.open("pseudonyms", tmp_path)
    names.add(load_card("cholec80"), Manifest("cholec80", tmp_path, (Video("video01", "camma/1", tmp_path / "v.mp4"),)))
    assert names.named({"video01": "camma/1"}) == {"video01": "camma/1"}


def test_only_names_are_replaced_though_a_video_is_called_test(manifest, tmp_path):
    names = names_of(tmp_path, manifest)
    found = names.hide({"part": "test", "per_operation": {"d/test": 1.0}, "file": "/srv/x/y.mp4"})
    assert found["part"] == "test"
    assert found["file"] == "<path>"
    assert list(found["per_operation"]) == [names.named("test")]


@pytest.mark.parametrize("folder", ["{root}", "/srv/OR 3"])
def test_a_reason_names_no_recording(manifest, tmp_path, folder):
    names = names_of(tmp_path, manifest)
    file = f"{folder.format(root=manifest.root)}/Mueller.mp4"
    said = names.sentence(f"{file}, packet 3: damaged; see Mueller and d/Schmidt")
    assert "Mueller" not in said
    assert "Schmidt" not in said
    assert "damaged" in said


def test_settings_lose_paths_and_names_and_get_them_back_here(manifest, tmp_path):
    store, run = tmp_path / "s", tmp_path / "run"
    names, local = names_of(store, manifest), dict[str, str]()
    config = {**CONFIG, "data": {**CONFIG["data"], "store": str(store)}}
    recorded = names.config(config, local)
    text = json.dumps(recorded)
    assert not any(word in text for word in ("Mueller", "Schmidt", "/srv", "anna", str(tmp_path)))
    assert recorded["data"]["part"] == "test"
    assert recorded["data"]["split"]["test"] == "every 5th"
    assert recorded["data"]["also"][0]["exclude"] == ["camma/1"]
    names.write_local(run, ["surgdino", "pretrain"], local)
    back = real_config(recorded, run)
    assert back["data"]["root"] == "/srv/klinik/d"
    assert back["run"]["dir"] == str(Path.cwd() / "runs/a"), "whatever folder it is read from"
    assert back["data"]["split"]["train"] == ["d/Mueller", "d/test"]
    assert back["data"]["exclude"] == ["d/Schmidt"]
    assert back["checkpoint"] == "/home/anna/run"
    elsewhere = real_config(recorded, tmp_path / "other")
    assert "store" not in elsewhere["data"]
    assert "checkpoint" not in elsewhere


def test_a_command_loses_them_too(manifest, tmp_path):
    names = names_of(tmp_path, manifest)
    words = ["/home/anna/.venv/bin/surgdino", "pretrain", "data.root=/srv/d", "data.split={train: [Mueller]}", "a=1"]
    said = names.command(words)
    assert names.command(["like=dataset:cholec80", "against=our/tests", "duplicates.against=0.9"]) == (
        "like=dataset:cholec80 against=<against> duplicates.against=0.9"
    )
    assert said.startswith("surgdino pretrain data.root=<data.root>")
    assert said.endswith("a=1")
    assert "Mueller" not in said


def test_plain_names_stay_as_they_are(manifest, tmp_path):
    names = names_of(tmp_path / "s", manifest, "plain")
    assert names.config(CONFIG, {}) == CONFIG
    assert names.hide("d/Mueller") == "d/Mueller"
    assert not (tmp_path / "s").exists()


def seen(*operations: str) -> History:
    return History((Seen("pretrain", "trained on", "folder", None, None, operations),))


@pytest.mark.parametrize("mode", ["pseudonyms", "plain"])
@pytest.mark.parametrize("trained", ["pseudonyms", "plain"])
def test_the_guard_knows_an_operation_by_pseudonym_and_by_name(manifest, tmp_path, mode, trained):
    hidden = names_of(tmp_path / "s", manifest)
    names, operation = names_of(tmp_path / "s", manifest, mode), "d/Mueller"
    called = hidden.hide(operation) if trained == "pseudonyms" else operation
    report = find_leaks(seen(called), manifest, "folder test", names)
    assert [overlap.operation for overlap in report.overlaps] == [operation]
    assert report.state == "shared"


@pytest.mark.parametrize("mode", ["pseudonyms", "plain"])
def test_what_earlier_versions_called_an_operation_is_known(manifest, tmp_path, mode):
    """They named it after its folder; its pseudonym stays, and so does what a checkpoint has seen."""
    old, root = names_of(tmp_path / "s", manifest), manifest.root
    now = open_dataset(OWN, root)
    operation = next(each for each in now.operations if "Mueller" in each)
    assert operation != "d/Mueller"
    names = names_of(tmp_path / "s", now, mode)
    for before in ("d/Mueller", old.hide("d/Mueller")):
        assert [each.operation for each in find_leaks(seen(before), now, "folder test", names).overlaps] == [operation]
    if mode == "pseudonyms":
        assert names.hide(operation) == names.hide("d/Mueller") == names.named("Mueller") == old.hide("d/Mueller")
    assert not find_leaks(seen("d/Maier", "e/Mueller"), now, "folder test", names).overlaps


def test_a_pseudonym_does_not_change_with_the_folders_name(manifest, tmp_path):
    first = names_of(tmp_path / "s", open_dataset(OWN, manifest.root))
    pseudonym = first.named("Mueller")
    manifest.root.rename(tmp_path / "elsewhere")
    again = names_of(tmp_path / "s", open_dataset(OWN, tmp_path / "elsewhere"))
    assert PSEUDONYM.fullmatch(pseudonym)
    assert again.named("Mueller") == pseudonym


def test_what_another_key_hides_is_never_said_to_be_unseen(manifest, tmp_path):
    before, names = names_of(tmp_path / "s", manifest), names_of(tmp_path / "t", manifest)
    report = find_leaks(seen(before.hide("d/Mueller")), manifest, "folder test", names, {})
    assert (report.overlaps, report.state) == ((), "unknown")
    assert "can only be told by their names" in report.stamp


def test_the_order_of_pseudonyms_tells_nothing_of_the_names(tmp_path):
    videos = tuple(Video(f"OP{n}", f"own/OP{n}~1234567{n}", tmp_path / f"OP{n}.mp4") for n in range(8))
    names = Pseudonyms.open("pseudonyms", tmp_path / "store")
    names.add(load_card("folder"), Manifest("folder", tmp_path, videos))
    facts = {
        "operations": [video.operation for video in videos],
        "per": {v.operation: 1.0 for v in videos},
        "x": ["b", "a"],
    }
    hidden = names.hide(facts)
    assert hidden["operations"] == sorted(hidden["operations"]) == list(hidden["per"])
    assert names.hide(hidden["operations"][::-1]) == hidden["operations"], "those of an earlier checkpoint too"
    assert hidden["x"] == ["b", "a"]
