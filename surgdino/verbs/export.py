"""`surgdino export RUN format=timm out=FOLDER`: a backbone for another program, compared before it is done."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from surgdino import console
from surgdino.backbone.checkpoint import load
from surgdino.config import typed
from surgdino.errors import SurgdinoError
from surgdino.exit_code import ExitCode
from surgdino.exports.card import card_of
from surgdino.exports.format import largest_difference, open_format
from surgdino.inputs.configs import ExportConfig

TOLERANCE = 1e-4


def main(cfg: Mapping[str, Any], paths: Sequence[str]) -> ExitCode:
    """Write, read with the other program, compare, add the card; 0. Nothing stands in `out` that was not compared."""
    settings = typed(ExportConfig, cfg, "")
    if len(paths) != 1:
        found = f"{len(paths)} paths"
        raise SurgdinoError("export takes one run", found=found, fix="surgdino export RUN format=timm out=FOLDER")
    target = open_format(settings.format)
    if settings.out.exists() and (not settings.out.is_dir() or any(settings.out.iterdir())):
        raise SurgdinoError("there is something already", file=settings.out, fix="name a folder that is not there yet")
    model = load(paths[0])
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings.out.parent, prefix=".export-") as scratch:
        folder = Path(scratch) / settings.out.name
        folder.mkdir()
        target.write(model, folder)
        difference = largest_difference(model, target.read(folder))
        if not difference <= TOLERANCE:
            raise SurgdinoError(
                f"format={settings.format} does not give the checkpoint's features, so nothing was written",
                expected=f"a difference of at most {TOLERANCE:g} of the largest feature",
                found=f"{difference:.3g}",
                fix="use another format, and tell us",
            )
        use = target.USE.replace("FOLDER", settings.out.name)
        (folder / "README.md").write_text(card_of(model, use, difference), encoding="utf-8")
        if settings.out.exists():
            settings.out.rmdir()
        shutil.move(folder, settings.out)
    console.field(
        "compared", f"the same features within {difference:.1e} of the largest one, batches of 1 and 3 random pictures"
    )
    console.field("exported", settings.out)
    return ExitCode(0, settings.out, difference)
