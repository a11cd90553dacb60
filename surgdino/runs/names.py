"""What may leave the house: pseudonyms in place of own operations, and no paths of this machine.

Operations without public ids are called by their names inside surgdino, and by pseudonyms (`op-3f9a2c`) in all that a
run writes: `Pseudonyms.hide` on the way out, `real_config` on the way in. A pseudonym is a keyed hash of the name; the
key and the table of names lie in the frame store's folder, which never leaves. The paths of a run and its command lie
in `state/local.json` of its folder, which `surgdino share` leaves out.
"""

from __future__ import annotations

import fcntl
import getpass
import hashlib
import hmac
import json
import os
import re
import secrets
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from surgdino import console
from surgdino.datasets.card import Card
from surgdino.datasets.manifest import Labels, Manifest
from surgdino.errors import from_os_error
from surgdino.frames import engines
from surgdino.frames.store import FrameStore
from surgdino.paths import atomic_write
from surgdino.records import read_record
from surgdino.tasks.labelled_frames import LabelledFrames
from surgdino.yaml_files import read_settings

Mode = Literal["pseudonyms", "plain"]
TABLE, LOCAL = "names.json", Path("state") / "local.json"
PSEUDONYM = re.compile(r"op-[0-9a-f]{6,}")
_HERE = "<path>"
# Settings that say where things are on this machine, or how its files are called.
PLACES = {
    "backbones",
    "root",
    "store",
    "weights",
    "dir",
    "checkpoint",
    "out",
    "truth",
    "labels",
    "operation_pattern",
    "table",
    "teachers",
}
_FOLDERS, _MAY_BE_FILES = {"root", "store", "dir"}, {"weights", "checkpoint", "teachers", "backbones"}  # among these
_ENGINE = "data.engine"
_FRAMES = {"like", "against"}
OPERATIONS = {"split", "splits", "exclude", "hold_out"}  # settings that name operations
ABSOLUTE = re.compile(r"(?<![\w<.:/\\-])(?:/|~/|[A-Za-z]:[\\/]+)[\w.@+-]+(?:[/\\][^\s\"'<>|;,:]+)+")


@dataclass(frozen=True)
class _Table:
    """names.json: `key` in hexadecimal, and pseudonym -> name."""

    key: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    names: dict[str, str]


@dataclass(frozen=True)
class _Local:
    """state/local.json: the command as it was typed, and setting -> path."""

    command: list[str]
    settings: dict[str, str]


@dataclass
class Pseudonyms:
    """The names of one run's operations and their pseudonyms; without a store, names stay as they are.

    Attributes:
        store: folder of the frame store, where the table lies.
    """

    store: Path | None = None
    _key: bytes = b""
    _names: dict[str, str] = field(default_factory=dict)  # pseudonym -> name
    _shown: dict[str, str] = field(default_factory=dict)  # name, id or path -> what is shown in its place
    _formerly: dict[str, set[str]] = field(default_factory=dict)  # own operation -> what it was called before

    @classmethod
    def open(cls, mode: Mode, store: Path) -> Pseudonyms:
        """The names of a store's own operations; a table is made when the first of them is taken in.

        Raises:
            SurgdinoError: the table is damaged.
        """
        names = cls(None if mode == "plain" else store, _shown={str(store.resolve()): _HERE})
        if (store / TABLE).exists():  # with plain names too: checkpoints with pseudonyms are known all the same
            names._take(_with_table(store))
        return names

    def _take(self, table: _Table) -> None:
        self._key = bytes.fromhex(table.key)
        self._names |= table.names

    @property
    def plain(self) -> bool:
        """Whether names stay as they are."""
        return self.store is None

    def add(self, card: Card, manifest: Manifest, prefix: str = "") -> None:
        """Take in the videos of a dataset. Those of a card that lists its videos have public ids, which stay.

        Args:
            prefix: that the run puts before its video ids.
        """
        for video in [] if card.videos else manifest.videos:
            self._formerly.setdefault(video.operation, set()).update(video.formerly)
        if self.store is None:
            return
        self._shown |= {str(manifest.root.resolve()): _HERE}
        if manifest.videos and not card.videos and not self._key:
            self._take(_with_table(self.store))
        new: dict[str, str] = {}
        for video in manifest.videos:
            if card.videos:
                self._shown |= {str(video.path): video.id}
                continue
            operation = self._pseudonym(video.operation, new, video.formerly)
            shown = self._pseudonym(video.recording, new, manifest.formerly_recorded(video))
            for called in manifest.names_of(video):
                self._shown.setdefault(called, operation)
            self._shown |= {video.operation: operation, video.recording: shown}
            self._shown |= {video.id: shown, prefix + video.id: prefix + shown}
            self._shown |= dict.fromkeys((str(video.path), os.path.realpath(video.path), video.path.name), shown)
        if new:
            self._take(_with_table(self.store, new))
        self.__dict__.pop("_pattern", None)

    def _pseudonym(self, name: str, new: dict[str, str], before: Iterable[str] = ()) -> str:
        """Of a name; that of a name `before` it, where a run had given it one."""
        for old in before:
            if self._names.get(pseudonym := f"op-{self._digest(old)[:6]}") == old:
                return pseudonym
        digest = self._digest(name)
        for length in range(6, len(digest), 2):  # two names of one pseudonym are told apart by more digits
            pseudonym = f"op-{digest[:length]}"
            if self._names.get(pseudonym, name) == name:
                if pseudonym not in self._names:
                    self._names[pseudonym] = new[pseudonym] = name
                return pseudonym
        raise AssertionError("two names have one hash")

    def _digest(self, name: str) -> str:
        return hmac.new(self._key, name.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()

    def aliases(self, operation: str) -> set[str]:
        """All that this operation is called in checkpoints made with this key, or with plain names."""
        names = {operation, *self._formerly.get(operation, ())}
        return {*names, self._shown.get(operation, operation), *(f"op-{self._digest(name)[:6]}" for name in names)}

    def hide(self, value: Any) -> Any:
        """A nested value with every operation and every path of this machine replaced, keys included.

        Only whole texts are taken for names, and only those with a slash, which all operations have: a video called
        `test` must not change what else is called so. `named` and `sentence` go further. Pseudonyms are sorted: the
        order of their names would tell of these.
        """
        return self._each(value, lambda text: self._shown.get(text, text) if "/" in text else text, ordered=True)

    def named(self, value: Any) -> Any:
        """The same where each text, keys aside, may be the id of a video."""
        return self._each(value, lambda text: self._shown.get(text, text))

    def sentence(self, text: str) -> str:
        """A sentence with every name in it replaced."""
        return text if self.plain else self.hide(self._pattern.sub(lambda found: self._shown[found[0]], text))

    def _each(self, value: Any, word: Callable[[str], str], *, ordered: bool = False) -> Any:
        if self.plain:
            return value
        if isinstance(value, Mapping):
            pairs = {self.hide(key): self._each(each, word, ordered=ordered) for key, each in value.items()}
            return dict(sorted(pairs.items())) if ordered and are_pseudonyms(pairs) else pairs
        if isinstance(value, list | tuple):
            found = [self._each(each, word, ordered=ordered) for each in value]
            return sorted(found) if ordered and are_pseudonyms(found) else found
        if isinstance(value, Path):
            return self.place(value)
        return ABSOLUTE.sub(_HERE, word(value)) if isinstance(value, str) else value

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        """Pseudonyms within sentences, the longest first; a digit or a letter alone says nothing."""
        names = sorted((n for n in self._shown if len(n) > 1 and not n.isdigit()), key=len, reverse=True)
        return re.compile(r"(?<!\w)(?:" + ("|".join(map(re.escape, names)) or "(?!)") + r")(?!\w)")

    def place(self, path: str | Path | None) -> str | None:
        """A file or folder as a run may name it: by its last part."""
        if path is None or self.plain:
            return None if path is None else str(path)
        return self.named(Path(path).name)

    def config(self, cfg: Any, local: dict[str, str], key: str = "") -> Any:
        """Settings as config.yaml records them: `<data.root>` in the place of a path, which is put into `local`.

        Paths are absolute in `local`, so that the run is found complete from any folder; plain names keep theirs too.
        """
        last = key.rpartition(".")[2].partition("[")[0]
        if last in OPERATIONS:
            return self.named(cfg)
        if key == _ENGINE and isinstance(cfg, str):  # an address is one of this network alone
            return cfg if cfg == engines.LOCAL else engines.DASK
        if isinstance(cfg, Mapping):
            return {name: self.config(each, local, f"{key}.{name}" if key else name) for name, each in cfg.items()}
        if isinstance(cfg, list | tuple):
            return [self.config(each, local, f"{key}[{place}]") for place, each in enumerate(cfg)]
        if isinstance(cfg, Path) or (isinstance(cfg, str) and _is_place(key, cfg)):
            local[key] = str(cfg)
            path = Path(cfg).expanduser()
            if last in _FOLDERS or (last in _MAY_BE_FILES and path.exists()):
                local[key] = os.path.abspath(path)
            return str(cfg) if self.plain else f"<{key}>"
        return self.hide(cfg)

    def command(self, words: Iterable[str]) -> str:
        """A command without its paths and names."""
        shown = []
        for word in [] if self.plain else words:
            key, equals, value = word.partition("=")
            if equals and (
                _is_place(key.lstrip("+"), value) or (key == _ENGINE and value not in (engines.LOCAL, engines.DASK))
            ):
                value = f"<{key}>"
            elif not equals:
                key = self.sentence(Path(word).name)
            shown.append(f"{key}{equals}{self.sentence(value)}")
        return " ".join(words if self.plain else shown)

    def frames(self, frames: LabelledFrames) -> LabelledFrames:
        """The same frames under their videos' pseudonyms, after which files and captions are named.

        Operations keep their names, since their order decides the order of sums.
        """
        if self.plain:
            return frames
        shown = self._shown

        def named(labels: Labels) -> Labels:
            return replace(labels, values={shown.get(video, video): each for video, each in labels.values.items()})

        store = frames.store
        videos = [replace(video, id=shown.get(video.id, video.id)) for video in store.videos]
        return replace(
            frames,
            store=FrameStore(videos, store.set_aside, store.flagged),
            videos=tuple(shown.get(video, video) for video in frames.videos),
            operations={shown.get(video, video): each for video, each in frames.operations.items()},
            labels=frames.labels and named(frames.labels),
            beside={kind: named(labels) for kind, labels in frames.beside.items()},
        )

    def write_local(self, folder: Path, command: list[str], settings: Mapping[str, str]) -> None:
        """Keep what config.yaml does not say, for this machine."""
        _write(folder / LOCAL, {"command": command, "settings": settings})


def _is_place(key: str, value: str) -> bool:
    """Whether a setting says where something is; `like` and `against` may name a dataset or list settings instead."""
    last = key.rpartition(".")[2].partition("[")[0]
    return last in PLACES or (key in _FRAMES and not value.startswith(("dataset:", "{")))


def are_pseudonyms(names: Iterable[Any]) -> bool:
    """Whether these are operations, some of them under pseudonyms."""
    found = list(names)
    texts = [name for name in found if isinstance(name, str)]
    return len(texts) == len(found) and any(PSEUDONYM.fullmatch(text.rpartition("/")[2]) for text in texts)


def _with_table(store: Path, more: Mapping[str, str] | None = None) -> _Table:
    """The table of a store, made where there is none, with more names."""
    file = store / TABLE
    with _alone(store / f".{TABLE}.lock"):
        fix = "restore it from a copy; without it pseudonyms of earlier runs cannot be told"
        table = read_record(_Table, file, fix) if file.exists() else None
        if table is None:
            where = "operations of your own get pseudonyms in all that a run writes; the table of names never leaves"
            console.field("names", f"{file}: {where} (run.names=plain keeps names)")
        if table is None or more:
            key, known = (table.key, table.names) if table else (secrets.token_hex(32), {})
            table = _Table(key, {**known, **(more or {})})
            _write(file, {"key": table.key, "names": table.names})
    return table


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """One process after another; a file system without locks does without."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise from_os_error(error, file) from error
    try:
        with suppress(OSError):
            fcntl.lockf(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(file: Path, content: Mapping[str, Any]) -> None:
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def real_config(config: Mapping[str, Any], run: Path) -> dict[str, Any]:
    """Settings as a run folder or a checkpoint records them, with the paths and names of this machine again.

    What is not known here (a checkpoint of another house) is left out; `root` stays, so that messages can name it.

    Args:
        run: the run folder.
    """
    file = run / LOCAL
    known = read_record(_Local, file).settings if file.exists() else {}
    placed = _placed(config, "", known)
    table = _table_of(placed)
    if table is None:
        return placed
    names = read_record(_Table, table).names
    return {**placed, **{key: _named(placed[key], names) for key in ("data", "probe") if key in placed}}


def _table_of(settings: Mapping[str, Any]) -> Path | None:
    data = settings.get("data")
    store = data.get("store") if isinstance(data, Mapping) else None
    table = Path(store).expanduser() / TABLE if isinstance(store, str) else None
    return table if table is not None and table.is_file() else None


def settings_of(run: Path) -> dict[str, Any]:
    """`real_config` of config.yaml in a run folder."""
    return real_config(read_settings(run / "config.yaml"), run)


def _placed(value: Any, key: str, known: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        dotted = f"{key}." if key else ""
        inner = {name: _placed(each, f"{dotted}{name}", known) for name, each in value.items()}
        return {name: each for name, each in inner.items() if name == "root" or not _is_unknown(each)}
    if isinstance(value, list):
        return [_placed(each, f"{key}[{place}]", known) for place, each in enumerate(value)]
    return known.get(key, value) if isinstance(value, str) else value


def _is_unknown(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"<[\w.\[\]]+>", value) is not None


def _named(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {_named(key, names): _named(each, names) for key, each in value.items()}
    if isinstance(value, list):
        return [_named(each, names) for each in value]
    return names.get(value, value) if isinstance(value, str) else value


def names_in(settings: Mapping[str, Any]) -> set[str]:
    """The names in the table of the store that a run's settings, as `real_config` gives them, name; here or nowhere."""
    file = _table_of(settings)
    return set() if file is None else set(read_record(_Table, file).names.values())


def paths_of(run: Path) -> set[str]:
    """The paths that a run keeps in its state, and where it lies itself."""
    file = run / LOCAL
    known = read_record(_Local, file).settings.values() if file.exists() else ()
    return {path for path in (*known, str(run.resolve().parent)) if len(Path(path).parts) > 1}


def of_this_machine() -> dict[str, str]:
    """What must not be found in anything that leaves: its word -> what it is."""
    found = {socket.gethostname(): "the host's name", str(Path.home()): "the home folder"}
    with suppress(OSError, KeyError, ImportError):
        found[getpass.getuser()] = "the user's name"
    return {word: what for word, what in found.items() if len(word) > 2 and word not in ("root", "user")}
