"""What stands around the code: citation, changes, templates for issues, hooks before a commit."""

from __future__ import annotations

import re
import tomllib

import pytest
import yaml

from tests import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
_KINDS = {"markdown", "textarea", "input", "dropdown", "checkboxes"}


def test_the_citation_names_this_version():
    """The keys that CFF 1.2.0 asks for, and ours; `cffconvert --validate` checks the rest."""
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(cited)
    assert cited["cff-version"] == "1.2.0"
    assert all(author.get("name") or author.get("family-names") for author in cited["authors"])
    assert (cited["version"], cited["license"]) == (PROJECT["version"], PROJECT["license"])
    assert set(cited["keywords"]) <= set(PROJECT["keywords"])


def test_changes_are_told_newest_first():
    text = (ROOT / "CHANGELOG.md").read_text()
    heads = re.findall(r"^## (.+)$", text, re.MULTILINE)
    found = [re.fullmatch(r"(\d+\.\d+\.\d+) \((not released|\d{4}-\d{2}-\d{2})\)", head) for head in heads]
    assert heads
    assert all(found), heads
    versions = [tuple(map(int, head[1].split("."))) for head in found]
    assert versions == sorted(versions, reverse=True)
    assert found[0][1] == PROJECT["version"]
    assert not [head[0] for head in found[1:] if head[2] == "not released"]
    loose = [line for line in text.splitlines() if line and not line.startswith(("#", "- ", "  "))]
    assert not loose, "a change is a line that begins with '- '"


@pytest.mark.parametrize("path", [path for path in FORMS if path.stem != "config"], ids=lambda path: path.stem)
def test_an_issue_form_is_one_and_reminds_of_patients(path):
    form = yaml.safe_load(path.read_text())
    assert {"name", "description", "body"} <= set(form)
    assert {field["type"] for field in form["body"]} <= _KINDS
    ids = [field["id"] for field in form["body"] if field["type"] != "markdown"]
    assert len(ids) == len(set(ids))
    assert all(field["attributes"].get("label") for field in form["body"] if field["type"] != "markdown")
    assert "no patient data" in path.read_text().lower()


def test_a_bug_is_reported_with_what_the_doctor_says():
    assert "surgdino doctor --json" in (ROOT / ".github/ISSUE_TEMPLATE/bug.yml").read_text()


def test_hooks_run_what_make_lint_runs_with_the_tools_of_the_dev_extra():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"], "a hook from elsewhere has a version of its own"
    entries = [hook["entry"] for hook in hooks[0]["hooks"]]
    lint = re.search(r"^lint:.*\n((?:\t.+\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    commands = [line.strip().replace("$(BIN)", ".venv/bin") for line in lint.splitlines()]
    assert [entry for entry in entries if entry.startswith(".venv")] == commands
    needed = {command.split()[0].rpartition("/")[2] for command in commands}
    assert needed <= {re.split(r"[<>=]", line)[0] for line in PROJECT["optional-dependencies"]["dev"]}
