"""Pictures of what a run predicted on its test part, where its task has some that show no patient."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from surgdino.tasks.context import TaskContext
    from surgdino.tasks.labelled_frames import LabelledFrames


def draw_predictions(task: str, context: TaskContext, head: nn.Module, frames: LabelledFrames, folder: Path) -> None:
    """Draw them beside the files in `predictions/` of `folder`; nothing for a task that draws none."""
    writer = import_module(f"surgdino.tasks.{task}.predict")
    if hasattr(writer, "draw_predictions"):
        told = str(context.backbone.settings.get("name", ""))
        writer.draw_predictions(context, head, frames, folder / "predictions", told)
