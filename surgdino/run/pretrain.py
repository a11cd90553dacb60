"""`surgdino pretrain`: video folder and natural-image weights in, adapted backbone out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from surgdino import distributed
from surgdino.backbone.vit import Backbone, build_backbone
from surgdino.backbone.weights import load_weights
from surgdino.config import typed
from surgdino.crops.multicrop import CropSettings
from surgdino.datasets.manifest import Manifest
from surgdino.engine.plan import HardwareSettings, TrainPlan, TrainSettings
from surgdino.engine.precision import choose_device
from surgdino.engine.train import train
from surgdino.errors import SurgdinoError
from surgdino.frames.store import FrameStore, build_store
from surgdino.report.curves import draw_curves
from surgdino.run.folder import open_run
from surgdino.run.outcome import print_outcome, print_store
from surgdino.run.settings import DataSettings, manifest_of


def main(cfg: Mapping[str, Any]) -> int:
    """Run or continue the pretraining that `cfg` describes; 0 also where a signal stopped it and all is saved.

    Under torchrun or another launcher its processes train together, and the first one writes and prints.
    """
    hardware = typed(HardwareSettings, cfg["hardware"], "hardware")
    with distributed.together(cuda=choose_device(hardware).type == "cuda"):
        return pretrain(cfg, hardware)


def pretrain(cfg: Mapping[str, Any], hardware: HardwareSettings) -> int:
    """What `main` does in each process."""
    console = Console(quiet=not distributed.is_main())
    data = DataSettings.of(cfg)
    settings = typed(TrainSettings, cfg["train"], "train")
    folder = Path(cfg["run"]["dir"] or default_folder(cfg))
    # Everything that can be wrong is looked at before the store is built, which may take hours.
    crops = typed(CropSettings, cfg["crops"], "crops")
    manifest = manifest_of(cfg, data)
    torch.manual_seed(settings.seed)  # of a backbone without weights, and of the mask token
    backbone, weights = start_from(cfg["model"], settings.drop_path, console)
    with distributed.main_first():
        store = open_run_and_store(folder, cfg, manifest, data)
    print_store(console, store)
    result = train(
        TrainPlan(
            backbone=backbone,
            model=cfg["model"],
            method=cfg["method"],
            store=store,
            augment=cfg["augment"],
            crops=crops,
            train=settings,
            hardware=hardware,
            folder=folder,
            data_hash=manifest.fingerprint(),
            model_json=provenance(cfg, manifest, store, weights),
        )
    )
    if distributed.is_main():
        picture = draw_curves(result.metrics, folder / "curves.png", result.collapse)
        print_outcome(console, result, picture)
    return 0


def open_run_and_store(folder: Path, cfg: Mapping[str, Any], manifest: Manifest, data: DataSettings) -> FrameStore:
    """The run folder and the frames; what is missing of both is made by whoever comes first."""
    if distributed.is_main():
        open_run(folder, {**cfg, "run": {"dir": str(folder)}}, data_hash=manifest.fingerprint())
    return build_store(
        manifest,
        data.store,
        data.store_settings,
        workers=data.worker_count,
        max_bad_share=data.max_bad_share,
        progress=distributed.is_main(),
    )


def default_folder(cfg: Mapping[str, Any]) -> str:
    """The run folder where none is given: the same command finds the same folder, and continues there."""
    names = (cfg["dataset"]["name"], cfg["model"]["name"], cfg["method"]["name"])
    return str(Path("runs") / "-".join(("pretrain", *names)))


def start_from(model: Mapping[str, Any], drop_path: float, console: Console) -> tuple[Backbone, dict[str, Any] | None]:
    """The backbone with its natural-image weights, and what model.json says of them; None where it starts at random."""
    backbone = build_backbone(model, drop_path=drop_path)
    if model.get("weights") is None:
        console.print(
            "[yellow]model.weights is not set: this starts from random weights, not from a natural-image checkpoint. "
            "[/yellow]See [bold]surgdino weights list[/bold]."
        )
        return backbone, None
    report = load_weights(backbone, Path(model["weights"]))
    console.print(f"[bold]weights[/bold]  {report.line()}", soft_wrap=True, highlight=False)
    if warning := report.normalisation_warning(model["mean"], model["std"]):
        console.print(f"[yellow]![/yellow] {warning}", soft_wrap=True, highlight=False)
    return backbone, report.as_dict()


def provenance(
    cfg: Mapping[str, Any], manifest: Manifest, store: FrameStore, weights: dict[str, Any] | None
) -> dict[str, Any]:
    """What a checkpoint remembers of its data: the operations it has seen, so that nobody tests on them unawares.

    Those that its initial weights had seen before are among them.
    """
    if not len(store):
        raise SurgdinoError(
            "no usable frame in any video", file=manifest.root, fix="run surgdino verify on this folder"
        )
    card = cfg["dataset"]
    seen = {video.operation for video in store.videos} | set((weights or {}).get("operations", ()))
    return {
        "dataset": card["name"],
        "dataset_licence": card.get("licence"),
        "data_hash": manifest.fingerprint(),
        "operations": sorted(seen),
        "frames": len(store),
        "initial_weights": weights,
    }
