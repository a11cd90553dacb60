"""TensorBoard's event files: `tensorboard --logdir RUN/tensorboard`; of a fine-tuning a folder a stage."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from surgdino.engine.logger import LoggedRun, Logger


class TensorBoard(Logger):
    """A run of TensorBoard's; steps that are done again take the place of the earlier ones."""

    def open(self, run: LoggedRun) -> None:
        """Open a file."""
        from tensorboard.summary.writer import event_file_writer
        from torch.utils.tensorboard import SummaryWriter

        # The writer puts the host's name into its file's name; runs are shared.
        with patch.object(event_file_writer, "socket", SimpleNamespace(gethostname=lambda: "surgdino")):
            self._board: Any = SummaryWriter(str(run.folder / run.stage), purge_step=run.resumed_from + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """A scalar each."""
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Close the file."""
        self._board.close()
