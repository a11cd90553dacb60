"""Reading natural-image weights into a backbone: strictly, with a report of what was done."""

from __future__ import annotations

import argparse
import errno
import hashlib
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from surgdino.backbone.catalogue import entry_of_file
from surgdino.backbone.checkpoint import find_weights, header_of
from surgdino.backbone.key_styles import Conversion, fit_to_model, to_timm_names
from surgdino.backbone.vit import Backbone, build_backbone
from surgdino.config import read_yaml
from surgdino.discovery import files
from surgdino.errors import SurgdinoError, from_os_error

_PICKLES = (".pth", ".pt", ".bin")
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
            them too. `chosen_on` are those that its state was chosen on; `seen` lists both by training, as model.json.
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

    def line(self) -> str:
        """All of it on one line."""
        parts = [f"{self.path}: {self.tensors} tensors, {self.style} names"]
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
        """For `model.json`."""
        return asdict(self)

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
        path: `.safetensors`, or `.pth`, `.pt`, `.bin` as torch.save writes them; or one of our checkpoint folders.

    Raises:
        SurgdinoError: the file is missing, damaged, holds code, or differs in even one tensor; nothing is loaded then.
    """
    file = find_weights(path) if Path(path).is_dir() else Path(path)
    conversion = to_timm_names(read_tensors(file), file)
    tensors, interpolated = fit_to_model(conversion.tensors, backbone.vit)
    if differences := _differences(tensors, backbone.vit):
        raise _mismatch(file, differences, conversion, backbone)
    if not all(t.isfinite().all() for t in tensors.values()):
        raise SurgdinoError("holds values that are not finite", file=file, fix="get the file again")
    backbone.vit.load_state_dict({name: t.float() for name, t in tensors.items()}, strict=True)
    entry, ours = entry_of_file(file), header_of(file) or {}
    token = conversion.mask_token
    if token is not None and token.numel() == backbone.embed_dim:
        backbone.mask_token.data.copy_(token.reshape(-1))
    else:
        token = None
    return WeightsReport(
        path=str(file),
        sha256=sha256_of(file),
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
        **{key: list(ours.get(key, [])) for key in ("operations", "chosen_on", "seen")},
    )


def read_tensors(file: Path) -> Mapping[str, Any]:
    """The content of a weights file, read without running code from it."""
    if not file.is_file():
        raise SurgdinoError("no such weights file", file=file, fix="check model.weights, or see surgdino weights list")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        if file.suffix in _PICKLES:
            # DINO's own checkpoints hold their command line, a plain container of values.
            with torch.serialization.safe_globals([argparse.Namespace]):
                payload = torch.load(file, map_location="cpu", weights_only=True)
            return payload if isinstance(payload, Mapping) else {}
    except pickle.UnpicklingError as error:
        raise _unreadable_pickle(file, error) from error
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise _damaged(file, error) from error
    except OSError as error:
        if error.errno == errno.EINVAL:  # torch's error for an archive that ends too early
            raise _damaged(file, error) from error
        raise from_os_error(error, file) from error
    raise SurgdinoError(
        "not a supported kind of weights file",
        file=file,
        expected=".safetensors, " + ", ".join(_PICKLES),
        found=file.suffix or "no extension",
    )


def sha256_of(file: Path) -> str:
    """The file's SHA-256 in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _unreadable_pickle(file: Path, error: pickle.UnpicklingError) -> SurgdinoError:
    # torch reports damage the same way; only a refused global means that the file is whole but holds objects.
    message = str(error)
    if "GLOBAL" not in message and "Unsupported global" not in message:
        return _damaged(file, error)
    return SurgdinoError(
        "holds Python objects, which could run code when read; refused",
        file=file,
        expected="tensors only",
        found=message.split("GLOBAL ", 1)[1].split()[0] if "GLOBAL " in message else "an object",
        fix="convert it to .safetensors where you trust it, or get a file with the backbone only",
    )


def _damaged(file: Path, error: Exception) -> SurgdinoError:
    found = (str(error).splitlines() or [type(error).__name__])[0][:160]
    return SurgdinoError("damaged or not a weights file", file=file, found=found, fix="get the file again")


def _differences(tensors: Mapping[str, Tensor], vit: nn.Module) -> list[str]:
    """The differences between file and model, one phrase each, in the model's order."""
    own = vit.state_dict()
    found = []
    for name, tensor in own.items():
        if name not in tensors:
            found.append(f"{name} {tuple(tensor.shape)} is missing")
        elif tensors[name].shape != tensor.shape:
            found.append(f"{name} is {tuple(tensors[name].shape)} where the model has {tuple(tensor.shape)}")
    return found + [f"{name} {tuple(t.shape)} is not in the model" for name, t in tensors.items() if name not in own]


def _mismatch(file: Path, differences: list[str], conversion: Conversion, backbone: Backbone) -> SurgdinoError:
    fitting = models_that_fit(conversion)
    fits = f"these weights fit {' or '.join(f'model={name}' for name in fitting)}"
    more = f" (and {len(differences) - _SHOWN} more)" if len(differences) > _SHOWN else ""
    return SurgdinoError(
        f"is for another architecture than {backbone.settings.get('name') or backbone.settings.get('timm')}",
        file=file,
        found=f"{len(differences)} differences: " + "; ".join(differences[:_SHOWN]) + more,
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
        if not _differences(tensors, vit):
            fitting.append(name)
    return fitting
