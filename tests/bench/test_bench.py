"""`surgdino bench`: every subject measures, says what binds and leaves its figures; FLOPs are counted as published."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from surgdino.backbone.vit import build_backbone
from surgdino.bench import data as bench_data
from surgdino.bench import step as bench_step
from surgdino.bench import store as bench_store
from surgdino.bench.data import DataFigures, Reading, StoreReading
from surgdino.bench.feeding import CoreRates, more_cutting
from surgdino.bench.flops import HeadShape, ViTShape, head_shape, image_flops, vit_shape
from surgdino.bench.frames import repeated
from surgdino.bench.loop import Rounds, Run, Seconds
from surgdino.bench.report import number, unit
from surgdino.bench.step import StepFigures
from surgdino.bench.store import StoreFigures
from surgdino.cli.main import main
from surgdino.config import shipped_settings
from surgdino.datasets.card import load_card
from surgdino.datasets.open import open_dataset
from surgdino.engine.method import open_method
from surgdino.frames.store import StoreSettings, build_store
from surgdino.frames.video.decode import probe

pytestmark = pytest.mark.slow

QUICK = ("recipe=demo", "bench.seconds=0.2", "hardware=cpu", "hardware.loader_workers=1", "train.batch_size=8")


def bench(subject: str, *words: str) -> int:
    return main(["bench", subject, *QUICK, *words])


@pytest.mark.quick("data")
@pytest.mark.parametrize("subject", ["step", "data", "store"])
def test_every_subject_says_what_binds_and_leaves_its_figures(
    subject: str, synthetic_cholec80: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = (f"data.root={synthetic_cholec80}", f"data.store={tmp_path / 'store'}", f"run.dir={tmp_path / 'run'}")
    for _ in range(2):
        assert bench(subject, *words) == 0
    said = capsys.readouterr().out
    assert "bind" in said
    assert "limit" in said
    lines = [json.loads(line) for line in (tmp_path / "run" / "bench.json").read_text().splitlines()]
    assert [line["bench"] for line in lines] == [subject] * 2
    assert "bind" in lines[0]["verdict"]
    rates = [value for key, value in lines[0].items() if key.endswith("_per_second") and value is not None]
    assert rates
    assert min(rates) > 0
    assert not list(tmp_path.rglob(".bench*")), "scratch files stay on the store's disk"


@pytest.mark.slow
def test_generated_frames_stand_in_where_no_data_is_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert bench("store", f"data.store={tmp_path / 'store'}") == 0
    assert "generated" in capsys.readouterr().out
    assert not (tmp_path / "store").exists()


def test_of_a_whole_dataset_no_more_than_one_video_is_stored(synthetic_cholec80: Path, tmp_path: Path) -> None:
    assert bench("data", f"data.root={synthetic_cholec80}", f"data.store={tmp_path / 'store'}") == 0
    assert len(list((tmp_path / "store").rglob("*.zip"))) == 1


def test_a_subject_is_asked_for_by_name(capsys: pytest.CaptureFixture) -> None:
    assert main(["bench", "stpe"]) == 2
    assert "'step'" in capsys.readouterr().err
    assert main(["bench", "step", "bench.seconds=0"]) == 2
    assert "bench.seconds" in capsys.readouterr().err


def test_a_minute_is_cut_out_of_a_long_video(
    synthetic_cholec80: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = next((synthetic_cholec80 / "videos").glob("*.mp4"))
    assert bench_store.excerpt(video, tmp_path) == video
    monkeypatch.setattr(bench_store, "EXCERPT_SECONDS", 3.0)
    cut = probe(bench_store.excerpt(video, tmp_path))
    assert cut.duration == pytest.approx(3.0, abs=0.5)
    assert cut.codec == probe(video).codec


# FLOPs: 2 x MAC, student forward and backward, teacher forward on the global views, heads; four registers, 14.8 % of
# the global tokens masked, 96 px local crops (98 where patches have 14). GFLOP an image with 8 and with 10 local crops.
PUBLISHED = [
    (ViTShape(384, 12, 16, 5), 96, 121, 132),
    (ViTShape(384, 12, 14, 5), 98, 160, 175),
    (ViTShape(768, 12, 16, 5), 96, 460, 502),
    (ViTShape(1024, 24, 16, 5), 96, 1609, 1759),
]


@pytest.mark.parametrize(("shape", "local_size", "with_8", "with_10"), PUBLISHED)
def test_the_count_is_the_published_one(shape: ViTShape, local_size: int, with_8: float, with_10: float) -> None:
    for local_count, expected in ((8, with_8), (10, with_10)):
        weights = shape.width * 2048 + 2048 * 2048 + 2048 * 256  # SimDINOv2's head of three layers
        head = HeadShape(weights, weights)
        counted = image_flops(shape, head, local_size=local_size, local_count=local_count, masked_share=0.148)
        assert counted / 1e9 == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("name", ["vit_toy", "vit_small_patch16", "vit_base_patch14_reg4", "vit_small_patch16_dinov3"])
def test_a_forward_pass_is_counted_as_torch_counts_it(name: str) -> None:
    with torch.device("meta"):
        backbone = build_backbone(shipped_settings("model", name), drop_path=0.0).eval()
        size = 4 * backbone.patch_size
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            backbone(torch.empty(1, 3, size, size))
    assert vit_shape(backbone).forward(size) == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_heads_are_counted_by_what_goes_through_them() -> None:
    def shape(method: str, **settings: Any) -> HeadShape:
        section = {**shipped_settings("method", method), "head_hidden": 8, "head_out": 4, **settings}
        kind, typed = open_method(section)
        network = kind(typed, build_backbone(shipped_settings("model", "vit_toy")))
        return head_shape(network.head, network.mask_probability)

    mlp = 64 * 8 + 8 * 8 + 8 * 4
    assert shape("simdinov2") == HeadShape(mlp, mlp)
    assert shape("simdino") == HeadShape(mlp, 0)
    assert shape("dino", prototypes=32) == HeadShape(mlp + 4 * 32, 0)
    assert shape("dinov2", prototypes=32) == HeadShape(mlp + 4 * 32, mlp + 4 * 32)


def test_what_drop_path_leaves_out_can_be_left_out() -> None:
    vit, none = ViTShape(384, 12, 16), HeadShape(0, 0)
    assert image_flops(vit, none, drop_path=1.0) == 2 * vit.forward(224)
    assert image_flops(vit, none, local_count=0) == 8 * vit.forward(224)


ROUNDS = Rounds([Seconds(1.0, 1.0)], [Seconds(1.0, 1.0)], 0.0)
CORE = CoreRates(decode=1300.0, cpu=150.0, gpu=330.0, on="cpu")
STEP = StepFigures(
    images=64, rounds=ROUNDS, run=Run(10, 1.0, 0.0), loader=640.0, workers=2, cores=16, core=CORE,
    flops=4.6e11, flops_done=4.2e11, matrix=1e14, memory=(2e10, 8e10), gpu=True,
)  # fmt: skip


def test_a_step_that_waits_names_the_cores_and_the_remedy() -> None:
    waiting = replace(STEP, run=Run(10, 0.3, 0.2), loader=213.0)
    assert bench_step.verdict(waiting) == (
        "The CPU cores that cut crops bind: they deliver 213 images/s, the step could take 640. "
        "Raise hardware.loader_workers (now 2; the machine has 16 cores). "
        "A GPU that takes 640 images/s needs 6 cores with augment.on=cpu, 3 with gpu; there are 16."
    )
    assert "All 16 cores" in bench_step.verdict(replace(waiting, workers=15))
    assert "share" in bench_step.verdict(replace(waiting, loader=900.0, gpu=False))


def test_a_step_that_does_not_wait_names_the_chip_and_how_well_it_is_used() -> None:
    assert "The GPU binds" in bench_step.verdict(STEP)
    assert "raise train.batch_size" in bench_step.verdict(replace(STEP, matrix=1e15))
    assert "CPU's matrix rate" in bench_step.verdict(replace(STEP, gpu=False))


def test_data_names_the_disk_only_where_it_was_read() -> None:
    slow = StoreReading(memory=Reading(50_000.0, 1e9), disk=Reading(90.0, 2e6))
    data = DataFigures(slow, CORE, loader=900.0, step=400.0, workers=3, cores=8, gpu=True)
    assert "disk binds" in bench_data.verdict(data)
    warm = replace(data, reading=replace(slow, disk=None))
    assert "GPU binds" in bench_data.verdict(warm)
    assert "Raise hardware.loader_workers" in bench_data.verdict(replace(warm, loader=210.0))


@pytest.mark.parametrize(
    ("cores", "says"),
    [
        (8, "needs 6 cores with augment.on=cpu, 4 with gpu; there are 8."),
        (4, "needs 6 cores with augment.on=cpu, 4 with gpu; there are 4."),
        (2, "needs 6 cores with augment.on=cpu, 4 with gpu; there are 2, which cut 330 images/s with gpu at most."),
    ],
)
def test_the_cores_that_one_gpu_needs(cores: int, says: str) -> None:
    assert CORE.needs(746.0, cores).endswith(says)
    assert "augment.on=gpu" in more_cutting(1, 2, "cpu")
    assert "augment.on" not in more_cutting(1, 2, "gpu")


def test_a_machine_is_planned_for_a_gpu_that_is_not_here(
    synthetic_cholec80: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = (f"data.root={synthetic_cholec80}", f"data.store={tmp_path / 'store'}", f"run.dir={tmp_path / 'run'}")
    assert bench("data", *words, "bench.images_per_second=20000", "train.batch_size=2") == 0
    assert "A GPU that takes 20,000 images/s needs" in " ".join(capsys.readouterr().out.replace("│", "").split())
    [line] = [json.loads(line) for line in (tmp_path / "run" / "bench.json").read_text().splitlines()]
    assert (line["planned_images_per_second"], line["step_images_per_second"]) == (20000, None)
    assert line["crops_on_gpu_images_per_second_core"] > line["crops_images_per_second_core"]


def test_the_store_names_decoder_encoder_or_disk() -> None:
    figures = StoreFigures(bare=2.4, reader=1.9, store=2.5, frames=60, length=60.0, size=1_200_000, disk=7e8)
    assert "video decoder" in bench_store.verdict(figures)
    assert "encoding" in bench_store.verdict(replace(figures, reader=0.4))
    assert "disk binds" in bench_store.verdict(replace(figures, disk=6e5))


def test_numbers_have_three_digits_and_units() -> None:
    assert [number(v) for v in (0.01234, 5.167, 59.6, 212.6, 110_443.0)] == ["0.0123", "5.17", "59.6", "213", "110,000"]
    assert [unit(v, "B/s") for v in (7.6e8, 999.6, 12.0)] == ["760 MB/s", "1,000 B/s", "12 B/s"]


def test_the_disk_is_read_where_the_kernel_lets_go_of_its_copies(
    synthetic_cholec80: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = open_dataset(load_card("cholec80"), synthetic_cholec80)
    store = build_store(manifest, tmp_path, StoreSettings.of(fps=5), workers=1, progress=False)
    assert bench_data.read_store(store, 1.0).disk is None, "so few come into memory with the first few reads"
    asked: list[bool] = []
    monkeypatch.setattr(bench_data, "_FEW_READS", 10)
    monkeypatch.setattr(bench_data, "_drop_pages", lambda places: asked.append(len(places) > 100))
    rates = iter((Reading(300.0, 6e6), Reading(50_000.0, 1e9)))
    monkeypatch.setattr(bench_data, "_read", lambda places, seconds: next(rates))
    assert bench_data.read_store(store, 1.0) == StoreReading(Reading(50_000.0, 1e9), Reading(300.0, 6e6))
    assert asked == [True]


def test_few_frames_come_again_until_they_fill_a_batch(synthetic_cholec80: Path, tmp_path: Path) -> None:
    manifest = open_dataset(load_card("cholec80"), synthetic_cholec80)
    store = build_store(
        replace(manifest, videos=manifest.videos[:1]), tmp_path, StoreSettings.of(), workers=1, progress=False
    )
    assert repeated(store, 1) is store
    assert len(repeated(store, 3 * len(store) - 1)) == 3 * len(store)
