"""The run folder: one run a folder, its settings and surroundings beside its results."""

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
from surgdino.engine.saving.save import FREE_SETTINGS
from surgdino.engine.saving.state import differences
from surgdino.errors import SurgdinoError
from surgdino.paths import atomic_write

# Settings that a run may continue with others of: they change where, how fast and how long it goes, or (the initial
# weights) were used up at its start. The engine checks its share once more; here a change is caught before the store is
# rebuilt for it.
FREE = (
    *("hardware.", "run.", "report.", "data.root", "data.store", "data.workers", "data.max_bad_share", "model.weights"),
    *("probe.every", "probe.both", "probe.root"),
    *(f"train.{key}" for key in sorted(FREE_SETTINGS)),
)
_ALSO = re.compile(r"(?<=^data)\.also\[\d+\]")
PACKAGES = ("torch", "torchvision", "timm", "numpy", "av", "opencv-python-headless", "albumentations", "hydra-core")


def open_run(folder: Path, cfg: Mapping[str, Any], *, data_hash: str, free: tuple[str, ...] = FREE) -> None:
    """Make the run folder, or continue in it if it holds the same run.

    Writes `config.yaml` (every setting, resolved) and `environment.json` (versions, data hash, git revision, command).

    Args:
        free: settings, or beginnings of them, that may be others than the run began with.

    Raises:
        SurgdinoError: the folder holds a run with other settings (which ones is said) or can't be written.
    """
    saved = folder / "config.yaml"
    if saved.exists():
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
    before = yaml.safe_load(saved.read_text(encoding="utf-8")) or {}
    now = json.loads(json.dumps(cfg, default=str))
    # Where a further dataset lies may change as where the first one lies may: what counts is the data hash.
    changed = [row for row in differences(before, now) if not _ALSO.sub("", row[0]).startswith(free)]
    if changed:
        shown = "; ".join(f"{key} was {old!r}, is {new!r}" for key, old, new in changed[:5])
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        raise SurgdinoError(
            f"this folder holds a run with other settings: {shown}{more}",
            file=saved.parent,
            fix="give another run.dir, or the settings that it was begun with",
        )


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_revision() -> str | None:
    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
