"""What of a run may leave the house, copied into a folder of its own; nothing where a name is found in it."""

from __future__ import annotations

import html
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from surgdino.datasets.card import card_names, load_card
from surgdino.datasets.manifest import place_of
from surgdino.errors import SurgdinoError, first_of
from surgdino.paths import read_bytes, regular
from surgdino.records import parse_json, read_json
from surgdino.runs.names import ABSOLUTE, PSEUDONYM, names_in, of_this_machine, paths_of, settings_of

_CHECKPOINT = ("backbone.safetensors", "model.json", "head.safetensors", "task.json")
_LEAVES = (
    *(f"{folder}/{name}" for folder in ("checkpoint", "best") for name in _CHECKPOINT),
    *("results.json", "per_operation.csv", "metrics.jsonl", "data.json", "config.yaml", "environment.json"),
    *("curves.png", "evaluation/*/results.json", "evaluation/*/per_operation.csv"),
)
_WHY = {
    "state": "what continues the run here, with paths and names of this machine",
    "predictions": "what was predicted of single operations",
    "evaluations": "what each evaluation found is in results.json",
    **dict.fromkeys(("tensorboard", "wandb", "mlflow"), "the numbers are in metrics.jsonl"),
    "report.html": "written anew, without pictures of frames",
    "components.json": "pictures of what patch features of frames look like",
    "features": "computed from the recordings",
}
# Words of our own files, which say nothing where a video is called so.
_OURS = re.compile(
    "best|checkpoint|data|dataset|evaluation|folders?|frames?|head|images?|labels?|last|loss|masks?|metrics|model|none|"
    "operations?|part|phases?|report|results|run|score|step|task|test|train|val|videos?"
)
_TEXTS = {".json", ".jsonl", ".csv", ".yaml", ".html"}
_LIMIT = 256 << 20  # bytes of a text
_SHOWN = 3


def share_run(run: Path, out: Path, write_report: Callable[[Path, Path], object]) -> dict[str, str]:
    """Copy what may leave of a run folder into `out`; what was left out -> why.

    Args:
        run: the folder of a run, or of several that belong together, each in a folder of its own.
        out: must not exist.
        write_report: writes the report of a run to a path.

    Raises:
        SurgdinoError: `out` exists, or a name was found in what would leave; then nothing is written.
    """
    if out.exists():
        raise SurgdinoError("exists already", file=out, fix="give another out=FOLDER, or remove it")
    runs = [run, *sorted(file.parent for file in run.glob("*/config.yaml"))]
    secrets = {word: what for each in runs for word, what in _secrets(each).items()}
    found = {file for each in runs for pattern in _LEAVES for file in each.glob(pattern) if not file.is_symlink()}
    files = sorted(found)
    half = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(half, ignore_errors=True)
    try:
        for file in files:
            target = half / file.relative_to(run)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(regular(file), target)
        for each in runs:
            write_report(each, half / each.relative_to(run) / "report.html")
        if words := list(_found(half, secrets)):
            raise SurgdinoError(
                "what would leave holds names; nothing was written",
                file=run,
                found=first_of(words, _SHOWN, "; "),
                fix="runs with run.names=plain, and those of before pseudonyms, cannot be shared: run it anew",
            )
        half.rename(out)
    finally:
        shutil.rmtree(half, ignore_errors=True)
    kept = {parent for file in files for parent in (file, *file.parents)}
    return {
        path.relative_to(run).as_posix(): _WHY.get(path.name, "not known to be harmless")
        for each in runs
        for path in sorted(each.iterdir())
        if path not in kept
    }


def _secrets(run: Path) -> dict[str, str]:
    """Word -> what it is: all that must not leave."""
    words = of_this_machine() | dict.fromkeys(paths_of(run), "a path of the run")
    for name in names_in(settings_of(run)) | _plain_names(run):
        words |= dict.fromkeys((name, name.partition("/")[2], place_of(name)), "the name of an operation")
    return {word: what for word, what in words.items() if len(word) > 2 and not _OURS.fullmatch(word.lower())}


def _plain_names(run: Path) -> set[str]:
    """Operations and videos without public ids or pseudonyms, as runs of before pseudonyms list them."""
    cards = [card for card in map(load_card, card_names()) if card.videos]
    public = {place for card in cards for place in (card.name, card.operation.partition("/")[0])}
    found: set[str] = set()
    for file, key in (("data.json", "videos"), ("checkpoint/model.json", "operations")):
        values = read_json(run / file) if (run / file).is_file() else {}
        rows = values.get(key) or [] if isinstance(values, Mapping) else None
        if not isinstance(rows, list):  # the names that it lists would not be looked for elsewhere
            raise SurgdinoError("not as a run writes it", file=run / file, expected=f"a mapping with a list {key!r}")
        for row in rows:
            names = [str(row.get("operation")), str(row.get("id"))] if isinstance(row, Mapping) else [str(row)]
            if names[0].partition("/")[0] not in public and not PSEUDONYM.fullmatch(names[0]):
                found |= set(names)
    return found


def _found(folder: Path, secrets: Mapping[str, str]) -> Iterator[str]:
    """`model.json: the user's name ('anna')` of every file with something that must not leave."""
    spellings = {each: word for word in secrets for each in (word, json.dumps(word)[1:-1], html.escape(word))}
    longest = sorted(spellings, key=len, reverse=True)
    pattern = re.compile(r"(?<![^\W_])(?:" + ("|".join(map(re.escape, longest)) or "(?!)") + r")(?![^\W_])")
    for file in sorted(each for each in folder.rglob("*") if each.is_file()):
        place = file.relative_to(folder).as_posix()
        try:
            text = f"{place}\n{_text_of(file)}"
        except SurgdinoError as error:  # the copy goes; its name says nothing
            raise error.but(file=place) from error
        if hit := pattern.search(text):
            yield f"{place}: {secrets[spellings[hit[0]]]} ({hit[0]!r})"
        elif file.suffix != ".png" and (path := ABSOLUTE.search(text)):
            yield f"{place}: an absolute path ({path[0]!r})"


def _text_of(file: Path) -> str:
    """All that can be read in a file: its text, the header of weights, the words in a picture's bytes."""
    if file.suffix in _TEXTS:
        text = read_bytes(file, _LIMIT).decode("utf-8", "replace")
        return re.sub(r"base64,[A-Za-z0-9+/=]+", "base64", text)
    with file.open("rb") as stream:
        if file.suffix == ".safetensors":
            header = parse_json(stream.read(min(int.from_bytes(stream.read(8), "little"), _LIMIT)), file)
            more = header.get("__metadata__") or {} if isinstance(header, dict) else None
            if not isinstance(more, dict):
                raise SurgdinoError("not a weights file", file=file, expected="safetensors", fix="leave it out")
            return "\n".join([*header, *map(str, more.values())])
        return "\n".join(word.decode() for word in re.findall(rb"[\x20-\x7e]{6,}", stream.read(_LIMIT)))
