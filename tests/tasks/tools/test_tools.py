"""Instrument presence: numbers as scikit-learn's, files as Cholec80's, a head that learns."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from surgdino.cli.main import main
from surgdino.datasets.card import load_card
from surgdino.datasets.label_files import read_tools
from surgdino.errors import SurgdinoError
from surgdino.metrics.scores import ScoreRequest
from surgdino.tasks.classifier.multilabel import multilabel_loss
from surgdino.tasks.scoring.scoring import open_scoring
from surgdino.tasks.tools.files import read_tool_table, write_presence
from tests.tasks.sets import SETS, words_of

CARD = load_card("cholec80")


def refusal(function, *arguments, **keywords) -> str:
    with pytest.raises(SurgdinoError) as error:
        function(*arguments, **keywords)
    line = error.value.line()
    assert "\n" not in line
    return line


def values_of(results: dict, protocol: str) -> dict[str, float]:
    return {row["name"]: row["value"] for row in results["scores"] if row["protocol"] == protocol}


# Scores.


def drawn(videos: int = 3, seed: int = 0) -> tuple[dict, dict]:
    rng = np.random.default_rng(seed)
    truths = {f"v{n}": (rng.random((40, 3)) < (0.5, 0.2, 0.1)).astype(np.uint8) for n in range(videos)}
    return truths, {video: truth * 0.3 + rng.random(truth.shape).round(1) for video, truth in truths.items()}


def test_average_precision_is_scikit_learns_over_all_frames_and_by_video():
    truths, scores = drawn()
    truths["v1"][:, 2] = 0  # a tool that the video lacks has no AP there
    case = {"classes": ["a", "b", "c"], "operations": {video: video for video in truths}}
    panel = open_scoring("tools").scores(ScoreRequest(truths, scores, **case))
    found = {(row.name, row.protocol): row for row in panel.table}
    truth, score = (np.concatenate(list(side.values())) for side in (truths, scores))
    pooled = [average_precision_score(truth[:, c], score[:, c]) for c in range(3)]
    by_video = [
        np.mean([average_precision_score(truths[v][:, c], scores[v][:, c]) for v in truths if truths[v][:, c].any()])
        for c in range(3)
    ]
    for protocol, expected in (("tools/global", pooled), ("tools/video-wise", by_video)):
        assert found["mAP", protocol].value == pytest.approx(np.mean(expected))
        assert [found[f"AP {name}", protocol].value for name in "abc"] == pytest.approx(expected)
    assert np.isnan(found["AP c", "tools/global"].per_operation["v1"])
    own = [average_precision_score(truths["v1"][:, c], scores["v1"][:, c]) for c in range(2)]
    assert found["mAP", "tools/global"].per_operation["v1"] == pytest.approx(np.mean(own))
    assert panel.headline == ("mAP", pytest.approx(np.mean(pooled)))
    assert panel.classes[0].rows["c"] == {"AP": pytest.approx(pooled[2]), "frames": int(truth[:, 2].sum())}


def test_a_loss_with_weights_learns_w_times_the_odds_which_are_taken_off_again():
    target = (torch.arange(100) < 10).float()[:, None]
    logit, weights = torch.zeros(1, 1, requires_grad=True), torch.tensor([3.0])
    optimizer = torch.optim.LBFGS([logit], max_iter=50)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = multilabel_loss(logit.expand(100, 1), target, "bce", weights)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert (logit - weights.log()).sigmoid().item() == pytest.approx(0.1, abs=1e-4)


# Files.


def test_presence_is_written_as_cholec80_writes_it_and_read_by_its_reader(tmp_path):
    flags = np.eye(7, dtype=bool)[[0, 3, 6]]
    path = write_presence(tmp_path, "video01", np.array([0, 25, 50]), flags, CARD.tools)
    assert path.name == "video01-tool.txt"
    labels, problems = read_tools(path, CARD)
    assert not problems
    assert (labels.array == flags).all()
    table = read_tool_table(path, flags=True)
    assert table.classes == CARD.tools
    assert table.in_order(("specimen bag", *CARD.tools[:-1]), path)[:, 0].tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "the file is empty"),
        ("0\t1\n", "row 1: wrong header; expected Frame, then the name of each tool"),
        ("Frame\ta\tb\n", "no rows under the header"),
        ("Frame\ta\tb\n0\t1\n", "row 2: wrong number of columns"),
        ("Frame\ta\tb\n0\t1\t2\n", "row 2, b: neither 0 nor 1; expected 0 or 1, found '2'"),
        ("Frame,a,b\n1,0,1\n0,1,1\n", "row 3: the frames do not ascend"),
        ("Frame\ta\t\n0\t1\t1\n", "wrong header"),
    ],
)
def test_a_malformed_tool_file_is_one_line(tmp_path, text, told):
    path = tmp_path / "video01-tool.txt"
    path.write_text(text)
    assert told in refusal(read_tool_table, path, flags=True)


def test_scores_are_finite_and_the_tools_are_those_that_are_scored(tmp_path):
    path = tmp_path / "v.csv"
    path.write_text("frame,a,b\n0,0.5,nan\n")
    assert "row 2, b: not a score" in refusal(read_tool_table, path, flags=False)
    path.write_text("frame,a,b\n0,0.5,-3e-2\n")
    table = read_tool_table(path, flags=False)
    assert "other tools than are scored; expected a, c, found a, b" in refusal(table.in_order, ["a", "c"], path)
    assert "other tools" in refusal(table.in_order, ["a"], path)


def score(truth: Path, predictions: Path, out: Path, *more: str) -> dict:
    words = ["score", "task=tools", f"truth={truth}", f"predictions={predictions}", f"out={out}", *more]
    assert main(words) == 0
    return json.loads((out / "results.json").read_text())


def test_anyones_predictions_are_scored_against_cholec80(synthetic_cholec80, tmp_path):
    rng, truths, scores = np.random.default_rng(0), [], []
    for path in sorted((synthetic_cholec80 / "tool_annotations").glob("*.txt")):
        labels, _ = read_tools(path, CARD)
        truths.append(labels.array)
        scores.append(labels.array * 0.2 + rng.random(labels.array.shape))
        rows = zip(labels.numbers.tolist(), scores[-1][:, ::-1].tolist(), strict=True)
        table = "".join(",".join(map(str, (frame, *row))) + "\n" for frame, row in rows)
        head = ",".join(["frame", *(name.lower() for name in CARD.tools[::-1])])
        (tmp_path / f"{path.stem.removesuffix('-tool')}.csv").write_text(f"{head}\n{table}")
    results = score(synthetic_cholec80, tmp_path, tmp_path / "out", "dataset=cholec80")
    truth, given = np.concatenate(truths), np.concatenate(scores)
    seen = [c for c in range(7) if truth[:, c].any()]
    expected = np.mean([average_precision_score(truth[:, c], given[:, c]) for c in seen])
    assert values_of(results, "tools/global")["mAP"] == pytest.approx(expected)
    assert list(results["scores"][0]["per_operation"]) == ["camma/1", "camma/2", "camma/3", "camma/4"]


# Training.


@pytest.fixture(scope="module")
def instruments(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("tools") / "set"
    SETS["triplet"].write(root)
    return root


@pytest.fixture(scope="module")
def finished(instruments, tmp_path_factory) -> Path:
    """Attention over patches, on the instruments of triplets."""
    run = tmp_path_factory.mktemp("run") / "run"
    more = ("dataset=cholect50", "data.fps=1", "data.split={train: [1, 2], val: [4], test: [5]}")
    assert main(words_of("tools", instruments, run, "task.tokens=attentive", *more)) == 0
    return run


@pytest.mark.slow
def test_the_instruments_of_triplets_are_learnt_by_attention(finished):
    results = json.loads((finished / "results.json").read_text())
    assert results["headline"]["name"] == "mAP"
    assert list(results["classes"][0]["rows"]) == list(load_card("cholect50").instruments)
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < 0.9 * losses[0], losses
    assert {path.name for path in (finished / "predictions").iterdir()} == {"VID05.csv", "VID05-tools.png"}


@pytest.mark.slow
def test_scored_from_files_the_predictions_have_the_same_numbers(finished, instruments, tmp_path):
    results = score(instruments, finished / "predictions", tmp_path / "out", "dataset=cholect50", "missing=ignore")
    ours = json.loads((finished / "results.json").read_text())
    for protocol in open_scoring("tools").PROTOCOLS:
        assert values_of(results, protocol) == values_of(ours, protocol)


@pytest.mark.slow
def test_predict_writes_a_table_flags_as_cholec80s_and_a_picture(finished, instruments, tmp_path):
    video, out = instruments / "videos" / "VID05", tmp_path / "out"
    assert main(["predict", str(video), f"checkpoint={finished}", "hardware.loader_workers=0", f"out={out}"]) == 0
    assert {path.name for path in out.iterdir()} == {"VID05.csv", "VID05-tool.txt", "VID05.png"}
    assert (out / "VID05.csv").read_bytes() == (finished / "predictions" / "VID05.csv").read_bytes()
    with (out / "VID05.csv").open() as file:
        probabilities = np.array([[*map(float, row)] for row in list(csv.reader(file))[1:]])
    flags = read_tool_table(out / "VID05-tool.txt", flags=True)
    assert (flags.frames == probabilities[:, 0]).all()
    assert (flags.values == (probabilities[:, 1:] > 0.5)).all()
