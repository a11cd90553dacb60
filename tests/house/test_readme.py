"""The commands that README, docs and recipes give are commands that exist."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import save_file

from surgdino.backbone.catalogue import entry
from surgdino.backbone.vit import build_backbone
from surgdino.cli import configured
from surgdino.cli.main import CONFIGURED, VERBS, main
from surgdino.config import plain, shipped_settings, typed
from surgdino.datasets.synthetic.cholec80 import write_cholec80
from tests import ROOT
from tests.house.pages import checked_by, settings_of, written_pages

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *written_pages(), *sorted((ROOT / "recipes").glob("*.yaml"))]
COMMAND = re.compile(r"^(?:#\s+)?(?:\$ )?(?:torchrun .* --no-python )?surgdino ((?!VERB)[a-z]+.*)$", re.MULTILINE)
LEFT_OUT = re.compile(
    r"\.\.\.|^-m|^hydra|^\[|=[A-Z]+$|^task=bleeding$"
)  # not told, the launcher's, or not ours to know
INLINE = re.compile(r"`surgdino ([a-z]+ [^`]+)`")


def commands_of(page: Path) -> set[str]:
    """What a page tells to type: in fences, indented, and in the text; in a recipe, wherever it stands."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    if page.suffix == ".yaml":
        return set(COMMAND.findall(text))
    fences = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)  # prose may begin with our name too
    indented = re.findall(r"^    (\S.*)$", text, re.MULTILINE)
    return {line for block in [*fences, "\n".join(indented)] for line in COMMAND.findall(block)} | set(
        INLINE.findall(text)
    )


COMMANDS = sorted({(page.name, line) for page in PAGES for line in commands_of(page)})


def test_the_readme_opens_with_its_two_commands():
    head = (ROOT / "README.md").read_text().splitlines()[:6]
    assert any("`make demo`" in line for line in head)
    assert any("`make test`" in line for line in head)
    targets = (ROOT / "Makefile").read_text()
    assert "\ndemo:" in targets
    assert "\ntest:" in targets


def test_commands_were_found():
    assert len(COMMANDS) > 150


@pytest.mark.quick("README")
@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=lambda value: value[:60])
def test_every_command_is_one(page, line, monkeypatch, capsys):
    words = shlex.split(re.sub(r"\s#\s.*", "", line))
    verb = words[0]
    assert verb in VERBS, f"{page}: surgdino {line}"
    if verb == "weights" and words[1:2] == ["get"] and len(words) > 2 and words[2].islower():
        assert entry(words[2]).name == words[2]
    if verb not in CONFIGURED:
        return
    composed: list[DictConfig] = []
    monkeypatch.setattr(configured, "_run", lambda verb, subject, cfg: composed.append(cfg) or 0)
    kept = [word for word in words[1:] if not LEFT_OUT.search(word)]
    if verb in configured.PATHS and not any("=" not in word for word in kept[:1]):
        kept = ["PATH", *kept]
    if verb in configured.SUBJECTS and kept[:1] and "|" in kept[0]:
        kept[0] = kept[0].partition("|")[0]
    if len(words) == 1:  # the name of the verb alone
        return
    configured.run_configured(verb, kept)
    for cfg in composed:
        check_types(verb, cfg)


def check_types(verb: str, cfg: DictConfig) -> None:
    """That every value is one that the setting takes; nothing is said of a command that leaves required words out."""
    if OmegaConf.missing_keys(cfg):
        return
    values = plain(cfg)
    kind = checked_by(verb)
    taken = {field.name: values[field.name] for field in fields(kind) if field.name in values}
    if verb in ("show", "bench"):
        taken["data"] = {**taken["data"], "root": taken["data"]["root"] or "x"}
    if verb == "bench":
        taken["generated"] = True
    typed(kind, taken, "")
    for section, kinds in {"method": "methods", "task": "tasks", "augment": "augments"}.items():
        if values.get(section):
            typed(settings_of(kinds, values[section]), values[section], section)
    for key, guide in values.get("guide", {}).items():
        typed(settings_of("guides", guide), guide, f"guide.{key}")


# The plan for videos of one's own, as its user would type it

_SMALL = ("data.fps=2", "data.short_side=64", "data.workers=1", "hardware.loader_workers=0", "train.batch_size=8")
_MORE = {
    "verify": (),
    "pretrain": (*_SMALL, "train.steps=2", "recipe=demo", "crops.local_count=2", "method.head_hidden=64"),
    "finetune": (*_SMALL, "train.steps=4", "image_size=32", "task.temporal=none"),
    "evaluate": (),
    "report": (),
}
_HERE = {
    "/data/our-videos": "our-videos",
    "/weights/vit_base.safetensors": "toy.safetensors",
    "vit_base_patch16": "vit_toy",
}


def own_videos() -> list[list[str]]:
    """The README's commands for one's own videos, for a small model."""
    text = (ROOT / "README.md").read_text().partition("**Your own videos**")[2]
    block = re.search(r"```sh\n(.*?)```", text, re.DOTALL)[1]
    for there, here in _HERE.items():
        block = block.replace(there, here)
    found = [shlex.split(line)[1:] for line in block.splitlines() if line.startswith("surgdino ")]
    return [[*words, *_MORE[words[0]]] for words in found]


@pytest.mark.slow
def test_the_plan_for_ones_own_videos_works_as_it_is_written(tmp_path, monkeypatch, capsys):
    write_cholec80(tmp_path / "made", videos=6, seconds=8, size=(96, 64))
    (tmp_path / "our-videos").mkdir()
    rows = ["video,start,label"]
    for number in range(1, 7):
        (tmp_path / f"made/videos/video{number:02d}.mp4").rename(tmp_path / f"our-videos/OP{number}.mp4")
        rows += [f"OP{number},0,access", f"OP{number},4,closure"]
    (tmp_path / "our-videos/labels.csv").write_text("\n".join(rows) + "\n")
    save_file(build_backbone(shipped_settings("model", "vit_toy")).vit.state_dict(), str(tmp_path / "toy.safetensors"))
    monkeypatch.chdir(tmp_path)
    commands = own_videos()
    assert [words[0] for words in commands] == ["verify", "pretrain", "finetune", "evaluate", "report"]
    for words in commands:
        assert main(words) == 0, f"surgdino {shlex.join(words)}: {capsys.readouterr().err}"
    results = json.loads((tmp_path / "runs/phases/results.json").read_text())
    assert results["leakage"]["tested_operations"] == 2
    assert results["leakage"]["seen_operations"] == {}
    # Everything was typed with relative paths; a run is complete from any other folder too.
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for words in (["report", "../runs/ours", "report.frames=true"], ["evaluate", "checkpoint=../runs/phases"]):
        assert main(words) == 0, f"surgdino {shlex.join(words)}: {capsys.readouterr().err}"
    assert "data:image" in (tmp_path / "runs/ours/report.html").read_text()
    assert not any((tmp_path / "elsewhere").iterdir())
