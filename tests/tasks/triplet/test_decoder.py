"""The triplets' decoder, what is seen of earlier frames, and soft labels."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from surgdino.cli.main import main
from surgdino.tasks.classifier.frame_inputs import earlier_frames
from surgdino.tasks.classifier.multilabel import multilabel_loss
from surgdino.tasks.labelled_frames import LabelledFrames
from surgdino.tasks.triplet.components import PARTS, part_of
from surgdino.tasks.triplet.head import PooledLinear, QueryDecoder
from tests.tasks.triplet.test_cli import finetune, scores_of
from tests.tasks.triplet.test_parts import MAPPING

WIDTH, COUNTS = 8, {"I": 6, "V": 10, "T": 15, "IVT": 100}


def decoder(seen: int = 1) -> QueryDecoder:
    torch.manual_seed(0)
    parts = {part: part_of(part, MAPPING) for part in PARTS}
    return QueryDecoder(WIDTH, COUNTS, parts, layers=1, hidden=16, heads=4, seen=seen).eval()


def test_every_class_asks_the_frames_tokens_with_a_query_of_its_own():
    head, cls, patches = decoder(), torch.randn(2, WIDTH), torch.randn(2, 5, WIDTH)
    found = head(cls, patches)
    assert {name: tuple(logits.shape) for name, logits in found.items()} == {n: (2, c) for n, c in COUNTS.items()}
    order = torch.randperm(5)
    torch.testing.assert_close(head(cls, patches[:, order])["IVT"], found["IVT"])  # patches carry their own positions
    head.start_at({"IVT": torch.full((100,), 3.0)})
    torch.testing.assert_close(head(cls, patches)["IVT"], found["IVT"] + 3.0)


def test_what_a_part_learns_moves_the_queries_of_its_triplets_alone():
    head = decoder()
    before = head._of_parts()
    with torch.no_grad():
        head.queries["I"][2] += 1
    moved = (head._of_parts() != before).any(1)
    assert torch.equal(moved, torch.from_numpy(part_of("I", MAPPING) == 2))


@pytest.mark.parametrize("kind", ["pooled", "query"])
def test_a_head_that_sees_earlier_frames_reads_them(kind):
    torch.manual_seed(0)
    head = decoder(3) if kind == "query" else PooledLinear(WIDTH, COUNTS, 4, seen=3).eval()
    cls, patches = torch.randn(2, 3, WIDTH), torch.randn(2, 5, WIDTH)
    with torch.no_grad():
        for name, parameter in head.named_parameters():
            if name.endswith("when"):
                parameter.normal_()  # the order of frames counts once it is learnt
        found = head(cls, patches)["V"]
        changed = head(torch.cat([2 * cls[:, :1].flip(2), cls[:, 1:]], 1), patches)["V"]
    assert not torch.allclose(found, changed)


def test_earlier_frames_are_of_the_same_video():
    starts = np.array([0, 3, 5])
    frames = LabelledFrames(None, np.arange(5), ("a", "b"), starts, {}, np.arange(5), np.arange(5.0))  # type: ignore[arg-type]
    assert earlier_frames(frames, 3).tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [3, 3, 3], [3, 3, 4]]


@pytest.mark.parametrize("name", ["bce", "focal", "asymmetric"])
def test_a_soft_label_is_the_mixture_of_the_two_losses(name):
    logits = torch.randn(4, 3)
    there, absent = (multilabel_loss(logits, torch.full((4, 3), v, dtype=torch.uint8), name) for v in (1, 0))
    soft = multilabel_loss(logits, torch.full((4, 3), 0.3), name)
    torch.testing.assert_close(soft, 0.3 * there + 0.7 * absent)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    from surgdino.datasets.synthetic.cholect50 import write_cholect50

    root = tmp_path_factory.mktemp("cholect50")
    write_cholect50(root, (1, 2, 4), frames=24)
    return root


@pytest.mark.slow
def test_decoder_context_and_soft_labels_go_the_whole_way(data, tmp_path, capsys):
    words = ("task.head=query", "task.frames=3", "task.soft_labels=0.5", "task.decoder_width=16", "train.steps=30")
    run = tmp_path / "run"
    assert finetune(data, run, *words, "train.lr=0.01", "hardware.precision=fp32") == 0
    stages = [stage["stage"] for stage in json.loads((run / "results.json").read_text())["stages"]]
    assert stages == ["heads", "soft"]
    losses: dict[str, list[float]] = {"heads": [], "soft": []}
    for row in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()):
        if "loss" in row:
            losses[row["stage"]].append(row["loss"])
    assert losses["heads"][-1] < losses["heads"][0] / 1.5
    assert losses["soft"][0] > losses["heads"][-1]  # it begins anew
    assert main(["evaluate", f"checkpoint={run}", "hardware.loader_workers=0"]) == 0
    assert scores_of(run / "evaluation" / "cholect50-test") == scores_of(run)
    video = data / "videos" / "VID04"
    assert main(["predict", str(video), f"checkpoint={run}", f"out={tmp_path / 'out'}"]) == 0
    assert (tmp_path / "out" / "VID04.csv").read_text() == (run / "predictions" / "VID04.csv").read_text()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("task.head=query task.pool_heads=0", "the decoder attends to patch tokens"),
        ("task.head=query task.decoder_width=10", "a multiple of 4, task.pool_heads"),
        ("task.head=linear", "expected pooled or query"),
        ("task.soft_labels=2", "task.soft_labels"),
        pytest.param("task.frames=2 backbone=last4", "task.frames needs features", marks=pytest.mark.slow),
    ],
)
def test_settings_that_cannot_be_are_one_line(data, tmp_path, capsys, words, told):
    assert finetune(data, tmp_path / "run", *words.split()) == 2
    assert told in capsys.readouterr().err.splitlines()[-1]
