"""The direction of the house: rooms import to the left, no file imports in a circle, files stay readable."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests import ROOT

ROOMS = ["datasets", "frames", "crops", "backbone", "exports", "metrics", "curation", "engine", "report", "tasks"]
ROOMS += ["evaluations", "runs", "inputs", "verbs", "bench", "show", "verify", "cli", "api"]
PACKAGE = ROOT / "surgdino"
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in TREES}


def imports_of(path: Path) -> set[str]:
    """Every module that a file imports, wherever in the file: in functions and for annotations alone, too."""
    names: set[str] = set()
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in MODULES else node.module for name in modules}
    return names


def room_of(path: Path) -> str | None:
    """None for a file of the foundations, which lie beside the rooms."""
    return path.relative_to(PACKAGE).parts[0] if path.parent != PACKAGE else None


@pytest.fixture(scope="module")
def arrows() -> list[tuple[Path, Path]]:
    """(file, file of ours that it imports)."""
    return [(path, MODULES[name]) for path in TREES for name in imports_of(path) if name in MODULES]


def test_a_room_imports_only_rooms_to_its_left_and_the_foundations_none(arrows):
    back = []
    for path, imported in arrows:
        here, there = room_of(path), room_of(imported)
        allowed = there is None or here == there or (here is not None and ROOMS.index(there) < ROOMS.index(here))
        if not allowed and path.name != "__init__.py":
            back.append(f"{module_of(path)} imports {module_of(imported)}")
    assert not back, "\n".join(back)


def test_every_folder_of_the_package_is_a_room():
    assert {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"} == set(ROOMS)


def test_no_file_imports_in_a_circle(arrows):
    graph: dict[str, set[str]] = {}
    for path, imported in arrows:
        if path != imported and path != PACKAGE / "__init__.py":  # the package itself is there before its files
            graph.setdefault(module_of(path), set()).add(module_of(imported))
    circle: list[str] = []
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        circle = error.args[1]
    assert not circle, " <- ".join(circle)


def test_timm_comes_in_through_its_guard():
    loose = [
        module_of(path)
        for path in TREES
        if path.name != "timm_import.py"
        and any(name.split(".")[0] in ("timm", "torchvision") for name in imports_of(path))
    ]
    assert not loose


def test_files_and_functions_stay_readable():
    long = [f"{module_of(path)} has more than 400 lines" for path in TREES if path.read_text().count("\n") > 400]
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 60:
                long.append(f"{module_of(path)}: {node.name} is {node.end_lineno - node.lineno + 1} lines long")
    assert not long, "\n".join(long)


def test_no_file_is_an_attic():
    assert not [path.name for path in TREES if path.stem in ("utils", "helpers", "misc", "common")]
