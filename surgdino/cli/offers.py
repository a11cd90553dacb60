"""What a user may have meant who wrote a folder, a file or a mistyped word in a verb's place."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from surgdino.cli.verbs import VERBS
from surgdino.discovery import files
from surgdino.errors import SurgdinoError, nearest

_VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".mpg", ".mpeg", ".m4v", ".webm", ".ts", ".wmv")
_WEIGHTS = (".safetensors", ".pth", ".pt", ".bin", ".npz")


def instead(word: str, others: Sequence[str] = ()) -> SurgdinoError:
    """The error for a word that is no verb.

    Args:
        others: the words after it, which the offered commands keep.
    """
    path = Path(word).expanduser()
    if path.exists():
        kind, commands = _of_file(path) if path.is_file() else _of_folder(path)
        rest = "".join(f" {shlex.quote(other)}" for other in others)
        offered = "".join(f"\n  surgdino {command}{rest}" for command in commands)
        return OfferError(f"{word} is {kind}, not a verb; you may want{offered or ' surgdino --help'}")
    if "=" in word:
        what, fix = f"{word!r} is a setting, and a verb comes first", f"write surgdino pretrain {word}, for example"
        return SurgdinoError(what, expected="surgdino VERB key=value ...", fix=fix)
    if "/" in word:
        return SurgdinoError("does not exist, and is no verb", file=word, fix="check the path, or see surgdino --help")
    return SurgdinoError(f"unknown verb {word!r}", fix=f"{nearest(word, VERBS)} See surgdino --help")


class OfferError(SurgdinoError):
    """An error that ends with commands to copy, a line each."""

    def line(self) -> str:
        """The fault, and the commands below it."""
        return self.what


def _of_file(path: Path) -> tuple[str, list[str]]:
    name, ending = _quoted(path), path.suffix.lower()
    if ending in _VIDEOS:
        return "a video", [f"predict {name} checkpoint=RUN", f"verify dataset=folder data.root={_quoted(path.parent)}"]
    if ending in _WEIGHTS:
        return "a file of weights", [f"pretrain model.weights={name} dataset=folder data.root=FOLDER"]
    return "a file", []


def _of_folder(path: Path) -> tuple[str, list[str]]:
    name = _quoted(path)
    if (path / "config.yaml").is_file():
        made = [f"report {name}"]
        if (path / "checkpoint" / "task.json").is_file():
            made += [f"evaluate checkpoint={name}", f"predict VIDEO checkpoint={name}"]
        elif (path / "checkpoint").is_dir():
            made += [f"finetune task=phase checkpoint={name} dataset=cholec80 data.root=FOLDER"]
            made += [f"export {name} format=timm out=FOLDER"]
        return "a run", made
    dataset = dataset_called(path.resolve().name)
    where = f"dataset={dataset} data.root={name}"
    commands = [f"verify {where}", f"show augment {where}", f"pretrain {where} model.weights=FILE"]
    return "a folder", [*commands, f"curate {where}"]


def dataset_called(name: str) -> str:
    """The dataset that a folder of this name may be: of `CholecT50-v2` cholect50; `folder` where none is called so."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    found = [card for card in files("datasets") if card != "folder" and card.replace("_", "") in plain]
    return max(found, key=len, default="folder")


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
