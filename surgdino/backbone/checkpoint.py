"""The checkpoint folder, all that a user needs of a run: `backbone.safetensors` and `model.json`.

`backbone.safetensors` holds the backbone under timm's own names, in float32, and loads with `strict=True` into
`timm.create_model(info["timm"], num_classes=0, **info["timm_kwargs"])`. `model.json` says what it is, what it was
trained on and which operations it has seen. The header of the weights file holds the same text; where the two differ,
because the process was killed between the two renames, the header counts. It also holds the prints of those operations.
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from surgdino.backbone import model_json
from surgdino.backbone.model_json import FORMAT, WEIGHTS, ModelJson, find_weights
from surgdino.backbone.preprocess import Preprocess
from surgdino.backbone.settings import ModelSettings
from surgdino.backbone.tensor_files import TEXT_LIMIT, check_tensors, differences, header_of, read_tensors, shapes_of
from surgdino.backbone.vit import Backbone, Features, build_backbone
from surgdino.errors import SurgdinoError
from surgdino.frames.prints import References
from surgdino.paths import atomic_write, read_bytes, write_text

MODEL_JSON = "model.json"
_HEADER, _PRINTS = "surgdino", "surgdino_prints"
_AGAIN = "continue the run to write it again, or copy it again"
_PACKAGES = ("surgdino", "torch", "timm")


class LoadedBackbone(nn.Module):
    """A backbone in evaluation mode with the preprocessing it was trained with.

    Attributes:
        backbone: the model; `.vit` in it is the plain timm model.
        preprocess: pictures -> float32 [B, 3, S, S] on the CPU, see `surgdino.backbone.preprocess.Preprocess`.
        info: what model.json says.
    """

    def __init__(self, backbone: Backbone, info: dict[str, Any]) -> None:
        super().__init__()
        self.backbone, self.info = backbone, info
        self.preprocess = Preprocess(info["image_size"], tuple(info["mean"]), tuple(info["std"]))
        self.eval()

    def forward(self, images: Tensor) -> Features:
        """Class token `cls` [B, D] and patch tokens `patches` [B, N, D] of preprocessed images [B, 3, H, W]."""
        return self.backbone(images)


def save_backbone(
    folder: str | Path, backbone: Backbone, facts: Mapping[str, Any], weights: Mapping[str, Tensor] | None = None
) -> Path:
    """Write the two files, each whole or not at all.

    Args:
        folder: created if it does not exist.
        backbone: the weights to export; its `settings` name the architecture.
        facts: what else model.json records (method, dataset, operations, steps, ...); `image_size` defaults to
            `usual_size`. `prints`, by operation, go into the header of the weights alone.
        weights: timm's names, in the place of the backbone's own.
    """
    folder, facts = Path(folder), dict(facts)
    prints: Mapping[str, References] = facts.pop("prints", {})
    settings = backbone.settings
    architecture = {
        "format": FORMAT,
        "name": settings.name,
        "timm": settings.timm,
        "timm_kwargs": settings.timm_kwargs.as_dict(),
        "patch_size": backbone.patch_size,
        "embed_dim": backbone.embed_dim,
        "mean": list(settings.mean),
        "std": list(settings.std),
        "image_size": usual_size(backbone),
    }
    info = {**architecture, **facts, "created": datetime.now(UTC).isoformat(timespec="seconds")}
    info["versions"] = {**{name: version(name) for name in _PACKAGES}, **dict(facts.get("versions", {}))}
    try:
        text = json.dumps(info, indent=2, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise SurgdinoError("a fact for model.json is not JSON", file=folder / MODEL_JSON, found=error) from error
    tensors = {name: tensor.to(torch.float32) for name, tensor in (weights or backbone.vit.state_dict()).items()}
    with atomic_write(folder / WEIGHTS) as temporary:
        written = json.dumps({name: each.as_dict() for name, each in prints.items()})
        save_tensors(tensors, temporary, {"format": "pt", _HEADER: text, _PRINTS: written})
    write_text(folder / MODEL_JSON, text + "\n")
    return folder


def load(path: str | Path, device: str | torch.device = "cpu") -> LoadedBackbone:
    """A trained backbone, ready to use: `model(model.preprocess(images)).cls`.

    Args:
        path: a run folder, its `checkpoint` folder, or the `backbone.safetensors` in it.
        device: where the weights go; move what `preprocess` returns there too.

    Raises:
        SurgdinoError: nothing there, a damaged file, or weights that are not of the architecture model.json names.
    """
    weights = find_weights(path)
    info, settings = _described(weights)
    backbone = _build(weights, settings)
    tensors = read_tensors(weights, _AGAIN)
    check_tensors(tensors, weights)
    backbone.vit.load_state_dict(tensors, strict=True)
    return LoadedBackbone(backbone, info).to(device)


def untrained(path: str | Path) -> Backbone:
    """A freshly initialised backbone of the architecture that a checkpoint has; `path` is as for `load`."""
    weights = find_weights(path)
    return _build(weights, _described(weights)[1])


def _build(weights: Path, settings: ModelSettings) -> Backbone:
    """The backbone that is described, once the weights are known to be of it: what a text claims takes no memory."""
    shapes = shapes_of(weights, _AGAIN)
    with torch.device("meta"):
        found = differences(shapes, build_backbone(settings, drop_path=0.0).vit)
    if found:
        what, more = "the weights are not those that model.json describes", f" (and {len(found) - 1} more)"
        raise SurgdinoError(what, file=weights, expected=settings.timm, found=found[0] + (more if found[1:] else ""))
    return build_backbone(settings, drop_path=0.0)


def read_model_json(path: str | Path) -> dict[str, Any]:
    """What model.json says, and `prints`, without reading the weights; every field that is read anywhere was checked.

    Args:
        path: as for `load`.
    """
    return _described(find_weights(path))[0]


def description_in(weights: Path) -> dict[str, Any] | None:
    """model.json as the header of a weights file holds it; None where the file is not one of ours."""
    found = _in_header(weights) if weights.suffix == ".safetensors" else None
    return None if found is None else found[0]


def _described(weights: Path) -> tuple[dict[str, Any], ModelSettings]:
    beside, written = weights.with_name(MODEL_JSON), None
    if beside.is_file():
        written = model_json.parse(read_bytes(beside, TEXT_LIMIT), beside)
    written = _in_header(weights) or written
    if written is None:
        raise SurgdinoError("does not say what it is", file=weights, expected=f"{MODEL_JSON} beside it", found="none")
    return written[0], written[1].settings


def _in_header(weights: Path) -> tuple[dict[str, Any], ModelJson] | None:
    """model.json with the prints, as the header holds them; None where the file is not one of ours."""
    if (text := header_of(weights, _HEADER, _AGAIN)) is None:
        return None
    info, record = model_json.parse(text, weights)
    prints = header_of(weights, _PRINTS, _AGAIN)
    return {**info, "prints": {} if prints is None else model_json.parse_prints(prints, weights)}, record


def save_tensors(tensors: Mapping[str, Tensor], file: Path, metadata: dict[str, str]) -> None:
    """Write tensors as safetensors, from any device.

    Raises:
        OSError: the file system refused, with the system's own number.
    """
    # Clones, because safetensors refuses tensors that share storage.
    copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    try:
        save_file(copies, file, metadata=metadata)
    except SafetensorError as error:
        # The library hides the operating system's number in its message; a full disk must be reported as one.
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(int(number.group(1)) if number else errno.EIO, str(error)) from error


def usual_size(backbone: Backbone, trained_at: int = 0) -> int:
    """Side in pixels at which a backbone should be used: 224, or its weights' own where that is smaller.

    Args:
        trained_at: side of the global crops. Larger ones count; smaller ones save time in training, and what is learnt
            from them is worth more at the usual size (docs/experiments.md).
    """
    side = max(trained_at, min(224, backbone.grid[0] * backbone.patch_size))
    return side - side % backbone.patch_size
