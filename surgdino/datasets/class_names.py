"""Names of classes: which spellings mean one class, and how a class is called where people read it.

Ids mean something in one list alone: releases number the same phases differently (one swaps 4 and 6), so classes meet
by name wherever two lists do.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence

# A misprint in Cholec80 and CholecT50, after Jean-François Calot.
_CARLOT = re.compile(r"(?<![^\W_])(ca)r(lot)(?=['’]?s?(?:triangle|[\W_]|$))", re.IGNORECASE)
_WORDS = re.compile(r"\d+(?:[\W_]+\d+)*|[^\W\d_]+|\+")
_MOST_DIGITS = 9
# What other releases call the same, without marks and `and`.
_SPELLINGS = {
    "calotstriangledissection": "calottriangledissection",
    "clippingandcutting": "clippingcutting",
    "cleaningandcoagulation": "cleaningcoagulation",
    "gallbladderextraction": "gallbladderretraction",
}


def corrected(name: str) -> str:
    """A class name without the misprint `Carlot`, which files may have and nothing that is shown does."""
    return _CARLOT.sub(r"\1\2", name)


def class_key(name: str) -> str:
    """What all spellings of a class have in common: its words without case, accents, marks and `and`.

    Marks between digits count (step 1.1 is not step 11), and so does a plus sign.
    """
    spaced = re.sub(r"(?<=[a-z\d])(?=[A-Z])", " ", re.sub("['’]", "", corrected(name)))
    folded = unicodedata.normalize("NFKD", spaced).casefold()
    words = _WORDS.findall("".join(letter for letter in folded if not unicodedata.combining(letter)))
    key = "".join(re.sub(r"[\W_]+", ".", word) if word[0].isdigit() else word for word in words if word != "and")
    return _SPELLINGS.get(key, key) or name


def class_finder(classes: Sequence[str]) -> Callable[[str], int | None]:
    """A function from a name in any spelling to its place in `classes`; None where they lack it.

    Where two of the classes differ in their spelling alone, every name has to be exact.
    """
    exact = {name: place for place, name in enumerate(classes)}
    keys = [class_key(name) for name in classes]
    by_key = {key: place for place, key in enumerate(keys)} if len(set(keys)) == len(keys) else {}

    def find(name: str) -> int | None:
        place = exact.get(name)
        return by_key.get(class_key(name)) if place is None else place

    return find


def from_one(ids: Iterable[int | str], classes: int) -> bool:
    """Whether ids, or names that are numbers, seem to count from 1: the last is one too high, and 0 never occurs."""
    found = {str(value) for value in ids}
    if not all(text.isdecimal() and len(text) < _MOST_DIGITS for text in found):
        return False
    numbers = {int(text) for text in found}
    return max(numbers, default=0) == classes and 0 not in numbers
