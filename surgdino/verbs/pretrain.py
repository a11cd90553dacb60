"""`surgdino pretrain`: video folder and natural-image weights in, adapted backbone out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from surgdino import distributed
from surgdino.backbone.preprocess import Preprocess
from surgdino.checkpoint import usual_size
from surgdino.config import typed
from surgdino.crops.multicrop import CropSettings
from surgdino.engine.measuring import Probing
from surgdino.engine.plan import HardwareSettings, TrainPlan, TrainSettings
from surgdino.engine.precision import choose_device
from surgdino.engine.train import train
from surgdino.errors import SurgdinoError
from surgdino.frames.store import FrameStore
from surgdino.inputs.backbone import natural_backbone
from surgdino.inputs.datasets import (
    Source,
    data_hash,
    described,
    joined_store,
    licence_note,
    remarks,
    sources_of,
)
from surgdino.inputs.probe import open_probe, probe_source
from surgdino.inputs.settings import DataSettings
from surgdino.report.curves import draw_curves
from surgdino.runs.data_record import write_data
from surgdino.runs.folder import open_run
from surgdino.verbs.outcome import print_outcome, print_probe, print_store
from surgdino.verbs.report import report_run


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
    sources = sources_of(cfg, data)
    probed = probe_source(cfg, data, sources)
    sources = probed.left_of(sources) if probed else sources
    torch.manual_seed(settings.seed)  # of a backbone without weights, and of the mask token
    backbone, weights = natural_backbone(cfg["model"], settings.drop_path)
    size = usual_size(backbone, crops.global_size)
    preprocess = Preprocess(size, tuple(cfg["model"]["mean"]), tuple(cfg["model"]["std"]))
    with distributed.main_first():
        store = open_run_and_store(folder, cfg, sources, data)
        probe = open_probe(probed, data, preprocess)
        if distributed.is_main():
            write_data(folder, store)
    print_store(console, store)
    print_probe(console, probe, held_out=probed is not None and probed.held_out)
    for remark in remarks(sources):
        console.print(f"[yellow]![/yellow] {remark}", soft_wrap=True, highlight=False)
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
            data_hash=data_hash(sources),
            model_json={**provenance(sources, store, weights), "chosen_on": chosen_on(probe, weights)},
            probe=probe,
        )
    )
    if distributed.is_main():
        picture = draw_curves(result.metrics, folder / "curves.png", result.collapse)
        page = report_run(folder, folder / "report.html", frames=bool(cfg["report"]["frames"]))
        print_outcome(console, result, picture, page)
    return 0


def open_run_and_store(
    folder: Path, cfg: Mapping[str, Any], sources: Sequence[Source], data: DataSettings
) -> FrameStore:
    """The run folder and the frames; what is missing of both is made by whoever comes first."""
    if distributed.is_main():
        open_run(folder, {**cfg, "run": {"dir": str(folder)}}, data_hash=data_hash(sources))
    return joined_store(sources, data, progress=distributed.is_main())


def default_folder(cfg: Mapping[str, Any]) -> str:
    """The run folder where none is given: the same command finds the same folder, and continues there."""
    datasets = "+".join([cfg["dataset"]["name"], *(entry["dataset"] for entry in cfg["data"]["also"])])
    names = (datasets, cfg["model"]["name"], cfg["method"]["name"])
    return str(Path("runs") / "-".join(("pretrain", *names)))


def provenance(sources: Sequence[Source], store: FrameStore, weights: dict[str, Any] | None) -> dict[str, Any]:
    """What a checkpoint remembers of its data: the operations it has seen, so that nobody tests on them unawares.

    Those that its initial weights had seen before are among them.
    """
    if not len(store):
        raise SurgdinoError(
            "no usable frame in any video", file=sources[0].manifest.root, fix="run surgdino verify on this folder"
        )
    seen = {video.operation for video in store.videos} | set((weights or {}).get("operations", ()))
    return {
        "dataset": sources[0].card.name,
        "dataset_licence": licence_note(sources),
        "datasets": described(sources, store),
        "data_hash": data_hash(sources),
        "operations": sorted(seen),
        "frames": len(store),
        "initial_weights": weights,
    }


def chosen_on(probe: Probing | None, weights: dict[str, Any] | None) -> list[str]:
    """The operations that chose among states of this backbone, here or before: none of them may be reported on."""
    here = probe.frames.operations if probe else ()
    return sorted({*here, *(weights or {}).get("chosen_on", ())})
