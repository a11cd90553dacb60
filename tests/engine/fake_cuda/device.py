"""A CUDA device without a GPU: tensors that say they are on cuda:0, kernels that compute shapes, a watch on the host.

    with FakeCuda(folder_of_the_package) as device:
        ...                # torch.device("cuda"), autograd, autocast and fused optimisers work
        device.waits       # Counter of (kind, file:line, what)

What makes the host wait until the device is done is counted under these kinds:

    read      a value is asked for: float(), .item(), `if tensor`
    fetch     a tensor is copied to the host
    shape     the size of a result depends on values: nonzero, a mask as index, unique
    upload    a blocking copy to the device: torch.tensor(..., device=), new_tensor, .to(device)
    pageable  a copy to the device with non_blocking=True, but from memory that is not pinned
    inside    a kernel that reads its own status on the host
    sync      torch.cuda.synchronize(), or an event's, in the main thread

Values that come from the device are invented: 1 for a number, False for a truth value, half of its size for a mask.
Only for torch without CUDA, in a process of its own: importing this loads a library that must precede torch.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from functools import partial
from pathlib import Path
from unittest import mock


def _load_guard() -> None:
    """Compile guard.cpp, some three seconds, and load it."""
    assert "torch" not in sys.modules, "the guard has to be loaded before torch"
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    torch_folder = Path(spec.origin).parent
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "guard.so"
        source = str(Path(__file__).with_name("guard.cpp"))
        command = ["c++", "-std=c++20", "-shared", "-fPIC", source, "-o", str(library), f"-I{torch_folder}/include"]
        libraries = [f"-L{torch_folder}/lib", "-ltorch_cpu", "-lc10", f"-Wl,-rpath,{torch_folder}/lib"]
        subprocess.run([*command, *libraries], check=True)
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


_load_guard()

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves, tree_map  # noqa: E402

aten = torch.ops.aten
_READS = {aten._local_scalar_dense.default, aten.is_nonzero.default, aten.equal.default}
_INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
_SHAPED_BY_VALUES = {
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.repeat_interleave.Tensor,
    aten.bincount.default,
}
_WAITS_INSIDE = ("aten._linalg_svd", "aten._linalg_eigh", "aten.linalg_eig", "aten.linalg_lstsq", "aten._linalg_check")


class FakeCuda:
    """A context in which cuda:0 exists.

    Attributes:
        waits: what has stopped the host, by (kind, line of the package, what).
    """

    def __init__(self, package: Path) -> None:
        self.package = package
        self.waits: Counter[tuple[str, str, str]] = Counter()
        self._pinned: dict[int, Tensor] = {}

    def __enter__(self) -> FakeCuda:
        self._stack = contextlib.ExitStack()
        enter = self._stack.enter_context
        enter(_Watch(self))
        enter(mock.patch.object(Tensor, "pin_memory", lambda tensor, device=None: self._pin(tensor)))
        answers = {
            "is_available": True,
            "is_initialized": True,
            "current_device": 0,
            "device_count": 1,
            "is_bf16_supported": True,
            "get_arch_list": [],
            "get_device_capability": (9, 0),
            "get_device_name": "GPU",
            "get_device_properties": mock.Mock(total_memory=2**36),
            "max_memory_allocated": 0,
            "manual_seed": None,
            "manual_seed_all": None,
        }
        for name, answer in answers.items():
            enter(mock.patch(f"torch.cuda.{name}", mock.Mock(return_value=answer)))
        enter(mock.patch("torch.cuda.synchronize", partial(self.note, "sync")))
        event = mock.Mock(synchronize=self._wait_for_event)
        enter(mock.patch("torch.cuda.Event", mock.Mock(return_value=event)))
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=) makes one on the host and moves it
        self._stack.callback(torch._C._set_only_lift_cpu_tensors, False)
        before = torch.__future__.get_overwrite_module_params_on_conversion()
        torch.__future__.set_overwrite_module_params_on_conversion(True)  # parameters are exchanged, not changed
        self._stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, before)
        return self

    def __exit__(self, *failure: object) -> None:
        self._stack.close()

    def note(self, kind: str, what: object = None) -> None:
        """Count a wait at the innermost line of the package that is running; the backward pass has none."""
        frame = sys._getframe(1)
        while frame is not None and not frame.f_code.co_filename.startswith(f"{self.package}/"):
            frame = frame.f_back  # type: ignore[assignment]
        file = "" if frame is None else str(Path(frame.f_code.co_filename).relative_to(self.package.parent))
        self.waits[kind, "(backward)" if frame is None else f"{file}:{frame.f_lineno}", str(what)] += 1

    def _wait_for_event(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self.note("sync", "event")

    def _pin(self, tensor: Tensor) -> Tensor:
        self._pinned[tensor.untyped_storage().data_ptr()] = tensor  # kept: so its address stays its own
        return tensor

    def upload(self, tensor: Tensor, non_blocking: bool) -> None:
        """Note a copy to the device that waits."""
        if not non_blocking:
            self.note("upload", _size(tensor))
        elif tensor.untyped_storage().data_ptr() not in self._pinned:
            self.note("pageable", _size(tensor))


class OnDevice(Tensor):
    """Says that it is on cuda:0, and holds a tensor without values of the same shape."""

    meta: Tensor

    @staticmethod
    def __new__(cls, meta: Tensor) -> OnDevice:
        layout = {"strides": meta.stride(), "storage_offset": meta.storage_offset(), "dtype": meta.dtype}
        return Tensor._make_wrapper_subclass(cls, meta.shape, device="cuda:0", **layout)  # type: ignore[attr-defined]

    def __init__(self, meta: Tensor) -> None:
        self.meta = meta

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} outside of FakeCuda")

    def __deepcopy__(self, memo: dict[int, Tensor]) -> Tensor:
        copy: Tensor = self.detach().clone()
        copy = nn.Parameter(copy, self.requires_grad) if isinstance(self, nn.Parameter) else copy
        return memo.setdefault(id(self), copy)


class _Watch(TorchDispatchMode):
    """Sees every operator, has the host's computed in earnest, and those on the device for their shapes."""

    def __init__(self, device: FakeCuda) -> None:
        super().__init__()
        self.device = device

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, note = kwargs or {}, self.device.note
        leaves = tree_leaves((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        on_device = any(map(_on_device, tensors))
        to = next((leaf.type for leaf in leaves if isinstance(leaf, torch.device)), None)
        if not on_device and to != "cuda":
            return func(*args, **kwargs)
        if func in _READS:
            note("read", func)
            return tensors[0].dtype != torch.bool and func is aten._local_scalar_dense.default
        if func is aten._to_copy.default and on_device and to == "cpu":
            if not kwargs.get("non_blocking"):  # else torch copies into pinned memory
                note("fetch", _size(tensors[0]))
            return torch.rand(tuple(tensors[0].shape)).to(kwargs.get("dtype") or tensors[0].dtype)
        if func is aten._to_copy.default and not on_device:
            self.device.upload(tensors[0], kwargs.get("non_blocking", False))
        if func is aten.copy_.default and _on_device(args[0]) != _on_device(args[1]):
            if _on_device(args[0]):
                self.device.upload(args[1], kwargs.get("non_blocking", False) or (len(args) > 2 and args[2]))
            else:
                note("fetch", _size(args[1]))
            return args[0]
        if func in _INDEXED:
            args = (args[0], self._without_masks(func, args[0], args[1]), *args[2:])
        elif on_device and any(t.dim() for t in tensors if not _on_device(t)):  # single values may be on the host
            raise RuntimeError(f"{func} of tensors on the host and on the device")
        if func in _SHAPED_BY_VALUES:
            note("shape", func)
            shape = (_half(tensors[0]), tensors[0].dim()) if func is aten.nonzero.default else (_half(tensors[0]),)
            return torch.empty(shape, dtype=torch.int64 if len(shape) == 2 else tensors[0].dtype, device="cuda")
        if str(func).startswith(_WAITS_INSIDE):
            note("inside", func)
        return self._shapes_of(func, args, kwargs)

    def _shapes_of(self, func, args, kwargs):
        """The operator on tensors without values; one that it writes into comes back as itself."""
        given: dict[int, Tensor] = {}

        def without_values(value):
            if isinstance(value, Tensor):
                meta = value.meta if isinstance(value, OnDevice) else value.to("meta")
                given[id(meta)] = value
                return meta
            return torch.device("meta") if isinstance(value, torch.device) else value

        def on_device(value):
            return (given[id(value)] if id(value) in given else OnDevice(value)) if isinstance(value, Tensor) else value

        args, kwargs = tree_map(without_values, (args, kwargs))
        return tree_map(on_device, func(*args, **kwargs))

    def _without_masks(self, func, tensor: Tensor, indices: list[Tensor | None]) -> list[Tensor | None]:
        """Masks as so many places as they might have."""
        found: list[Tensor | None] = []
        for index in indices:
            if index is not None and _on_device(tensor) and not _on_device(index):
                self.device.note("upload", f"an index on the host, {_size(index)}")
            if index is not None and index.dtype in (torch.bool, torch.uint8):
                self.device.note("shape", func)
                found += [torch.empty(_half(index), dtype=torch.int64, device="cuda")] * index.dim()
            else:
                found.append(index)
        return found


def _on_device(tensor: Tensor) -> bool:
    return tensor.device.type == "cuda"


def _half(tensor: Tensor) -> int:
    return max(tensor.numel() // 2, 1)


def _size(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {tensor.numel() * tensor.element_size()} B"
