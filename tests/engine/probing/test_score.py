"""The score of a probe, and what counts as worse than step 0."""

from __future__ import annotations

import math

import pytest

from surgdino.engine.probing import ProbeReport, changes
from surgdino.engine.probing.measures import Finding
from surgdino.engine.probing.probe_set import _score


def test_kinds_of_labels_count_the_same_in_the_score():
    of_probe = {
        "one_class": [Finding("phase_linear_balanced_accuracy", 0.6), Finding("phase_knn_balanced_accuracy", 0.1)],
        "many_classes": [
            Finding("verb_linear_ap", 0.2),
            Finding("target_linear_ap", 0.4),
            Finding("x_linear_ap", math.nan),
        ],
        "moments": [Finding("moment_alignment", 0.9)],
    }
    score, names = _score(of_probe)
    assert score == pytest.approx((0.6 + 0.3) / 2)
    assert names == ("phase_linear_balanced_accuracy", "verb_linear_ap", "target_linear_ap")
    assert _score({"moments": of_probe["moments"]}) == (0.9, ("moment_alignment",))
    assert math.isnan(_score({"effective_rank": [Finding("effective_rank", 9.0)]})[0])


def reports(before: Finding, after: Finding) -> tuple[ProbeReport, ProbeReport]:
    return ProbeReport(0.5, (), {before.name: before}), ProbeReport(0.5, (), {after.name: after})


@pytest.mark.parametrize(
    ("name", "before", "after", "frames", "fell"),
    [
        ("phase_linear_balanced_accuracy", 0.60, 0.585, 10_000, False),  # two points
        ("phase_linear_balanced_accuracy", 0.60, 0.57, 10_000, True),
        ("phase_linear_balanced_accuracy", 0.60, 0.57, 100, False),  # one standard error of a share is five points
        ("phase_linear_balanced_accuracy", 0.60, 0.54, 100, True),
        ("effective_rank", 100.0, 81.0, 500, False),  # a fifth
        ("effective_rank", 100.0, 79.0, 500, True),
        ("cka_cls", 1.0, 0.1, 500, False),
        ("phase_linear_balanced_accuracy", 0.60, 0.80, 10_000, False),
    ],
)
def test_a_fall_counts_beyond_its_margin(name, before, after, frames, fell):
    (change,) = changes(*reports(Finding(name, before, {}, frames), Finding(name, after, {}, frames)))
    assert change.fell is fell


def test_with_enough_operations_the_interval_of_the_difference_decides():
    name, operations = "phase_linear_balanced_accuracy", [f"op{i}" for i in range(8)]
    before = Finding.over(name, dict.fromkeys(operations, 0.6), 100)
    all_fell = Finding.over(name, dict.fromkeys(operations, 0.565), 100)
    (change,) = changes(*reports(before, all_fell))
    assert change.fell
    assert "over 8 operations" in change.sentence(40)
    assert "60.0 % at step 0, 56.5 % at step 40" in change.sentence(40)
    one_fell = Finding.over(name, {**dict.fromkeys(operations, 0.6), "op0": 0.2}, 100)
    (change,) = changes(*reports(before, one_fell))
    assert one_fell.value == pytest.approx(0.55)
    assert not change.fell
