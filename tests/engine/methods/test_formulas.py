"""The formulas of the DINO family agree with the papers', computed once more in float64 by loops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from surgdino.backbone.vit import build_backbone
from surgdino.config import shipped, shipped_settings
from surgdino.engine.method import open_method
from surgdino.engine.methods import dino, dinov2, simdino, simdinov2
from surgdino.engine.methods.parts import prototypes
from surgdino.engine.methods.parts.heads import PrototypeHead
from surgdino.engine.methods.parts.prototype_settings import teacher_temperature
from surgdino.engine.methods.parts.prototypes import sinkhorn
from surgdino.engine.methods.parts.spread import WORST, koleo
from surgdino.engine.processes import ProcessGroup
from surgdino.errors import SurgdinoError
from tests.engine.test_training import TOY

B, L, K, D, PATCHES = 10, 3, 24, 12, 9
ALONE = ProcessGroup(rank=0, world=1)


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def cosines(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.uniform(-1, 1, shape)


def single(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).float()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


# DINO


def dino_in_float64(student: np.ndarray, targets: np.ndarray, temperature: float) -> float:
    pairs = []
    for j in range(len(targets)):
        for i in range(len(student)):
            if i != j:
                logs = np.log(softmax(student[i] / temperature))
                pairs.append(np.mean([-(targets[j, b] * logs[b]).sum() for b in range(student.shape[1])]))
    assert len(pairs) == 2 * (2 + L) - 2
    return float(np.mean(pairs))


@pytest.mark.parametrize("temperature", [0.1, 0.04, 1.0])
def test_cross_entropy_of_views_agrees_with_float64(rng, temperature):
    student, targets = cosines(rng, 2 + L, B, K), softmax(cosines(rng, 2, B, K) / 0.05)
    found = prototypes.cross_entropy_of_views(single(student), single(targets), temperature)
    assert found.item() == pytest.approx(dino_in_float64(student, targets, temperature), rel=1e-5)


def test_the_gradient_is_that_of_the_cross_entropy(rng):
    student = torch.from_numpy(cosines(rng, 2 + L, 3, 5)).requires_grad_()
    targets = torch.from_numpy(softmax(cosines(rng, 2, 3, 5) / 0.1))
    assert torch.autograd.gradcheck(lambda s: prototypes.cross_entropy_of_views(s, targets, 0.1), student)


SMALL = {"prototypes": K, "head_hidden": 8, "head_out": 4}


def dino_of(**changes: Any) -> dino.DINO:
    return dino.DINO(shipped(dino.Settings, "method/dino", **{**SMALL, **changes}), build_backbone(TOY))


def dinov2_settings(**changes: Any) -> dinov2.Settings:
    return shipped(dinov2.Settings, "method/dinov2", **{**SMALL, **changes})


def assigned_by(teacher: dino.DINO, progress: float, *parts: np.ndarray) -> list[prototypes.PrototypeTargets]:
    targets = teacher.assign([torch.zeros(0)] * len(parts), [single(part) for part in parts], ALONE, progress)
    teacher.follow(teacher, 1.0)
    return targets


def test_centring_agrees_with_float64_over_several_steps(rng):
    teacher, centre = dino_of(teacher_temp_start=0.04, teacher_temp=0.07, teacher_temp_warmup=0.5), None
    for step, progress in enumerate((0.0, 0.25, 0.75)):
        outputs = cosines(rng, 2, B, K) + 0.3 * step
        mean = outputs.mean((0, 1))
        centre = mean if centre is None else centre
        expected = softmax((outputs - centre) / (0.04, 0.055, 0.07)[step])
        centre = 0.9 * centre + 0.1 * mean
        targets = assigned_by(teacher, progress, outputs[:, :6], outputs[:, 6:])
        found = torch.cat([part.cls for part in targets], dim=1)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(teacher.head.centre, centre, rtol=1e-5, atol=1e-7)
        entropies = -(expected * np.log(expected)).sum(-1)
        overall = expected.mean((0, 1))
        assert targets[0].entropy.item() == pytest.approx(entropies.mean(), rel=1e-5)
        information = -(overall * np.log(overall)).sum() - entropies.mean()
        assert targets[1].information.item() == pytest.approx(information, rel=1e-4)


def test_outputs_that_are_not_finite_leave_the_centre_alone(rng):
    teacher = dino_of()
    assigned_by(teacher, 0.0, cosines(rng, 2, B, K))
    before, bad = teacher.head.centre.clone(), cosines(rng, 2, B, K)
    bad[1, 2, 3] = np.nan
    assigned_by(teacher, 0.5, bad)
    assert torch.equal(teacher.head.centre, before)


def test_the_teachers_temperature_rises_in_a_line_and_stays():
    found = [teacher_temperature(p, 0.04, 0.07, 0.3) for p in (0.0, 0.1, 0.15, 0.3, 1.0)]
    assert found == pytest.approx([0.04, 0.05, 0.055, 0.07, 0.07])
    assert teacher_temperature(0.0, 0.04, 0.07, 0.0) == 0.07


# Sinkhorn-Knopp


def sinkhorn_in_float64(logits: np.ndarray, temperature: float, iterations: int) -> np.ndarray:
    """As published, constants and all: each prototype brought to 1/K of the whole, each token to 1/n, in turn."""
    q = np.exp(logits / temperature)
    q /= q.sum()
    tokens, count = q.shape
    for _ in range(iterations):
        q = q / q.sum(0, keepdims=True) / count
        q = q / q.sum(1, keepdims=True) / tokens
    return q * tokens


def assigned(logits: np.ndarray, temperature: float = 0.06, iterations: int = 3) -> np.ndarray:
    (found,) = sinkhorn([single(logits)], temperature, iterations, ALONE.sum)
    return found.numpy()


@pytest.mark.parametrize("iterations", [1, 3, 10])
@pytest.mark.parametrize("temperature", [0.02, 0.04, 0.07])
def test_sinkhorn_agrees_with_float64(rng, temperature, iterations):
    logits = cosines(rng, 50, K)
    expected = sinkhorn_in_float64(logits.astype(np.float32).astype(float), temperature, iterations)
    np.testing.assert_allclose(assigned(logits, temperature, iterations), expected, rtol=2e-5, atol=1e-7)


def test_every_token_gets_a_distribution_and_in_the_end_every_prototype_its_share(rng):
    logits = cosines(rng, 60, K)
    np.testing.assert_allclose(assigned(logits).sum(1), 1, rtol=1e-6)
    balanced = assigned(logits, temperature=0.5, iterations=100)
    np.testing.assert_allclose(balanced.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(balanced.sum(0), 60 / K, rtol=1e-5)


def test_fixed_points_stay_where_they_are(rng):
    """A matrix whose tokens and prototypes are balanced already; and tokens that all say the same become uniform."""
    np.testing.assert_allclose(assigned(np.zeros((7, K))), 1 / K, rtol=1e-6)
    np.testing.assert_allclose(assigned(np.tile(cosines(rng, 1, K), (7, 1))), 1 / K, rtol=1e-5)
    balanced = sinkhorn_in_float64(cosines(rng, 30, K), 0.5, 500)
    np.testing.assert_allclose(assigned(0.05 * np.log(balanced), 0.05), balanced, rtol=1e-4)
    one_each = np.eye(K) * 2 - 1
    np.testing.assert_allclose(assigned(one_each, 0.05), np.eye(K), atol=1e-6)


def test_micro_batches_of_any_size_give_what_the_whole_gives(rng):
    logits = single(cosines(rng, 40, K))
    (whole,) = sinkhorn([logits], 0.06, 3, ALONE.sum)
    parts = sinkhorn([logits[:25], logits[25:25], logits[25:]], 0.06, 3, ALONE.sum)
    assert [len(part) for part in parts] == [25, 0, 15]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-5, atol=1e-8)


def test_no_token_at_all_is_no_error():
    assert sinkhorn([torch.zeros(0, K)], 0.06, 3, ALONE.sum)[0].shape == (0, K)


# KoLeo


def koleo_in_float64(features: np.ndarray) -> float:
    unit = features / np.linalg.norm(features, axis=-1, keepdims=True)
    nearest = [min(np.linalg.norm(a - b) for j, b in enumerate(unit) if j != i) for i, a in enumerate(unit)]
    return float(-np.mean(np.log(np.array(nearest) + 1e-8)))


def test_koleo_agrees_with_float64_group_by_group(rng):
    features = rng.normal(size=(2, 3, 7, D)) * 5
    found = koleo(single(features))
    for view in range(2):
        for group in range(3):
            expected = koleo_in_float64(features[view, group])
            assert found[view, group].item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_koleo_of_orthogonal_features_is_known_and_of_equal_ones_the_worst():
    assert koleo(torch.eye(5)).item() == pytest.approx(-math.log(math.sqrt(2)), rel=1e-6)
    same = torch.ones(5, D, requires_grad=True)
    worst = koleo(same)
    worst.backward()
    assert worst.item() == pytest.approx(WORST, rel=1e-6)
    assert torch.isfinite(same.grad).all()


def test_koleos_gradient_agrees_with_finite_differences(rng):
    assert torch.autograd.gradcheck(koleo, torch.from_numpy(rng.normal(size=(2, 6, 4))).requires_grad_())


# DINOv2


def tensors(rng: np.random.Generator) -> dict[str, np.ndarray]:
    masks = rng.random((2 * B, PATCHES)) < 0.4
    masks[::3] = False
    return {
        "student_cls": cosines(rng, 2 + L, B, K),
        "student_patches": cosines(rng, int(masks.sum()), K),
        "spread": rng.normal(size=(2, B, D)),
        "targets": softmax(cosines(rng, 2, B, K) / 0.06),
        "target_patches": softmax(cosines(rng, int(masks.sum()), K) / 0.06),
        "mask_weight": np.broadcast_to(1 / np.maximum(masks.sum(1, keepdims=True), 1), masks.shape)[masks],
        "masks": masks,
    }


def given_to_objective(t: dict[str, np.ndarray]) -> tuple:
    zero = torch.zeros(())
    targets = dinov2.TokenTargets(zero, single(t["targets"]), zero, zero, False, single(t["target_patches"]))
    return *(single(t[key]) for key in ("student_cls", "student_patches", "spread")), targets, single(t["mask_weight"])


@pytest.mark.parametrize("group", [None, 5, 2])
def test_dinov2_agrees_with_float64(rng, group):
    t = tensors(rng)
    settings = dinov2_settings(patch_weight=0.8, koleo_weight=0.2, group_size=group, student_temp=0.12)
    loss, terms = dinov2.objective(*given_to_objective(t), settings)
    logs = np.log(softmax(t["student_patches"] / 0.12))
    of_views, at = np.zeros(2 * B), 0
    for view, mask in enumerate(
        t["masks"]
    ):  # every masked view weighs the same, however many of its patches are masked
        each = [-(t["target_patches"][at + k] * logs[at + k]).sum() for k in range(mask.sum())]
        of_views[view], at = (np.mean(each) if each else 0.0), at + len(each)
    size = group or B
    groups = [[koleo_in_float64(view[i : i + size]) for i in range(0, B, size)] for view in t["spread"]]
    expected = {
        "cls": dino_in_float64(t["student_cls"], t["targets"], 0.12),
        "patch": of_views.mean(),
        "koleo": np.mean(groups[0]) + np.mean(groups[1]),
    }
    expected["loss"] = expected["cls"] + 0.8 * expected["patch"] + 0.2 * expected["koleo"]
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value, rel=1e-5), name
    assert loss.item() == terms["loss"].item()


def test_no_masked_patch_at_all_costs_nothing(rng):
    t = tensors(rng) | {key: np.zeros((0, K)) for key in ("student_patches", "target_patches")}
    loss, terms = dinov2.objective(*given_to_objective(t | {"mask_weight": np.zeros(0)}), dinov2_settings())
    assert terms["patch"].item() == 0
    assert torch.isfinite(loss)


def test_autocast_does_not_reach_the_objectives(rng):
    t = tensors(rng)
    outside, _ = dinov2.objective(*given_to_objective(t), dinov2_settings())
    (assigned_outside,) = sinkhorn([single(t["student_patches"])], 0.06, 3, ALONE.sum)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside, _ = dinov2.objective(*given_to_objective(t), dinov2_settings())
        (assigned_inside,) = sinkhorn([single(t["student_patches"])], 0.06, 3, ALONE.sum)
        half = prototypes.cross_entropy(single(t["student_patches"]).bfloat16(), single(t["target_patches"]), 0.1)
    assert inside.dtype == half.dtype == torch.float32
    assert inside.item() == outside.item()
    assert torch.equal(assigned_inside, assigned_outside)


def test_masked_and_unmasked_tokens_go_to_heads_of_their_own():
    heads = dinov2.SeparateHeads(dinov2_settings(), D)
    cls, patches = heads(torch.randn(3, D), torch.randn(5, D))
    patches.sum().backward()
    assert cls.shape == (3, K)
    assert all(p.grad is None for p in heads.cls.parameters())
    assert all(p.grad is not None for p in heads.patch.parameters())


# Prototypes


def test_the_head_gives_cosines_whatever_the_length_of_its_prototypes():
    torch.manual_seed(0)
    head, tokens = PrototypeHead(D, 16, 8, K), torch.randn(6, D)
    found = head(tokens)
    expected = torch.nn.functional.cosine_similarity(head.projection(tokens)[:, None], head.prototypes[None], dim=-1)
    torch.testing.assert_close(found, expected)
    with torch.no_grad():
        head.prototypes.mul_(torch.rand(K, 1) + 0.5)
    torch.testing.assert_close(head(tokens), found)


def test_frozen_prototypes_stay_and_the_rest_of_the_head_learns():
    head = PrototypeHead(D, 16, 8, K)
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.1, weight_decay=0.1)
    before = {name: p.detach().clone() for name, p in head.named_parameters()}
    head(torch.randn(6, D), frozen=True).square().sum().backward()
    optimizer.step()
    assert [n for n, p in head.named_parameters() if torch.equal(p, before[n])] == ["prototypes"]


def test_the_prototypes_are_frozen_for_the_first_share_of_the_run(rng):
    teacher, outputs = dino_of(freeze_last_layer=0.1), cosines(rng, 2, B, K)
    frozen = [assigned_by(teacher, p, outputs)[0].frozen for p in (0, 0.09, 0.1)]
    assert frozen == [True, True, False]


# Collapse


@pytest.mark.parametrize("peak", [0.0, 0.9])
def test_equal_targets_carry_no_information_and_are_told_in_words(peak):
    targets = torch.zeros(2, B, K)
    targets[..., 3] = peak
    targets += (1 - peak) / K
    entropy, information = prototypes.certainty([targets], ALONE.sum)
    assert information.item() == pytest.approx(0, abs=1e-5)
    said = prototypes.no_information({"entropy": entropy.item(), "information": information.item()})
    assert "collapse" in said
    assert "train.lr" in said


def test_different_certain_targets_carry_all_information_and_raise_no_alarm():
    targets = torch.eye(K)[:8].view(2, 4, K)
    entropy, information = prototypes.certainty([targets], ALONE.sum)
    assert (entropy.item(), information.item()) == (0, pytest.approx(math.log(8), rel=1e-6))
    assert prototypes.no_information({"entropy": 0.0, "information": information.item()}) is None


def test_collapse_values_are_what_a_collapsed_batch_gives():
    method = dinov2.DINOv2(dinov2_settings(), build_backbone(TOY))
    same = [torch.full((2 * B, K), 0.3)], [torch.full((4 * B, K), -0.1)]
    (targets,) = method.assign([torch.zeros(0)], *same, ALONE, 0.5)
    half_masked = torch.full((4 * B,), 0.25)  # B of the 2B views, four patches each
    student = torch.full((2 + L, B, K), 0.2), torch.full((4 * B, K), 0.2), torch.ones(2, B, D)
    _, terms = dinov2.objective(*student, targets, half_masked, method.settings)
    for name, value in method.collapse(B).items():
        assert terms[name].item() == pytest.approx(value, rel=1e-5, abs=1e-5), name


# Settings


@pytest.mark.parametrize("name", ["dino", "dinov2"])
@pytest.mark.parametrize("key", ["student_temp", "teacher_temp", "teacher_temp_start"])
def test_temperatures_that_leave_fp32_are_refused(name, key):
    with pytest.raises(SurgdinoError, match=rf"method\.{key}.*0\.02.*0\.001"):
        open_method({**shipped_settings("method", name), key: 0.001})


@pytest.mark.parametrize(("group", "images"), [(48, 64), (1, 64), (None, 1)])
def test_groups_without_neighbours_are_refused(group, images):
    with pytest.raises(SurgdinoError, match=r"method\.group_size.*at least 2"):
        dinov2.DINOv2(dinov2_settings(group_size=group), build_backbone(TOY)).check_batch(images)


# SimDINO


def test_simdino_is_simdinov2_without_patches(monkeypatch):
    terms = {"loss": 1.0, "comp": 2.0, "expa": 3.0, "patch": 4.0}
    monkeypatch.setattr(simdinov2.SimDINOv2, "loss", lambda *arguments: (1.0, terms))
    method = simdino.SimDINO(shipped(simdino.Settings, "method/simdino"), build_backbone(TOY))
    assert method.loss(None, None, None, None) == (1.0, {"loss": 1.0, "comp": 2.0, "expa": 3.0})
    assert (method.settings.patch_weight, method.mask_probability) == (0, 0)
    settings = shipped(simdinov2.Settings, "method/simdinov2", patch_weight=0)
    collapsed = simdinov2.SimDINOv2(settings, build_backbone(TOY)).collapse(64)
    assert method.collapse(64) == {k: collapsed[k] for k in ("loss", "comp", "expa")}
