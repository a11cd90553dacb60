"""One colour a class, the same in every picture of every run, told apart by colour-blind readers; colours of charts.

Classes that datasets share have a fixed colour here, whatever the dataset's spelling. Any other class gets a colour by
the hash of its name, or the next free one where two classes of a set collide. So a class of the user's own data keeps
its colour from run to run, as long as the other classes stay the same.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from surgdino.datasets.class_names import class_key, corrected
from surgdino.wording import capital

# Charts: text, secondary text, grid, main line, what alarms.
INK, SOFT, GRID, LINE, ALARM = "#22303c", "#7b8794", "#e4e7eb", "#0b7285", "#c92a2a"

# From Paul Tol's schemes (SRON/EPS/TN/09-002): those that are furthest apart for trichromats and for all three kinds of
# dichromats at once (tests/report/test_colours.py measures it).
_TROCAR, _PHASES = "#555555", ("#88ccee", "#332288", "#ee99aa", "#117733", "#ddcc77", "#999933", "#aa4499")
_OTHERS = (
    *("#ffaabb", "#44bb99", "#663333", "#cc3311", "#222255", "#999933", "#eedd88", "#bbcc33"),
    *("#882255", "#ee8866", "#0077bb", "#228833", "#ee6677", "#77aadd", "#004488"),
)

# Where two classes of a set have one colour below, the first takes one of these; they differ from all organs' too.
_SPARE = ("#8800ff", "#8888ff", "#ccffcc", "#0044aa", "#66ff00")

# What is numbered and not named; ten is as many as differ for everybody
_OBJECTS = (
    *("#88ccee", "#997700", "#ee3377", "#eedd88", "#222255"),
    *("#ee8866", "#0077bb", "#bbbbbb", "#663333", "#ddaa33"),
)

# As many as differ, with the colours of preparation and of cleaning and coagulation among them
_TWELVE = (
    *("#88ccee", "#ee3377", "#eedd88", "#222255", "#bbbbbb", "#7700dd"),
    *("#555500", "#0077bb", "#663333", "#999933", "#00ee00", "#000000"),
)


def _named(names: str, colours: Sequence[str]) -> dict[str, str]:
    return dict(zip(names.split(), colours, strict=False))


_KNOWN = {
    **{f"object{number}": colour for number, colour in enumerate(_OBJECTS, 1)},
    # Phases of a cholecystectomy, as Cholec80 and m2cai16 spell them
    "trocarplacement": _TROCAR,
    "preparation": _PHASES[0],
    "calottriangledissection": _PHASES[1],
    "clippingcutting": _PHASES[2],
    "gallbladderdissection": _PHASES[3],
    "gallbladderpackaging": _PHASES[4],
    "cleaningcoagulation": _PHASES[5],
    "gallbladderretraction": _PHASES[6],
    # Instruments
    "grasper": _PHASES[0],
    "bipolar": _PHASES[2],
    "hook": _PHASES[1],
    "scissors": _PHASES[3],
    "clipper": _PHASES[4],
    "irrigator": _PHASES[5],
    **dict.fromkeys(("specimenbag", "snare"), _PHASES[6]),
    # HeiChole's
    "coagulation": _PHASES[2],
    "suctionirrigation": _PHASES[5],
    "stapler": _PHASES[1],
    # PitVis'; others of its 18 share colours
    **_named(
        "bipolarforceps cottle cupforceps duralscissors freerelevator haemostaticfoam irrigationsyringe kerrisons"
        " microdoppler nasalcuttingforceps",
        _OBJECTS,
    ),
    # Masks and phases of AutoLaparo
    **_named(
        "graspingforcepsmanipulator graspingforcepsshaft ligasuremanipulator ligasureshaft dissectingforcepsmanipulator"
        " dissectingforcepsshaft electrichookmanipulator electrichookshaft uterus",
        _OBJECTS,
    ),
    **_named(
        "dividingligamentperitoneum dividinguterinevesselsligament transectingthevagina specimenremoval suturing"
        " washing",
        _OBJECTS[1:],
    ),
    # Phases of MultiBypass140 and GraSP
    **_named(
        "preparation gastricpouchcreation omentumdivision gastrojejunalanastomosis anastomosistest jejunalseparation"
        " closurepetersenspace jejunojejunalanastomosis closuremesentericdefect cleaningcoagulation disassembling"
        " otherintervention",
        _TWELVE,
    ),
    **_named(
        "idle lpil rpil retziusspace dorsalvenouscomplex idbladderneck seminalvesicles denonvilliersfascia"
        " pediclecontrol severingprostateurethra bladderneckrec",
        _TWELVE[::-1],
    ),
    # Organs of DSAD; the large ones stand out against red tissue
    "abdominalwall": "#117733",
    "colon": "#ddaa33",
    "inferiormesentericartery": "#ee3377",
    "intestinalveins": "#bbbbbb",
    "liver": "#88ccee",
    "pancreas": "#ee8866",
    "smallintestine": "#eedd88",
    "spleen": "#222255",
    "stomach": "#aa4499",
    "ureter": "#663333",
    "vesicularglands": "#997700",
    "foreground": "#88ccee",
    # What else masks show
    "gastrointestinaltract": "#ddaa33",
    "fat": "#eedd88",
    "connectivetissue": "#bbbbbb",
    "blood": "#ee3377",
    "lhookelectrocautery": "#222255",
    "gallbladder": "#aa4499",
    "hepaticvein": "#663333",
    "liverligament": "#ee8866",
    "cysticduct": "#997700",
    "cysticartery": "#ee3377",
    "cysticplate": "#ee8866",
    "calottriangle": "#eedd88",
    "tool": "#222255",
    "kidneyparenchyma": "#663333",
    "coveredkidney": "#ee8866",
    "thread": "#222255",
    "clamps": "#bbbbbb",
    "suturingneedle": "#ee3377",
    "ultrasoundprobe": "#aa4499",
    "catheter": "#ee8866",
    "needleholder": "#aa4499",
    **dict.fromkeys(("suctioninstrument", "suctiontool"), "#997700"),
    # Instruments of a robot, and their parts
    "bipolarforceps": "#ee8866",
    "prograspforceps": "#88ccee",
    "largeneedledriver": "#222255",
    "vesselsealer": "#117733",
    "graspingretractor": "#ddaa33",
    "monopolarcurvedscissors": "#aa4499",
    "other": "#bbbbbb",
    **dict.fromkeys(("shaft", "toolshaft", "instrumentshaft"), "#88ccee"),
    **dict.fromkeys(("wrist", "toolwrist", "instrumentwrist"), "#ddaa33"),
    **dict.fromkeys(("claspers", "toolclasper", "instrumentclasper"), "#117733"),
    "probe": "#aa4499",
}


def class_colours(classes: Sequence[str]) -> dict[str, str]:
    """A colour `#rrggbb` for every class name, whatever their order; more classes than colours share some."""
    keys, colours = {name: class_key(name) for name in classes}, dict[str, str]()
    known = list(_KNOWN)
    for name in sorted((name for name, key in keys.items() if key in _KNOWN), key=lambda n: -known.index(keys[n])):
        colour, taken = _KNOWN[keys[name]], {*colours.values()}
        spare = (each for each in _SPARE if each not in taken)
        colours[name] = next(spare, colour) if colour in taken else colour
    taken = set(colours.values())
    for name in sorted(name for name, key in keys.items() if key not in _KNOWN):
        start = int(hashlib.sha256(keys[name].encode()).hexdigest(), 16) % len(_OTHERS)
        probed = [_OTHERS[(start + step) % len(_OTHERS)] for step in range(len(_OTHERS))]
        colours[name] = next((colour for colour in probed if colour not in taken), probed[0])
        taken.add(colours[name])
    return {name: colours[name] for name in classes}


def group_colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for every name in turn, of groups that have no colour of their own, such as operations; after ten they
    come again."""
    return {name: _OBJECTS[place % len(_OBJECTS)] for place, name in enumerate(names)}


def readable_name(name: str) -> str:
    """A class name as people write it: `CalotTriangleDissection` -> `Calot triangle dissection`."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|[_\-]+", " ", corrected(name)).split()
    return capital(" ".join(word if word.isupper() else word.lower() for word in words))
