"""Commands that take folders and a few settings, without a configuration of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from surgdino.errors import SurgdinoError, nearest


def settings_of(words: Sequence[str], known: Mapping[str, str], usage: str) -> tuple[list[str], dict[str, str]]:
    """The words that are no settings, and the settings with their defaults.

    Args:
        known: setting -> default.
        usage: the command as its help gives it.

    Raises:
        SurgdinoError: an unknown setting; the nearest is named.
    """
    plain, settings = [], dict(known)
    for word in words:
        key, equals, value = word.partition("=")
        if equals and "/" not in key:
            if key not in known:
                raise SurgdinoError(f"unknown setting {key!r}", fix=nearest(key, known))
            settings[key] = value
        elif word.startswith("-"):
            raise SurgdinoError(f"unknown option {word!r}", fix=f"use {usage}")
        else:
            plain.append(word)
    return plain, settings
