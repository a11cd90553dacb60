"""Reading natural-image weights into a backbone: strictly, with a report of what was done."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from surgdino.backbone.catalogue import entry_of_file
from surgdino.backbone.checkpoint import description_in, untrained
from surgdino.backbone.key_styles import Conversion, fit_to_model, to_timm_names
from surgdino.backbone.model_json import NOT_RECORDED, find_weights
from surgdino.backbone.tensor_files import check_tensors, differences, read_tensors
from surgdino.backbone.vit import Backbone, build_backbone
from surgdino.config import read_yaml, shipped_settings
from surgdino.discovery import files
from surgdino.errors import SurgdinoError
from surgdino.frames.prints import References
from surgdino.wording import counted

_SHOWN = 4


@dataclass
class WeightsReport:
    """What was read into the backbone.

    Attributes:
        path, sha256, megabytes: the file.
        style: whose parameter names it used; `container` is where in the file the backbone lay.
        interpolated: one sentence for each tensor that was resampled.
        dropped: names in the file that are not part of a backbone (heads).
        mask_token: whether the file holds one.
        known_as, licence, mean, std: from the catalogue; None for a file that is not in it.
        operations: of one of our checkpoints, the surgical operations it has seen; a model trained from it has seen
            them too. `chosen_on` are those that its state was chosen on; `seen` lists both by training, as model.json;
            by `prints` they are known again.
        history_unknown: this file where nobody here knows what it has seen, or those that it was made from.
    """

    path: str
    sha256: str
    megabytes: float
    tensors: int
    style: str
    container: str = ""
    interpolated: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    mask_token: bool = False
    known_as: str | None = None
    licence: str | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    operations: list[str] = field(default_factory=list)
    chosen_on: list[str] = field(default_factory=list)
    seen: list[dict[str, Any]] = field(default_factory=list)
    prints: dict[str, References] = field(default_factory=dict)
    history_unknown: list[str] = field(default_factory=list)

    def line(self) -> str:
        """All of it on one line."""
        parts = [f"{self.path}: {counted(self.tensors, 'tensor')}, {self.style} names"]
        if self.container:
            parts.append(f"taken from {self.container!r}")
        parts += self.interpolated
        if self.dropped:
            shown = ", ".join(self.dropped[:_SHOWN]) + (", ..." if len(self.dropped) > _SHOWN else "")
            parts.append(f"left out {len(self.dropped)} that are not the backbone ({shown})")
        if self.licence:
            parts.append(f"licence {self.licence}")
        if self.operations:
            parts.append(f"operations already seen: {len(self.operations)}")
        return "; ".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """For `model.json`: without the prints, which the header of the weights has."""
        return {key: value for key, value in asdict(replace(self, prints={})).items() if key != "prints"}

    @property
    def past(self) -> dict[str, Any]:
        """The same with the prints."""
        return {**self.as_dict(), "prints": self.prints}

    def normalisation_warning(self, mean: Sequence[float], std: Sequence[float]) -> str | None:
        """A sentence where the input is normalised differently from the training of these weights."""
        if self.mean is None or self.std is None:
            return None
        if all(abs(a - b) < 1e-3 for a, b in zip([*self.mean, *self.std], [*mean, *std], strict=True)):
            return None
        return (
            f"{self.known_as} was trained on inputs normalised with mean {self.mean} and std {self.std}; "
            f"set 'model.mean={self.mean}' and 'model.std={self.std}'"
        )


def load_weights(backbone: Backbone, path: str | Path) -> WeightsReport:
    """Read a weights file into `backbone`.

    Args:
        path: `.safetensors`, or `.pth`, `.pt`, `.ckpt`, `.bin` as torch.save writes them; or a folder of ours.

    Raises:
        SurgdinoError: the file is missing, damaged, holds code, values that cannot be weights, or differs in even one
            tensor; nothing is loaded then.
    """
    file = find_weights(path) if Path(path).is_dir() else Path(path)
    payload, ours = read_tensors(file), description_in(file)
    conversion = to_timm_names(payload, file)
    token = conversion.mask_token
    token = None if token is None or token.numel() != backbone.embed_dim else token
    check_tensors(conversion.tensors if token is None else {**conversion.tensors, "mask_token": token}, file)
    tensors, interpolated = fit_to_model(conversion.tensors, backbone.vit)
    if found := differences(_shapes(tensors), backbone.vit):
        raise _mismatch(file, found, conversion, backbone)
    backbone.vit.load_state_dict({name: t.float() for name, t in tensors.items()}, strict=True)
    if token is not None:
        backbone.mask_token.data.copy_(token.reshape(-1))
    entry, sha256 = entry_of_file(file), sha256_of(file)
    natural = entry is not None and entry.is_it(file.stat().st_size, sha256)
    unknown = [] if natural else [f"nobody knows what the weights with SHA-256 {sha256[:16]}... were trained on"]
    return WeightsReport(
        path=str(file),
        sha256=sha256,
        megabytes=round(file.stat().st_size / 1e6, 1),
        tensors=len(tensors),
        style=conversion.style,
        container=conversion.container,
        interpolated=interpolated,
        dropped=conversion.dropped,
        mask_token=token is not None,
        known_as=entry.name if entry else None,
        licence=entry.licence if entry else None,
        mean=list(entry.mean) if entry else None,
        std=list(entry.std) if entry else None,
        **{key: list((ours or {}).get(key, [])) for key in ("operations", "chosen_on", "seen")},
        prints=(ours or {}).get("prints", {}),
        history_unknown=unknown if ours is None else list(ours.get("history_unknown", [NOT_RECORDED])),
    )


def open_weights(path: str | Path) -> tuple[Backbone, WeightsReport]:
    """A backbone of the architecture that a checkpoint names, or that a file of natural-image weights fits.

    Its normalisation is that of the catalogue where the file is in it. `path` and errors are as for `load_weights`.
    """
    file = Path(path) if Path(path).is_file() else find_weights(path)
    if description_in(file) is not None:
        backbone = untrained(file)
    else:
        conversion, known = to_timm_names(read_tensors(file), file), entry_of_file(file)
        fitting = [name for name in models_that_fit(conversion) if known is None or name == known.model]
        if len(fitting) != 1:
            what, found = "fits no model, or several", " or ".join(fitting) or "none"
            fix = "make a checkpoint of it: surgdino pretrain model=... model.weights=... with few steps"
            raise SurgdinoError(what, file=file, expected="the weights of one of configs/model", found=found, fix=fix)
        normalised = {} if known is None else {"mean": list(known.mean), "std": list(known.std)}
        backbone = build_backbone({**shipped_settings("model", fitting[0]), **normalised}, drop_path=0.0)
    return backbone, load_weights(backbone, file)


def sha256_of(file: Path) -> str:
    """The file's SHA-256 in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _shapes(tensors: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _mismatch(file: Path, found: list[str], conversion: Conversion, backbone: Backbone) -> SurgdinoError:
    fitting = models_that_fit(conversion)
    fits = f"these weights fit {' or '.join(f'model={name}' for name in fitting)}"
    more = f" (and {len(found) - _SHOWN} more)" if len(found) > _SHOWN else ""
    return SurgdinoError(
        f"is for another architecture than {backbone.settings.name}",
        file=file,
        found=f"{len(found)} differences: " + "; ".join(found[:_SHOWN]) + more,
        fix=fits if fitting else "choose the model= that these weights were made for",
    )


def models_that_fit(conversion: Conversion) -> list[str]:
    """The names under configs/model/ that could load these tensors, position grid aside."""
    fitting = []
    for name, path in files("configs/model").items():
        settings = read_yaml(path)
        with torch.device("meta"):
            vit = build_backbone(settings).vit
        tensors, _ = fit_to_model(conversion.tensors, vit)
        if not differences(_shapes(tensors), vit):
            fitting.append(name)
    return fitting
