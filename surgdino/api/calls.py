"""The verbs as functions: the same keys as on the command line, values of Python's, typed results."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from surgdino import console
from surgdino.api.figures import FinetuneResult, ScoredResult
from surgdino.api.result import Result
from surgdino.api.results import (
    BenchmarkResult,
    CompareResult,
    CurateResult,
    ExportResult,
    MergeResult,
    PredictResult,
    PretrainResult,
    ShareResult,
    VerifyResult,
)
from surgdino.cli.main import CONFIGURED, VERBS, dispatch
from surgdino.errors import SurgdinoError, from_os_error
from surgdino.exit_code import ExitCode

R = TypeVar("R", bound=Result)
Word = str | Path | Mapping[str, Any]


class Verb(Generic[R]):
    """`surgdino.VERB(*words, quiet=True, **settings)`: what `surgdino VERB ...` does in a shell.

    Args:
        words: paths and settings as a shell has them (`"data.root=/data"`), and mappings of settings
            (`{"data.root": "/data", "train": {"steps": 100}}`).
        quiet: False shows lines and progress as in a shell.
        settings: `recipe="demo", **{"data.root": "/data"}, train={"steps": 100}`. Of two that set the same key the
            later one counts.

    Raises:
        SurgdinoError: whatever the command would refuse, in the same line.
        KeyboardInterrupt: outside of a training's steps; those save first and give back `status="stopped"`.
    """

    def __init__(self, name: str, kind: type[R]) -> None:
        self.__name__ = self.__qualname__ = name
        self.__doc__ = f"{VERBS[name]}.\n\n{type(self).__doc__}\nReturns:\n    {kind.__name__}.\n"
        self._kind = kind

    def __call__(self, *words: Word, quiet: Any = True, **settings: Any) -> R:  # a bool; `**{...}` is of one type
        """See the class."""
        verb = self.__name__
        command = [verb, *_command(verb, [*words, settings])]
        before, sys.argv = sys.argv, ["surgdino", *command]  # what a run records as its command
        try:
            with console.warnings_kept(quiet=quiet) as warnings:
                ended = dispatch(command)
        except OSError as error:
            if not error.filename:
                raise
            raise from_os_error(error, error.filename) from error
        finally:
            sys.argv = before
        return self._kind.of(ended if isinstance(ended, ExitCode) else ExitCode(ended), warnings)

    def __repr__(self) -> str:
        return f"<surgdino.{self.__name__}: {VERBS[self.__name__]}>"

    def help(self, *words: str) -> str:
        """The page of `surgdino VERB --help`; `help("all")` has all settings, `help("model=vit_base_patch16")` a
        choice's."""
        if self.__name__ not in CONFIGURED:
            raise SurgdinoError(f"surgdino {self.__name__} has no settings of its own", fix="see its docstring")
        from surgdino.cli.configured import usage
        from surgdino.cli.help import page

        return page(self.__name__, VERBS[self.__name__], usage(self.__name__), words)


def _command(verb: str, given: Sequence[Word]) -> list[str]:
    """All that was given as words, in its order."""
    words = [word for each in given for word in _words(verb, each, given)]
    if options := [word for word in words if word.startswith("-")]:
        raise SurgdinoError(f"unknown option {options[0]!r}", fix="options are for the shell; write settings")
    return words


def _words(verb: str, each: Word, given: Sequence[Word]) -> Iterator[str]:
    if not isinstance(each, Mapping):
        yield str(each)
        return
    if verb not in CONFIGURED:
        yield from (f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in each.items())
        return
    from surgdino.cli.words import word_of

    for key, value in _flat(verb, each, given):
        yield word_of(key, value)


def _flat(verb: str, settings: Mapping[str, Any], given: Sequence[Word]) -> Iterator[tuple[str, Any]]:
    """Dotted keys with their values; a mapping is a section where the verb has one there, and else a value."""
    if not any(isinstance(value, Mapping) for value in settings.values()):
        yield from settings.items()
        return
    from omegaconf import DictConfig, OmegaConf

    from surgdino.cli.compose import GROUPS, compose

    pairs = [pair for each in given if isinstance(each, Mapping) for pair in each.items()]
    words = [word for word in given if isinstance(word, str)] + [f"{k}={v}" for k, v in pairs if isinstance(v, str)]
    config = compose(verb, [word for word in words if word.partition("=")[0] in GROUPS])

    def flat(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        for name, value in values.items():
            key = f"{prefix}{name}"
            if isinstance(value, Mapping) and isinstance(OmegaConf.select(config, key), DictConfig):
                yield from flat(f"{key}.", value)
            else:
                yield key, value

    yield from flat("", settings)


pretrain = Verb("pretrain", PretrainResult)
finetune = Verb("finetune", FinetuneResult)
evaluate = Verb("evaluate", ScoredResult)
predict = Verb("predict", PredictResult)
benchmark = Verb("benchmark", BenchmarkResult)
curate = Verb("curate", CurateResult)
merge = Verb("merge", MergeResult)
export = Verb("export", ExportResult)
verify = Verb("verify", VerifyResult)
show = Verb("show", Result)
score = Verb("score", ScoredResult)
report = Verb("report", Result)
share = Verb("share", ShareResult)
compare = Verb("compare", CompareResult)
