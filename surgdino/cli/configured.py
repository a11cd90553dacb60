"""Verbs with settings: read the words, compose the configuration, run the verb."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from itertools import takewhile
from pathlib import Path

import hydra
from omegaconf import DictConfig

from surgdino import console
from surgdino.cli import early, help, start
from surgdino.cli.compose import FAULTS, compose, in_words, of_recipe
from surgdino.cli.words import parsable
from surgdino.config import plain
from surgdino.errors import SurgdinoError, nearest
from surgdino.paths import share

# Positional words a verb takes before its settings, such as `augment` in `surgdino show augment`.
SUBJECTS = {"show": ("augment", "crops", "content", "clusters", "duplicates"), "bench": ("step", "data", "store")}
# Verbs that are a folder of their own.
FOLDERS = ("show", "bench", "verify")
# Hydra's options.
OPTIONS = (
    *("--hydra-help", "--version", "-c", "--cfg", "--resolve", "-p", "--package", "-r", "--run", "-i"),
    *("--info", "-m", "--multirun", "-sc", "--shell-completion", "-cd", "--config-dir", "--experimental-rerun"),
)
# Settings of a section that may be written without it.
SHORT = {"exclude": "data.exclude", "organ": "data.organ"}
# Settings that were renamed: old key -> new key. The old one is still taken, with a line that says the new one.
RENAMED: dict[str, str] = {}
# Settings that are no more: (verb, key) -> why. They are still taken, with that line, and change nothing.
GONE = dict.fromkeys(
    (("score", "resamples"), ("score", "seed")), "intervals over operations are computed without drawing"
)
# What is said of a long run instead of running it, and the verbs that have it.
PLAN, PLANNED = "--plan", ("pretrain", "finetune", "curate", "benchmark")
# Sections that take keys of any name: data.NAME=FOLDER.
OPEN = {"benchmark": "data."}
# Verbs that take paths before their settings: what they are, and an example.
PATHS = {
    "predict": ("video files or folders of images", "surgdino predict VIDEO checkpoint=RUN"),
    "merge": ("initial weights and adapted checkpoints", "surgdino merge INITIAL ADAPTED out=FOLDER"),
    "export": ("a run, or its checkpoint folder", "surgdino export RUN format=timm out=FOLDER"),
}


def run_configured(verb: str, words: list[str], about: str = "") -> int:
    """Compose `configs/<verb>.yaml` with the settings in `words` and run the verb's `main`; its exit code.

    Args:
        about: what the verb does, for its --help.
    """
    if "-h" in words or "--help" in words:
        print(
            help.page(
                verb, about, usage(verb), [_in_full(word) for word in words if word not in SUBJECTS.get(verb, ())]
            )
        )
        return 0
    planned = PLAN in words
    if planned and verb not in PLANNED:
        raise SurgdinoError(f"surgdino {verb} has no {PLAN}", expected=", ".join(PLANNED), fix="leave it out")
    subject, words = _subject(verb, [word for word in words if word != PLAN])
    multirun = "-m" in words or "--multirun" in words
    # Of two words that set the same key, the later one: scripts append theirs, and Hydra cannot merge mappings.
    last = {word.partition("=")[0]: word for word in map(_in_full, words)}
    for key in [key for key in last if (verb, key) in GONE]:
        console.warn(f"{key} is left out: {GONE[verb, key]}")
        del last[key]
    words = [parsable(word, sweeps=multirun) for word in last.values()]
    if verb in OPEN:
        words = [f"++{word}" if word.startswith(OPEN[verb]) else word for word in words]
    if unknown := [word for word in words if word[:1] in ("-", "=") and word.partition("=")[0] not in OPTIONS]:
        raise SurgdinoError(f"unknown option {unknown[0]!r}", fix="write settings as section.key=value, without dashes")
    if any(word.startswith("-") for word in words):
        if planned:
            raise SurgdinoError(f"{PLAN} and Hydra's options do not go together", fix="leave one of them out")
        return _run_by_hydra(verb, subject, words)
    try:
        return _run(verb, subject, compose(verb, words), planned=planned)
    except SurgdinoError as fault:
        raise of_recipe(verb, words, fault) from fault


def usage(verb: str) -> str:
    """The form of a command, for its help."""
    subjects = "|".join(SUBJECTS.get(verb, ()))
    first = PATHS[verb][1] if verb in PATHS else f"surgdino {verb} {subjects}".rstrip()
    return f"{first} [group=choice ...] [section.key=value ...]"


def _run(verb: str, subject: str | list[str] | None, cfg: DictConfig, *, planned: bool = False) -> int:
    values = plain(cfg)
    paths = subject if isinstance(subject, list) else []
    early.check(verb, values, paths)

    def main() -> int:
        if planned:
            return import_module("surgdino.bench.plan").main(verb, values)
        work = import_module(f"surgdino.{verb}.verb" if verb in FOLDERS else f"surgdino.verbs.{verb}").main
        return work(values, subject) if subject else work(values)

    return start.run(verb, paths or [word for word in [subject] if word], values, main)


def _run_by_hydra(verb: str, subject: str | list[str] | None, words: list[str]) -> int:
    """Options (`--multirun`, `--cfg job`, `--help`, ...) are Hydra's own: its launchers, its pages, its completion."""
    codes: list[int] = []
    faults: list[SurgdinoError] = []
    here = os.getpid()

    def job(cfg: DictConfig) -> None:
        try:
            codes.append(_run(verb, subject, cfg))
        except SurgdinoError as fault:
            if os.getpid() != here:  # a launcher's process: an exception is all that reaches the process that waits
                raise
            faults.append(fault)  # Hydra would print a line of its own before ours

    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions are raised as they are; `in_words` makes one line of them
    # hydra.main reads the words from sys.argv and from nowhere else.
    previous, sys.argv = sys.argv, [f"surgdino {verb}", *words]
    try:
        hydra.main(version_base="1.3", config_path=str(share("configs")), config_name=verb)(job)()
    except FAULTS as error:
        raise in_words(verb, words, error) from error
    finally:
        sys.argv = previous
    if faults:
        raise faults[0]
    return max(codes, default=0)


def _subject(verb: str, words: list[str]) -> tuple[str | list[str] | None, list[str]]:
    """What stands before the settings, a subject or paths, and the rest."""
    valid = SUBJECTS.get(verb)
    if valid is None and verb not in PATHS:
        return None, words
    if valid is None:  # a path may hold an equals sign if such a file exists
        paths = list(takewhile(lambda w: w[:1] != "-" and ("=" not in w or Path(w).expanduser().exists()), words))
        if not paths:
            kind, example = PATHS[verb]
            raise SurgdinoError(f"surgdino {verb} of what?", expected=kind, fix=f"write {example}")
        return paths, words[len(paths) :]
    if not words or "=" in words[0] or words[0].startswith("-"):
        fix = f"try surgdino {verb} {valid[0]}"
        raise SurgdinoError(f"surgdino {verb} of what?", expected=", ".join(valid), fix=fix)
    if words[0] not in valid:
        raise SurgdinoError(f"surgdino {verb} does not know {words[0]!r}", fix=nearest(words[0], valid))
    return words[0], words[1:]


def _in_full(word: str) -> str:
    key, equals, value = word.partition("=")
    if key in RENAMED:
        console.warn(f"{key} is now called {RENAMED[key]}")
    return f"{RENAMED.get(key, SHORT.get(key, key))}{equals}{value}"
