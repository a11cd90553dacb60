"""Distillation: what is compared, what the teacher's crops are, and that a teacher is no part of the run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from surgdino.backbone.checkpoint import save_backbone
from surgdino.backbone.preprocess import normalize
from surgdino.backbone.settings import ModelSettings
from surgdino.backbone.vit import build_backbone
from surgdino.engine.method import open_method
from surgdino.engine.methods.parts.teachers import open_teachers
from surgdino.engine.processes import Pool
from surgdino.engine.step import compute_targets, micro_batches
from surgdino.engine.train import open_session, train
from surgdino.errors import SurgdinoError
from tests.engine.methods.test_training import plan_of, section
from tests.engine.teachers import TEACHER, save_teacher, toy_teacher
from tests.engine.test_training import CROPS, TOY, final_tensors, stop_after

FINE = {**TEACHER, "timm_kwargs": {**TEACHER["timm_kwargs"], "patch_size": 4}}


def plan_with(folder: Path, *teachers: str, **changes):
    return plan_of("distill", folder, {"teachers": list(teachers)}, probe=None, **changes)


def first_terms(plan) -> dict[str, float]:
    session = open_session(plan, print)
    session.student.eval()  # no dropped paths
    [views] = micro_batches(session, next(session.batches()))
    [targets] = compute_targets(session, [views])
    with torch.no_grad():
        _, terms = session.student(views, targets, Pool(processes=session.processes))
    return {name: value.item() for name, value in terms.items()}


def test_a_student_that_is_its_teacher_begins_at_distance_zero(tmp_path):
    plan = plan_with(tmp_path / "run", str(tmp_path / "same"))
    save_backbone(tmp_path / "same", plan.backbone, {})
    terms = first_terms(plan)
    assert (terms["comp"], terms["patches"]) == (pytest.approx(1, abs=1e-6), pytest.approx(1, abs=1e-6))
    assert terms["local"] < 0.99, "a local crop shows something else"
    other = first_terms(plan_with(tmp_path / "other", toy_teacher()))
    assert max(map(abs, (other["comp"], other["patches"]))) < 0.5


def test_a_teacher_sees_the_same_pixels_with_its_own_normalisation_and_patches(tmp_path):
    [teacher] = open_teachers([Path(save_teacher(tmp_path, FINE))], None)
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    found = teacher.tokens(normalize(pixels, TOY["mean"], TOY["std"]), ModelSettings.of(TOY), (4, 4))
    with torch.no_grad():
        expected = teacher.backbone(normalize(pixels, FINE["mean"], FINE["std"]))
    torch.testing.assert_close(found.cls, expected.cls, rtol=1e-4, atol=1e-4)
    assert found.patches.shape == (2, 16, 96), "64 patches on the student's grid"
    small = replace(teacher, size=16).tokens(normalize(pixels, TOY["mean"], TOY["std"]), ModelSettings.of(TOY), (4, 4))
    assert small.patches.shape == found.patches.shape


def test_a_teacher_has_no_gradient_no_moments_and_no_place_in_the_state(tmp_path):
    session = open_session(plan_with(tmp_path, toy_teacher()), print)
    [teacher] = session.student.teachers
    assert session.teacher.teachers == (teacher,), "student and average share it"
    theirs = {id(p) for p in teacher.backbone.parameters()}
    assert not theirs & {id(p) for p in session.student.parameters()}
    assert not any(p.requires_grad for p in teacher.backbone.parameters())
    assert session.student.state_dict().keys() == session.teacher.state_dict().keys()
    assert not [name for name in session.student.state_dict() if "teachers" in name]
    optimised = {id(p) for group in session.optimizer.param_groups for p in group["params"]}
    assert not theirs & optimised


def test_centring_by_the_first_batch_is_of_the_whole_batch_and_stays(tmp_path):
    session = open_session(plan_with(tmp_path, toy_teacher(), save_teacher(tmp_path / "b", FINE, seed=2)), print)
    [views] = micro_batches(session, next(session.batches()))
    [targets] = compute_targets(session, [views])
    assert len(targets.tokens) == 2
    for tokens in targets.tokens:
        assert tokens.cls.mean(0).abs().max() < 1e-5
        assert tokens.patches.mean(0).abs().max() < 1e-5
    session.step = 1
    [later] = compute_targets(session, [views])
    assert torch.equal(later.tokens[0].cls, targets.tokens[0].cls)


@pytest.mark.slow
def test_two_teachers_masks_and_an_mlp_learn_and_resume(tmp_path, monkeypatch):
    changes = {"mask_probability": 0.5, "adaptor_hidden": 32}
    changes["teachers"] = [toy_teacher(), save_teacher(tmp_path / "b", FINE, seed=2)]
    whole = train(plan_of("distill", tmp_path / "whole", changes, steps=10))
    with monkeypatch.context() as patched:
        stop_after(patched, 4)
        assert train(plan_of("distill", tmp_path / "parts", changes, steps=10)).step == 4
    assert train(plan_of("distill", tmp_path / "parts", changes, steps=10)).last == whole.last
    expected, found = final_tensors(tmp_path / "whole"), final_tensors(tmp_path / "parts")
    assert [key for key in expected if not torch.equal(expected[key], found[key])] == []


def test_a_resumed_run_takes_no_other_teacher(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        stop_after(patched, 2)
        train(plan_with(tmp_path / "run", save_teacher(tmp_path / "a")))
    moved = (tmp_path / "a").rename(tmp_path / "moved")
    assert open_session(plan_with(tmp_path / "run", str(moved)), print).step == 2
    with pytest.raises(SurgdinoError, match=r"another method\.teachers.*sha256:.*sha256:"):
        open_session(plan_with(tmp_path / "run", save_teacher(tmp_path / "b", seed=2)), print)


# Bad input


@pytest.mark.slow
def test_what_is_no_teacher_is_refused_in_one_line(tmp_path):
    save_file({"weight": torch.zeros(3, 3)}, tmp_path / "other.safetensors")
    odd = build_backbone({**TOY, "timm_kwargs": {**TOY["timm_kwargs"], "embed_dim": 48, "num_heads": 2}})
    save_file(odd.vit.state_dict(), tmp_path / "odd.safetensors")
    refused = {"missing": "does not exist", "other.safetensors": "no vision transformer"}
    refused["odd.safetensors"] = "fits no model"
    for name, said in refused.items():
        method = section("distill", teachers=[str(tmp_path / name)])
        with pytest.raises(SurgdinoError, match=said) as caught:
            taught(method)
        assert "\n" not in caught.value.line()
    with pytest.raises(SurgdinoError, match=r"method\.teachers"):
        open_method(section("distill", teachers=[]))


def test_crops_that_do_not_divide_into_a_teachers_patches_are_refused(tmp_path):
    odd = {**TEACHER, "timm_kwargs": {**TEACHER["timm_kwargs"], "patch_size": 14, "img_size": 28}}
    method = section("distill", teachers=[save_teacher(tmp_path, odd)])
    with pytest.raises(SurgdinoError, match=r"crops\.global_size.*multiple of 14.*method\.teacher_size=28"):
        taught(method)
    assert len(taught({**method, "teacher_size": 28})) == 1


def taught(method):
    kind, settings = open_method(method)
    return kind.taught_by(settings, [CROPS])
