"""The run folder: the settings of a run, its environment and its data beside its results."""

from __future__ import annotations

import json
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
from surgdino.engine.saving import FREE_SETTINGS, differences
from surgdino.errors import SurgdinoError
from surgdino.frames.shard import FLAGS
from surgdino.frames.store import FrameStore, StoredVideo
from surgdino.paths import atomic_write
from surgdino.yaml_files import read_settings

# Settings that may change when a run is continued: they change where, how fast and how long it runs, or (the initial
# weights) were needed at its start only. The engine checks its settings again; here a change is found before the store
# is rebuilt for it.
FREE = (
    *("hardware.", "run.", "report.", "data.root", "data.store", "data.workers", "data.max_bad_share", "model.weights"),
    *("probe.every", "probe.both", "probe.root"),
    *(f"train.{key}" for key in sorted(FREE_SETTINGS)),
)
_MADE = ("metrics.jsonl", "state", "checkpoint")
_ALSO = re.compile(r"(?<=^data)\.also\[\d+\]")
PACKAGES = ("torch", "torchvision", "timm", "numpy", "av", "opencv-python-headless", "albumentations", "hydra-core")


def open_run(folder: Path, cfg: Mapping[str, Any], *, data_hash: str, free: tuple[str, ...] = FREE) -> None:
    """Make the run folder, or continue in it if it holds the same run; write config.yaml and environment.json.

    Args:
        cfg: every setting, resolved.
        free: settings that may differ from those the run began with, or what their names begin with.
    """
    saved = folder / "config.yaml"
    if saved.exists() and any((folder / made).exists() for made in _MADE):  # else the command before had ended at once
        _refuse_changes(saved, cfg, free)
    text = yaml.safe_dump(dict(cfg), sort_keys=False, allow_unicode=True)
    _write(saved, "# Every setting of this run, resolved. The command is in environment.json.\n" + text)
    _write(folder / "environment.json", json.dumps(environment(data_hash), indent=2, ensure_ascii=False) + "\n")


def environment(data_hash: str) -> dict[str, Any]:
    """What a reader needs to repeat the run beyond its settings."""
    return {
        "surgdino": __version__,
        "command": " ".join(sys.argv),
        "data_hash": data_hash,
        "git_revision": _git_revision(),
        "python": platform.python_version(),
        "machine": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _refuse_changes(saved: Path, cfg: Mapping[str, Any], free: tuple[str, ...]) -> None:
    before = read_settings(saved)
    now = json.loads(json.dumps(cfg, default=str))
    # The folders of further datasets may change as the first one's may: the data hash is what counts.
    changed = [row for row in differences(before, now) if not _ALSO.sub("", row[0]).startswith(free)]
    if changed:
        shown = "; ".join(f"{key} was {old!r}, is {new!r}" for key, old, new in changed[:5])
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        raise SurgdinoError(
            f"this folder holds a run with other settings: {shown}{more}",
            file=saved.parent,
            fix="give another run.dir, or the settings that the run began with",
        )


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_data(folder: Path, store: FrameStore) -> None:
    """Write `data.json`: what the run was trained on, video by video; counts and geometry, nothing of the pictures."""
    summary = store.summary()
    videos = [_video(video, store, summary["content"][video.id]) for video in store.videos]
    record = {"videos": videos, "left_out": summary["left_out"], "set_aside": summary["set_aside"]}
    _write(folder / "data.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def _video(video: StoredVideo, store: FrameStore, content: dict[str, Any]) -> dict[str, Any]:
    flags = video.shard.columns["flags"]
    left_out = {flag: int((flags >> place & 1).sum()) for place, flag in enumerate(FLAGS)}
    return {
        "id": video.id,
        "operation": video.operation,
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
    try:
        done = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
