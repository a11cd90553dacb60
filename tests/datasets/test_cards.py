"""Cards: every one in the folder can be read, and Cholec80's says what is published."""

from __future__ import annotations

from itertools import chain

import pytest
import yaml

from surgdino import discovery
from surgdino.datasets.card import Card, card_names, compact, expand, load_card, number_in
from surgdino.datasets.open import open_dataset
from surgdino.datasets.synthetic.cholec80 import PHASES
from surgdino.datasets.synthetic.tools import TOOLS
from surgdino.datasets.triplets import triplet_table
from surgdino.errors import SurgdinoError
from surgdino.metrics.triplet import triplet_map
from surgdino.paths import share


@pytest.mark.parametrize("name", card_names())
def test_every_card_reads_and_tells_a_person_what_it_is(name):
    card = load_card(name)
    assert card.name == name
    assert card.adapter in discovery.names("surgdino.datasets.adapters")
    assert card.title
    assert card.licence
    assert card.how_to_get


@pytest.mark.parametrize("name", card_names())
def test_parts_of_a_split_share_no_video(name):
    card = load_card(name)
    for split, parts in card.splits.items():
        listed = [entry for entries in parts.values() for entry in entries]
        assert len(listed) == len(set(listed)), split
        assert set(listed) <= set(card.videos) or not card.videos


def test_the_card_comes_through_the_configuration_unharmed():
    pytest.importorskip("hydra")
    from omegaconf import OmegaConf

    values = yaml.safe_load((share("datasets") / "cholec80.yaml").read_text())
    plain = OmegaConf.to_container(OmegaConf.create(values), resolve=True)
    assert Card.from_dict(plain) == load_card("cholec80")


def test_cholec80_has_its_published_splits():
    splits = load_card("cholec80").splits
    counts = {
        name: tuple(len(parts.get(part, ())) for part in ("train", "val", "test")) for name, parts in splits.items()
    }
    assert counts == {"40-40": (40, 0, 40), "40-8-32": (40, 8, 32), "32-8-40": (32, 8, 40)}
    assert splits["40-8-32"]["val"] == tuple(range(41, 49))
    assert splits["32-8-40"]["val"] == tuple(range(33, 41))


def test_cholec80_classes_in_the_order_of_their_ids():
    card = load_card("cholec80")
    assert card.phases == PHASES
    assert card.tools == TOOLS
    assert (card.phases[4], card.phases[6]) == ("GallbladderPackaging", "GallbladderRetraction")


def test_cholec80_knows_which_sets_show_its_operations():
    overlaps = load_card("cholec80").overlaps
    fifty = set(overlaps["cholect50"])
    assert len([n for n in fifty if n <= 40]) == 23
    assert len([n for n in fifty if n > 40]) == 22
    # The leak: four of the ten test videos of the RDV split lie in Cholec80's training half.
    assert len({6, 51, 10, 73, 14, 74, 32, 80, 42, 111} & fifty & set(range(1, 41))) == 4
    assert not {92, 96, 103, 110, 111} & fifty
    assert len(overlaps["cholecseg8k"]) == 17
    assert set(overlaps["endoscapes"]) <= set(load_card("cholec80").splits["40-40"]["test"])
    assert set(load_card("cholect50").overlaps["endoscapes"]) - set(load_card("cholec80").videos) == {96, 103, 110}


def test_cholect50_shares_with_cholec80_what_its_own_list_says():
    fifty, eighty = load_card("cholect50"), load_card("cholec80")
    assert (
        set(eighty.overlaps["cholect50"]) == set(fifty.videos) & set(eighty.videos) == set(fifty.overlaps["cholec80"])
    )
    assert set(fifty.videos) - set(eighty.videos) == {92, 96, 103, 110, 111}
    assert set(load_card("cholect45").videos) == set(fifty.videos) - {92, 96, 103, 110, 111}


@pytest.mark.parametrize(("name", "size"), [("cholect50", 10), ("cholect45", 9)])
def test_every_fold_is_tested_once_and_validates_on_the_last_five_of_the_rest(name, size):
    card = load_card(name)
    folds = [card.splits[f"fold{k}"] for k in range(1, 6)]
    tests = [list(fold["test"]) for fold in folds]
    assert [len(test) for test in tests] == [size] * 5
    assert sorted(chain(*tests)) == sorted(card.videos)
    for place, fold in enumerate(folds):
        rest = list(chain(*tests[:place], *tests[place + 1 :]))
        assert (list(fold["train"]), list(fold["val"])) == (rest[:-5], rest[-5:])


def test_cholect50_has_its_published_splits():
    splits = load_card("cholect50").splits
    assert splits["fold1"]["test"] == (79, 2, 51, 6, 25, 14, 66, 23, 50, 111)
    assert splits["fold1"]["val"] == (1, 56, 4, 13, 92)
    assert splits["fold5"]["val"] == (75, 22, 49, 12, 110)
    assert splits["rdv"]["val"] == (8, 12, 29, 50, 78)
    assert splits["rdv"]["test"] == (6, 51, 10, 73, 14, 74, 32, 80, 42, 111)
    assert splits["challenge"]["val"] == (5, 18, 36, 65, 74)
    assert splits["challenge"]["test"] == (92, 96, 103, 110, 111)
    assert {name: len(parts["train"]) for name, parts in splits.items()} == {
        "rdv": 35, "fold1": 35, "fold2": 35, "fold3": 35, "fold4": 35, "fold5": 35, "challenge": 40,
    }  # fmt: skip


def test_triplets_are_numbered_as_in_the_release():
    card = load_card("cholect50")
    table = triplet_table(card)
    assert table.shape == (100, 6)
    assert table[0].tolist() == [0, 0, 2, 1, 2, 1]
    assert card.triplets[0] == "grasper,dissect,cystic_plate"
    assert card.triplets[94:] == tuple(f"{tool},null_verb,null_target" for tool in card.instruments)
    assert (table[:, 4] == 10 * table[:, 1] + table[:, 2]).all()
    assert (table[:, 5] == 15 * table[:, 1] + table[:, 3]).all()
    assert load_card("cholect45").triplets == card.triplets
    assert triplet_map(table, null_verb=card.verbs.index("null_verb")).null.sum() == 6


def test_dsad_and_m2cai16_have_their_published_splits():
    dsad, m2cai = (load_card(name).splits["official"] for name in ("dsad", "m2cai16"))
    assert dsad["train"] == (1, 4, 5, 6, 8, 9, 10, 12, 15, 16, 17, 19, 22, 23, 24, 25, 27, 28, 29, 30, 31)
    assert (dsad["val"], dsad["test"]) == ((3, 21, 26), (2, 7, 11, 13, 14, 18, 20, 32))
    assert m2cai["train"] == tuple(range(1, 28))
    assert m2cai["test"] == tuple(f"test_workflow_video_{n:02d}" for n in range(1, 15))
    assert load_card("m2cai16").phases[0] == "TrocarPlacement"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"phasse": []}, "Did you mean 'dataset.phases'"),
        ({"adapter": None}, "dataset.adapter is not set"),
        ({"fps": "fast"}, "dataset.fps cannot be used; expected a number"),
        ({"fps": 0}, "at least 0.0001"),
        ({"phases": "Preparation"}, "a list, each entry a text"),
        ({"phases": ["A", "A"]}, "dataset.phases names 'A' twice; expected names that differ"),
        ({"splits": {"a": {"trian": [1]}}}, "Did you mean 'train'"),
        ({"splits": {"a": {"train": [1, 2], "test": ["2-3"]}}}, "names 2 twice"),
        ({"splits": {"a": {"train": 3}}}, "a list such as"),
        ({"overlaps": [1]}, "keys with values"),
        ({"title": 3}, "dataset.title cannot be used; expected a text, found 3"),
        ({"tool_step": 0}, "at least 1"),
        ({"triplets": {"hook": {}}}, "a list of"),
        ({"triplets": [{"hook": ["cut"]}]}, "keys with values"),
        ({"triplets": [{"hook": {"cut": ["gut", "gut"]}}]}, "names that differ"),
    ],
)
def test_a_wrong_card_is_told_in_one_line(change, said):
    with pytest.raises(SurgdinoError, match=said) as caught:
        Card.from_dict({"name": "x", "adapter": "folder", **change}, source="datasets/x.yaml")
    assert "datasets/x.yaml" in caught.value.line()


def test_a_layout_of_the_users_own_is_a_file_in_an_extension(tmp_path, monkeypatch):
    """One file `adapters/NAME.py` and one card `datasets/NAME.yaml`; nothing else says that they exist."""
    for folder in ("adapters", "datasets", "films"):
        (tmp_path / folder).mkdir()
    (tmp_path / "films" / "1.mp4").write_bytes(b"x")
    (tmp_path / "datasets" / "our_theatre.yaml").write_text("name: our_theatre\nadapter: our_theatre\n")
    (tmp_path / "adapters" / "our_theatre.py").write_text(
        "from surgdino.datasets.adapter import Adapter\n"
        "from surgdino.datasets.manifest import Video\n"
        "class OurTheatre(Adapter):\n"
        "    takes = ('organ',)\n"
        "    def read(self):\n"
        "        path = self.root / '1.mp4'\n"
        "        return self.manifest([Video('1', self.options['organ'], path)], [])\n"
    )
    monkeypatch.setenv("SURGDINO_EXTENSIONS", str(tmp_path))
    manifest = open_dataset(load_card("our_theatre"), tmp_path / "films", options={"organ": "colon"})
    assert [(video.id, video.operation) for video in manifest.videos] == [("1", "colon")]


def test_an_unknown_dataset_names_the_nearest():
    with pytest.raises(SurgdinoError, match="Did you mean 'cholec80'"):
        load_card("cholec08")


def test_numbers_as_people_write_them():
    assert expand([1, "3-5", "07", "OP 7"]) == (1, 3, 4, 5, 7, "OP 7")
    assert expand(["B8..10", "B08..09", "a..b"]) == ("B8", "B9", "B10", "B08", "B09", "a..b")
    assert compact([5, 1, 2, 3, "OP 7"]) == "1-3, 5, OP 7"
    assert compact(["B08", "B09", "B10", "B12", "Z"]) == "B08..10, B12, Z"
    assert compact([]) == ""
    assert [number_in(name) for name in ("video07", "VID111", "12", "a1b2", "video")] == [7, 111, 12, None, None]
