"""A folder of the user's own adds choices beside ours, and cannot replace one of ours."""

from __future__ import annotations

import pytest

from surgdino import discovery
from surgdino.errors import SurgdinoError

METHODS, TASKS = "surgdino.engine.methods", "surgdino.tasks"


@pytest.fixture
def extension(tmp_path, monkeypatch):
    monkeypatch.setenv("SURGDINO_EXTENSIONS", str(tmp_path))
    yield tmp_path
    for package in (METHODS, TASKS):
        path = discovery.import_module(package).__path__
        path[:] = [folder for folder in path if not folder.startswith(str(tmp_path))]


def test_files_and_folders_of_an_extension_are_choices(extension):
    (extension / "methods").mkdir()
    (extension / "methods" / "toy_method.py").write_text("WORD = 'method'\n")
    (extension / "tasks" / "toy_folder").mkdir(parents=True)
    (extension / "tasks" / "toy_folder" / "task.py").write_text("WORD = 'folder'\n")
    (extension / "tasks" / "toy_file.py").write_text("WORD = 'file'\n")
    assert {"toy_method", "dino"} <= set(discovery.names(METHODS))
    assert {"toy_folder", "toy_file", "phase"} <= set(discovery.names(TASKS, "task.py"))
    assert "context" not in discovery.names(TASKS, "task.py")
    assert discovery.load(METHODS, "toy_method", "method").WORD == "method"
    assert discovery.load(TASKS, "toy_folder", "task", "task.py").WORD == "folder"
    assert discovery.load(TASKS, "toy_file", "task", "task.py").WORD == "file"


def test_settings_in_a_file_of_their_own_are_found_and_are_no_choice(extension):
    text = "from dataclasses import dataclass\n\n\n@dataclass(frozen=True)\nclass Settings:\n    width: int\n"
    for folder in ("methods", "tasks/by_folder"):
        (extension / folder).mkdir(parents=True)
    for file in ("methods/by_file.py", "methods/all_in_one.py", "tasks/by_folder/task.py"):
        (extension / file).write_text("raise AssertionError('imported')\n")
    for file in ("methods/by_file_settings.py", "tasks/by_folder/settings.py"):
        (extension / file).write_text(text)
    assert {"by_file", "all_in_one"} <= {*(found := discovery.names(METHODS))}
    assert not any(name.endswith("_settings") for name in found)
    for package, name, main in ((METHODS, "by_file", None), (TASKS, "by_folder", "task.py")):
        assert discovery.settings_of(package, name, "choice", main).__annotations__ == {"width": int}
    assert discovery.settings_of(METHODS, "all_in_one", "method") is None


def test_a_name_of_ours_is_refused(extension):
    (extension / "methods").mkdir()
    (extension / "methods" / "dino.py").touch()
    with pytest.raises(SurgdinoError, match="name is taken"):
        discovery.names(METHODS)


def test_a_mistyped_name_gets_the_nearest():
    with pytest.raises(SurgdinoError, match=r"no method=simdno\. Did you mean 'simdino'"):
        discovery.load(METHODS, "simdno", "method")


def test_yaml_files_of_an_extension_are_choices_that_do_not_replace_ours(extension):
    (extension / "configs" / "method").mkdir(parents=True)
    for name in ("toy", "dino"):
        (extension / "configs" / "method" / f"{name}.yaml").touch()
    found = discovery.files("configs/method")
    assert found["toy"].parent == extension / "configs" / "method"
    assert not found["dino"].is_relative_to(extension)


def test_a_folder_that_is_not_there_is_one_line(monkeypatch):
    monkeypatch.setenv("SURGDINO_EXTENSIONS", "/nowhere")
    with pytest.raises(SurgdinoError, match=r"/nowhere, SURGDINO_EXTENSIONS: no such folder"):
        discovery.extensions()
