"""`surgdino demo`: the whole way on a small set that it generates, with the commands a user would type."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field
from rich.rule import Rule

from surgdino import console
from surgdino.config import Location, PositiveInt, from_words, shipped_settings
from surgdino.errors import SurgdinoError
from surgdino.paths import atomic_write
from surgdino.wording import counted

USAGE = "surgdino demo [dir=demo] [videos=6] [seconds=40] [steps=120]"
HELP = f"{USAGE}: the whole way on a small generated set"


@dataclass(frozen=True)
class DemoWords:
    """The settings of the command.

    Attributes:
        dir: where everything is written; remove it to start afresh.
        videos, seconds: how many operations are generated, and how long each is.
        steps: of pretraining.
    """

    dir: Location = Path("demo")
    videos: Annotated[int, Field(ge=2, le=1000)] = 6
    seconds: Annotated[int, Field(ge=2, le=36000)] = 40
    steps: PositiveInt = 120


def main(words: Sequence[str]) -> int:
    """Generate the set, verify it, show it, pretrain on it, load the result; 0 when every stage did its part."""
    others, settings = from_words(DemoWords, words, USAGE)
    if others:
        raise SurgdinoError(f"{others[0]!r} is not a setting of the form key=value", fix=f"use {USAGE}")
    started = time.monotonic()
    data, weights, run = settings.dir / "cholec80", settings.dir / "vit_toy.safetensors", settings.dir / "run"
    _generate(settings, data)
    _starting_weights(weights)
    where = ("recipe=demo", f"data.root={data}", f"data.store={settings.dir / 'store'}")
    _run("Is the folder what Cholec80 should be?", "verify", "dataset=cholec80", f"data.root={data}")
    more = (f"model.weights={weights}", f"train.steps={settings.steps}", f"run.dir={run}", "report.frames=true")
    _run("Continue pretraining on it", "pretrain", *where, *more)
    pictures = {subject: settings.dir / f"{subject}.png" for subject in ("content", "crops", "augment")}
    for subject, picture in pictures.items():
        _run(f"Pictures: {subject}", "show", subject, *where, f"show.out={picture}")
    _load(run / "checkpoint")
    console.table(Rule("Done", style="cyan"))
    console.field("checkpoint", run / "checkpoint")
    for picture in [*pictures.values(), run / "curves.png"]:
        console.field("picture", picture)
    console.field("report", run / "report.html")
    console.field("time", f"{time.monotonic() - started:.0f} s, without the installation")
    return 0


def _generate(settings: DemoWords, data: Path) -> None:
    from surgdino.datasets.synthetic.cholec80 import mark_generated, write_cholec80

    console.table(Rule("Generate a set in Cholec80's layout", style="cyan", align="left"))
    if (data / "tool_annotations").is_dir() and len(list((data / "videos").glob("*.mp4"))) >= settings.videos:
        mark_generated(data)
        console.say(f"{data} is there already")
        return
    with console.bar("encoding H.264") as bar:
        write_cholec80(data, videos=settings.videos, seconds=settings.seconds, on_frame=bar.update)
    console.say(f"{counted(settings.videos, 'operation')} of {settings.seconds} s in {data}")


def _starting_weights(weights: Path) -> None:
    """A toy has no natural-image checkpoint: random weights stand in, so that the reading of weights is shown too."""
    import torch
    from safetensors.torch import save_file

    from surgdino.backbone.vit import build_backbone

    if weights.exists():
        return
    torch.manual_seed(0)
    with atomic_write(weights) as temporary:
        save_file(build_backbone(shipped_settings("model", "vit_toy")).vit.state_dict(), str(temporary))
    console.say(f"starting weights (random, a toy has no others) in {weights}")


def _run(title: str, *words: str) -> None:
    """Show a command under a title, and run it."""
    from surgdino.cli.main import dispatch

    console.table(Rule(title, style="cyan", align="left"))
    console.say(f"$ surgdino {shlex.join(words)}", style="bold")
    if dispatch(list(words)) != 0:
        found = f"surgdino {words[0]} did not succeed"
        raise SurgdinoError("the demo stopped", found=found, fix="read its lines above")


def _load(checkpoint: Path) -> None:
    """Use the checkpoint as another program would: through `surgdino.load`, and strictly in plain timm."""
    import numpy as np
    import torch
    from safetensors.torch import load_file

    import surgdino
    from surgdino.backbone.timm_import import timm

    console.table(Rule("Use the checkpoint", style="cyan", align="left"))
    backbone = surgdino.load(checkpoint)
    frame = np.random.default_rng(0).integers(0, 255, (240, 428, 3), dtype=np.uint8)
    features = backbone(backbone.preprocess(frame))
    info = json.loads((checkpoint / "model.json").read_text())
    plain = timm.create_model(info["timm"], num_classes=0, **info["timm_kwargs"])
    plain.load_state_dict(load_file(checkpoint / "backbone.safetensors"), strict=True)
    with torch.no_grad():
        same = torch.allclose(plain.eval()(backbone.preprocess(frame)), features.cls, atol=1e-5)
    console.say(f"surgdino.load: class token {list(features.cls.shape)}, patch tokens {list(features.patches.shape)}")
    verdict = "the same features" if same else "DIFFERENT"
    console.say(f"timm.create_model({info['timm']!r}).load_state_dict(strict=True): {verdict}")
    if not same:
        raise SurgdinoError("the checkpoint gives other features in plain timm", file=checkpoint)
