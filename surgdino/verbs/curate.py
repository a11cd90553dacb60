"""`surgdino curate`: an archive in, a table of which frames are worth learning from out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from surgdino import console
from surgdino.config import typed
from surgdino.curation.facts import facts_of
from surgdino.curation.pieces import Searchers
from surgdino.curation.stages import (
    Frames,
    deduplicate,
    drop_copies,
    drop_unusable,
    keep_apart,
    rebalance,
    retrieve,
)
from surgdino.curation.table import FILE, Curation
from surgdino.curation.unusable import unusable
from surgdino.datasets.card import Card
from surgdino.engine.hardware import Hardware, loader_workers
from surgdino.exit_code import ExitCode
from surgdino.frames.prints import Prints
from surgdino.inputs.backbone import starting_backbone
from surgdino.inputs.configs import CurateConfig
from surgdino.inputs.curation import Archive, embed, judge
from surgdino.inputs.datasets import RunDataset, data_hash, joined_store, open_datasets
from surgdino.inputs.labelled import frozen_features
from surgdino.inputs.named_frames import NamedFrames, Tested, named_frames
from surgdino.inputs.probe import joined_labels
from surgdino.paths import safe_name
from surgdino.runs.folder import ANYWHERE, names_mode, open_run
from surgdino.runs.lock import FolderLock
from surgdino.runs.names import Pseudonyms
from surgdino.tasks.context import feature_cache
from surgdino.tasks.features.cache import FeatureCache
from surgdino.tasks.features.elsewhere import Elsewhere
from surgdino.verbs.report import try_report

FREE = (*ANYWHERE, "model.weights", "checkpoint")
STAGES = ("seed", "keep", "like", "against", "unusable.", "duplicates.", "retrieval.", "balance.")


def main(cfg: Mapping[str, Any]) -> ExitCode:
    """Curate what `cfg` describes; 0."""
    config = typed(CurateConfig, cfg, "")
    card, data = Card.from_dict(config.dataset), config.data
    folder = config.run.dir or Path("runs") / safe_name(f"curate-{card.name}")
    mode = names_mode(folder, config.run.names)
    names = Pseudonyms.open(mode, data.store)
    with FolderLock(folder):
        datasets = open_datasets(card, data, names)
        named = {
            place: named_frames(entry, place, datasets, data, names)
            for place, entry in (("like", config.like), ("against", config.against))
            if entry is not None
        }
        recorded = {**cfg, "run": {"dir": str(folder), "names": mode}}
        free = FREE if (folder / FILE).exists() else (*FREE, *STAGES)
        open_run(folder, recorded, names, data_hash=data_hash(datasets), free=free)
        labels = joined_labels(datasets)
        archive = Archive.of(joined_store(datasets, data), names, labels.get("phase"))
        torch.manual_seed(config.seed)  # of a backbone without weights
        curate(config, given := embedded(config, datasets, named, archive, folder))
        curation = as_table(config, given, archive, names)
        path = curation.write(folder)
        print_curation(curation)
        page = try_report(folder, frames=config.report.frames)
    console.field("curation", path)
    if page:
        console.field("report", page)
    return ExitCode(0, folder, curation, curation=path, report=page)


@dataclass(frozen=True)
class Given:
    """What the stages are given.

    Attributes:
        reasons: object [n], why some frames are unusable, "" where not.
        prints: of each video.
        wanted: unit vectors [q, D] of `like`.
        tested: `against`.
    """

    frames: Frames
    reasons: np.ndarray
    prints: Sequence[Prints]
    wanted: np.ndarray | None
    tested: Tested | None


def embedded(
    config: CurateConfig,
    datasets: list[RunDataset],
    named: Mapping[str, NamedFrames],
    archive: Archive,
    folder: Path,
) -> Given:
    """What the stages are given."""
    data, start = config.data, starting_backbone(config.model, config.checkpoint)
    here, workers = Hardware.of(config.hardware), loader_workers(config.hardware)
    here.announce(config.hardware, start.backbone)
    there = Elsewhere.of(data.engine, config.hardware, here, data.worker_count)
    size = start.preprocess(config.image_size)
    cache = partial(feature_cache, start.backbone, here, workers, there, preprocess=size)

    def cache_of(each: RunDataset) -> FeatureCache:
        return cache(folder=frozen_features(data.store, each.card.name, each.settings))

    vectors = embed(datasets, archive.store, cache_of, folder / "state" / "embeddings.npy")
    rows = judge(archive, data.store / "quality" / data.store_settings.folder, workers, data)
    reasons = unusable(archive.flags, rows, archive.times, archive.video_of, config.unusable)
    searchers = Searchers(data.engine, data.worker_count, (folder / "state").absolute())
    frames = Frames(vectors, archive.times, archive.video_of, archive.operation_of, config.seed, searchers)

    others = {}
    for place, found in named.items():
        vectors = embed([found.dataset], found.store, cache_of, folder / "state" / f"{place}.npy")
        flags = np.concatenate([video.shard.columns["flags"] for video in found.store.videos])
        others[place] = vectors[flags == 0]
    tested = None
    if against := named.get("against"):
        same = archive.of_operations(against.among(archive.store))
        tested = Tested(against, others["against"], same, start.model.name)
    prints = [archive.store.prints(place) for place in range(len(archive.store.videos))]
    return Given(frames, reasons, prints, others.get("like"), tested)


def curate(config: CurateConfig, given: Given) -> None:
    """The stages one after another, each with a line on what it left."""
    frames, wanted = given.frames, given.wanted
    stages: dict[str, Callable[[], None]] = {"unusable": lambda: drop_unusable(frames, given.reasons)}
    if config.duplicates.copies:
        stages["copies"] = lambda: drop_copies(frames, given.prints)
    stages["duplicates"] = lambda: deduplicate(frames, config.duplicates)
    if (tested := given.tested) is not None:
        stages["against"] = lambda: keep_apart(frames, tested.vectors, tested.same, config.duplicates)
    if wanted is not None:
        stages["like"] = lambda: retrieve(frames, wanted, config.retrieval, config.balance)
    stages["balance"] = lambda: rebalance(frames, config.balance, config.keep)
    for name, stage in stages.items():
        stage()
        console.field(name, f"{len(frames.left):,} of {len(frames.reason):,} frames left")


def as_table(config: CurateConfig, given: Given, archive: Archive, names: Pseudonyms) -> Curation:
    """What was decided, with how."""
    frames, kept = given.frames, given.frames.reason == ""
    weight = np.where(kept, frames.weight, 0.0)
    facts = {
        "videos": archive.checksums(),
        "settings": {
            name: asdict(getattr(config, name)) for name in ("unusable", "duplicates", "retrieval", "balance")
        },
        "seed": config.seed,
        "keep": config.keep,
        "against": given.tested and given.tested.facts(frames, names),
        **facts_of(frames, archive.videos),
    }
    return Curation(
        videos=archive.videos,
        operations=archive.operations,
        video_of=archive.video_of,
        frame=archive.numbers,
        time=archive.times,
        group=frames.group,
        levels=[level.of for level in frames.levels],
        similarity=frames.similarity,
        weight=weight / weight[kept].mean(),
        reason=frames.reason,
        facts=facts,
        phase=archive.phase,
    )


def print_curation(curation: Curation) -> None:
    """What went and why, and how alike frames of this data are."""
    table, facts = console.new_table("Frames"), curation.facts
    table.add_column("reason")
    table.add_column("frames", justify="right")
    table.add_column("share", justify="right")
    for reason, count in curation.counts():
        table.add_row(reason or "kept", f"{count:,}", f"{count / len(curation):.1%}", style="" if reason else "bold")
    console.table(table)
    alike = ", ".join(f"{name} {found[1]:.3f}" for name, found in facts["calibration"].items() if found)
    console.field("alike", f"median cosine of frames apart by {alike}")
    if facts["thresholds"]:
        console.field("thresholds", ", ".join(f"{name} {value:.3f}" for name, value in facts["thresholds"].items()))
    if facts["entropy"]:
        sizes = " > ".join(str(clusters) for clusters, *_ in facts["entropy"])
        _, before, after = facts["entropy"][-1]
        console.field("clusters", f"{sizes}; evenness of the coarsest {before:.2f} before, {after:.2f} after")
