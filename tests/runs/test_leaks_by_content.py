"""The leak guard told by frames: another name, folder or encoding does not make an operation a new one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import av
import cv2
import pytest
import torch

from surgdino.backbone.checkpoint import load, read_model_json, save_backbone
from surgdino.backbone.vit import build_backbone
from surgdino.backbone.weights import load_weights
from surgdino.cli.main import main
from surgdino.config import shipped_settings
from surgdino.datasets.card import load_card
from surgdino.datasets.open import open_dataset
from surgdino.datasets.synthetic.cholec80 import write_cholec80
from surgdino.errors import SurgdinoError
from surgdino.frames.store import StoreSettings, build_store
from surgdino.runs.history import History, Seen
from surgdino.runs.leaks import find_leaks
from surgdino.runs.names import Pseudonyms
from tests.tasks.sets import FP32, SMALL

OWN = load_card("folder")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("clinic")
    write_cholec80(root, 3, 16, fps=5, size=(160, 120), annotations=False)
    return root / "videos"


def opened(folder: Path, place: Path):
    """A folder's manifest, frame store, and its names under a key of its own."""
    manifest = open_dataset(OWN, folder)
    names = Pseudonyms.open("pseudonyms", place)
    names.add(OWN, manifest)
    return manifest, build_store(manifest, place, StoreSettings.of(), workers=1, progress=False), names


@pytest.fixture(scope="module")
def checkpoint(recordings, tmp_path_factory) -> Path:
    """A backbone that was trained on the first two recordings, as another house hands it out."""
    manifest, store, names = opened(recordings, tmp_path_factory.mktemp("elsewhere"))
    learned = manifest.operations[:2]
    row = Seen("pretrain", "trained on", "folder", None, None, tuple(learned))
    facts = History().after([row], store.prints_of(learned)).facts()
    folder = tmp_path_factory.mktemp("run") / "checkpoint"
    torch.manual_seed(0)
    return save_backbone(folder, build_backbone(shipped_settings("model", "vit_toy")), names.hide(facts))


def linked(source: Path, place: Path) -> Path:
    (place / "link").symlink_to(source)
    return place / "link"


def renamed(source: Path, place: Path) -> Path:
    for number, video in enumerate(sorted(source.iterdir())):
        (place / "OPs").mkdir(exist_ok=True)
        shutil.copy(video, place / "OPs" / f"patient-{'cab'[number]}.mp4")
    return place / "OPs"


def one_level_up(source: Path, place: Path) -> Path:
    shutil.copytree(source, place / "year" / "2026")
    return place / "year"


def exported(source: Path, place: Path) -> Path:
    for video in source.iterdir():
        folder = place / "frames" / f"export {video.stem[-1]}"
        folder.mkdir(parents=True)
        with av.open(str(video)) as container:
            for number, frame in enumerate(container.decode(video=0)):
                if number % 5 == 0:
                    cv2.imwrite(str(folder / f"{number:05d}.jpg"), frame.to_ndarray(format="bgr24"))
    return place / "frames"


@pytest.mark.parametrize("way", [linked, renamed, one_level_up, exported])
def test_what_was_trained_on_is_found_under_any_name(way, recordings, checkpoint, tmp_path):
    manifest, store, names = opened(way(recordings, tmp_path), tmp_path / "store")
    report = find_leaks(
        History.of(read_model_json(checkpoint)), manifest, "folder test", names, store.prints_of(manifest.operations)
    )
    assert report.state == "shared"
    assert len(report.overlaps) == 2, "the third recording was not trained on"
    assert all(not overlap.copies or overlap.share > 0.6 for overlap in report.overlaps)
    assert "had been seen before (pretrain, trained on folder" in report.stamp
    assert not any("video" in text for texts in report.as_dict(names)["seen_operations"].values() for text in texts)


def test_what_is_written_of_copies_in_the_own_training_part_names_none(recordings, tmp_path):
    manifest, store, names = opened(recordings, tmp_path / "store")
    first, copy = manifest.operations[:2]
    row = Seen("finetune", "trained on", "folder", None, "train", (first,))
    past = History().after([row], store.prints_of([first]))
    report = find_leaks(past, manifest, "folder test", names, {copy: store.prints_of([first])[first]})
    assert f"told by its frames: about 100% are those of {first}" in report.stamp
    written = json.dumps(report.as_dict(names)["stamp"])
    assert names.hide(first) in written
    assert first not in written


def test_other_operations_are_known_to_be_others(checkpoint, tmp_path):
    write_cholec80(tmp_path / "b", 2, 16, fps=5, size=(160, 120), first=7, annotations=False)
    manifest, store, names = opened(tmp_path / "b" / "videos", tmp_path / "store")
    past = History.of(read_model_json(checkpoint))
    report = find_leaks(past, manifest, "folder test", names, store.prints_of(manifest.operations))
    assert (report.state, report.stamp, report.overlaps) == ("disjoint", None, ())


def test_the_same_weights_without_their_history_are_never_certified(checkpoint, recordings, tmp_path):
    torch.save(load(checkpoint).backbone.vit.state_dict(), tmp_path / "weights.pth")
    past = load_weights(build_backbone(shipped_settings("model", "vit_toy")), tmp_path / "weights.pth").past
    manifest, store, names = opened(recordings, tmp_path / "store")
    report = find_leaks(History.of(past), manifest, "here", names, store.prints_of(manifest.operations))
    assert report.state == "unknown"
    assert report.stamp.startswith("Whether the tested operations had been seen before is not known: nobody knows what")
    assert History.of(past).after([], {}).facts()["history_unknown"], "and what is trained from them says so too"


def test_prints_travel_in_the_weights_and_stay_out_of_the_text(checkpoint):
    assert "prints" not in json.loads((checkpoint / "model.json").read_text())
    prints = read_model_json(checkpoint)["prints"]
    assert len(prints) == 2
    assert all(name.startswith("op-") for name in prints)
    assert all(each.bits.shape[1:] == (2, 32) for each in prints.values())
    again = load_weights(build_backbone(shipped_settings("model", "vit_toy")), checkpoint).past["prints"]
    assert {name: each.bits.tobytes() for name, each in again.items()} == {
        name: each.bits.tobytes() for name, each in prints.items()
    }


def test_damaged_prints_are_one_line(checkpoint, tmp_path):
    weights = (checkpoint / "backbone.safetensors").read_bytes()
    start = weights.index(b'"bits') if b'"bits' in weights else weights.index(b"bits")
    broken = tmp_path / "backbone.safetensors"
    quote = weights.index(b": ", start) + 4
    broken.write_bytes(weights[:quote] + b"!!!!" + weights[quote + 4 :])
    with pytest.raises(SurgdinoError, match="prints cannot be used") as fault:
        read_model_json(broken)
    assert "\n" not in fault.value.line()


@pytest.mark.slow
def test_finetune_refuses_copies_in_the_checkpoint_and_across_its_own_parts(tmp_path, capsys):
    root = tmp_path / "own"
    write_cholec80(root, 3, 16, fps=5, size=(160, 120))
    for path in root.rglob("*03*"):
        shutil.copy(path, path.with_name(path.name.replace("03", "04")))
    words = ["finetune", "task=phase", "task.temporal=none", "dataset=cholec80", f"data.root={root}", *SMALL, *FP32]
    words += [f"data.store={tmp_path / 'store'}", "train.steps=2", "train.batch_size=4"]
    split = "data.split={train: [1, 3], test: [2, 4]}"
    assert main([*words, split, f"run.dir={tmp_path / 'a'}"]) == 2
    told = capsys.readouterr()
    assert "finetune, trained on cholec80 inline split train, told by its frames: about" in told.out
    assert "demo/4" in told.err
    assert main([*words, split, f"run.dir={tmp_path / 'b'}", "leakage=allow"]) == 0
    assert json.loads((tmp_path / "b" / "results.json").read_text())["leakage"]["state"] == "shared"
