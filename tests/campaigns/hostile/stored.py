"""Damaged files of ours: shards of the frame store, the files of a run that is continued or reported."""

from __future__ import annotations

import json
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tests.campaigns.hostile.case import Case, refused_or_done
from tests.campaigns.hostile.images import _claiming, _saved
from tests.campaigns.hostile.making import PRETRAIN, picture

INDEX = re.compile(rb"surgdino index at (\d{20}) size (\d{12}) crc32 ([0-9a-f]{8})$")
CONTENT: dict[str, bytes] = {
    "empty": b"",
    "cut": b'{"a": [1, 2',
    "list": b"[1, 2, 3]\n",
    "number": b"5\n",
    "text": b'"x"\n',
    "binary": bytes(range(256)) * 20,
    "Latin-1": "a: Präparation\n".encode("latin-1"),
    "deep": b"[" * 100_000,
    "NaN": b'{"a": NaN, "step": NaN}\n',
    "digits": b'{"step": ' + b"9" * 6000 + b"}\n",
    "python tag": b"a: !!python/object/apply:os.system ['touch EXECUTED']\n",
    "aliases": b"a: &a [x,x,x,x,x,x,x,x,x]\n"
    + b"".join(b"%c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 9)) for c in range(98, 108)),
}
REPORTED = ("config.yaml", "results.json", "metrics.jsonl", "data.json", "per_operation.csv")


def cases() -> Iterator[Case]:
    again = (*PRETRAIN, "run.dir=r2", "train.batch_size=24")
    for name, damage in _shards().items():
        yield Case("frame store", name, partial(_on_shard, damage), again, refused_or_done("op1"), base="pretrained")
    more = (*(word for word in PRETRAIN if not word.startswith("train.steps")), "train.steps=3")
    for name, content in CONTENT.items():
        made = partial(_write, "run/config.yaml", content)
        yield Case("continued run", f"config.yaml {name}", made, more, refused_or_done("config|run"), base="pretrained")
        made = partial(_every, "run/state", content)
        yield Case("continued run", f"state {name}", made, more, refused_or_done("state|run"), base="pretrained")
        for file in REPORTED:
            made = partial(_write, f"run/{file}", content)
            right = refused_or_done(file.partition(".")[0])
            yield Case("reported run", f"{file} {name}", made, ("report", "run"), right, base="phase")
    for file in (*REPORTED, "model.json"):
        made = partial(_piped, f"run/{file}")
        yield Case("reported run", f"{file} a named pipe", made, ("report", "run"), refused_or_done(), base="phase")
    yield Case(
        "continued run",
        "state a named pipe",
        partial(_every, "run/state", None),
        more,
        refused_or_done("state|run"),
        base="pretrained",
    )
    for name, change in _types().items():
        made = partial(_typed, change)
        yield Case(
            "reported run", f"results.json {name}", made, ("report", "run"), refused_or_done("results"), base="phase"
        )


def _types() -> dict[str, Any]:
    return {
        f"every value {name}": value
        for name, value in {"a text": "x", "a list": [], "null": None, "1e300": 1e300}.items()
    }


def _typed(value: Any, folder: Path) -> None:
    def changed(old: Any) -> Any:
        return {key: changed(inner) for key, inner in old.items()} if isinstance(old, dict) and old else value

    file = folder / "run/results.json"
    file.write_text(json.dumps(changed(json.loads(file.read_text()))))


def _write(file: str, content: bytes, folder: Path) -> None:
    (folder / file).write_bytes(content)


def _piped(file: str, folder: Path) -> None:
    (folder / file).unlink(missing_ok=True)
    os.mkfifo(folder / file)


def _every(place: str, content: bytes | None, folder: Path) -> None:
    """Every file of the saved state; None makes them named pipes."""
    for path in [path for path in (folder / place).rglob("*") if path.is_file()]:
        path.unlink()
        os.mkfifo(path) if content is None else path.write_bytes(content)


def _on_shard(damage: Callable[[Path], object], folder: Path) -> None:
    damage(next(iter(sorted((folder / "s").rglob("op1*.zip")) or sorted((folder / "s").rglob("*.zip")))))


def _shards() -> dict[str, Callable[[Path], object]]:
    def cut(part: int) -> Callable[[Path], object]:
        return lambda path: os.truncate(path, path.stat().st_size * part // 8)

    def frames(**columns: Any) -> Callable[[Path], object]:
        def change(index: dict) -> None:
            for name, value in columns.items():
                index["frames"][name] = [value] * len(index["frames"][name])

        return partial(_reindexed, change, None)

    jpeg = _saved(picture(), "JPEG")
    damages: dict[str, Callable[[Path], object]] = {f"cut to {part} of 8": cut(part) for part in (0, 2, 5, 7)}
    damages |= {
        "bits flipped in pictures": _bits,
        "a named pipe": lambda path: path.unlink() or os.mkfifo(path),
        "a folder": lambda path: path.unlink() or path.mkdir(),
        "a link to a device": lambda path: path.unlink() or path.symlink_to("/dev/zero"),
        "index a list": partial(_reindexed, lambda index: b"[1, 2]", None),
        "index no JSON": partial(_reindexed, lambda index: b"{{{", None),
        "index deep": partial(_reindexed, lambda index: b"[" * 100_000, None),
        "index without frames": partial(_reindexed, lambda index: index.pop("frames") and None, None),
        "frames are numbers": partial(_reindexed, lambda index: index.update(frames=5), None),
        "columns of different lengths": partial(
            _reindexed, lambda index: index["frames"]["offset"].pop() and None, None
        ),
        "offset beyond": frames(offset=10**12),
        "offset negative": frames(offset=-5),
        "offset a text": frames(offset="x"),
        "size negative": frames(size=-5),
        "size of terabytes": frames(size=10**13),
        "a picture that claims 65500 x 65500": partial(_reindexed, lambda index: None, _claiming(jpeg)),
        "a picture of another video": partial(_reindexed, lambda index: None, jpeg),
        "a picture that is none": partial(_reindexed, lambda index: None, b"no picture"),
    }
    return damages


def _bits(path: Path) -> None:
    content, at = bytearray(path.read_bytes()), 0
    while (at := content.find(b"\xff\xda", at + 1)) > 0:
        content[at + 60] ^= 0x55
    path.write_bytes(content)


def _reindexed(change: Callable[[dict], Any], jpeg: bytes | None, path: Path) -> None:
    """Rewrite the index at the end of a shard, with a checksum that is right; `jpeg` takes the place of frame 0."""
    content = path.read_bytes()
    mark = INDEX.search(content)
    if not mark:
        raise RuntimeError("the shard's index is not where it was")
    at, size = int(mark[1]), int(mark[2])
    index, body = json.loads(content[at : at + size]), content[:at]
    if jpeg is not None:
        index["frames"]["offset"][0], index["frames"]["size"][0] = at, len(jpeg)
        body += jpeg
    changed = change(index)
    text = changed if isinstance(changed, bytes) else json.dumps(index).encode()
    end = b"surgdino index at %020d size %012d crc32 %08x" % (len(body), len(text), zlib.crc32(text))
    path.write_bytes(body + text + struct.pack("20x") + end)
