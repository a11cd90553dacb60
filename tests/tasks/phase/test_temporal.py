"""Temporal models: online ones never look ahead and may be fed in pieces; offline ones do look ahead."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from surgdino.errors import SurgdinoError
from surgdino.tasks.phase.loss import stages_loss
from surgdino.tasks.phase.settings import NONE, temporal_names
from surgdino.tasks.phase.temporal import build_temporal, run_through
from surgdino.tasks.phase.temporal.transformer import HEADS, windowed_attention

WIDTH, CLASSES, FRAMES = 12, 5, 90
MODELS = [name for name in temporal_names() if name != NONE]
SMALL = {"layers": 3, "width": 16, "window": 8}
ONLINE = [name for name in MODELS if not name.endswith("_offline")]
OFFLINE = [name for name in MODELS if name.endswith("_offline")]
ALIKE = "transformer_offline"  # its attention penalises distance, to either side alike: before and after are one to it
FAR = ("memory", "clip")  # the one sees the whole video, the other with three clips 64 frames


def fresh(name: str, settings: dict = SMALL) -> torch.nn.Module:
    torch.manual_seed(1)
    return build_temporal(name, WIDTH, CLASSES, **settings).eval()


def video(frames: int = FRAMES, seed: int = 0) -> torch.Tensor:
    return torch.randn(frames, WIDTH, generator=torch.Generator().manual_seed(seed))


def test_there_is_an_offline_variant_of_every_online_model():
    assert {"tcn", "transformer", "mstcn", "asformer", "memory", "clip"} <= set(ONLINE)
    assert {f"{name}_offline" for name in ONLINE} == set(OFFLINE)


@pytest.mark.parametrize("name", MODELS)
def test_every_stage_answers_for_every_frame(name):
    for frames in (1, 2, FRAMES):
        answers = fresh(name)(video(frames))
        assert all(logits.shape == (frames, CLASSES) for logits in answers)
    assert fresh(name).online is (name in ONLINE)


@pytest.mark.parametrize("name", ONLINE)
@pytest.mark.parametrize("settings", [SMALL, {}], ids=["small", "default"])
@torch.inference_mode()
def test_an_online_model_does_not_look_ahead_by_a_single_bit(name, settings):
    model, before = fresh(name, settings), video()
    for now in (1, 40, FRAMES - 1):
        after = torch.cat([before[:now], 100 * video(FRAMES - now, seed=now)])
        for was, is_ in zip(model(before), model(after), strict=True):
            assert torch.equal(was[:now], is_[:now])
            assert not torch.equal(was[now:], is_[now:])


@pytest.mark.parametrize("name", OFFLINE)
@torch.inference_mode()
def test_an_offline_model_does_look_ahead(name):
    model, before, now = fresh(name), video(), 40
    after = torch.cat([before[:now], video(FRAMES - now, seed=3)])
    changed = (model(before)[-1] - model(after)[-1]).abs().amax(1) > 1e-6
    assert changed[now - 1]
    assert name.startswith(FAR) or not changed[0]  # the others' reach is shorter than 40 frames


@pytest.mark.parametrize("name", ONLINE)
@pytest.mark.parametrize("piece", [1, 7, 50])
@torch.inference_mode()
def test_a_video_fed_in_pieces_gets_the_answer_of_the_whole(name, piece):
    model, features = fresh(name).double(), video().double()
    state, pieces = None, []
    for block in features.split(piece):
        logits, state = model.advance(block, state)
        pieces.append(logits[-1])
    torch.testing.assert_close(torch.cat(pieces), model(features)[-1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ONLINE)
@torch.inference_mode()
def test_the_state_of_an_online_model_does_not_grow_with_the_video(name):
    def size(state):
        if torch.is_tensor(state):
            return state.numel()
        return sum(map(size, state))

    model, state, sizes = fresh(name), None, []
    for block in video(400).split(10):
        _, state = model.advance(block, state)
        sizes.append(size(state))
    assert len(set(sizes[5:])) == 1


@pytest.mark.parametrize("name", MODELS)
def test_probabilities_of_a_video_in_blocks_are_those_of_its_logits(name):
    model, features = fresh(name), video()
    whole = torch.cat(list(run_through(model, features.split(16))))
    with torch.inference_mode():
        torch.testing.assert_close(whole, model(features)[-1].softmax(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(whole.sum(1), torch.ones(FRAMES))
    assert list(run_through(model, [])) == []


@pytest.mark.parametrize("name", OFFLINE)
def test_an_offline_model_refuses_pieces(name):
    with pytest.raises(ValueError, match="whole video"):
        fresh(name).advance(video(), None)


def test_the_convolutions_reach_back_as_far_as_the_paper_says():
    """A stage of 8 layers with three taps sees 1 + 2 (1 + 2 + ... + 128) = 511 frames, two stages 1021."""
    model = fresh("tcn", {"layers": 8, "width": 8}).double()
    features = video(1100).double().requires_grad_()
    model(features)[0][-1].sum().backward()
    assert torch.nonzero(features.grad.abs().sum(1)).min() == 1100 - 511
    features.grad = None
    model(features)[1][-1].sum().backward()
    # Beyond their ReLUs not every input need count, but none outside of the reach may.
    assert 1100 - 1021 <= torch.nonzero(features.grad.abs().sum(1)).min() < 1100 - 511


def test_windowed_attention_is_attention_with_a_band_of_penalties():
    heads, frames, width, window = HEADS, 23, 6, 7
    q, k, v = torch.randn(3, heads, frames, width, generator=torch.Generator().manual_seed(0)).double()
    slopes = torch.tensor([0.5, 0.25, 0.125, 0.0]).double()
    for online in (True, False):
        expected = torch.empty_like(q)
        for head, now in itertools.product(range(heads), range(frames)):
            near = [t for t in range(frames) if abs(t - now) < window and (t <= now or not online)]
            logits = torch.stack(
                [q[head, now] @ k[head, t] / math.sqrt(width) - slopes[head] * abs(t - now) for t in near]
            )
            expected[head, now] = F.softmax(logits, 0) @ v[head, near]
        torch.testing.assert_close(windowed_attention(q, k, v, slopes, window, online), expected)


def test_sizes_that_cannot_be_are_told_in_one_line():
    with pytest.raises(SurgdinoError, match=r"task\.temporal=tnc.*Did you mean 'tcn'"):
        build_temporal("tnc", WIDTH, CLASSES, **SMALL)
    for settings, told in (
        ({"width": 30}, "multiple of 4"),
        ({"window": 1}, r"task\.window"),
        ({"layers": 0}, r"task\.layers"),
        ({"dropout": 1.0}, r"task\.dropout"),
    ):
        with pytest.raises(SurgdinoError, match=told):
            build_temporal("transformer", WIDTH, CLASSES, **settings)
    assert build_temporal(NONE, WIDTH, CLASSES, **SMALL) is None


def seen_twice(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A video of phases 0, 1, 2 of 6 to 10 frames each, with known transitions: 0 and 2 look alike, up to noise."""
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(6, 11, (3,), generator=draw)
    targets = torch.repeat_interleave(torch.arange(3), lengths)
    looks = torch.eye(2)[(targets == 1).long()] * 4
    return F.pad(looks, (0, WIDTH - 2)) + 0.5 * torch.randn(len(targets), WIDTH, generator=draw), targets


@pytest.mark.quick("memory]")
@pytest.mark.parametrize("name", [name for name in MODELS if name != ALIKE])
def test_a_temporal_model_learns_what_single_frames_cannot_tell(name):
    torch.manual_seed(0)
    model = build_temporal(name, WIDTH, 3, layers=3, width=16, dropout=0.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for step in range(100):
        features, targets = seen_twice(step % 8)
        optimizer.zero_grad()
        stages_loss(model(features), targets, None, 0.0)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval()
    with torch.no_grad():
        right = [
            (model(features)[-1].argmax(1) == targets).float().mean()
            for features, targets in map(seen_twice, range(50, 58))
        ]
    # By single frames a third of a video and a half of the rest can be right.
    assert torch.stack(right).mean() > 0.85
