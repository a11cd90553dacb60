"""`surgdino weights list` and `surgdino weights get NAME [to=FOLDER]`: natural-image checkpoints.

`get` is the only command of surgdino that ever uses the network.
"""

from __future__ import annotations

import hashlib
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from itertools import groupby
from pathlib import Path

from rich.table import Table

from surgdino import __version__, console
from surgdino.backbone.catalogue import Entry, catalogue, entry
from surgdino.backbone.settings import IMAGENET_MEAN, IMAGENET_STD
from surgdino.config import Location, from_words, shipped_settings
from surgdino.errors import SurgdinoError, nearest
from surgdino.paths import atomic_write

USAGE = "surgdino weights list | surgdino weights get NAME [to=FOLDER]"
HELP = f"Usage: {USAGE}\n\n`get` is the only command that uses the network."
# A name server that does not answer can hold a look-up for minutes; being offline must be reported at once.
CONNECT_SECONDS = 10
STALL_SECONDS = 60
_CHUNK = 1 << 20
_LEGEND = """MB: 10^6 bytes. mean / std ImageNet: 0.485, 0.456, 0.406 / 0.229, 0.224, 0.225.
fetched by get: surgdino weights get NAME; by hand: the same command explains how.
Any other file works too: model.weights=PATH takes .safetensors, .pth, .pt, .ckpt and .bin. Publishers' pages:"""


@dataclass(frozen=True)
class GetWords:
    """The settings of `weights get`: the folder that the files are written to."""

    to: Location = Path("weights")


def main(args: list[str]) -> int:
    """Run `weights` with the words after the verb."""
    if not args:
        print(HELP)
        return 0
    what, rest = args[0], args[1:]
    if what == "list" and not rest:
        console.table(table())
        return 0
    if what != "get":
        raise SurgdinoError(f"cannot do {' '.join(args)!r}", fix=f"{nearest(what, ['list', 'get'])} Usage: {USAGE}")
    names, settings = from_words(GetWords, rest, USAGE)
    if not names:
        raise SurgdinoError("which weights?", fix="see surgdino weights list")
    for name in names:
        fetch(entry(name), settings.to.expanduser())
    return 0


def table() -> Table:
    """All that we know of, one row a checkpoint, grouped by how it was trained."""
    families = {e.family: f"  {e.family}: trained on {e.trained_on}; {e.page}" for e in catalogue()}
    caption = "\n".join([_LEGEND, *families.values()])
    shown = Table(title="Natural-image checkpoints", caption=caption, caption_justify="left")
    for heading in ("name", "model=", "trained as", "MB", "mean / std", "licence", "fetched by"):
        shown.add_column(heading, justify="right" if heading == "MB" else "left", no_wrap=heading in ("name", "model="))
    shown.columns[5].min_width = 10
    for family, members in groupby(catalogue(), key=lambda e: e.family):
        for known in members:
            imagenet = (known.mean, known.std) == (IMAGENET_MEAN, IMAGENET_STD)
            numbers = "ImageNet" if imagenet else f"{_triple(known.mean)} / {_triple(known.std)}"
            row = (known.name, known.model, family, str(known.megabytes), numbers, known.licence)
            shown.add_row(*row, "get" if known.url else "hand")
        shown.add_section()
    return shown


def fetch(known: Entry, folder: Path) -> Path:
    """Bring one checkpoint into `folder`, whole and checked or not at all; returns where it lies."""
    target = folder.absolute() / known.file
    if known.url is None:
        raise SurgdinoError(
            f"{known.name} ({known.licence}) cannot be fetched directly",
            fix=f"on {known.page} {known.by_hand}; save it as {target}, then use {_how_to_use(known, target)}",
        )
    if target.is_file() and _is_whole(target, known):
        console.say(f"{target} is already there\nuse it with: {_how_to_use(known, target)}")
        return target
    response = _connect(known.url, known, target)
    console.say(
        f"{known.url}: {known.megabytes} MB, licence {known.licence}; fetching it is the only thing that surgdino ever "
        "uses the network for"
    )
    with response, atomic_write(target) as temporary:
        digest = _download(response, temporary, known)
    console.say(f"{target}\nsha256 {digest}\nuse it with: {_how_to_use(known, target)}")
    return target


def _connect(url: str, known: Entry, target: Path) -> HTTPResponse:
    request = urllib.request.Request(url, headers={"User-Agent": f"surgdino/{__version__}"})
    outcome: dict = {}

    def attempt() -> None:
        try:
            outcome["response"] = urllib.request.urlopen(request, timeout=STALL_SECONDS)
        except (OSError, HTTPException) as error:
            outcome["error"] = error

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    if "response" in outcome:
        return outcome["response"]
    error = outcome.get("error")
    if isinstance(error, urllib.error.HTTPError):
        raise _by_hand(f"the server refused: {error.code} {error.reason}", known, target) from error
    reason = getattr(error, "reason", error) or f"no answer within {CONNECT_SECONDS} s"
    raise _by_hand(f"cannot be reached ({reason})", known, target) from error


def _download(response: HTTPResponse, temporary: Path, known: Entry) -> str:
    if response.headers.get_content_type() == "text/html":
        raise _by_hand("is a web page, not a file", known, temporary.parent / known.file)
    announced = int(response.headers.get("Content-Length") or 0)
    total = announced or known.bytes
    digest = hashlib.sha256()
    with temporary.open("wb") as stream, console.bar(known.name, total, in_bytes=True, stays=False) as bar:
        for chunk in _chunks(response, known, temporary.parent / known.file):
            stream.write(chunk)
            digest.update(chunk)
            bar.advance(len(chunk))
        received, found = stream.tell(), digest.hexdigest()
    for expected, what in ((announced, "announced"), (known.bytes, "known")):
        if expected and received != expected:
            what = f"is not of its {what} size"
            raise SurgdinoError(what, file=known.url, expected=expected, found=received, fix="try again")
    if known.sha256 and found != known.sha256:
        what = "is not the file that we know; nothing was kept"
        raise SurgdinoError(what, file=known.url, expected=f"sha256 {known.sha256}", found=found)
    return found


def _chunks(response: HTTPResponse, known: Entry, target: Path) -> Iterator[bytes]:
    try:
        while chunk := response.read(_CHUNK):
            yield chunk
    except (OSError, HTTPException) as error:
        raise _by_hand(f"broke off ({error or type(error).__name__})", known, target) from error


def _by_hand(what: str, known: Entry, target: Path) -> SurgdinoError:
    by_hand = f"fetch that address on a machine with network, copy the file to {target}, then use"
    return SurgdinoError(what, file=known.url, fix=f"{by_hand} {_how_to_use(known, target)}")


def _how_to_use(known: Entry, target: Path) -> str:
    settings = shipped_settings("model", known.model)
    own = {"mean": list(known.mean), "std": list(known.std)}
    words = [f"'model.{key}={value}'" for key, value in own.items() if value != list(settings[key])]
    return " ".join([f"model={known.model}", f"model.weights={target}", *words])


def _is_whole(path: Path, known: Entry) -> bool:
    if known.bytes is not None and path.stat().st_size != known.bytes:
        return False
    if known.sha256 is None:
        return True
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == known.sha256


def _triple(values: tuple[float, ...]) -> str:
    return f"{values[0]:g}" if len(set(values)) == 1 else ",".join(f"{v:g}" for v in values)
