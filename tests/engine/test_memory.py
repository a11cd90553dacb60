"""Too little memory: one line, what was done is saved, and the micro-batch that fits is found by trying."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from surgdino import distributed
from surgdino.backbone.vit import Backbone
from surgdino.engine import memory
from surgdino.engine.method import Method
from surgdino.engine.methods.dino import DINO
from surgdino.engine.plan import TrainPlan
from surgdino.engine.probing.probe_set import ProbeSet
from surgdino.engine.train import open_session, train
from surgdino.errors import SurgdinoError
from tests.engine.gloo import in_processes, start_processes
from tests.engine.methods.test_training import plan_of
from tests.engine.test_processes import plan_without_chance
from tests.engine.test_training import final_tensors, lines, plan_in, without_timings

OOM = "CUDA out of memory. Tried to allocate 1.50 GiB. GPU 0 has a total capacity of 23.65 GiB"


def limited(monkeypatch: pytest.MonkeyPatch, images: int | None = None, step: int | None = None) -> None:
    """Memory for so many images in a student's pass, or for the steps before `step` alone."""
    real, count = Method.forward, iter(range(1, 10_000))

    def forward(method, views, targets, pool):
        if (images is not None and views.images > images) or next(count) == step:
            raise torch.OutOfMemoryError(OOM)
        return real(method, views, targets, pool)

    monkeypatch.setattr(Method, "forward", forward)


@pytest.mark.parametrize("name", ["simdinov2", "dino"])
def test_too_little_memory_is_one_line_and_the_run_goes_on_as_if_nothing_had_been(tmp_path, monkeypatch, name):
    whole = train(plan_of(name, tmp_path / "whole", steps=6))
    with monkeypatch.context() as patched:
        limited(patched, step=4)
        with pytest.raises(SurgdinoError) as error:
            train(plan_of(name, tmp_path / "parts", steps=6))
    said = error.value.line()
    for words in (
        r"step 4: the machine's memory is too small; expected room for 8 images of 2 x \d+ \+ \d x \d+ px at a time",
        r"found [\d.]+ of [\d.]+ GiB used when it needed 1.50 GiB more",
        r"Use train.accumulate=2 \(hardware.fit=true finds it\) and hardware.activation_checkpointing=true",
        r"the same command with it continues from step 3",
    ):
        assert re.search(words, said), said
    resumed = train(plan_of(name, tmp_path / "parts", steps=6))
    assert resumed.resumed_from == 3
    expected, found = final_tensors(tmp_path / "whole"), final_tensors(tmp_path / "parts")
    assert [key for key in expected if not torch.equal(expected[key], found[key])] == []
    assert without_timings(lines(resumed)) == without_timings(lines(whole))


def test_a_step_that_fails_while_weights_change_is_not_saved(tmp_path, monkeypatch):
    real, count = torch.optim.AdamW.step, iter(range(1, 100))

    def step(optimizer):
        real(optimizer)
        if next(count) == 7:
            raise torch.OutOfMemoryError(OOM)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    with pytest.raises(SurgdinoError, match=r"step 7: .*continues from step 5"):
        train(plan_in(tmp_path, probe=None))
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["00000005.pt"]


def test_a_micro_batch_of_one_image_has_no_smaller_one(tmp_path, monkeypatch):
    limited(monkeypatch, images=0)
    plan = plan_in(tmp_path, probe=None, accumulate=8)
    plan = replace(plan, hardware=replace(plan.hardware, activation_checkpointing=True))
    with pytest.raises(SurgdinoError, match="begin anew with smaller crops or a smaller model") as error:
        train(plan)
    assert "accumulate=" not in error.value.line()


def test_a_probe_that_does_not_fit_says_so_and_the_steps_before_it_are_saved(tmp_path, monkeypatch):
    real = ProbeSet.measure

    def measure(probe, backbone, autocast):
        metrics = tmp_path / "metrics.jsonl"
        if metrics.exists() and metrics.read_text().count('"loss"') > 1:
            raise torch.OutOfMemoryError(OOM)
        return real(probe, backbone, autocast)

    monkeypatch.setattr(ProbeSet, "measure", measure)
    with pytest.raises(SurgdinoError, match=r"probe: .* room for 24 frames.*Use probe.every=0"):
        train(plan_in(tmp_path))
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["00000005.pt"]


NO_MEMORY = {
    "torch": torch.OutOfMemoryError(OOM),
    "CUDA's context, pinned memory": torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might", 2),
    "cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "cuDNN": RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    "CPU": RuntimeError(
        "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 17179 bytes."
    ),
    "Python": MemoryError(),
}


@pytest.mark.parametrize("error", NO_MEMORY.values(), ids=NO_MEMORY)
def test_whoever_says_that_memory_is_too_small_is_understood(error):
    with (
        pytest.raises(SurgdinoError, match="memory is too small; expected room for 128 pictures"),
        memory.within_memory(torch.device("cpu"), place="features", asked="128 pictures", fix="use another"),
    ):
        raise error


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("surgdino.engine.method.Method.forward", r"step 1: .* room for 8 images .* continues from step 0"),
        ("surgdino.engine.method.Method.make_teacher", r"the start: .* room for student and teacher of vit_toy"),
        ("surgdino.engine.saving.host_copy", r"saving step \d+: .* room for a copy of the state.* continues from step"),
    ],
    ids=["step", "start", "save"],
)
def test_wherever_a_run_has_too_little_it_says_so(tmp_path, monkeypatch, where, said):
    def fails(*arguments, **more):
        raise NO_MEMORY["CPU"]

    monkeypatch.setattr(where, fails)
    with pytest.raises(SurgdinoError, match=said):
        train(plan_in(tmp_path, probe=None, steps=4, checkpoint_every=2))


def test_no_other_error_counts_as_one_of_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(Method, "forward", lambda *_: (_ for _ in ()).throw(RuntimeError("mat1 and mat2 shapes")))
    with pytest.raises(RuntimeError, match="mat1"):
        train(plan_in(tmp_path, probe=None))


def test_any_verb_without_memory_says_so_in_one_line(monkeypatch, capsys):
    from surgdino.cli import main

    def fails(words):
        raise NO_MEMORY["CPU"]

    monkeypatch.setattr(main, "dispatch", fails)
    assert main.main(["predict"]) == 2
    assert "not enough memory; found" in capsys.readouterr().err


def test_a_gpu_says_what_others_hold_of_it(monkeypatch):
    device = torch.device("cuda", 0)
    monkeypatch.setattr(memory, "peak_and_size", lambda device: (20 * 2**30, 24 * 2**30))
    monkeypatch.setattr(memory, "used_by_others", lambda device: 3.5 * 2**30)
    with (
        pytest.raises(SurgdinoError, match=r"GPU's memory.*20.0 of 24.0 GiB used, 3.5 GiB by other programs"),
        memory.within_memory(device, place="features", asked="128 pictures", fix="use another GPU"),
    ):
        raise torch.OutOfMemoryError("no number")


# Several processes


def outcome(folder: Path) -> None:
    """What a process says, of which the second has too little memory in its third step."""
    with pytest.MonkeyPatch.context() as patched:
        if distributed.rank() == 1:
            limited(patched, step=3)
        try:
            with distributed.together(lambda: torch.device("cpu")):
                train(plan_without_chance(folder, checkpoint_every=2, probe=None))
        except SurgdinoError as error:
            (folder / f"said by {distributed.rank()}").write_text(error.line())


@pytest.mark.slow
def test_one_process_without_memory_ends_all_and_what_was_saved_stands(tmp_path):
    start_processes(2, outcome, tmp_path)
    other, failed = ((tmp_path / f"said by {rank}").read_text() for rank in range(2))
    assert "memory is too small" in failed
    assert "continues from step 2" in failed
    assert "process 0: another process has ended" in other
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["00000002.pt"]


# Finding what fits


def fitting(folder: Path, **changes) -> TrainPlan:
    plan = plan_without_chance(folder, probe=None, **changes)
    return replace(plan, hardware=replace(plan.hardware, fit=True))


@pytest.mark.parametrize(("images", "expected"), [(8, 1), (7, 2), (3, 4), (1, 8)])
def test_the_micro_batch_that_fits_is_found(tmp_path, monkeypatch, capsys, images, expected):
    limited(monkeypatch, images=images)
    session = open_session(fitting(tmp_path))
    assert session.plan.train.accumulate == expected
    assert f"train.accumulate={expected}: {8 // expected} images at a time" in capsys.readouterr().out


@pytest.mark.slow
def test_trying_changes_nothing_but_the_micro_batch(tmp_path, monkeypatch):
    limited(monkeypatch, images=4)
    state = torch.get_rng_state()
    found = train(fitting(tmp_path / "found"))
    given = train(plan_without_chance(tmp_path / "given", probe=None, accumulate=2))
    assert without_timings(lines(found)) == without_timings(lines(given))
    ours, theirs = final_tensors(tmp_path / "found"), final_tensors(tmp_path / "given")
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []
    torch.set_rng_state(state)
    plan = plan_of("dino", tmp_path / "dino")
    with monkeypatch.context() as patched:
        patched.setattr(DINO, "follow", lambda *_: pytest.fail("a trial is no step"))
        session = open_session(replace(plan, hardware=replace(plan.hardware, fit=True)))
    assert not session.teacher.head.centre.any()
    assert all(p.grad is None for p in session.student.parameters())


def test_where_nothing_fits_it_says_so(tmp_path, monkeypatch):
    limited(monkeypatch, images=0)
    with pytest.raises(SurgdinoError, match=r"hardware.fit: .* too small for one image at a time"):
        open_session(fitting(tmp_path))


def accumulate_in_two(folder: Path) -> int:
    """One process has memory for 4 images, the other for 2; groups span both."""
    with pytest.MonkeyPatch.context() as patched:
        limited(patched, images=4 - 2 * distributed.rank())
        return open_session(fitting(folder)).plan.train.accumulate


@pytest.mark.slow
def test_all_processes_take_what_the_smallest_needs(tmp_path):
    assert in_processes(2, accumulate_in_two, tmp_path) == [2, 2]


def test_sharded_networks_cannot_try(tmp_path, monkeypatch):
    from surgdino.engine.fitting import fit

    session = open_session(plan_in(tmp_path, probe=None))
    session.plan = replace(session.plan, hardware=replace(session.plan.hardware, fit=True, shard=True))
    session.processes = replace(session.processes, world=2)
    with pytest.raises(SurgdinoError, match=r"Choose train.accumulate yourself"):
        fit(session)


def test_the_backbone_learns_while_it_is_tried(tmp_path, monkeypatch):
    """Also where the run begins with a frozen one."""
    seen, real = [], Backbone.forward_crops

    def forward(backbone, *arguments, **more):
        seen.append(torch.is_grad_enabled() and backbone.vit.blocks[0].attn.qkv.weight.requires_grad)
        return real(backbone, *arguments, **more)

    monkeypatch.setattr(Backbone, "forward_crops", forward)
    open_session(fitting(tmp_path, head_warmup_steps=3))
    assert any(seen)
