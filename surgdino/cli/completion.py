"""`surgdino completion bash|zsh|fish`: a script for the shell that knows every verb, setting and choice of this
installation. The shell then completes by itself, without starting Python."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf

from surgdino.cli.compose import GROUPS, choices, compose
from surgdino.cli.configured import OPEN, PATHS, SUBJECTS
from surgdino.cli.early import CONFIGS, settings_of
from surgdino.cli.verbs import VERBS
from surgdino.config import fields_of, flat_keys, members_of
from surgdino.discovery import files, names
from surgdino.errors import SurgdinoError, nearest
from surgdino.verbs.list import KINDS
from surgdino.verbs.words import RUN_VERBS

USAGE = "surgdino completion bash|zsh|fish"
HELP = f"""{USAGE}

Prints a script that completes verbs, settings, choices and paths. Once, and again after an update:
  bash  surgdino completion bash > ~/.local/share/bash-completion/completions/surgdino   (the folder must be there)
  zsh   surgdino completion zsh > ~/.surgdino.zsh, and in ~/.zshrc behind compinit: source ~/.surgdino.zsh
  fish  surgdino completion fish > ~/.config/fish/completions/surgdino.fish"""
_WORDS = {
    "weights": ("list", "get"),
    "completion": ("bash", "zsh", "fish"),
    "demo": ("dir=", "videos=", "seconds=", "steps="),
}
_PATH = "paths"


@dataclass(frozen=True)
class Known:
    """What can be completed.

    Attributes:
        words: verb -> what may stand behind it: subjects, and settings with their equals sign.
        values: setting -> what may stand behind its equals sign.
        paths: settings that take a file or folder.
        places: verbs that take files or folders before their settings.
    """

    words: dict[str, list[str]]
    values: dict[str, list[str]]
    paths: list[str]
    places: list[str]


def main(words: Sequence[str]) -> int:
    """Print the script of a shell; 0."""
    if len(words) != 1 or words[0] not in _SCRIPTS:
        fix = f"{nearest(words[0], _SCRIPTS)} " if words else ""
        raise SurgdinoError("completion for which shell?", expected="bash, zsh or fish", fix=f"{fix}Use {USAGE}")
    print(_SCRIPTS[words[0]](known()), end="")
    return 0


def known() -> Known:
    """All that this installation and the user's own folders offer."""
    values = {group: list(choices(group)) for group in GROUPS}
    values |= {"suite": list(files("configs/suites")), "format": names("surgdino.exports.formats")}
    paths = set[str]()
    words: dict[str, list[str]] = {verb: list(_WORDS.get(verb, ())) for verb in VERBS}
    words["list"] = [*KINDS, "evaluations", "overlaps"]
    for verb in CONFIGS:
        words[verb] = [*SUBJECTS.get(verb, ()), *(f"{key}=" for key in _keys(verb))]
        for key, found in _of_type(settings_of(verb), ""):
            if found == _PATH:
                paths.add(key)
            else:
                values.setdefault(key, list(found))
    for verb, each in RUN_VERBS.items():
        words[verb] = [f"{key}=" for key in _leaves(each.kind)]
    words["weights"].append("to=")
    paths |= {
        "checkpoint",
        "backbones",
        "data.root",
        "out",
        "to",
        "dir",
        *(f"{OPEN['benchmark']}{name}" for name in values["dataset"]),
    }
    words["benchmark"] += [f"{OPEN['benchmark']}{name}=" for name in values["dataset"]]
    return Known(words, values, sorted(paths), [*PATHS, *RUN_VERBS])


def _keys(verb: str) -> list[str]:
    """Every setting of a verb as it is composed by default, groups first; nobody sets those of a dataset's card."""
    container = OmegaConf.to_container(compose(verb, with_hydra=True))
    assert isinstance(container, dict)
    composed = {str(key): value for key, value in container.items()}
    chosen = composed.pop("hydra")["runtime"]["choices"]
    sections = {key for key, value in composed.items() if isinstance(value, dict)}
    composed.pop("dataset", None)
    keys = [key for key in flat_keys(composed) if key not in sections and not key.startswith("augment.transforms.")]
    return [*(group for group in GROUPS if group in chosen), *(key for key in keys if key not in GROUPS)]


def _leaves(kind: Any, prefix: str = "") -> Iterator[str]:
    for name, hint in (fields_of(kind) or {}).items():
        if fields_of(hint) is None:
            yield f"{prefix}{name}"
        else:
            yield from _leaves(hint, f"{prefix}{name}.")


def _of_type(kind: Any, prefix: str) -> Iterator[tuple[str, str | list[str]]]:
    """Setting -> what its type takes, where that is a path or one of a few words."""
    for name, hint in (fields_of(kind) or {}).items():
        key = f"{prefix}{name}"
        literals = [
            str(v) for each in members_of(hint) if typing.get_origin(each) is Literal for v in typing.get_args(each)
        ]
        if fields_of(hint) is not None:
            yield from _of_type(hint, f"{key}.")
        elif Path in members_of(hint):
            yield key, _PATH
        elif bool in members_of(hint):
            yield key, ["true", "false", *literals]
        elif literals:
            yield key, literals


def _bash(found: Known) -> str:
    verbs = " ".join(found.words)
    words = "\n".join(f'    {verb}) echo "{" ".join(each)}" ;;' for verb, each in found.words.items() if each)
    values = "\n".join(f'    {key}) echo "{" ".join(each)}" ;;' for key, each in sorted(found.values.items()))
    return f"""# Completes surgdino in bash and zsh; written by `surgdino completion`.
_surgdino_words() {{
  case $1 in
{words}
  esac
}}
_surgdino_values() {{
  case $1 in
{values}
  esac
}}
_surgdino_takes_path() {{
  case $1 in {"|".join(found.paths)}) return 0 ;; *) return 1 ;; esac
}}
_surgdino_places() {{
  case $1 in {"|".join(found.places)}) return 0 ;; *) return 1 ;; esac
}}
_surgdino() {{
  # The words as typed: bash would cut them at every equals sign.
  local line="${{COMP_LINE:0:$COMP_POINT}}" before cur verb key value
  cur="${{line##* }}"
  before="${{line%"$cur"}}"
  before="${{before#* }}"
  verb="${{before%% *}}"
  COMPREPLY=()
  if [ -z "$verb" ]; then
    COMPREPLY=($(compgen -W "{verbs}" -- "$cur"))
    return
  fi
  case $cur in
    *=*)
      key="${{cur%%=*}}"
      value="${{cur#*=}}"
      if _surgdino_takes_path "$key"; then
        COMPREPLY=($(compgen -f -- "${{value/#\\~/$HOME}}"))
        compopt -o filenames 2>/dev/null
      else
        COMPREPLY=($(compgen -W "$(_surgdino_values "$key")" -- "$value"))
      fi
      if [ -n "$ZSH_VERSION" ]; then COMPREPLY=("${{COMPREPLY[@]/#/$key=}}"); fi
      ;;
    *)
      COMPREPLY=($(compgen -W "$(_surgdino_words "$verb")" -- "$cur"))
      if _surgdino_places "$verb"; then COMPREPLY+=($(compgen -f -- "$cur")); fi
      case "${{COMPREPLY[*]}}" in *=) compopt -o nospace 2>/dev/null ;; esac
      ;;
  esac
}}
"""


def _for_bash(found: Known) -> str:
    return f"{_bash(found)}complete -F _surgdino surgdino\n"


def _for_zsh(found: Known) -> str:
    return f"autoload -U +X bashcompinit && bashcompinit\n{_bash(found)}complete -o nospace -F _surgdino surgdino\n"


def _for_fish(found: Known) -> str:
    """fish completes paths behind an equals sign by itself."""
    lines = ["# Completes surgdino in fish; written by `surgdino completion`.", "complete -c surgdino -e"]
    lines.append(f"complete -c surgdino -f -n __fish_use_subcommand -a '{' '.join(found.words)}'")
    for verb, words in found.words.items():
        offered = [word for word in words if word[:-1] not in found.values]
        offered += [f"{word}{value}" for word in words for value in found.values.get(word[:-1], ())]
        lines.append(f"complete -c surgdino -n '__fish_seen_subcommand_from {verb}' -a '{' '.join(offered)}'")
    return "\n".join(lines) + "\n"


_SCRIPTS = {"bash": _for_bash, "zsh": _for_zsh, "fish": _for_fish}
