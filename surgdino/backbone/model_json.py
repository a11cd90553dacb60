"""model.json: what a checkpoint says of itself, each field checked when it is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from surgdino.backbone.settings import Channel, ImageSize, ModelSettings, PatchSize, Spread, VitOptions
from surgdino.config import NonNegativeInt, PositiveInt
from surgdino.errors import SurgdinoError, from_os_error, shown
from surgdino.frames.prints import References
from surgdino.records import checked, parse_json

FORMAT = 1
WEIGHTS = "backbone.safetensors"
NOT_RECORDED = "an earlier surgdino did not record what its weights had been trained on"
_FIX = "restore it from a copy of the run"
Name = Annotated[str, Field(max_length=1000)]
Names = tuple[Name, ...]


@dataclass(frozen=True)
class OperationPrints:
    """By what an operation is known again; `surgdino.frames.prints.References`."""

    seconds: Annotated[float, Field(ge=0, le=1e8)]
    bits: Annotated[str, Field(max_length=1 << 16)]


@dataclass(frozen=True)
class Apart:
    """From what will be tested on the frames of a training were kept apart by their features (`surgdino curate`).

    Attributes:
        of: such as `cholec80 40-40 test`.
        operations, frames: what was looked at of it.
        cosine: from which on a frame was left out.
        nearest: the largest cosine of any frame that stayed.
        backbone: whose features were compared.
        left_out: operations that were learnt from all the same, and which share of their frames was left out.
    """

    of: Name
    operations: Names
    frames: PositiveInt
    cosine: float
    nearest: float
    backbone: Name
    left_out: tuple[tuple[Name, float], ...] = ()


@dataclass(frozen=True)
class SeenRow:
    """Operations that one training has seen; `surgdino.runs.history.Seen`."""

    by: Name
    how: Name
    operations: Names
    dataset: Name | None = None
    split: Name | None = None
    part: Name | None = None
    apart: Apart | None = None


@dataclass(frozen=True)
class DatasetRow:
    """A dataset of a pretraining."""

    name: Name
    operations: Names = ()


@dataclass(frozen=True)
class InitialWeights:
    """The weights that a training began from, and what they had seen."""

    path: Name | None = None
    sha256: Name | None = None
    operations: Names = ()
    chosen_on: Names = ()
    seen: tuple[SeenRow, ...] = ()
    known_as: Name | None = None


@dataclass(frozen=True)
class ModelJson:
    """The fields that are read somewhere; the file may hold others, which are shown at most.

    Attributes:
        operations, chosen_on, seen: what it was trained and chosen on; a list that is no list must not count as none.
    """

    format: PositiveInt
    timm: Name
    timm_kwargs: VitOptions
    patch_size: PatchSize
    mean: tuple[Channel, Channel, Channel]
    std: tuple[Spread, Spread, Spread]
    image_size: ImageSize
    name: Name | None = None
    operations: Names = ()
    chosen_on: Names = ()
    seen: tuple[SeenRow, ...] = ()
    history_unknown: Names = ()
    datasets: tuple[DatasetRow, ...] = ()
    initial_weights: InitialWeights | None = None
    dataset: Name | None = None
    dataset_licence: Name | None = None
    data_hash: Name | None = None
    method: dict[str, Any] | None = None
    steps: NonNegativeInt | None = None
    seed: int | None = None
    started_from: dict[str, Any] | None = None
    stages: tuple[dict[str, Any], ...] = ()
    created: Name | None = None
    versions: dict[str, Any] | None = None

    @property
    def settings(self) -> ModelSettings:
        """As a `model` section."""
        name = self.name or self.timm
        shape = (self.patch_size, self.mean, self.std)
        return ModelSettings(name, self.timm, self.timm_kwargs, *shape, weights=None, drop_path=0.0)


def parse(text: str | bytes, file: Path) -> tuple[dict[str, Any], ModelJson]:
    """The text of a model.json as it is, and checked; `file` is where it was found, for messages.

    Raises:
        SurgdinoError: not JSON, of a newer surgdino, or a field that is missing or cannot be used.
    """
    info = parse_json(text, file, _FIX)
    written_by = info.get("format") if isinstance(info, dict) else None
    if type(written_by) is int and written_by > FORMAT:
        expected = f"format {FORMAT}"
        raise SurgdinoError("written by a newer surgdino", file=file, expected=expected, found=written_by, fix="update")
    record = checked(ModelJson, info, file, _FIX, more=True)
    if record.image_size % record.patch_size:
        expected, found = f"a multiple of patch_size, {record.patch_size}", record.image_size
        raise SurgdinoError("image_size cannot be used", file=file, expected=expected, found=found, fix=_FIX)
    return info, record


def parse_prints(text: str, file: Path) -> dict[str, References]:
    """The prints in the header of a weights file, by operation.

    Raises:
        SurgdinoError: not JSON, or no prints.
    """
    found: dict[str, References] = {}
    rows = parse_json(text, file, _FIX)
    for name, row in (rows if isinstance(rows, dict) else {"": rows}).items():
        record = checked(OperationPrints, row, file, _FIX)
        try:
            found[name] = References.from_text(record.seconds, record.bits)
        except ValueError as error:
            raise SurgdinoError("prints cannot be used", file=file, place=shown(name), found=error, fix=_FIX) from None
    return found


def find_weights(path: str | Path) -> Path:
    """The weights file of a run folder, a checkpoint folder, or the file itself."""
    path, fix = Path(path), "give a run folder or its checkpoint folder"
    try:
        for candidate in (path, path / WEIGHTS, path / "checkpoint" / WEIGHTS):
            if candidate.is_file() and candidate.suffix == ".safetensors":
                return candidate
        if not path.exists():
            raise SurgdinoError("does not exist", file=path, fix=fix)
        found = ", ".join(sorted(p.name for p in path.iterdir())[:5]) or "nothing" if path.is_dir() else path.name
    except OSError as error:
        raise from_os_error(error, path) from error
    raise SurgdinoError("no checkpoint here", file=path, expected=WEIGHTS, found=found, fix=fix)
