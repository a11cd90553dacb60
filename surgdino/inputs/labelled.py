"""The data of a supervised run: a split's parts with their labelled frames, and all that can be wrong with them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from surgdino import distributed
from surgdino.console import field, say, warn
from surgdino.datasets.card import PARTS, Card
from surgdino.datasets.held import Length, held_against
from surgdino.datasets.manifest import Labels, Manifest, Problem
from surgdino.errors import SurgdinoError
from surgdino.frames.store import FrameStore, StoreSettings, build_store
from surgdino.inputs.settings import DataSettings, manifest_of, require_split
from surgdino.paths import safe_name
from surgdino.runs.leaks import refuse_shared_parts
from surgdino.runs.names import Pseudonyms
from surgdino.tasks.labelled_frames import LabelledFrames, labelled_frames, labels_of
from surgdino.tasks.settings import Tuning
from surgdino.wording import counted

_SHOWN = 3
_LONG = 120  # characters
_FASTEST = 240.0  # frames a second, of a video too short to tell


def split_manifest(card: Card, data: DataSettings, labels: str, names: Pseudonyms | None = None) -> Manifest:
    """The videos of the split's parts, with labels that can be learned.

    Args:
        labels: the kind that the task learns.
        names: takes in those of the whole folder.
    """
    require_split(card, data)
    manifest = manifest_of(card, data, names)
    labels_of(manifest, labels)
    if manifest.errors:  # a fault that would make the scores wrong
        first, more = manifest.errors[0], len(manifest.errors) - 1
        fix = "; ".join(filter(None, (first.fix, f"surgdino verify lists {more} more" if more else "")))
        raise replace(first, fix=fix or None).error()
    for note in manifest.notes:
        say(note)
    for problem in manifest.problems[:_SHOWN]:
        warn(problem.error().line())
    manifest = replace(manifest, videos=tuple(video for video in manifest.videos if video.split in PARTS))
    refuse_shared_parts(manifest)
    return manifest


def require_parts(manifest: Manifest, data: DataSettings, parts: tuple[str, ...]) -> None:
    """Refuse a split that lacks one of these parts."""
    for part in parts:
        if not manifest.part(part).videos:
            there = [name for name in PARTS if manifest.part(name).videos]
            raise SurgdinoError(
                f"the split {split_name(data, Pseudonyms())} has no {part} part here",
                file=manifest.root,
                expected=f"videos to {'train' if part == 'train' else 'test'} on",
                found=f"videos in {', '.join(there)}" if there else "no videos of this split",
                fix="check data.root and data.split",
            )


def open_store_of(manifest: Manifest, data: DataSettings) -> FrameStore:
    """The frames of the manifest's videos; what is missing of the store is built. Pictures of a set that cannot be read
    are named in one line."""
    store = build_store(
        manifest,
        data.store,
        data.store_settings,
        workers=data.worker_count,
        max_bad_share=data.max_bad_share,
        progress=distributed.is_main(),
        engine=data.engine,
    )
    pictures, lost = {video.id: video for video in manifest.videos if video.pictures}, list[Path]()
    for stored in store.videos:
        if video := pictures.get(stored.id):
            missing = np.setdiff1d(np.arange(len(video.pictures)), stored.shard.columns["number"])
            lost += [video.path / video.pictures[number] for number in missing]
    if lost:
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        warn(f"{lost[0]}{more}: cannot be read and left out; copy it again (surgdino verify says more)")
    return store


def labelled_parts(
    manifest: Manifest, store: FrameStore, labels: str, parts: tuple[str, ...], names: Pseudonyms
) -> dict[str, LabelledFrames]:
    """Part -> its labelled frames, with a line printed on each; parts without videos are left out.

    The videos are called what `names` shows of them.
    """
    for video, reason in store.set_aside.items():
        warn(f"set aside {video}: {reason}")  # the scores are those without it
    _refuse_unheld(manifest, store, labels)
    found = {}
    for part in parts:
        videos = manifest.part(part)
        if not videos.videos:
            continue
        frames = labelled_frames(videos, store, labels)
        if not len(frames):
            raise SurgdinoError(
                f"no frame of the {part} part has a label",
                file=manifest.root,
                expected=f"labels of kind {labels!r} for {', '.join(v.id for v in videos.videos[:_SHOWN])}, ...",
                found="none that meets a frame of the store",
                fix="run surgdino verify, and check data.fps",
            )
        total = len(frames.store.select([video.id for video in videos.videos]))
        operations = len(set(frames.operations.values()))
        labelled = f"{len(frames):,} of {total:,} frames labelled"
        field(part, f"{labelled}, {counted(len(frames.videos), 'video')}, {counted(operations, 'operation')}")
        found[part] = names.frames(frames)
    return found


def unheld(manifest: Manifest, store: FrameStore, labels: Labels) -> list[Problem]:
    """Labels that do not fit their videos, by the stored frames: errors first."""
    videos = {video.id: video for video in manifest.videos}
    found: list[Problem] = []
    for place, stored in enumerate(store.videos):
        if video := videos.get(stored.id):
            _, numbers, times = store.of_video(place)
            # The frames after the last one that was sampled, and those that did not decode.
            step = (1 + sum(stored.shard.header["missing"].values())) / stored.shard.header["settings"]["fps"]
            rate = numbers[-1] / times[-1] if len(times) and times[-1] > 0 else video.fps or _FASTEST
            width, height = stored.shard.header["content"]["source_size"]
            length = Length(int(numbers[-1] + 1 + rate * step), float(times[-1] + step), (width, height))
            found += held_against(video, length, labels)
    return sorted(found, key=lambda problem: problem.severity)


def _refuse_unheld(manifest: Manifest, store: FrameStore, task: str) -> None:
    found = unheld(manifest, store.select(flagged=True), labels_of(manifest, task))
    if found and found[0].severity == "error":
        raise found[0].error()
    for problem in found[:_SHOWN]:
        warn(problem.error().line())


def split_name(data: DataSettings, names: Pseudonyms) -> str:
    """A split as people call it: its name, or the inline one in one line, with pseudonyms; not a long one."""
    text = data.split if isinstance(data.split, str) else json.dumps(names.named(data.split))
    return text if len(text) <= _LONG else "inline split"


def features_folder(data: DataSettings, dataset: str, run: Path, tuning: Tuning) -> Path:
    """Where features are kept: of a frozen backbone beside the frames, since every run shares them."""
    if tuning == "frozen":
        return frozen_features(data.store, dataset, data.store_settings)
    return run / "state" / "features"  # their files are named after the recordings


def engine_of(data: DataSettings) -> dict[str, Any]:
    """Where a frozen backbone computes features, for `build_context`."""
    return {"engine": data.engine, "processes": data.worker_count}


def frozen_features(store: Path, dataset: str, settings: StoreSettings) -> Path:
    """Where the features of frozen backbones are kept, of frames that were stored so."""
    return store / "features" / safe_name(dataset) / settings.folder
