"""`surgdino merge INITIAL ADAPTED ...`: average adapted weights with the initial ones; a probe may choose the shares.

Several adapted backbones are averaged first. model.json records what the merged weights were made of, every operation
that any of them has seen, and the operations that chose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from surgdino import console
from surgdino.backbone.checkpoint import read_model_json, save_backbone, untrained
from surgdino.backbone.model_json import WEIGHTS, find_weights
from surgdino.backbone.preprocess import Preprocess
from surgdino.backbone.vit import Backbone
from surgdino.backbone.weights import WeightsReport, load_weights
from surgdino.config import shipped, typed
from surgdino.datasets.card import Card
from surgdino.engine.averaging import Measure, Trial, best, between, mean_of, sweep
from surgdino.engine.hardware import Hardware
from surgdino.engine.probing.probe_set import Probing
from surgdino.engine.settings import HardwareSettings
from surgdino.errors import SurgdinoError
from surgdino.exit_code import ExitCode
from surgdino.inputs.configs import MergeConfig
from surgdino.inputs.datasets import open_datasets
from surgdino.inputs.probe import ProbeData, choose_probe, open_probe, probe_leaks
from surgdino.inputs.settings import DataSettings, ProbeSettings
from surgdino.metrics.arrays import as_json
from surgdino.runs.history import CHOSEN, TRAINED, History, Seen
from surgdino.runs.lock import FolderLock
from surgdino.runs.names import Pseudonyms, settings_of

_USAGE = "surgdino merge INITIAL ADAPTED out=FOLDER"


@dataclass(frozen=True)
class Weights:
    """The state dict of a timm model, and what is known of it."""

    state: Mapping[str, Tensor]
    report: WeightsReport


def main(cfg: Mapping[str, Any], paths: Sequence[str]) -> ExitCode:
    """Read, average, measure where asked to, and write the new checkpoint; 0."""
    settings = typed(MergeConfig, cfg, "")
    if len(paths) < 2:
        raise SurgdinoError("merging takes the initial weights and an adapted checkpoint", fix=f"write {_USAGE}")
    with FolderLock(settings.out):
        return merge(settings, paths)


def merge(settings: MergeConfig, paths: Sequence[str]) -> ExitCode:
    """What `main` does in the folder that it holds."""
    if (settings.out / WEIGHTS).exists():
        fix = "give another out=FOLDER, or remove it"
        raise SurgdinoError("there is a checkpoint already", file=settings.out, fix=fix)
    initial_path, *adapted_paths = (Path(path).expanduser() for path in paths)
    infos = [read_model_json(path) for path in adapted_paths]
    backbone, names = untrained(adapted_paths[0]), Pseudonyms()
    initial, *adapted = (read(backbone, path) for path in (initial_path, *adapted_paths))
    for info, path in zip(infos, adapted_paths, strict=True):
        begun = info.get("initial_weights") or {}
        if begun.get("sha256") != initial.report.sha256:
            other = begun.get("path", "random weights, or it does not say from what")
            origin = f"did not begin from {initial.report.path} (but from {other})"
            console.warn(f"{path} {origin}; such averages are noise")
    past = History.joined((History.of(initial.report.past), *map(History.of, infos)))
    facts = provenance(initial, adapted, infos)
    mean, alpha = mean_of([each.state for each in adapted]), settings.alpha
    if settings.alphas:
        chosen, probe, names = open_measurement(settings, adapted_paths[0], infos[0])
        trained = replace(past, seen=tuple(row for row in past.seen if row.how == TRAINED))
        prints = probe.frames.store.prints_of(chosen.tested)
        leaks = probe_leaks(chosen, prints, trained, names)
        if leaks.overlaps:
            console.warn(f"the operations that choose may favour the adapted weights. {leaks.stamp}")
        trials = list(sweep(backbone, initial.state, mean, settings.alphas, measure_with(probe, settings.hardware)))
        alpha = best(trials).alpha
        print_trials(trials, alpha)
        facts["merged"]["sweep"] = [{"alpha": trial.alpha, **as_json(trial.measured)} for trial in trials]
        row = Seen("merge", CHOSEN, chosen.datasets[0].card.name, None, None, probe.frames.operations)
        past = past.after([row], {each: prints[each] for each in probe.frames.operations})
    facts |= names.hide(past.facts())
    backbone.vit.load_state_dict(between(initial.state, mean, alpha))
    facts["merged"]["alpha"] = alpha
    folder = save_backbone(settings.out, backbone, facts)
    console.field("backbone", f"{folder}  ({alpha:.4g} adapted)")
    return ExitCode(0, folder, alpha)


def read(backbone: Backbone, path: Path) -> Weights:
    """The weights at `path` as they fit into `backbone`, which is overwritten."""
    report = load_weights(backbone, path)
    return Weights({name: tensor.clone() for name, tensor in backbone.vit.state_dict().items()}, report)


def provenance(initial: Weights, adapted: Sequence[Weights], infos: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What model.json says of the merged weights, but for what they have seen."""
    reports = [initial.report, *(each.report for each in adapted)]
    datasets = [row for info in infos for row in info.get("datasets", ())]
    licences = dict.fromkeys(info["dataset_licence"] for info in infos if info.get("dataset_licence"))
    methods = [info.get("method") for info in infos]
    kept = ("steps", "seed", "weights_of", "ship_alpha", "data_hash", "merged")
    origins = [{"path": Path(report.path).name, "sha256": report.sha256} for report in reports]
    return {
        "dataset": infos[0].get("dataset"),
        "dataset_licence": "; ".join(licences) or None,
        "datasets": [row for place, row in enumerate(datasets) if row not in datasets[:place]],
        "initial_weights": {**initial.report.as_dict(), "path": origins[0]["path"]},
        "image_size": infos[0]["image_size"],
        **({"method": methods[0]} if methods.count(methods[0]) == len(methods) else {}),
        "merged": {
            "initial": origins[0],
            "adapted": [
                {**origin, **{key: info[key] for key in kept if key in info}}
                for origin, info in zip(origins[1:], infos, strict=True)
            ],
        },
    }


def open_measurement(
    settings: MergeConfig, adapted: Path, info: Mapping[str, Any]
) -> tuple[ProbeData, Probing, Pseudonyms]:
    """The probe that chooses, on pictures as the backbone was trained with: of the command, or of the adapted run."""
    dataset, section, probe_settings = settings.dataset, settings.data, settings.probe
    if section["root"] is None:
        file = find_weights(adapted).parent.parent / "config.yaml"
        if not file.is_file():
            fix = "add dataset=... and data.root=..."
            raise SurgdinoError("a sweep needs frames to measure on", place="data.root", fix=fix)
        saved = settings_of(file.parent)
        dataset, section = saved.get("dataset", dataset), saved.get("data", section)
        probe_settings = shipped(ProbeSettings, "probe", **saved.get("probe", asdict(probe_settings)))
    card, data = Card.from_dict(dataset), shipped(DataSettings, "data", **section)
    probe_settings = replace(probe_settings, every=1)  # a run without probes has its frames all the same
    preprocess = Preprocess(info["image_size"], tuple(info["mean"]), tuple(info["std"]))
    names = Pseudonyms.open("pseudonyms", data.store)
    chosen = choose_probe(probe_settings, card, data, open_datasets(card, data, names), names)
    probe = open_probe(chosen, data, preprocess)
    assert chosen is not None
    assert probe is not None
    return chosen, probe, names


def measure_with(probe: Probing, hardware: HardwareSettings) -> Measure:
    """The probe as a function of a backbone; the drift is measured from the first one it is given."""
    here = Hardware.of(hardware)
    here.announce(hardware)
    return lambda backbone: probe.frames.measure(backbone.to(here.device), here.autocast).as_dict()


def print_trials(trials: Sequence[Trial], chosen: float) -> None:
    """What was measured at each share, and which was kept in one sentence."""
    table = console.new_table("Share of the adapted weights")
    table.add_column("measure")
    for trial in trials:
        table.add_column(f"{trial.alpha:.4g}", justify="right", style="bold" if trial.alpha == chosen else None)
    for name in trials[0].measured:
        table.add_row(name, *(f"{trial.measured[name]:.4f}" for trial in trials))
    console.table(table)
    verdicts = {
        0.0: "the initial weights are the best here: adapting did not pay",
        1.0: "the adapted weights are kept whole",
    }
    console.say(verdicts.get(chosen, f"{chosen:.4g} of the adapted weights is the best of these shares"))
