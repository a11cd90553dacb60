"""The direction of the house: a room imports only rooms to its left; timm comes in through its guard alone."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests import ROOT

ROOMS = ["datasets", "frames", "crops", "backbone", "metrics", "engine", "report", "tasks", "runs", "inputs", "verbs"]
ROOMS += ["bench", "show", "verify", "cli"]
FILES = sorted((ROOT / "surgdino").rglob("*.py"))


def imported_modules(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return names


def room_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "surgdino" and len(parts) > 1 and parts[1] in ROOMS else None


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_room_imports_only_rooms_to_its_left(path):
    parts = path.relative_to(ROOT / "surgdino").parts
    here = parts[0] if len(parts) > 1 else None
    for module in imported_modules(path):
        room = room_of(module)
        if room is None or here is None or room == here:
            continue
        assert ROOMS.index(room) < ROOMS.index(here), f"{path} reaches back into {room}"


def test_the_foundations_import_no_room():
    for path in (ROOT / "surgdino").glob("*.py"):
        rooms = {room_of(module) for module in imported_modules(path)} - {None}
        assert not rooms or path.name == "__init__.py", f"{path} imports {rooms}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_timm_comes_in_through_its_guard(path):
    if path.name != "timm_import.py":
        assert not any(m.split(".")[0] in ("timm", "torchvision") for m in imported_modules(path))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_stay_small(path):
    tree = ast.parse(path.read_text())
    assert len(path.read_text().splitlines()) <= 400
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, (
                f"{path}: {node.name} is {node.end_lineno - node.lineno + 1} lines long"
            )
