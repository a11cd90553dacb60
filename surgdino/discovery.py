"""What is chosen by name: modules in a room's folder, YAML files, and both in folders of the user's own.

A choice is a file `NAME.py`, or a folder `NAME/` with a given file in it (`task.py`). SURGDINO_EXTENSIONS names further
folders, separated as in PATH. Each may hold `tasks/`, `methods/`, `guides/`, `temporal/`, `heads/`, `probes/`,
`adapters/`, `evaluations/` (python), `configs/<group>/`, `datasets/` and `recipes/` (YAML), laid out as ours.

The settings of a choice may stand in a file that imports no torch, `NAME_settings.py` beside `NAME.py`, or
`NAME/settings.py`: then they are checked before torch is imported, which takes seconds.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import is_dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from surgdino.errors import SurgdinoError, nearest
from surgdino.paths import share

T = TypeVar("T")
_SETTINGS = "_settings"


def extensions() -> list[Path]:
    """The user's own folders.

    Raises:
        SurgdinoError: one does not exist.
    """
    folders = [Path(text).expanduser() for text in os.environ.get("SURGDINO_EXTENSIONS", "").split(os.pathsep) if text]
    for folder in folders:
        if not folder.is_dir():
            raise SurgdinoError("no such folder", file=folder, place="SURGDINO_EXTENSIONS", fix="check the path")
    return [folder.resolve() for folder in folders]


def names(package: str, main: str | None = None) -> list[str]:
    """The choices in a package of ours, and those of the same kind in the user's folders.

    Args:
        package: dotted name (`surgdino.tasks`); its last part is the folder's name in an extension.
        main: the file that makes a folder a choice (`task.py`). In our own folder only such folders count then; in an
            extension a single file NAME.py counts too.

    Raises:
        SurgdinoError: an extension gives a name that is already taken.
    """
    own, *others = _folders(package)
    found = set(_folders_with(own, main) if main else _files(own))
    for folder in others:
        for name in {*_files(folder), *_folders_with(folder, main)}:
            if name in found or (own / name).exists() or (own / f"{name}.py").exists():
                raise SurgdinoError("this name is taken", file=folder / name, fix="choose another name")
            found.add(name)
    return sorted(found)


def modules(package: str) -> dict[str, Path]:
    """Name -> file of the choices that are single files; as `names`."""
    folders = _folders(package)
    return {name: next(f / f"{name}.py" for f in folders if (f / f"{name}.py").is_file()) for name in names(package)}


def require(name: str, known: Collection[str], word: str) -> None:
    """Raise where there is no such choice; the nearest one is named.

    Args:
        word: what the user writes before the name (`task`), for messages.
    """
    if name not in known:
        raise SurgdinoError(f"there is no {word}={name}", fix=nearest(name, known))


def require_packages(packages: Collection[str], choice: str, extra: str, otherwise: str) -> None:
    """Raise where an optional package is not installed; nothing is imported.

    Args:
        choice: what needs them, as the user writes it (`format=onnx`), for messages.
        extra: of ours, which brings them.
        otherwise: what to do without them.
    """
    if missing := [package for package in packages if find_spec(package) is None]:
        what = f"{choice} needs {'packages that are' if len(missing) > 1 else 'a package that is'} not installed"
        fix = f"install {'them' if len(missing) > 1 else 'it'}: pip install 'surgdino[{extra}]', or {otherwise}"
        raise SurgdinoError(what, found=f"no {', '.join(missing)}", fix=fix)


def load(package: str, name: str, word: str, main: str | None = None) -> ModuleType:
    """The module of a choice.

    Args:
        package, main: as in `names`.
        word: what the user writes before the name (`task`), for messages.

    Raises:
        SurgdinoError: there is no such choice; the nearest one is named.
    """
    require(name, names(package, main), word)
    folder = main is not None and any((place / name / main).is_file() for place in _folders(package))
    return _imported(package, f"{name}.{Path(main).stem}" if folder and main else name)


def settings_of(package: str, name: str, word: str, main: str | None = None) -> type | None:
    """The dataclass of a choice's settings from the file of their own, as `load`; None where there is no such file."""
    require(name, names(package, main), word)
    for module in (f"{name}{_SETTINGS}", f"{name}.settings"):
        if any((place / f"{module.replace('.', '/')}.py").is_file() for place in _folders(package)):
            for each in vars(_imported(package, module)).values():
                if isinstance(each, type) and is_dataclass(each) and each.__module__ == f"{package}.{module}":
                    return each
    return None


def defined(module: ModuleType, base: type[T]) -> type[T]:
    """The one subclass of `base` that a module defines; those it imports do not count.

    Raises:
        SurgdinoError: there is none, or more than one.
    """
    found = [each for each in vars(module).values() if isinstance(each, type) and issubclass(each, base)]
    found = [each for each in found if each.__module__ == module.__name__]
    if len(found) != 1:
        raise SurgdinoError(
            f"one subclass of {base.__name__} is needed",
            file=Path(str(module.__file__)),
            found=", ".join(each.__name__ for each in found) or "none",
        )
    return found[0]


def is_path(name: str) -> bool:
    """Whether it is a YAML file of the user's that is meant, and not one of `files`."""
    return name.endswith((".yaml", ".yml")) or "/" in name


def files(folder: str) -> dict[str, Path]:
    """Name -> YAML file, sorted by name, of `configs/<group>`, `datasets` or `recipes`.

    Ours come first: a file of the same name in an extension does not replace one.
    """
    found: dict[str, Path] = {}
    for place in (share(folder), *(root / folder for root in extensions())):
        for path in place.glob("*.yaml"):
            if not path.name.startswith(("_", ".")):
                found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def _folders(package: str) -> list[Path]:
    """The package's own folder and the extensions' folders of its name; the package is not imported."""
    spec = find_spec(package)
    own = Path(spec.submodule_search_locations[0])  # type: ignore[union-attr, index]
    others = (root / package.rpartition(".")[2] for root in extensions())
    return [own, *(folder for folder in others if folder.is_dir())]


def _imported(package: str, name: str) -> ModuleType:
    """A module of one of its `_folders`, which become part of the package."""
    path = import_module(package).__path__
    path += [str(folder) for folder in _folders(package) if str(folder) not in path]
    return import_module(f"{package}.{name}")


def _files(folder: Path) -> list[str]:
    stems = [p.stem for p in folder.glob("*.py") if not p.name.startswith(("_", "."))]
    return [stem for stem in stems if not stem.endswith(_SETTINGS)]


def _folders_with(folder: Path, main: str | None) -> list[str]:
    return [p.parent.name for p in folder.glob(f"*/{main}")] if main else []
