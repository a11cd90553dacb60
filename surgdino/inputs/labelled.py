"""The data of a supervised run: a split's parts with their labelled frames, and all that can be wrong with them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from surgdino import distributed
from surgdino.datasets.card import PARTS
from surgdino.datasets.manifest import Manifest
from surgdino.errors import SurgdinoError
from surgdino.frames.store import FrameStore, build_store
from surgdino.inputs.settings import DataSettings, manifest_of
from surgdino.runs.leaks import refuse_shared_parts
from surgdino.tasks.labelled_frames import LabelledFrames, labelled_frames, labels_of

_SHOWN = 3


def split_manifest(cfg: Mapping[str, Any], data: DataSettings, labels: str, console: Console) -> Manifest:
    """The videos of the split's parts, with labels that can be learned.

    Args:
        labels: the kind that the task learns.

    Raises:
        SurgdinoError: no split, no such labels, damaged label files, or a split that trains on what it tests.
    """
    if data.part is not None:
        raise SurgdinoError(
            "data.part has no use here: a task needs all parts of a split",
            found=f"data.part={data.part}",
            fix="leave it out",
        )
    if data.split is None:
        names = list(cfg["dataset"].get("splits") or {})
        raise SurgdinoError(
            "data.split is not set",
            expected=f"one of {', '.join(names)}, or inline" if names else "a split such as {train: [1, 2], test: [3]}",
            fix=f"add data.split={names[0]}" if names else "add data.split='{train: [...], test: [...]}'",
        )
    manifest = manifest_of(cfg, data)
    labels_of(manifest, labels)
    refuse_errors(manifest)
    for problem in manifest.problems[:_SHOWN]:
        console.print(f"[yellow]![/yellow] {problem.error().line()}", soft_wrap=True, highlight=False)
    manifest = replace(manifest, videos=tuple(video for video in manifest.videos if video.split in PARTS))
    refuse_shared_parts(manifest)
    return manifest


def refuse_errors(manifest: Manifest) -> None:
    """Stop at the first fault of the dataset that would make figures wrong; `surgdino verify` shows all.

    Raises:
        SurgdinoError: there is one.
    """
    if manifest.errors:
        first = manifest.errors[0]
        more = len(manifest.errors) - 1
        told = f"{first.fix}; " if first.fix else ""
        fix = f"{told}surgdino verify lists {more} more" if more else first.fix
        raise replace(first, fix=fix).error()


def require_parts(manifest: Manifest, split: str, parts: tuple[str, ...]) -> None:
    """Refuse a split without these parts.

    Raises:
        SurgdinoError: one has no video.
    """
    for part in parts:
        if not manifest.part(part).videos:
            there = [name for name in PARTS if manifest.part(name).videos]
            raise SurgdinoError(
                f"the split {split} has no {part} part here",
                file=manifest.root,
                expected=f"videos to {'train' if part == 'train' else 'test'} on",
                found=f"videos in {', '.join(there)}" if there else "no videos of this split",
                fix="check data.root and data.split",
            )


def parts_of(manifest: Manifest, store: FrameStore, labels: str, parts: tuple[str, ...]) -> dict[str, LabelledFrames]:
    """Part -> its labelled frames; parts without videos are left out.

    Raises:
        SurgdinoError: a part has videos, and no labelled frame in any.
    """
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
        found[part] = frames
    return found


def open_store_of(manifest: Manifest, data: DataSettings) -> FrameStore:
    """The frames of the manifest's videos; what is missing of the store is built."""
    return build_store(
        manifest,
        data.store,
        data.store_settings,
        workers=data.worker_count,
        max_bad_share=data.max_bad_share,
        progress=distributed.is_main(),
    )


def split_name(split: Any) -> str:
    """A split as people call it: its name, or the inline one in one line."""
    return split if isinstance(split, str) else json.dumps(split)


def print_parts(console: Console, parts: Mapping[str, LabelledFrames]) -> None:
    """One line a part: frames, videos, operations."""
    for part, frames in parts.items():
        operations = len(set(frames.operations.values()))
        console.print(
            f"[bold]{part:<8}[/bold] {len(frames):,} labelled frames, {len(frames.videos)} videos, "
            f"{operations} operations",
            highlight=False,
        )


def print_set_aside(console: Console, store: FrameStore) -> None:
    """One line on each video that could not be read: figures without it are others."""
    for video, reason in store.set_aside.items():
        console.print(f"[yellow]set aside[/yellow] {video}: {reason}", soft_wrap=True, highlight=False)


def store_features(data: DataSettings, dataset: str) -> Path:
    """Where features of a frozen backbone are kept: beside the frames, since every run shares them."""
    return data.store / "features" / dataset / data.store_settings.folder
