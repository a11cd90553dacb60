"""Files of tensors, read as data: no code from them runs, and they take no more memory than their own size.

Here safetensors and what torch.save writes are opened, whoever wrote them: weights from elsewhere, our checkpoints, the
saved states of a run.
"""

from __future__ import annotations

import argparse
import errno
import pickle
import pickletools
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from surgdino.errors import SurgdinoError, from_os_error
from surgdino.paths import regular

T = TypeVar("T")
PICKLES = (".pth", ".pt", ".ckpt", ".bin")
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_AGAIN = "get the file again"
TEXT_LIMIT = 16 << 20  # characters of a description; one of 100,000 operations has 3 million
_ENTRIES = 500_000  # of an archive
_PICKLE_BYTES = 64 << 20  # without the tensors: 1.4 MB for a network of 4,000 and its optimizer
_NESTED = 100


def read_tensors(file: Path, fix: str = _AGAIN) -> Mapping[str, Any]:
    """The content of a weights file; empty where a pickle holds no mapping.

    Args:
        fix: what to do where the file is damaged.

    Raises:
        SurgdinoError: no such file or kind of file, damaged, more than it can hold, or objects that are no tensors.
    """
    if file.suffix == ".safetensors":
        return _read(file, load_file, fix)
    if file.suffix in PICKLES:
        payload = read_torch(file, fix=fix)
        return payload if isinstance(payload, Mapping) else {}
    what, expected = "not a supported kind of weights file", ".safetensors, " + ", ".join(PICKLES)
    raise SurgdinoError(what, file=file, expected=expected, found=file.suffix or "no extension")


def read_torch(file: Path, device: str = "cpu", fix: str = _AGAIN) -> Any:
    """What torch.save wrote to a file."""

    def load(path: Path) -> Any:
        # What is no pickle, or ends too early, is for torch to say.
        with path.open("rb") as stream, suppress(ValueError):
            for pickled in _pickles(stream, path):
                _check_pickle(pickled, path)
        # DINO's own checkpoints hold their command line, a plain container of values.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location=device, weights_only=True)

    return _read(file, load, fix)


def header_of(file: Path, key: str, fix: str = _AGAIN) -> str | None:
    """A text in the header of a safetensors file; None where it has none of that name."""
    with _header(file, fix) as stream:
        text = (stream.metadata() or {}).get(key)
    if text is not None and len(text) > TEXT_LIMIT:
        raise _bomb(file, f"a description of at most {TEXT_LIMIT:,} characters", f"{len(text):,}")
    return text


def shapes_of(file: Path, fix: str = _AGAIN) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of a safetensors file, without reading them."""
    with _header(file, fix) as stream:
        return {name: tuple(stream.get_slice(name).get_shape()) for name in stream.keys()}  # noqa: SIM118


def check_tensors(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Refuse weights that cannot be computed with: whole numbers, 8-bit floats, sparse ones, NaN, infinity."""
    for name, tensor in tensors.items():
        plain = type(tensor) in (Tensor, nn.Parameter) and tensor.layout == torch.strided and not tensor.is_meta
        if not plain or tensor.dtype not in _FLOATS:
            found = f"{tensor.dtype}" if plain else f"a {type(tensor).__name__}, {tensor.layout}, on {tensor.device}"
            what, fix = "holds weights that are no plain numbers", "export it in float32 or half precision"
            expected = "float32, float16, bfloat16 or float64"
            raise SurgdinoError(what, file=file, place=name, expected=expected, found=found, fix=fix)
        if not tensor.isfinite().all():
            raise SurgdinoError("holds values that are not finite", file=file, place=name, fix=_AGAIN)


def differences(tensors: Mapping[str, tuple[int, ...]], model: nn.Module) -> list[str]:
    """The differences between shapes by name and a model, one phrase each, in the model's order."""
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = []
    for name, shape in own.items():
        if name not in tensors:
            found.append(f"{name} {shape} is missing")
        elif tensors[name] != shape:
            found.append(f"{name} is {tensors[name]} where the model has {shape}")
    return found + [f"{name} {shape} is not in the model" for name, shape in tensors.items() if name not in own]


def _read(file: Path, read: Callable[[Path], T], fix: str) -> T:
    """What `read` makes of a regular file; whatever a parser raises on its content becomes one line."""
    try:
        with regular(file).open("rb"):  # safetensors hides the reason why a file cannot be opened
            pass
        return read(file)
    except SurgdinoError:
        raise
    except OSError as error:
        if error.errno != errno.EINVAL:  # torch's error for an archive that ends too early
            raise from_os_error(error, file) from error
        raise _damaged(file, error, fix) from error
    except pickle.UnpicklingError as error:
        message = str(error)
        # torch reports damage the same way; only a refused object means that the file is whole.
        for mark in ("GLOBAL ", "unsupported GLOBAL ", "reduce for unrecognized function ", "but got "):
            if mark in message:
                raise _code(file, message.split(mark, 1)[1].split()[0]) from error
        raise _damaged(file, error, fix) from error
    except Exception as error:
        raise _damaged(file, error, fix) from error


@contextmanager
def _header(file: Path, fix: str) -> Iterator[Any]:
    with _read(file, lambda path: safe_open(path, framework="pt"), fix) as stream:
        try:
            yield stream
        except SafetensorError as error:
            raise _damaged(file, error, fix) from error


def _pickles(stream: BinaryIO, file: Path) -> Iterator[bytes | BinaryIO]:
    """The pickles of a file of torch.save: one in an archive, five at the start of a file of before 2020."""
    if stream.read(4) != b"PK\3\4":
        stream.seek(0)
        yield from [stream] * 5
        return
    size = file.stat().st_size
    with zipfile.ZipFile(stream) as archive:
        entries = archive.infolist()
        if len(entries) > _ENTRIES:
            raise _bomb(file, f"at most {_ENTRIES:,} entries", f"{len(entries):,}")
        for entry in entries:
            if entry.compress_type != zipfile.ZIP_STORED:
                raise _bomb(file, "entries as torch.save writes them, not compressed", f"{entry.filename!r} compressed")
        if (claimed := sum(entry.file_size for entry in entries)) > size:
            raise _bomb(file, f"at most its own size, {size:,} bytes", f"entries of {claimed:,} bytes")
        for entry in entries:
            name = entry.filename.lower()  # torch looks for names in any case
            if name.endswith("constants.pkl"):
                raise _code(file, "a TorchScript program")
            if name.endswith("data.pkl"):
                if entry.file_size > _PICKLE_BYTES:
                    raise _bomb(file, f"at most {_PICKLE_BYTES:,} bytes beside tensors", f"{entry.file_size:,}")
                yield archive.read(entry)


def _check_pickle(pickled: bytes | BinaryIO, file: Path) -> None:
    """Refuse what torch's own reader, which runs no code, does without limits."""
    nested = 0
    for operation, argument, position in pickletools.genops(pickled):
        # `bytearray` of a number takes that much memory; weights need no object of Python itself.
        if operation.name == "GLOBAL" and str(argument).startswith(("builtins ", "__builtin__ ")):
            raise _code(file, str(argument).replace(" ", "."))
        if operation.name.startswith("TUPLE"):  # the hash of a deep one ends the process
            nested += 1
        elif "PUT" not in operation.name and operation.name not in ("MEMOIZE", "MARK"):
            nested = 0
        if nested > _NESTED:
            raise SurgdinoError("nested too deeply", file=file, expected=f"at most {_NESTED} levels", fix=_AGAIN)
        if position is not None and position > _PICKLE_BYTES and not isinstance(pickled, bytes):
            raise _bomb(file, f"at most {_PICKLE_BYTES:,} bytes beside tensors", f"{position:,}")


def _code(file: Path, found: str) -> SurgdinoError:
    what = "contains code, or Python objects that could run code when read; refused"
    fix = "convert it to .safetensors where you trust it, or get a file with the backbone only"
    return SurgdinoError(what, file=file, expected="tensors only", found=found, fix=fix)


def _bomb(file: Path, expected: str, found: str) -> SurgdinoError:
    return SurgdinoError("claims more than it can hold; refused", file=file, expected=expected, found=found, fix=_AGAIN)


def _damaged(file: Path, error: Exception, fix: str) -> SurgdinoError:
    found = (str(error).splitlines() or [type(error).__name__])[0][:160]
    return SurgdinoError("damaged or not a weights file", file=file, found=found, fix=fix)
