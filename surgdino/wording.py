"""Numbers in sentences: how many of what, how long, how large."""

from __future__ import annotations


def counted(count: int, one: str, many: str = "") -> str:
    """`1 frame`, `1,200 frames`.

    Args:
        one: the word for one of them.
        many: for any other number; `one` with an s where none is given.
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def capital(text: str) -> str:
    """The text with a capital letter first, the rest as it is."""
    return text[:1].upper() + text[1:]


def duration(seconds: float) -> str:
    """`3 h 12 min`, `4 min 10 s`, `12 s`."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def size(amount: float) -> str:
    """Bytes as people say them: `740 MB`, `12.3 GB`."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if amount >= factor:
            digits = 1 if amount < 100 * factor and unit != "kB" else 0
            return f"{amount / factor:.{digits}f} {unit}"
    return counted(int(amount), "byte")
