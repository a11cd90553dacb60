"""`surgdino verify` of depth: full maps are sound, and a unit that leaves nothing known is an error."""

from __future__ import annotations

from dataclasses import replace

from surgdino.datasets.card import load_card
from surgdino.datasets.open import open_dataset
from surgdino.datasets.synthetic.depth import write_depth
from surgdino.verify.verb import check_masks


def test_dense_depth_is_sound_and_a_wrong_unit_is_not(tmp_path):
    write_depth(tmp_path, "c3vd", recordings=1, frames=2)
    problems, shown = check_masks(open_dataset(load_card("c3vd"), tmp_path))
    assert problems == []
    assert [each.pixels.tolist() for each in shown["cecum_t1_a"]] == [[64 * 48]] * 2
    card = load_card("c3vd")
    metres = replace(card.depth, millimetres=card.depth.millimetres / 1000)
    problems, _ = check_masks(open_dataset(type(card)("c3vd", "depth", depth=metres), tmp_path))
    assert [problem.error().what for problem in problems] == ["no pixel of a known depth in any picture"]
