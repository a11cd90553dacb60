"""The objective is the published one: agreement with an independent float64 computation, and its known bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from surgdino import discovery
from surgdino.backbone.vit import build_backbone
from surgdino.config import shipped, shipped_settings
from surgdino.engine.method import Method, open_method
from surgdino.engine.methods import simdinov2
from surgdino.engine.methods.parts.spread import coding_rate, gamma, highest_rate, lowest_rate
from surgdino.engine.methods.simdinov2 import Settings, SimDINOv2
from surgdino.engine.processes import Pool
from surgdino.errors import SurgdinoError
from tests.engine.test_training import TOY

B, L, P, PATCHES = 24, 3, 16, 10


def settings_of(**changes) -> Settings:
    return shipped(Settings, "method/simdinov2", **changes)


def method_of(**changes) -> SimDINOv2:
    return SimDINOv2(settings_of(**changes), build_backbone(TOY))


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    features = rng.normal(size=shape)
    return features / np.linalg.norm(features, axis=-1, keepdims=True)


@pytest.fixture
def tensors() -> dict[str, np.ndarray]:
    """Two global and L local student views, two teacher views; every third view is not masked."""
    rng = np.random.default_rng(7)
    masks = rng.random((2 * B, PATCHES)) < 0.3
    masks[::3] = False
    counts = masks.sum(1, keepdims=True)
    weight = np.broadcast_to(1 / np.maximum(counts, 1), masks.shape)[masks]
    return {
        "student_cls": unit(rng, 2 + L, B, P),
        "teacher_cls": unit(rng, 2, B, P),
        "student_patches": unit(rng, int(masks.sum()), P),
        "teacher_patches": unit(rng, int(masks.sum()), P),
        "mask_weight": weight,
        "masks": masks,
    }


def loss_in_float64(t: dict[str, np.ndarray], s: Settings) -> dict[str, float]:
    """The facts' formulas term by term, by eigenvalues instead of a factorisation and by loops instead of products."""
    cosines = []
    for j in range(2):
        for i in range(2 + L):
            if i != j:
                cosines.append(np.mean([t["teacher_cls"][j, b] @ t["student_cls"][i, b] for b in range(B)]))
    assert len(cosines) == 2 * (2 + L) - 2
    m, n = s.group_size or B, s.pooled_groups
    weight = (P + n * m) / (P * n * m) if s.gamma == "balanced" else math.sqrt(s.eps * n * m) / P
    rates = []
    for view in range(2):
        features = t["student_cls"][view]
        if s.expa_type == 1:
            features = (features + t["teacher_cls"][view]) / 2
        for start in range(0, B, m):
            group = features[start : start + m]
            eigenvalues = np.linalg.eigvalsh(group.T @ group)
            rates.append(0.5 * np.log1p(P / (m * n * s.eps) * eigenvalues.clip(0)).sum())
    per_view, at = np.zeros(2 * B), 0
    for view, mask in enumerate(t["masks"]):
        pairs = [t["student_patches"][at + k] @ t["teacher_patches"][at + k] for k in range(mask.sum())]
        at += len(pairs)
        per_view[view] = np.mean(pairs) if pairs else 0.0
    comp, expa, patch = np.mean(cosines), weight * np.mean(rates), -per_view.mean()
    return {"comp": comp, "expa": expa, "patch": patch, "loss": s.patch_weight * patch - s.coeff * comp - expa}


@pytest.mark.parametrize("expa_type", [0, 1])
@pytest.mark.parametrize("kind", ["balanced", "theory"])
@pytest.mark.parametrize(("group_size", "pooled_groups"), [(None, 1), (None, 8), (8, 1), (6, 4), (3, 1)])
def test_terms_agree_with_float64(tensors, expa_type, kind, group_size, pooled_groups):
    settings = settings_of(
        expa_type=expa_type, gamma=kind, group_size=group_size, pooled_groups=pooled_groups, coeff=0.7, patch_weight=1.3
    )
    given = [torch.from_numpy(v).float() for k, v in tensors.items() if k != "masks"]
    loss, terms = simdinov2.objective(*given, settings)
    expected = loss_in_float64(tensors, settings)
    assert loss.item() == terms["loss"].item()
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value, rel=1e-5, abs=1e-7), name


def test_gradient_agrees_with_finite_differences(tensors):
    views, teacher = (torch.from_numpy(tensors[k])[:, :6] for k in ("student_cls", "teacher_cls"))
    patches, targets, weight = (
        torch.from_numpy(tensors[k])[:8] for k in ("student_patches", "teacher_patches", "mask_weight")
    )
    settings = settings_of(group_size=3)
    given = (views.clone().requires_grad_(), patches.clone().requires_grad_())
    assert torch.autograd.gradcheck(
        lambda cls, tokens: simdinov2.objective(cls, teacher, tokens, targets, weight, settings)[0], given
    )


def test_autocast_does_not_reach_the_objective(tensors):
    given = [torch.from_numpy(v).float() for k, v in tensors.items() if k != "masks"]
    outside, _ = simdinov2.objective(*given, settings_of())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside, _ = simdinov2.objective(*given, settings_of())
    assert inside.dtype == torch.float32
    assert inside.item() == outside.item()


def test_no_masked_patch_at_all_costs_nothing(tensors):
    cls = [torch.from_numpy(tensors[k]).float() for k in ("student_cls", "teacher_cls")]
    none = torch.zeros(0, P)
    loss, terms = simdinov2.objective(*cls, none, none, torch.zeros(0), settings_of())
    assert terms["patch"].item() == 0
    assert torch.isfinite(loss)


@pytest.mark.parametrize(
    ("images", "pooled_groups", "bound"),
    [(64, 8, 0.450), (256, 2, 1.80), (512, 1, 2.283)],
    ids=["8x64", "2x256", "512"],
)
def test_expansion_is_bounded_as_published(images, pooled_groups, bound):
    """The facts' bounds at p = 256, reached by features that are spread evenly, and by nothing else."""
    width, eps = 256, 0.05
    weight = gamma("balanced", images, width, eps, pooled_groups)
    most = weight * highest_rate(images, width, eps, pooled_groups)
    assert most == pytest.approx(bound, rel=2e-3)
    even = torch.eye(width).repeat(max(1, images // width), 1)[:images]
    assert weight * coding_rate(even, eps, pooled_groups).item() == pytest.approx(most, rel=1e-4)
    random = torch.nn.functional.normalize(
        torch.randn(images, width, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    assert weight * coding_rate(random, eps, pooled_groups).item() < most


def test_theory_gamma_is_3_4_times_the_balanced_one_at_512():
    ratio = gamma("theory", 64, 256, 0.05, 8) / gamma("balanced", 64, 256, 0.05, 8)
    assert ratio == pytest.approx(3.4, abs=0.05)


def test_identical_features_reach_the_lowest_rate():
    same = torch.nn.functional.normalize(torch.ones(32, P), dim=-1)
    assert coding_rate(same, 0.05).item() == pytest.approx(lowest_rate(P, 0.05), rel=1e-5)


def test_the_smaller_gram_matrix_gives_the_same_rate():
    features = torch.nn.functional.normalize(torch.randn(40, 12, dtype=torch.float64), dim=-1)
    tall = coding_rate(features, 0.05)
    padded = torch.nn.functional.pad(features, (0, 88))  # 40 x 100: now the 40 x 40 side is taken
    scale = 12 / 100  # the formula's p grows with the padding; eps takes it back
    assert coding_rate(padded, 0.05 / scale).item() == pytest.approx(tall.item(), rel=1e-9)


def test_features_that_are_not_finite_give_nan_not_a_number():
    features = torch.nn.functional.normalize(torch.randn(3, 8, 4), dim=-1)
    features[1, 2, 3] = torch.nan
    rates = coding_rate(features, 0.05)
    assert rates.isnan().tolist() == [False, True, False]


def test_local_views_do_not_enter_the_coding_rate(tensors):
    given = [torch.from_numpy(v).float() for k, v in tensors.items() if k != "masks"]
    _, with_local = simdinov2.objective(*given, settings_of())
    given[0] = given[0][:2]
    _, without = simdinov2.objective(*given, settings_of())
    assert with_local["expa"].item() == without["expa"].item()


def test_a_group_does_not_see_the_rest_of_the_batch(tensors):
    """One batch of three groups is the mean of three batches of one: how the batch is laid out does not matter."""
    student, teacher = (torch.from_numpy(tensors[k]).float() for k in ("student_cls", "teacher_cls"))
    settings = settings_of(group_size=8)
    together = simdinov2.expansion(student[:2], teacher, settings, Pool())
    apart = [simdinov2.expansion(student[:2, i : i + 8], teacher[:, i : i + 8], settings, Pool()) for i in (0, 8, 16)]
    assert together.item() == pytest.approx(torch.stack(apart).mean().item(), rel=1e-6)


def test_collapse_values_are_what_a_collapsed_batch_gives():
    same = torch.nn.functional.normalize(torch.ones(2 + L, B, 256), dim=-1)
    patches = torch.nn.functional.normalize(torch.ones(4 * B, 256), dim=-1)
    settings = settings_of()
    half_masked = torch.full((4 * B,), 0.25)  # B of the 2B views, four patches each
    _, terms = simdinov2.objective(same, same[:2], patches, patches, half_masked, settings)
    for name, value in method_of().collapse(B).items():
        assert terms[name].item() == pytest.approx(value, rel=1e-4), name


def test_collapse_is_told_in_words_and_health_is_not():
    method = method_of()
    lowest = method.collapse(64)["expa"]
    highest = simdinov2.highest_expansion(method.settings, 64)
    said = method.collapse_warning({"comp": 0.9999, "expa": lowest * 1.01}, 64)
    assert "collapse" in said
    assert "train.lr" in said
    assert method.collapse_warning({"comp": 0.9999, "expa": highest * 0.6}, 64) is None
    assert method.collapse_warning({"comp": 0.5, "expa": lowest}, 64) is None


def test_a_batch_that_does_not_divide_into_groups_is_refused():
    with pytest.raises(SurgdinoError, match=r"group_size.*64.*48"):
        method_of(group_size=48).check_batch(64)


@pytest.mark.parametrize("name", discovery.names("surgdino.engine.methods"))
def test_every_method_opens_with_the_configuration_it_ships(name):
    kind, settings = open_method(shipped_settings("method", name))
    assert settings.name == name
    for needed in ("build_head", "targets", "loss"):
        assert getattr(kind, needed) is not getattr(Method, needed)


def test_a_mistyped_method_or_setting_gets_the_nearest():
    with pytest.raises(SurgdinoError, match="simdinov2"):
        open_method({"name": "simdinov"})
    with pytest.raises(SurgdinoError, match=r"method\.eps"):
        open_method({**shipped_settings("method", "simdinov2"), "epz": 0.1})
