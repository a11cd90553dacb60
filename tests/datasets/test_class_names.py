"""Which spellings mean one class, and labels that meet classes by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from surgdino.datasets.adapters import folder
from surgdino.datasets.card import Card, card_names, load_card
from surgdino.datasets.class_names import class_finder, class_key, corrected, from_one
from surgdino.datasets.manifest import FrameLabels, Labels, SecondLabels, SegmentLabels
from surgdino.datasets.mask_files import Layer, Legend
from surgdino.datasets.masks import FrameMasks, VideoMasks, read_masks
from surgdino.datasets.open import open_dataset
from surgdino.errors import SurgdinoError


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("CalotTriangleDissection", ["Calot’s triangle dissection", "CARLOT_TRIANGLE_DISSECTION"]),
        ("CarlotTriangleDissection", ["carlot-triangle-dissection", "calottriangledissection"]),
        ("ClippingCutting", ["clipping-and-cutting", "Clipping & Cutting", "clipping/cutting", "ClippingAndCutting"]),
        ("GallbladderRetraction", ["gallbladder-extraction", " Gallbladder  retraction "]),
        ("Résection", ["resection", "RÉSECTION"]),
        ("step 1.1", ["Step 1-1", "STEP_1.1"]),
    ],
)  # fmt: skip
def test_spellings_of_one_class(name, others):
    assert {class_key(other) for other in others} == {class_key(name)}


@pytest.mark.parametrize(
    "pair", [("step 1.1", "step 11"), ("HER2+", "HER2"), ("Preparation", "Preparations"), ("手術", "準備")]
)
def test_other_classes_stay_apart(pair):
    assert class_key(pair[0]) != class_key(pair[1])


def test_carlot_is_corrected_as_a_whole_word_alone():
    assert (
        corrected("CarlotTriangleDissection, carlot-triangle, CARLOT")
        == "CalotTriangleDissection, calot-triangle, CALOT"
    )
    assert corrected("Carlotta") == "Carlotta"


@pytest.mark.parametrize("name", card_names())
def test_a_card_has_no_two_spellings_of_one_class_and_no_misprint(name):
    card = load_card(name)
    for names in (
        card.phases,
        card.tools,
        card.instruments,
        card.verbs,
        card.targets,
        card.triplets,
        card.mask_classes,
    ):
        assert len({class_key(each) for each in names}) == len(names)
        assert [corrected(each) for each in names] == list(names)


def test_where_spelling_tells_two_classes_apart_every_name_is_exact():
    find = class_finder(["A", "a"])
    assert (find("A"), find("a"), find(" a")) == (0, 1, None)
    assert class_finder(["Access", "Closure"])("closure") == 1


@pytest.mark.parametrize(
    ("ids", "told"),
    [(range(1, 8), True), ([3, 7], True), (["1", "7"], True), (range(7), False), ([0, 7], False), ([1, 8], False),
     (["1", "x", "7"], False), ([], False), (["9" * 5000], False)],
)  # fmt: skip
def test_ids_that_count_from_one(ids, told):
    assert from_one(ids, 7) is told


def test_a_card_of_ones_own_is_read_with_the_misprint():
    assert Card.from_dict({"name": "x", "adapter": "folder", "phases": ["Carlot triangle"]}).phases == (
        "Calot triangle",
    )


@pytest.mark.parametrize(
    ("ids", "fix"), [([1, 2, 3], "seem to count from 1"), ([-1, 0, 1], "leave frames"), ([0, 3], "leave")]
)
def test_ids_of_no_class_are_told_when_the_dataset_is_opened(tmp_path, monkeypatch, ids, fix):
    """As an adapter of one's own may give them."""
    (tmp_path / "a.mp4").write_bytes(b"x")
    labels = Labels("phase", ("x", "y", "z"), {"a": FrameLabels(np.arange(len(ids)), np.array(ids))})
    monkeypatch.setattr(folder, "read_label_tables", lambda *_: (labels, [], ""))
    (tmp_path / "labels.csv").write_text("")
    with pytest.raises(SurgdinoError, match="a phase id of no class; expected 0 to 2") as caught:
        open_dataset(load_card("folder"), tmp_path)
    assert fix in caught.value.fix


FORMS = {
    "frames": lambda ids: FrameLabels(np.arange(4), ids),
    "seconds": lambda ids: SecondLabels(np.arange(4.0), ids),
    "segments": lambda ids: SegmentLabels(np.arange(4.0), np.arange(1.0, 5), ids, by_frame=False),
}


@pytest.mark.parametrize("form", FORMS)
def test_reordered_ids_keep_their_names(form):
    labels = Labels("phase", ("a", "b", "c"), {"v": FORMS[form](np.array([0, 1, 2, -1], np.int16))})
    found = labels.in_classes(("C", "A", "B"))
    assert found.classes == ("C", "A", "B")
    assert found.values["v"].array.tolist() == [1, 2, 0, -1]
    assert found.values["v"].array.dtype == np.int16
    assert labels.values["v"].array.tolist() == [0, 1, 2, -1]


@pytest.mark.parametrize("others", [("a", "b"), ("a", "b", "d"), ("a", "b", "c", "d"), ("A", "a", "b")])
def test_other_classes_do_not_meet(others):
    assert Labels("phase", ("a", "b", "c"), {}).in_classes(others) is None


def test_reordered_flags_keep_their_names():
    labels = Labels(
        "tools", ("a", "b", "c"), {"v": FrameLabels(np.arange(2), np.array([[1, 0, 0], [0, 1, 1]], np.uint8))}
    )
    assert labels.in_classes(("c", "a", "b")).values["v"].array.tolist() == [[0, 1, 0], [1, 0, 1]]


def test_reordered_masks_are_read_through_their_own_legend(tmp_path: Path):
    ids = np.array([[0, 1], [2, 2]], np.uint8)
    for name in ("image", "mask"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), ids)
    legend = Legend({"Liver": 1, "Tool": 2})
    files = {name: Layer(tmp_path / "mask.png", name, legend) for name in legend.values} | {"Gut": None}
    frames = VideoMasks({0: FrameMasks(tmp_path / "image.png", files)}, ("Liver", "Tool", "Gut"))
    labels = Labels("masks", ("Liver", "Tool", "Gut"), {"v": frames})
    found = labels.in_classes(("tool", "gut", "liver"))
    masks, labelled = read_masks(found.values["v"][0], found.classes)
    assert masks.sum((1, 2)).tolist() == [2, 0, 1]
    assert labelled.all()
    assert found.values["v"].array.tolist() == [[1, 0, 1]]
    assert replace(found, values={}) == Labels("masks", ("tool", "gut", "liver"), {})
