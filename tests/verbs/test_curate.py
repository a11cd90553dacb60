"""`surgdino curate` and `pretrain data.curation` as their user runs them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from surgdino.cli.main import main
from surgdino.curation.table import Curation, read_curation
from surgdino.datasets.card import load_card
from surgdino.inputs.curated import copies_of
from surgdino.inputs.datasets import RunDataset
from surgdino.inputs.named_frames import named_frames
from surgdino.inputs.settings import DataSettings
from surgdino.runs.names import Pseudonyms

TOY = ["model=vit_toy", "hardware.loader_workers=0", "data.workers=1", "data.short_side=64", "data.fps=2"]
SMALL = ["crops.global_size=32", "crops.local_size=16", "crops.local_count=1", "train.batch_size=4", "probe.every=0"]


@pytest.fixture(scope="module")
def place(synthetic_cholec80: Path, tmp_path_factory) -> Path:
    """A folder with a store and a curation, made by one command."""
    folder = tmp_path_factory.mktemp("curate")
    assert main(["curate", *words(synthetic_cholec80, folder), "keep=20", f"run.dir={folder / 'cur'}"]) == 0
    return folder


def words(root: Path, folder: Path) -> list[str]:
    return ["dataset=cholec80", f"data.root={root}", f"data.store={folder / 'store'}", *TOY]


def test_every_frame_has_a_row_and_a_reason(place):
    column = pq.read_table(place / "cur" / "curation.parquet")["operation"]  # as any program reads it
    assert column[0].as_py() == "camma/1"
    curation = read_curation(place / "cur")
    assert len(curation) == len(curation.reason) == 4 * 24
    assert ((curation.reason == "") == curation.keep).all()
    assert 0 < curation.keep.sum() <= 20
    assert {"black", "comes twice in its operation"} <= set(curation.reason.tolist())
    kept = np.flatnonzero(curation.keep)
    assert (curation.group[kept] == kept).all()
    assert curation.weight[kept].mean() == pytest.approx(1, rel=1e-6)
    assert set(curation.facts["videos"]) == set(curation.videos) == {f"video0{k}" for k in range(1, 5)}
    assert list(curation.operations) == [f"camma/{k}" for k in range(1, 5)]
    assert {"Preparation", "CalotTriangleDissection"} < {*curation.phase}
    assert not list((place / "cur").rglob("*.jpg"))


@pytest.mark.slow
def test_the_same_command_decides_the_same(place, synthetic_cholec80):
    again = ["curate", *words(synthetic_cholec80, place), "keep=20", f"run.dir={place / 'again'}"]
    assert main(again) == 0
    ours, theirs = read_curation(place / "cur"), read_curation(place / "again")
    assert np.array_equal(ours.weight, theirs.weight)
    assert ours.facts == theirs.facts


@pytest.mark.slow
def test_workers_elsewhere_give_the_same_bytes(place, synthetic_cholec80, tmp_path):
    """Store, features and judged pictures through a scheduler; its workers are threads of this process, to be quick."""
    distributed = pytest.importorskip("distributed", reason="the extra surgdino[dask] is not installed")
    alone = {"processes": False, "protocol": "tcp://", "dashboard_address": None, "silence_logs": 50}
    with distributed.LocalCluster(n_workers=1, threads_per_worker=2, **alone) as cluster:
        engine = f"data.engine={cluster.scheduler_address}"
        run = ["curate", *words(synthetic_cholec80, tmp_path), "keep=20", engine, f"run.dir={tmp_path / 'cur'}"]
        assert main(run) == 0

    def kept(folder: Path) -> dict[str, bytes]:
        files = [path for path in folder.rglob("*") if path.suffix in (".zip", ".npy", ".parquet")]
        return {str(path.relative_to(folder)): path.read_bytes() for path in files if "again" not in path.parts}

    assert kept(tmp_path) == kept(place)
    assert cluster.scheduler_address not in (tmp_path / "cur" / "config.yaml").read_text()
    assert cluster.scheduler_address not in (tmp_path / "cur" / "environment.json").read_text()


@pytest.mark.slow
def test_pretraining_learns_from_what_is_kept_and_remembers_it(place, synthetic_cholec80, tmp_path):
    run = ["pretrain", *words(synthetic_cholec80, place), *SMALL, "train.steps=2", f"data.curation={place / 'cur'}"]
    assert main([*run, f"run.dir={tmp_path}"]) == 0
    facts = json.loads((tmp_path / "checkpoint" / "model.json").read_text())["curation"]
    assert facts["frames"] == read_curation(place / "cur").keep.sum()
    assert facts["of"] > facts["frames"]


@pytest.mark.slow
def test_a_curation_of_other_frames_is_refused(place, synthetic_cholec80, tmp_path, capsys):
    run = ["pretrain", *words(synthetic_cholec80, place), *SMALL, "train.steps=2", f"data.curation={place / 'cur'}"]
    assert main([*run, "data.quality=80", f"run.dir={tmp_path}"]) == 2
    assert "the curation is of other frames than those of video01" in capsys.readouterr().err
    (tmp_path / "none").mkdir()
    assert main([*run[:-1], f"data.curation={tmp_path / 'none'}", f"run.dir={tmp_path / 'other'}"]) == 2
    assert "no curation here" in capsys.readouterr().err


@pytest.mark.parametrize("damage", [b"", b"PAR1 and no more", None])
def test_a_file_that_is_no_curation_is_one_line(place, tmp_path, damage):
    from surgdino.errors import SurgdinoError

    shutil.copytree(place / "cur", tmp_path / "cur")
    file = tmp_path / "cur" / "curation.parquet"
    file.write_bytes(file.read_bytes()[:-50] if damage is None else damage)
    with pytest.raises(SurgdinoError, match="not a curation"):
        read_curation(tmp_path / "cur")


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["duplicates.along=2"], "duplicates.along cannot be used"),
        (["balance.levels=[3,9]"], "balance.levels"),
        (["like=dataset:cholect50"], "nothing says where the dataset cholect50 lies. Export SURGDINO_DATASETS"),
        (["like=dataset:nothing"], "nothing"),
        (["against=dataset:cholec80:40-40:train:more"], "expected dataset:NAME:SPLIT:PART"),
        (["against=dataset:cholec80:40-40:train"], "no frame is left"),
        (["like=no/such/folder"], "no/such/folder"),
        (["unusable.blurred=1e6"], "no frame is left"),
    ],
)
def test_what_cannot_be_is_one_line(place, synthetic_cholec80, tmp_path, capsys, more, told):
    assert main(["curate", *words(synthetic_cholec80, place), *more, f"run.dir={tmp_path}"]) == 2
    err = capsys.readouterr().err
    assert told in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.slow
def test_what_is_wanted_is_kept_and_what_is_tested_on_is_not(place, synthetic_cholec80, tmp_path):
    wanted = f"{{dataset: cholec80, root: {synthetic_cholec80}, split: {{train: [1], test: [2]}}, part: train}}"
    base = [
        "curate",
        *words(synthetic_cholec80, place),
        "duplicates.along_quantile=null",
        "duplicates.across_quantile=null",
    ]
    assert main([*base, f"like={wanted}", "retrieval.neighbours=1", f"run.dir={tmp_path / 'like'}"]) == 0
    curation = read_curation(tmp_path / "like")
    assert set(curation.video_of[curation.keep].tolist()) == {0}
    assert (curation.similarity[curation.keep] > 0.999).all()
    assert main([*base, f"against={wanted}", "duplicates.against=0.9999", f"run.dir={tmp_path / 'against'}"]) == 0
    curation = read_curation(tmp_path / "against")
    assert 0 not in curation.video_of[curation.keep]
    facts = curation.facts["against"]
    assert (facts["of"], facts["operations"], facts["cosine"]) == ("cholec80 inline split train", ["camma/1"], 0.9999)
    assert facts["nearest"] < 0.9999
    run = ["pretrain", *words(synthetic_cholec80, place), *SMALL, "train.steps=1", f"run.dir={tmp_path / 'run'}"]
    assert main([*run, f"data.curation={tmp_path / 'against'}"]) == 0
    (seen,) = json.loads((tmp_path / "run" / "checkpoint" / "model.json").read_text())["seen"]
    assert seen["operations"] == ["camma/2", "camma/3", "camma/4"]
    assert seen["apart"] == {**facts, "left_out": seen["apart"]["left_out"]}


@pytest.mark.slow
def test_a_dataset_is_found_by_its_name_where_the_datasets_lie(synthetic_cholec80, place, tmp_path, monkeypatch):
    (tmp_path / "cholec80").symlink_to(synthetic_cholec80)
    data = DataSettings.of({"data": {"root": "x", "store": str(place / "store"), "short_side": 64, "fps": 2}})
    monkeypatch.setenv("SURGDINO_DATASETS", str(tmp_path))
    found = named_frames("dataset:cholec80:40-40:train", "against", [], data, Pseudonyms())
    assert (found.called, len(found.dataset.manifest.videos)) == ("cholec80 40-40 train", 4)
    assert found.among(found.store) == {f"camma/{k}" for k in range(1, 5)}
    other = RunDataset(load_card("cholec80"), found.dataset.manifest, frozenset(), "", data.store, data.store_settings)
    (tmp_path / "copy").mkdir()
    elsewhere = replace(other, manifest=replace(other.manifest, root=tmp_path / "copy"))
    entry = {"dataset": "cholec80", "root": str(synthetic_cholec80)}
    again = named_frames(entry, "against", [elsewhere], data, Pseudonyms())
    assert again.dataset.folder == data.store / "against"  # beside the archive's own shards of the same names


def test_a_copy_of_what_is_learnt_from_has_been_seen():
    copies = [{"copy": "b", "of": "a", "from": 0.0, "to": 9.0}, {"copy": "c", "of": "b", "from": 0.0, "to": 9.0}]
    empty = np.empty(0)
    facts, names = {"copies": copies}, ("own/a", "own/b", "op-c")
    curation = Curation(("a", "b", "c"), names, empty, empty, empty, empty, [], empty, empty, empty, facts)
    known = {"own/a": "own/A", "own/b": "own/B"}
    assert copies_of(curation, {"own/a": "own/A"}, known) == {"own/B": {"own/A"}}
    assert copies_of(curation, {"own/b": "own/B"}, known) == {"own/A": {"own/B"}, "op-c": {"own/B"}}
    assert copies_of(curation, known, known) == {"op-c": {"own/B"}}


@pytest.mark.slow
def test_the_page_has_no_frames_unless_asked_for(place, tmp_path):
    page = (place / "cur" / "report.html").read_text()
    for told in ("curation of an archive", "comes twice in its operation", "By phase", "Share of each phase", "By PCA"):
        assert told in page
    assert "data:image/jpeg" not in page
    assert main(["report", str(place / "cur"), "report.frames=true", f"out={tmp_path / 'frames.html'}"]) == 0
    page = (tmp_path / "frames.html").read_text()
    assert page.count("data:image/jpeg") > 20
    assert "What the coarsest clusters show" in page
    assert f"Black: {(read_curation(place / 'cur').reason == 'black').sum()} frames" in page


def test_a_page_that_fails_does_not_cost_the_curation(place, synthetic_cholec80, monkeypatch, capsys):
    monkeypatch.setattr("surgdino.verbs.report.write_page", lambda *args, **more: 1 / 0)
    again = ["curate", *words(synthetic_cholec80, place), "keep=20", f"run.dir={place / 'cur'}"]
    assert main(again) == 0
    assert "the report could not be written: ZeroDivisionError" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("what", ["clusters", "duplicates"])
def test_what_a_curation_found_can_be_seen(place, synthetic_cholec80, tmp_path, capsys, what):
    shown = ["dataset=cholec80", f"data.root={synthetic_cholec80}", f"data.store={place / 'store'}", *TOY[2:]]
    target = tmp_path / "sheet.png"
    assert main(["show", what, f"data.curation={place / 'cur'}", f"show.out={target}"]) == 0
    assert target.stat().st_size > 10_000
    assert main(["show", what, *shown, f"show.out={target}"]) == 2
    assert "which curation?" in capsys.readouterr().err
