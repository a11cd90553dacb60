"""Verbs with settings: compose the configuration with Hydra, say plainly what is wrong with it, run the verb."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from importlib import import_module
from itertools import takewhile
from pathlib import Path
from typing import Any

from surgdino.config import flat_keys, plain, register_groups
from surgdino.errors import SurgdinoError, nearest
from surgdino.paths import share

# Positional words a verb takes before its settings, such as `augment` in `surgdino show augment`.
SUBJECTS = {"show": ("augment", "crops", "content"), "bench": ("step", "data", "store")}
# Verbs that are a folder of their own.
FOLDERS = ("show", "bench", "verify")
# Settings of a section that are written without it, too.
SHORT = {"exclude": "data.exclude", "organ": "data.organ"}
# Verbs that take paths before their settings: what they are, and an example.
PATHS = {
    "predict": ("video files or folders of images", "surgdino predict VIDEO checkpoint=RUN"),
    "merge": ("initial weights and adapted checkpoints", "surgdino merge INITIAL ADAPTED out=FOLDER"),
}


def run_configured(verb: str, words: list[str]) -> int:
    """Compose `configs/<verb>.yaml` with the overrides in `words` and run the verb's `main`.

    Goes through `hydra.main`, so multirun, launchers, `--cfg job` and shell completion work as Hydra's users expect.

    Raises:
        SurgdinoError: a key, group choice or value that cannot be; the nearest valid one is named.
    """
    subject, words = _subject(verb, words)
    multirun = "-m" in words or "--multirun" in words
    words = [_parsable(word, multirun) for word in _last_of_each(map(_in_full, words))]
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    register_groups()
    codes: list[int] = []
    faults: list[SurgdinoError] = []
    here = os.getpid()

    def job(cfg: Any) -> None:
        main = import_module(f"surgdino.{verb}.verb" if verb in FOLDERS else f"surgdino.verbs.{verb}").main
        try:
            codes.append(main(plain(cfg), subject) if subject else main(plain(cfg)))
        except SurgdinoError as fault:
            if os.getpid() != here:  # a launcher's process: an exception is all that reaches who waits for it
                raise
            faults.append(fault)  # Hydra would print a line of its own before ours

    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions come out whole; we put them into words
    previous, sys.argv = sys.argv, [f"surgdino {verb}", *words]
    try:
        hydra.main(version_base="1.3", config_path=str(share("configs")), config_name=verb)(job)()
    except (HydraException, OmegaConfBaseException) as error:
        raise _in_words(verb, words, error) from error
    finally:
        sys.argv = previous
    if faults:
        raise faults[0]
    return max(codes, default=0)


def _subject(verb: str, words: list[str]) -> tuple[str | list[str] | None, list[str]]:
    if verb in PATHS and not any(w in ("-h", "--help") for w in words):
        return _paths(verb, words)
    valid = SUBJECTS.get(verb)
    if valid is None or any(w in ("-h", "--help") for w in words):
        return None, words
    if not words or "=" in words[0] or words[0].startswith("-"):
        raise SurgdinoError(
            f"surgdino {verb} of what?", expected=", ".join(valid), fix=f"try surgdino {verb} {valid[0]}"
        )
    if words[0] not in valid:
        raise SurgdinoError(f"surgdino {verb} does not know {words[0]!r}", fix=nearest(words[0], valid))
    return words[0], words[1:]


def _paths(verb: str, words: list[str]) -> tuple[list[str], list[str]]:
    """The paths before the settings, and the rest; a path may hold an equals sign if something lies there."""
    paths = list(takewhile(lambda w: not w.startswith("-") and ("=" not in w or Path(w).expanduser().exists()), words))
    if not paths:
        kind, example = PATHS[verb]
        raise SurgdinoError(f"surgdino {verb} of what?", expected=kind, fix=f"write {example}")
    return paths, words[len(paths) :]


def _in_full(word: str) -> str:
    key, equals, value = word.partition("=")
    return f"{SHORT.get(key, key)}{equals}{value}"


def _last_of_each(words: Iterable[str]) -> list[str]:
    """Of two words that set the same, the later one: scripts append theirs, and Hydra cannot merge mappings."""
    kept: dict[str, str] = {}
    for word in words:
        kept[word.partition("=")[0]] = word
    return list(kept.values())


def _parsable(word: str, multirun: bool) -> str:
    """Quote the value of `key=value` where Hydra's grammar can't read it: spaces, commas, brackets, umlauts."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    key, equals, value = word.partition("=")
    if not equals or word.startswith("-"):
        return word
    try:
        override = OverridesParser.create().parse_override(word)
        if multirun or not override.is_sweep_override():
            return word
    except HydraException:
        pass
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"{key}='{escaped}'"


def _in_words(verb: str, words: list[str], error: Exception) -> SurgdinoError:
    """Hydra's error as one line with the nearest valid key or choice."""
    from hydra.errors import MissingConfigException, OverrideParseException

    text = str(error)
    if isinstance(error, OverrideParseException):
        word = getattr(error, "override", text)
        return SurgdinoError(f"{word!r} is not a setting of the form key=value", fix="write section.key=value")
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        return SurgdinoError(f"there is no {group}={choice}", fix=nearest(choice, error.options or []))
    unknown = re.search(r"Could not override '([^']+)'|Key '([^']+)' is not in struct", text)
    if unknown:
        key = (unknown.group(1) or unknown.group(2)).lstrip("+~")
        return SurgdinoError(f"unknown setting {key!r}", fix=nearest(key, _valid_keys(verb, words)))
    return SurgdinoError("the settings do not fit together", found=text.splitlines()[0])


def _valid_keys(verb: str, words: list[str]) -> list[str]:
    """The verb's keys with the choices made: each task and method has settings of its own."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    groups = ["recipe", "dataset", "model", "method", "task", "augment", "hardware"]
    choices = [word for word in words if word.partition("=")[0] in groups]

    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir=str(share("configs")), version_base="1.3"):
        cfg = compose(config_name=verb, overrides=choices)
    return [*flat_keys(OmegaConf.to_container(cfg, resolve=False)), *groups]  # type: ignore[arg-type]
