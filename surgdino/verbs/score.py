"""`surgdino score`: anyone's predictions under every protocol, from two folders of files; no model involved."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console

from surgdino import __version__
from surgdino.config import Names, typed
from surgdino.datasets.card import Card
from surgdino.errors import SurgdinoError
from surgdino.runs.results import print_scores, write_results
from surgdino.tasks import task_names
from surgdino.tasks.scoring.folders import Folders
from surgdino.tasks.scoring.scoring import open_scoring


@dataclass(frozen=True)
class ScoreSettings:
    """Key for key what configs/score.yaml explains."""

    truth: Path
    predictions: Path
    protocol: str = "all"
    classes: Names | None = None
    fps: float | None = None
    tolerance_seconds: float = 10.0
    every: int = 1
    missing: Literal["refuse", "ignore"] = "refuse"
    extra: Literal["refuse", "ignore"] = "refuse"
    hd95: bool = True
    resamples: int = 1000
    seed: int = 0
    out: Path | None = None

    def __post_init__(self) -> None:
        checks = (
            ("fps", self.fps is None or self.fps > 0, "more than 0"),
            ("tolerance_seconds", self.tolerance_seconds > 0, "more than 0"),
            ("every", self.every >= 1, "1 or more"),
            ("resamples", self.resamples >= 1, "1 or more"),
        )
        for key, holds, expected in checks:
            if not holds:
                raise SurgdinoError(f"{key} cannot be used", expected=expected, found=getattr(self, key))


def main(cfg: Mapping[str, Any]) -> int:
    """Score the files that `cfg` names, print the tables, and write them where `out` says; 0."""
    task = cfg.get("task")
    if task is None:
        raise SurgdinoError("task is not set", fix=f"add task={'|'.join(task_names())} to the command")
    name = task["name"]
    keys = ScoreSettings.__dataclass_fields__
    settings = typed(ScoreSettings, {key: cfg[key] for key in keys if key in cfg}, "")
    card = Card.from_dict(cfg["dataset"]) if cfg.get("dataset") else None
    scores = open_scoring(name).score_folders(folders_of(settings, card))
    console = Console()
    print_scores(console, scores)
    if settings.out is not None:
        path = write_results(settings.out, name, scores, facts=facts_of(settings, card))
        console.print(f"[bold]results[/bold]  {path}", soft_wrap=True, highlight=False)
    return 0


def folders_of(settings: ScoreSettings, card: Card | None) -> Folders:
    """What the settings ask for."""
    return Folders(
        truth=settings.truth.expanduser(),
        predictions=settings.predictions.expanduser(),
        card=card,
        classes=settings.classes,
        protocol=settings.protocol,
        fps=settings.fps,
        tolerance_seconds=settings.tolerance_seconds,
        every=settings.every,
        ignore_missing=settings.missing == "ignore",
        ignore_extra=settings.extra == "ignore",
        hd95=settings.hd95,
        resamples=settings.resamples,
        seed=settings.seed,
    )


def facts_of(settings: ScoreSettings, card: Card | None) -> dict[str, Any]:
    """What stands beside the numbers in `results.json`."""
    return {
        "protocol": settings.protocol,
        "dataset": card.name if card else None,
        "truth": settings.truth,
        "predictions": settings.predictions,
        "every": settings.every,
        "missing": settings.missing,
        "extra": settings.extra,
        "fps": settings.fps,
        "tolerance_seconds": settings.tolerance_seconds,
        "resamples": settings.resamples,
        "seed": settings.seed,
        "versions": {"surgdino": __version__, "numpy": np.__version__, "python": platform.python_version()},
        "command": " ".join(sys.argv),
    }
