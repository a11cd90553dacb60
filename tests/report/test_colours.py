"""A class has one colour, in every picture and every spelling, and no two of a set look alike to anybody."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from surgdino.datasets.card import card_names, load_card
from surgdino.report.colours import class_colours, readable_name

# Machado, Oliveira & Fernandes 2009: what dichromats see of linear RGB.
SIGHT = {
    "trichromat": np.eye(3),
    "protanope": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranope": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanope": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
MOST, OBJECTS = 12, 10  # of sets with more classes than colours can tell apart, as many as differ
SETS = {
    (name, kind): classes[:OBJECTS] if len(classes) > MOST else classes
    for name in card_names()
    for kind in ("phases", "tools", "instruments", "mask_classes")
    if len(classes := getattr(load_card(name), kind)) > 1
}


def lab(colour: str, sight: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of `#rrggbb` as someone sees it."""
    srgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.asarray(sight) @ linear, 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = (to_xyz @ seen) / (0.9505, 1.0, 1.089)
    fx, fy, fz = (np.cbrt(v) if v > 0.008856 else 7.787 * v + 16 / 116 for v in (x, y, z))
    return np.array([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)])


@pytest.mark.parametrize("name", SETS, ids="/".join)
@pytest.mark.parametrize("sight", SIGHT)
def test_classes_of_a_set_look_different_to_everybody(name, sight):
    colours = class_colours(SETS[name])
    for one, other in itertools.combinations(colours, 2):
        distance = np.linalg.norm(lab(colours[one], SIGHT[sight]) - lab(colours[other], SIGHT[sight]))
        assert distance > 15, f"{one} and {other} to a {sight}: {distance:.1f}"


def test_a_phase_has_the_same_colour_in_every_dataset():
    cholec80, cholect50 = (load_card(name).phases for name in ("cholec80", "cholect50"))
    m2cai = class_colours(load_card("m2cai16").phases)
    assert list(class_colours(cholec80).values()) == list(class_colours(cholect50).values())
    assert {name: m2cai[name] for name in cholec80} == class_colours(cholec80)


def test_names_of_ones_own_keep_their_colours_whatever_their_order():
    names = ["port placement", "dissection", "stapling", "closure", "Preparation"]
    colours = class_colours(names)
    assert class_colours(names[::-1]) == colours
    assert list(colours) == names
    assert len(set(colours.values())) == len(names)
    assert colours["Preparation"] == class_colours(["preparation"])["preparation"]


def test_more_classes_than_colours_still_have_one_each():
    names = [f"step {i}" for i in range(40)]
    assert all(colour.startswith("#") and len(colour) == 7 for colour in class_colours(names).values())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("CalotTriangleDissection", "Calot triangle dissection"),
        ("carlot-triangle-dissection", "Calot triangle dissection"),
        ("abdominal_wall", "Abdominal wall"),
        ("CO2 insufflation", "CO2 insufflation"),
    ],
)
def test_names_are_shown_as_people_write_them(name, text):
    assert readable_name(name) == text
