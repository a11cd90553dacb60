"""What docs/cluster.md tells its reader to type: launchers start processes that train together."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import hydra
import pytest
from hydra import initialize_config_dir

from surgdino.cli.compose import compose
from surgdino.cli.main import main
from surgdino.engine.state_files import load_state
from surgdino.paths import share
from tests import ROOT

DOCS = ROOT / "docs" / "cluster.md"
COMMANDS = [shlex.split(block) for block in re.findall(r"```bash\n(.+?)\n```", DOCS.read_text(), re.S)]
BIN = Path(sys.executable).parent
HAS_PLUGIN = (
    importlib.util.find_spec("hydra_plugins.hydra_submitit_launcher")
    if importlib.util.find_spec("hydra_plugins")
    else None
)
needs_plugin = pytest.mark.skipif(not HAS_PLUGIN, reason="hydra-submitit-launcher is not installed: surgdino[slurm]")


def small_run(root: Path, folder: Path, *more: str) -> list[str]:
    """The command of a run that takes seconds, with its output under `folder`."""
    words = f"""dataset=cholec80 data.root={root} data.store={folder}/store data.fps=2 data.short_side=64 model=vit_toy
        hardware=cpu hardware.loader_workers=0 crops.global_size=32 crops.local_size=16 crops.local_count=2
        method.head_hidden=64 method.head_out=32 train.batch_size=16 probe.every=0 run.dir={folder}/run"""
    return [str(BIN / "surgdino"), "pretrain", *more, *words.split()]


def command_of(launcher: str) -> list[str]:
    return next(words for words in COMMANDS if any(launcher in word for word in words))


@pytest.mark.parametrize("words", [w for w in COMMANDS if w[0] == "torchrun"], ids=lambda words: words[1].strip("-"))
def test_the_torchrun_lines_compose(words):
    settings = words[words.index("pretrain") + 1 :]
    cfg = compose("pretrain", settings)
    assert cfg.train.batch_size % 8 == 0


def test_the_srun_line_gives_each_task_its_ranks():
    words = next(words for words in COMMANDS if words[0] == "srun")
    ranks, _, command = words[words.index("-c") + 1].partition(" exec surgdino pretrain ")
    assert compose("pretrain", shlex.split(command)).train.batch_size % 16 == 0
    task = {"PROCID": "9", "NTASKS": "16", "LOCALID": "1", "NTASKS_PER_NODE": "8"}
    environment = {**{f"SLURM_{name}": value for name, value in task.items()}, "MASTER_ADDR": "gpu1"}
    done = subprocess.run(
        ["bash", "-c", f"{ranks} exec /usr/bin/env"], env=environment, capture_output=True, text=True, check=True
    )
    found = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert [found[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")] == ["9", "16", "1", "8"]
    assert (found["MASTER_ADDR"], found["MASTER_PORT"]) == ("gpu1", "29500")


@needs_plugin
def test_the_slurm_line_composes_to_a_launcher_of_sixteen_tasks():
    settings = [word for word in command_of("submitit_slurm")[2:] if word != "-m"]
    with initialize_config_dir(config_dir=str(share("configs")), version_base="1.3"):
        cfg = hydra.compose(config_name="pretrain", overrides=settings, return_hydra_config=True)
    launcher = cfg.hydra.launcher
    assert launcher._target_.endswith("SlurmLauncher")
    assert launcher.nodes * launcher.tasks_per_node == 16
    assert launcher.gpus_per_node == launcher.tasks_per_node
    assert launcher.max_num_timeout > 0
    assert launcher.submitit_folder == "runs/.submitit/%j"
    assert cfg.train.batch_size % 16 == 0


@needs_plugin
@pytest.mark.slow
def test_submitit_starts_two_tasks_that_train_together(synthetic_cholec80, tmp_path):
    launcher = ["-m", "hydra/launcher=submitit_local", "hydra.launcher.tasks_per_node=2"]
    command = small_run(synthetic_cholec80, tmp_path, *launcher, "train.steps=4")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    logs = sorted((tmp_path / "runs" / ".submitit").glob("*/*_log.out"))
    assert len(logs) == 2
    assert "global_rank=1(2)" in logs[1].read_text()
    assert "backbone.safetensors" in logs[0].read_text().replace("\n", "")
    assert "backbone.safetensors" not in logs[1].read_text().replace("\n", "")
    assert load_state(tmp_path / "run" / "state", print)["step"] == 4


@needs_plugin
@pytest.mark.slow
def test_a_fault_in_a_launched_job_reaches_who_launched_it(tmp_path):
    words = ["pretrain", "-m", "hydra/launcher=submitit_local", "data.root=/nowhere"]
    done = subprocess.run([BIN / "surgdino", *words], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode != 0
    assert "/nowhere" in done.stderr


@pytest.mark.slow
def test_two_processes_of_torchrun_stop_together_and_one_goes_on(synthetic_cholec80, tmp_path):
    long = small_run(synthetic_cholec80, tmp_path, "train.steps=100000", "hardware.shard=true", "train.accumulate=2")
    launch = [BIN / "torchrun", "--standalone", "--nproc-per-node", "2", "--no-python"]
    run = subprocess.Popen([*launch, *long], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    metrics = tmp_path / "run" / "metrics.jsonl"
    while run.poll() is None and not (metrics.exists() and '"loss"' in metrics.read_text()):
        time.sleep(0.1)
    os.kill(run.pid, signal.SIGTERM)
    out, _ = run.communicate(timeout=60)
    assert out.count("the same command continues") == 1, out
    stopped = load_state(tmp_path / "run" / "state", print)["step"]
    alone = small_run(synthetic_cholec80, tmp_path, f"train.steps={stopped + 2}")
    assert main(alone[1:]) == 0
    assert load_state(tmp_path / "run" / "state", print)["step"] == stopped + 2
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    assert steps == sorted(steps)
