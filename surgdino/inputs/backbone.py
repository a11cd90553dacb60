"""The backbone that a run starts from: a checkpoint, or a model with its natural-image weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surgdino.backbone import checkpoint
from surgdino.backbone.preprocess import Preprocess
from surgdino.backbone.settings import ModelSettings
from surgdino.backbone.vit import Backbone, build_backbone
from surgdino.backbone.weights import WeightsReport, load_weights
from surgdino.console import field, say, warn
from surgdino.errors import SurgdinoError


@dataclass(frozen=True)
class StartingBackbone:
    """A backbone to fine-tune.

    Attributes:
        backbone: on the CPU, in evaluation mode.
        model: what stands for it in the `model` section.
        info: what is known of its past, for `surgdino.runs.history.History`, and where it came from.
        image_size: at which it should be used.
    """

    backbone: Backbone
    model: ModelSettings
    info: Mapping[str, Any]
    image_size: int

    @property
    def description(self) -> str:
        """Of a checkpoint: dataset, model and steps."""
        steps = f", {self.info['steps']} steps" if self.info.get("steps") else ""
        return ", ".join(filter(None, (str(self.info.get("dataset") or ""), self.model.name))) + steps

    def preprocess(self, image_size: int | None) -> Preprocess:
        """Size and normalisation of its input; None takes its own size. The size is a multiple of a patch."""
        size, patch = image_size or self.image_size, self.backbone.patch_size
        if size < patch or size % patch:
            what, expected = "the images do not divide into patches", f"a multiple of {patch}"
            fix = f"use image_size={max(round(size / patch), 1) * patch}"
            raise SurgdinoError(what, place="image_size", expected=expected, found=size, fix=fix)
        return Preprocess(size, self.model.mean, self.model.std)


def starting_backbone(model: ModelSettings, path: str | None) -> StartingBackbone:
    """The backbone of a checkpoint, or of `model=` with its natural-image weights."""
    if path is None:
        return of_weights(*natural_backbone(model, 0.0))
    if model.weights is not None:
        found = f"checkpoint={path} and model.weights={model.weights}"
        raise SurgdinoError("two backbones to start from", found=found, fix="give one of them")
    start = of_checkpoint(path)
    field("backbone", f"{path} ({start.description})")
    return start


def of_checkpoint(path: str | Path) -> StartingBackbone:
    """The backbone of a run or checkpoint of ours."""
    loaded = checkpoint.load(path)
    return StartingBackbone(loaded.backbone, loaded.backbone.settings, loaded.info, loaded.preprocess.image_size)


def of_weights(backbone: Backbone, weights: WeightsReport | None) -> StartingBackbone:
    """A backbone that is not from a checkpoint of ours; `weights` are None where it starts at random."""
    past = {} if weights is None else weights.past
    return StartingBackbone(backbone.eval(), backbone.settings, past, checkpoint.usual_size(backbone))


def natural_backbone(model: ModelSettings, drop_path: float) -> tuple[Backbone, WeightsReport | None]:
    """The backbone with its natural-image weights, and what is known of them; None where it starts at random."""
    backbone = build_backbone(model, drop_path=drop_path)
    if model.weights is None:
        random = "this starts from random weights, not from a natural-image checkpoint. See surgdino weights list."
        say(f"model.weights is not set: {random}", style="yellow")
        return backbone, None
    report = load_weights(backbone, model.weights)
    field("weights", report.line())
    if warning := report.normalisation_warning(model.mean, model.std):
        warn(warning)
    return backbone, report
