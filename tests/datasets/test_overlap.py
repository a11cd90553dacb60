"""What a backbone has seen of what it is tested on, from the cards alone; the page in docs/ is what the code makes."""

from __future__ import annotations

import shlex

import pytest

from surgdino.cli.compose import compose
from surgdino.datasets.card import Card, card_names, load_card
from surgdino.datasets.manifest import place_of
from surgdino.datasets.overlap import (
    cells,
    exclude_word,
    markdown,
    matrix,
    operations_named,
    overlap_tables,
    part_operations,
    published_tests,
    unknown_between,
)
from surgdino.errors import SurgdinoError
from tests import ROOT

CARDS = [load_card(name) for name in card_names()]
PAGE = ROOT / "docs" / "overlaps.md"


def shared(seen: tuple[str, str | None], tested: tuple[str, str], part: str = "test") -> int:
    dataset, split = seen
    trained = part_operations(load_card(dataset), split, "train" if split else None)
    return len(trained & part_operations(load_card(tested[0]), tested[1], part))


def test_the_page_is_what_the_code_makes():
    made = "python -m surgdino.datasets.overlap > docs/overlaps.md"
    assert PAGE.read_text(encoding="utf-8") == markdown(CARDS), f"make it anew: {made}"


def test_cholec80s_training_half_holds_4_or_5_of_every_folds_test_videos():
    assert [shared(("cholec80", "40-40"), ("cholect50", f"fold{k}")) for k in range(1, 6)] == [5, 5, 5, 4, 4]
    assert shared(("cholec80", "40-40"), ("cholect50", "rdv")) == 4


def test_the_challenges_test_is_the_only_triplet_test_that_cholec80_does_not_touch():
    tests = [split for split in load_card("cholect50").splits if shared(("cholec80", None), ("cholect50", split)) == 0]
    assert tests == ["challenge"]


def test_rdv_training_holds_15_of_cholec80s_test_videos():
    assert shared(("cholect50", "rdv"), ("cholec80", "40-40")) == 15


def test_what_some_call_validation_lies_in_the_test_half():
    assert shared(("cholec80", None), ("cholec80", "40-8-32"), "val") == 8
    card = load_card("cholec80")
    assert part_operations(card, "40-8-32", "val") < part_operations(card, "40-40", "test")


def test_every_pair_of_sets_is_in_the_tables():
    tables = overlap_tables(CARDS)
    parts = {(t.dataset, t.part, name) for t in tables for column in t.tested for name in column.names}
    for card in CARDS:
        for split, listed in card.splits.items() if card.videos else ():
            assert {(card.name, part, split) for part in listed if part != "train"} <= parts
    for table in tables:
        for row in table.seen:
            assert any(table.shared(row, column) for column in table.tested)


def test_sets_of_the_same_operations_share_a_row():
    (table,) = [t for t in overlap_tables(CARDS) if (t.dataset, t.part) == ("cholect50", "test")]
    heads, rows = cells(table)
    assert heads == ["rdv", "fold1", "fold2", "fold3", "fold4", "fold5", "challenge"]
    half = next(row for row in rows if row[0] == "cholec80: 40-40 train, 40-8-32 train")
    assert half[1:] == ["4 of 10", "5 of 10", "5 of 10", "5 of 10", "4 of 10", "4 of 10", "0"]


def test_a_set_without_a_card_counts_by_what_another_card_says_of_it():
    (table,) = [t for t in overlap_tables(CARDS) if t.dataset == "cholecseg8k"]
    assert table.part == "all"
    assert len(table.tested[0].operations) == 17


def shares(dataset: str, other: str) -> str:
    heads, rows = matrix(CARDS)
    return next(row for row in rows if row[0] == dataset)[heads.index(other) + 1]


def test_how_many_operations_two_sets_share_or_that_nobody_knows():
    assert [shares("cholec80", other) for other in ("operations", "cholect50", "dsad", "m2cai16")] == [
        "80",
        "45",
        "0",
        "?",
    ]
    assert (shares("endoscapes", "cholec80"), shares("endoscapes", "cholect50")) == ("6", "6")
    _, rows = matrix(CARDS)
    assert [[row[place] for row in rows] for place in range(2, len(rows) + 2)] == [row[2:] for row in rows]


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_what_is_unknown_is_so_both_ways_and_claims_no_shared_operation(card):
    known = {each.name: each for each in CARDS}
    for other in card.overlap_unknown:
        assert unknown_between(card.name, other)
        assert unknown_between(other, card.name)
        assert other in known or any(other in each.overlaps for each in CARDS), f"{other} is no dataset"
        assert other not in card.overlaps
        if other in known:
            assert not part_operations(card) & part_operations(known[other]), "no name says what nobody knows"


def test_a_sets_overlap_with_itself_and_with_unnamed_data_is_no_unknown_of_the_cards():
    for pair in (("m2cai16", "m2cai16"), ("m2cai16", "dsad"), ("cholec80", "cholect50"), ("folder", "nowhere")):
        assert not unknown_between(*pair)


def test_published_tests_that_a_training_has_seen():
    seen = part_operations(load_card("cholec80"), "40-40", "train")
    found = {(each.dataset, each.split): each.shared for each in published_tests(seen)}
    assert (found["cholect50", "rdv"], found["cholect50", "challenge"], found["cholec80", "40-40"]) == (4, 0, 0)
    assert (found["m2cai16", "official"], found["dsad", "official"]) == (None, 0)
    assert not any(each.shared != 0 for each in published_tests(frozenset({"demo/1", "own/1~0f0f0f0f"})))


CHALLENGE = tuple(f"camma/{n}" for n in (92, 96, 103, 110, 111))


@pytest.mark.parametrize(
    ("tested_on", "operations", "tested", "word"),
    [
        ("cholect50 challenge test", CHALLENGE, 5, "data.exclude=[test-of:cholect50/challenge]"),
        ("cholect50 challenge test", CHALLENGE[:2], 5, "data.exclude=[camma/92,camma/96]"),
        ("cholect50 rdv val", ("camma/8",), 1, "data.exclude=[camma/8]"),
        ('folder {"test": ["op-1"]} test', ("own/OP 7~0f0f0f0f", "own/8~0a0a0a0a"), 2, "data.exclude=['OP 7','8']"),
        ("folder fifth test", ("own/Ü 'x'~0f0f0f0f",), 1, r"data.exclude=['Ü \'x\'']"),
        (
            "folder fifth test",
            ("own/a~0f0f0f0f", "own/a~0a0a0a0a"),
            2,
            "data.exclude=['own/a~0f0f0f0f','own/a~0a0a0a0a']",
        ),
    ],
)
def test_what_to_type_to_leave_operations_out(tested_on, operations, tested, word):
    typed = exclude_word(tested_on, operations, tested)
    assert shlex.split(typed) == [word]
    names = compose("pretrain", [word, "dataset=folder", "data.root=x"])["data"]["exclude"]
    known = {part for name in operations for part in (name, place_of(name))} | {"test-of:cholect50/challenge"}
    assert set(names) <= known, "Hydra reads the names as they are"


def test_a_new_card_stands_in_the_tables_unasked():
    new = Card("ours", "folder", videos=(1, 2, 900), operation="camma/{number}")
    tables = overlap_tables([load_card("cholec80"), new])
    (table,) = [t for t in tables if t.dataset == "ours"]
    assert cells(table)[1][0] == ["cholec80: all", "2 of 3"]


def test_operations_by_reference():
    assert operations_named("cholect50/challenge") == {f"camma/{n}" for n in (92, 96, 103, 110, 111)}
    assert operations_named("cholect50/rdv", "val") == {f"camma/{n}" for n in (8, 12, 29, 50, 78)}
    assert len(operations_named("cholec80")) == 80
    for reference, said in (
        ("cholec08/40-40", "Did you mean 'cholec80'"),
        ("cholect50/fold6", "Did you mean 'fold"),
        ("folder", "not known"),
        ("folder/fifth", "not known"),
    ):
        with pytest.raises(SurgdinoError, match=said):
            operations_named(reference)
    with pytest.raises(SurgdinoError, match="no part 'val'"):
        operations_named("cholec80/40-40", "val")
