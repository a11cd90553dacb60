"""Which device, precision and attention a run takes on the cards that people have, and what it says of them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from surgdino import distributed
from surgdino.backbone.vit import build_backbone
from surgdino.config import shipped
from surgdino.engine import devices
from surgdino.engine import train as training
from surgdino.engine.devices import choose_device, why_no_gpu
from surgdino.engine.hardware import Hardware, days_on_cpu
from surgdino.engine.precision import choose_dtype, set_tf32
from surgdino.engine.settings import HardwareSettings
from surgdino.engine.train import open_session
from surgdino.errors import SurgdinoError
from tests.engine.gloo import in_processes
from tests.engine.test_training import TOY, plan_in

CUDA = torch.device("cuda", 0)
LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID", "CUDA_VISIBLE_DEVICES")


def hardware_of(**changes) -> HardwareSettings:
    return shipped(HardwareSettings, "hardware/auto", **changes)


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    """No launcher, no GPU in the machine."""
    for name in LAUNCHED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(devices, "_NVIDIA", ())
    monkeypatch.setattr(devices, "_AMD", ())


@pytest.fixture
def cards(monkeypatch):
    """Give torch so many cards of a kind, and the process an environment."""

    def give(
        count: int = 1,
        capability: tuple[int, int] = (9, 0),
        hip: str | None = None,
        built: list[str] | None = None,
        **environment,
    ) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "NVIDIA H100 80GB HBM3")
        properties = SimpleNamespace(total_memory=79 * 2**30)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device=None: properties)
        monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: True)
        monkeypatch.setattr(torch.version, "hip", hip)
        monkeypatch.setattr(torch.version, "cuda", None if hip else "13.0")
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: built or [])
        for name, value in environment.items():
            monkeypatch.setenv(name, str(value))

    return give


@pytest.fixture
def tf32_as_it_was() -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


# Which GPU


@pytest.mark.parametrize(
    ("visible", "environment", "expected"),
    [
        (4, {}, 0),
        (4, {"LOCAL_RANK": 2, "LOCAL_WORLD_SIZE": 4, "WORLD_SIZE": 8, "TORCHELASTIC_RUN_ID": "none"}, 2),
        (1, {"LOCAL_RANK": 2, "LOCAL_WORLD_SIZE": 4, "WORLD_SIZE": 4, "CUDA_VISIBLE_DEVICES": "2"}, 0),
        (1, {"LOCAL_RANK": 3, "WORLD_SIZE": 8, "CUDA_VISIBLE_DEVICES": "MIG-4d1f"}, 0),
        (1, {"LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1, "WORLD_SIZE": 4, "TORCHELASTIC_RUN_ID": "1"}, 0),
        (4, {"LOCAL_RANK": 3, "WORLD_SIZE": 8}, 3),  # a launcher that does not say how many share the machine
    ],
    ids=["alone", "torchrun", "slurm one a task", "MIG", "torchrun a task", "by hand"],
)
def test_each_process_takes_its_gpu(cards, visible, environment, expected):
    cards(visible, **environment)
    assert choose_device(hardware_of()) == torch.device("cuda", expected)


@pytest.mark.parametrize("rank", [0, 1])
def test_more_processes_than_gpus_is_one_line_in_all_of_them(cards, rank):
    cards(
        1,
        LOCAL_RANK=rank,
        LOCAL_WORLD_SIZE=2,
        WORLD_SIZE=2,
        TORCHELASTIC_RUN_ID="none",
        CUDA_VISIBLE_DEVICES="MIG-4d1f",
    )
    with pytest.raises(SurgdinoError, match=r"at most 1 processes.*found 2 with CUDA_VISIBLE_DEVICES=MIG-4d1f"):
        choose_device(hardware_of())


def test_tasks_of_slurm_without_ranks_are_warned_that_each_trains_alone(monkeypatch, capsys):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    monkeypatch.setenv("SLURM_PROCID", "2")
    for rank, warned in ((None, True), ("0", False)):
        if rank:
            monkeypatch.setenv("RANK", rank)
        Hardware.of(hardware_of()).announce(hardware_of(), verb="pretrain")
        assert ("task 2 of the 4" in " ".join(capsys.readouterr().out.split())) is warned


# Its processors


def bound(apart: bool) -> tuple[float, float, int]:
    """Who shares a process's processors, before and after it has joined the others; and its loader's workers."""
    from surgdino import machine
    from surgdino.engine.hardware import loader_workers

    if apart:
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[distributed.rank()]})
    with pytest.MonkeyPatch.context() as patched, distributed.together(lambda: torch.device("cpu")):
        patched.setattr(machine, "cores", lambda: 12)
        joined, workers = distributed.sharing(), loader_workers(hardware_of())
    return distributed.sharing(), joined, workers


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two processors")
@pytest.mark.parametrize(("apart", "expected"), [(True, (2, 1, 11)), (False, (2, 2, 5))], ids=["Slurm", "torchrun"])
def test_processors_are_divided_only_among_processes_that_share_them(apart, expected):
    """Slurm binds each task to processors of its own (`--cpus-per-task`); torchrun's see all of the machine."""
    assert in_processes(2, bound, apart, joined=False) == [expected] * 2


# Without one


def test_a_machine_without_a_gpu_and_torchs_cpu_build_are_as_expected(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    assert choose_device(hardware_of()).type == "cpu"
    assert why_no_gpu() is None
    with pytest.raises(SurgdinoError, match="hardware=cpu"):
        choose_device(hardware_of(device="cuda"))


@pytest.mark.parametrize(
    ("build", "present", "environment", "said"),
    [
        (None, True, {}, "NVIDIA GPU, but this is torch's CPU build. Install its CUDA build"),
        ("13.0", True, {"CUDA_VISIBLE_DEVICES": ""}, "CUDA_VISIBLE_DEVICES='' hides all GPUs. Unset"),
        ("13.0", True, {"CUDA_VISIBLE_DEVICES": "-1"}, "CUDA_VISIBLE_DEVICES='-1' hides all GPUs. Unset"),
        ("13.0", True, {"CUDA_VISIBLE_DEVICES": "7"}, "CUDA_VISIBLE_DEVICES='7' names a GPU that is not there. Unset"),
        ("13.0", False, {}, "CUDA build without a working driver. Check nvidia-smi"),
    ],
    ids=["CPU build", "hidden", "hidden by -1", "a number that is not there", "no driver"],
)
def test_the_cpu_where_a_gpu_should_be_is_a_warning(monkeypatch, capsys, build, present, environment, said):
    monkeypatch.setattr(torch.version, "cuda", build)
    monkeypatch.setattr(devices, "_NVIDIA", (Path("/"),) if present else ())
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    Hardware.of(hardware_of()).announce(hardware_of())
    printed = " ".join(capsys.readouterr().out.split())
    assert "hardware CPU" in printed
    assert "! the CPU is used, which is many times slower" in printed
    assert said in printed
    Hardware.of(hardware_of(device="cpu")).announce(hardware_of(device="cpu"))
    assert "!" not in capsys.readouterr().out  # who asks for it, gets it
    with pytest.raises(SurgdinoError, match=r"hides|build"):
        choose_device(hardware_of(device="cuda"))


def test_a_driver_that_is_too_old_is_named_in_torchs_words(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: warnings.warn("found 11040", stacklevel=1) or False)
    assert "found 11040" in (why_no_gpu() or ("",))[0]


CUDA_13, CUDA_126 = ["sm_75", "sm_80", "sm_90", "sm_120", "compute_120"], ["sm_50", "sm_70", "sm_75", "sm_90a"]


@pytest.mark.parametrize(
    ("built", "capability", "runs"),
    [
        (CUDA_13, (7, 5), True),
        (CUDA_13, (8, 6), True),
        (CUDA_13, (13, 0), True),  # compiled from PTX
        (CUDA_13, (7, 0), False),
        (CUDA_13, (6, 1), False),
        (CUDA_126, (7, 0), True),
        (CUDA_126, (10, 0), False),
        ([], (7, 0), True),  # a build that does not say
    ],
    ids=str,
)
def test_a_card_that_this_torch_has_no_kernels_for_is_named_before_any_work(cards, capsys, built, capability, runs):
    cards(1, capability, built=built)
    assert choose_device(hardware_of()).type == ("cuda" if runs else "cpu")
    if runs:
        return
    Hardware.of(hardware_of()).announce(hardware_of())
    said = " ".join(capsys.readouterr().out.split())
    assert f"has no kernels for NVIDIA H100 80GB HBM3, sm_{capability[0]}{capability[1]}" in said
    assert "install a build of torch" in said.lower()
    with pytest.raises(SurgdinoError, match="no kernels for"):
        choose_device(hardware_of(device="cuda"))


def test_apples_gpu_is_not_used_and_said(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert "mps" in (why_no_gpu() or ("",))[0]


# What it says


def test_one_line_says_what_was_taken(cards, capsys):
    cards(2)
    taken = Hardware.of(hardware_of())
    assert taken.announce(hardware_of(), build_backbone(TOY), verb="pretrain") == (
        "NVIDIA H100 80GB HBM3 with 79 GiB, bf16, packed attention (torch varlen); 1 of 2 visible GPUs used"
    )
    printed = " ".join(capsys.readouterr().out.split())
    assert (
        "! 1 of 2 visible GPUs stay idle; all are used by: torchrun --nproc-per-node 2 --no-python surgdino" in printed
    )


@pytest.mark.parametrize("visible", [1, 4])
def test_four_processes_use_four(cards, capsys, visible):
    cards(visible, WORLD_SIZE=8, LOCAL_WORLD_SIZE=visible)
    line = Hardware.of(hardware_of()).announce(hardware_of(), verb="pretrain")
    assert line.endswith(f"{visible} of {visible} visible GPU{'s' if visible > 1 else ''} used, 8 processes in all")
    assert "!" not in capsys.readouterr().out


def test_a_run_says_and_records_it(tmp_path, capsys):
    from surgdino.backbone.checkpoint import load
    from surgdino.engine.train import train

    train(plan_in(tmp_path, steps=2, probe=None))
    line = f"CPU, {torch.get_num_threads()} thread"
    assert line in capsys.readouterr().out
    assert load(tmp_path).info["hardware"].startswith(line)


def test_days_on_a_cpu_are_foretold(tmp_path, monkeypatch):
    plan = plan_in(tmp_path)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert days_on_cpu(plan, 1000) < 0.01
    said = []
    monkeypatch.setattr(training, "days_on_cpu", lambda plan, steps: 12.3)
    open_session(plan, warn=said.append)
    assert said == ["on this CPU the run takes some 12 days: use a GPU, a smaller model or fewer train.steps"]
    assert days_on_cpu(plan, 10_000) == pytest.approx(10 * days_on_cpu(plan, 1000))
    # ViT-S/16 at 2x224 + 10x96: 4 images take 5.4 s of one thread.
    weights, tokens, whole = 21.7e6, 392 + 360, 392
    assert 4 * 2 * weights * (3 * tokens + whole) / 0.08e12 == pytest.approx(5.4, rel=0.1)


# Precision


@pytest.mark.parametrize(
    ("capability", "hip", "expected", "tf32"),
    [
        ((9, 0), None, torch.bfloat16, True),
        ((8, 6), None, torch.bfloat16, True),
        ((7, 5), None, torch.float16, False),
        ((7, 0), None, torch.float16, False),
        ((6, 1), None, torch.float32, False),
        ((9, 0), "6.4", torch.bfloat16, False),
    ],
    ids=["H100", "RTX 30", "T4", "V100", "P40", "ROCm"],
)
@pytest.mark.usefixtures("tf32_as_it_was")
def test_precision_follows_the_card(cards, capability, hip, expected, tf32):
    cards(1, capability, hip)
    assert choose_dtype(hardware_of(), CUDA) == expected
    assert choose_dtype(hardware_of(precision="fp32"), CUDA) == torch.float32
    assert set_tf32(torch.float32, CUDA) is tf32 is torch.backends.cuda.matmul.allow_tf32
    assert set_tf32(torch.bfloat16, CUDA) is False is torch.backends.cuda.matmul.allow_tf32
