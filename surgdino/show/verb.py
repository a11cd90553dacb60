"""`surgdino show augment|crops|content`: pictures of what training sees, from the user's videos or generated ones."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

from surgdino import console
from surgdino.config import typed
from surgdino.datasets.card import Card, load_card
from surgdino.datasets.open import open_dataset
from surgdino.datasets.synthetic.cholec80 import write_cholec80
from surgdino.errors import SurgdinoError
from surgdino.exit_code import ExitCode
from surgdino.frames.store import FrameStore, StoreSettings, build_store
from surgdino.inputs.curated import store_of
from surgdino.inputs.labelled import open_store_of
from surgdino.inputs.settings import DataSettings, manifest_of
from surgdino.report.sheet import Sheet
from surgdino.show.frames import ShowConfig


def main(cfg: Mapping[str, Any], what: str) -> ExitCode:
    """Draw one sheet and print its path."""
    data = {**cfg["data"], "root": cfg["data"]["root"] or "."}
    typed(DataSettings, data, "data")  # a slip is one without a root too
    generated = cfg["data"]["root"] is None and cfg["data"]["curation"] is None
    config = typed(
        ShowConfig,
        {**{field.name: cfg[field.name] for field in fields(ShowConfig)}, "data": None if generated else data},
        "",
    )
    draw: Callable[[ShowConfig, FrameStore], Sheet] = import_module(f"surgdino.show.{what}").draw
    with frames_to_show(config) as store:
        if not len(store):
            root = config.data.root if config.data else None
            raise SurgdinoError("no usable frame in any video", file=root, fix="run surgdino verify on it")
        sheet = draw(config, store)
    picture = sheet.save(config.show.out or Path("show") / f"{what}.png")
    console.field(what, picture)
    return ExitCode(0, None, picture=picture)


@contextmanager
def frames_to_show(config: ShowConfig) -> Iterator[FrameStore]:
    """The store of `data.curation`, of `data.root`, or of generated videos."""
    if config.data is not None and config.data.curation is not None:
        yield store_of(config.data.curation)
        return
    if (data := config.data) is not None:
        yield open_store_of(manifest_of(Card.from_dict(config.dataset), data), data)
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "generated"
        write_cholec80(root, videos=4, seconds=10, size=(428, 240), seed=0)
        manifest = open_dataset(load_card("cholec80"), root)
        yield build_store(manifest, Path(folder) / "store", StoreSettings.of(), progress=False)
