"""Shell completion: made of what is discovered, and asked of a real bash."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from surgdino.cli.completion import known, main
from surgdino.cli.compose import GROUPS, choices
from surgdino.cli.verbs import VERBS


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """The script of bash in a file, made once."""
    import contextlib
    import io

    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert main(["bash"]) == 0
    path = tmp_path_factory.mktemp("completion") / "surgdino"
    path.write_text(said.getvalue())
    return path


def completed(script, line: str) -> list[str]:
    program = (
        f'source {script}; COMP_LINE="{line}"; COMP_POINT={len(line)}; _surgdino; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    return subprocess.run(["bash", "-c", program], capture_output=True, text=True, timeout=20).stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("surgdino ", list(VERBS)),
        ("surgdino pretr", ["pretrain"]),
        ("surgdino pretrain data.roo", ["data.root="]),
        ("surgdino finetune task=seg", ["segmentation"]),
        ("surgdino pretrain dataset=cholec80", ["cholec80", "cholec80_vqa"]),
        ("surgdino pretrain hardware.device=c", ["cpu", "cuda"]),
        ("surgdino evaluate averaging=scales", ["scales", "scales+flips"]),
        ("surgdino bench st", ["step", "store"]),
        ("surgdino export RUN format=torch", ["torch_export"]),
    ],
)
def test_bash_offers_what_there_is(line, offered, script):
    assert completed(script, line) == offered


def test_bash_offers_paths_behind_settings_that_take_one(script, tmp_path):
    (tmp_path / "videos").mkdir()
    assert completed(script, f"surgdino pretrain data.root={tmp_path}/vi") == [f"{tmp_path}/videos"]
    assert completed(script, f"surgdino report {tmp_path}/vi") == [f"{tmp_path}/videos"]
    assert completed(script, f"surgdino pretrain train.steps={tmp_path}/vi") == []


def test_every_choice_of_every_group_is_known():
    found = known()
    assert found.words.keys() == VERBS.keys()
    for group in GROUPS:
        assert found.values[group] == list(choices(group))


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_other_shells_take_their_script(shell, tmp_path, capsys):
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    assert main([shell]) == 0
    path = tmp_path / "script"
    path.write_text(capsys.readouterr().out)
    if shell == "fish":
        program = f"source {path}; complete -C 'surgdino finetune task=seg'"
    else:
        line = "surgdino finetune task=seg"
        program = (
            f"autoload -U compinit; compinit -D; source {path}; COMP_LINE='{line}'; COMP_POINT={len(line)}; "
            "_surgdino; print -l $COMPREPLY"
        )
    done = subprocess.run([shell, "-c", program], capture_output=True, text=True, timeout=20)
    assert "task=segmentation" in done.stdout.split(), done.stderr
