"""The run folder: the settings of a run, its environment and its data beside its results."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from surgdino import __version__
from surgdino.config import shipped_settings
from surgdino.datasets.class_names import corrected
from surgdino.engine.same_run import FREE_SETTINGS, differences, with_later
from surgdino.errors import SurgdinoError, first_of
from surgdino.frames.shard import FLAGS
from surgdino.frames.store import FrameStore, StoredVideo
from surgdino.paths import write_text
from surgdino.runs.names import Mode, Pseudonyms, are_pseudonyms, settings_of

# What a dataset's card tells people may be corrected under a run.
_TOLD = ("title", "licence", "how_to_get", "notes", "layout", "overlap")
# Settings that may change when any run is continued: they change where it runs and how fast.
ANYWHERE = (
    *("hardware.", "run.", "report.", "log.", "data.root", "data.store", "data.table", "data.workers", "data.engine"),
    *("data.max_bad_share", "augment.on"),
    *(f"dataset.{key}" for key in _TOLD),
)
# The same of a pretraining: also how long it runs, and (the initial weights) what was needed at its start only. The
# engine checks its settings again; here a change is found before the store is rebuilt for it.
FREE = (
    *ANYWHERE,
    *("model.weights", "phases", "probe.every", "probe.share", "probe.both", "probe.root"),
    *(f"train.{key}" for key in sorted(FREE_SETTINGS)),
)
_MADE = ("metrics.jsonl", "state", "checkpoint")
CONFIG = "config.yaml"
_ALSO = re.compile(r"(?<=^data)\.also\[\d+\]")
PACKAGES = ("torch", "torchvision", "timm", "numpy", "av", "opencv-python-headless", "albumentations", "hydra-core")


def names_mode(folder: Path, wanted: Mode) -> Mode:
    """How a run folder names own operations: as it began to; runs of before November 2026 wrote plain names."""
    saved = folder / CONFIG
    if not saved.exists():
        return wanted
    return recorded_mode(settings_of(folder).get("run"))


def recorded_mode(run: Any) -> Mode:
    """How a run with this `run` section names own operations."""
    return "pseudonyms" if isinstance(run, Mapping) and run.get("names") == "pseudonyms" else "plain"


def open_run(
    folder: Path, cfg: Mapping[str, Any], names: Pseudonyms, *, data_hash: str, free: tuple[str, ...] = FREE
) -> dict[str, Any]:
    """Make the run folder, or continue in it if it holds the same run; write config.yaml and environment.json.

    Args:
        cfg: every setting, resolved.
        free: settings that may differ from those the run began with, or what their names begin with.

    Returns:
        The settings as config.yaml has them.
    """
    saved, local = folder / CONFIG, dict[str, str]()
    recorded = names.config(json.loads(json.dumps(cfg, default=str)), local)
    if saved.exists() and any((folder / made).exists() for made in _MADE):  # else the command before had ended at once
        _refuse_changes(folder, {**recorded, **local}, names, free)
    text = yaml.safe_dump(recorded, sort_keys=False, allow_unicode=True)
    write_text(saved, "# Every setting of this run, resolved. The command is in environment.json.\n" + text)
    facts = json.dumps(environment(data_hash, names), indent=2, ensure_ascii=False)
    write_text(folder / "environment.json", facts + "\n")
    names.write_local(folder, sys.argv, local)
    return recorded


def environment(data_hash: str, names: Pseudonyms) -> dict[str, Any]:
    """What a reader needs to repeat the run beyond its settings."""
    return {
        "surgdino": __version__,
        "command": names.command(sys.argv),
        "data_hash": data_hash,
        "git_revision": _git_revision(),
        "python": platform.python_version(),
        "machine": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _refuse_changes(folder: Path, now: dict[str, Any], names: Pseudonyms, free: tuple[str, ...]) -> None:
    """`now` has pseudonyms for names, and the paths by their dotted keys."""
    local = dict[str, str]()
    saved = settings_of(folder)
    saved = with_later(saved, ("data", "crops", "train"), "finetune" if "task" in saved else "pretrain")
    if isinstance(task := saved.get("task"), Mapping):
        saved["task"] = {**shipped_settings("task", str(task.get("name"))), **task}
    before = names.config(saved, local) | local
    # The folders of further datasets may change as the first one's may: the data hash is what counts.
    changed = [
        (key, old, new)
        for key, old, new in differences(before, now)
        if not _ALSO.sub("", f"{key}.").startswith(free)  # a section that a version did not have is its name alone
        and not (key == "dataset.phases" and corrected(str(old)) == corrected(str(new)))
    ]
    if changed:
        shown = first_of([f"{key} was {old!r}, is {new!r}" for key, old, new in changed], 5, "; ")
        raise SurgdinoError(
            f"this folder holds a run with other settings: {shown}",
            file=folder,
            fix="give another run.dir, or the settings that the run began with",
        )


def write_data(folder: Path, store: FrameStore, names: Pseudonyms) -> None:
    """Write `data.json`: what the run was trained on, video by video; counts and geometry, nothing of the pictures."""
    summary = store.summary()
    videos = [_video(video, store, summary["content"][video.id], names) for video in store.videos]
    if are_pseudonyms(video["id"] for video in videos):
        videos.sort(key=lambda video: video["id"])  # the order of their names would tell of these
    set_aside = set_aside_of(store, names)
    record = {"videos": videos, "left_out": summary["left_out"], "set_aside": set_aside}
    write_text(folder / "data.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def set_aside_of(store: FrameStore, names: Pseudonyms) -> dict[str, str]:
    """Video -> why it was set aside, as a run may say it."""
    return {names.named(video): names.sentence(reason) for video, reason in store.set_aside.items()}


def _video(video: StoredVideo, store: FrameStore, content: dict[str, Any], names: Pseudonyms) -> dict[str, Any]:
    flags = video.shard.columns["flags"]
    left_out = {flag: int((flags >> place & 1).sum()) for place, flag in enumerate(FLAGS)}
    return {
        "id": names.named(video.id),
        "operation": names.named(video.operation),
        "frames": int(((flags == 0) | store.flagged).sum()),
        "left_out": {flag: count for flag, count in left_out.items() if count},
        "kind": content["kind"],
        "share": round(content["share"], 4),
        "stored_size": list(content["stored_size"]),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_revision() -> str | None:
    here = Path(__file__).resolve().parent
    command = ["git", "describe", "--always", "--dirty"]
    quiet = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}  # git would refresh its index, in a folder that is not ours
    try:
        done = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=5, env=quiet)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
