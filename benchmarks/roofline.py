"""What a training step asks of a GPU, and the images/s that bounds: traced, not measured, so no GPU is needed.

    python benchmarks/roofline.py                                        # ViT-B/16, batch 64, 2x224 + 8x96: a minute
    python benchmarks/roofline.py --model vit_small_patch16 --method dinov2 --operators 10

The product's own step (targets, loss, backward, clipping, AdamW, average) runs on fake tensors, that is on shapes and
types without values, under bf16 autocast, with the choices that it makes on a GPU. Each operator counts one kernel and
the bytes that it reads and writes, but for views. Compiled blocks count what inductor's own scheduler makes of their
graphs for Triton: fused kernels, and the bytes that those read and write. Matrix products and attention count as
operations alone.

A bound adds up products and attention at 70 % of the card's peak, the other bytes at 90 % of its bandwidth, and 5 us a
kernel. It knows no waiting for data, no exchange between GPUs and no memory that is full.
"""

from __future__ import annotations

import argparse
import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from unittest import mock
from unittest.mock import Mock

import torch
from functorch.compile import min_cut_rematerialization_partition
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torch._inductor.debug import DebugContext
from torch._inductor.decomposition import select_decomp_table
from torch._inductor.graph import GraphLowering
from torch._inductor.scheduler import FusedSchedulerNode, Scheduler, SchedulerNode
from torch._inductor.virtualized import V
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import flop_registry

from surgdino.backbone import attention, linear_on_cpu, packed, vit
from surgdino.backbone.vit import build_backbone
from surgdino.bench.flops import head_shape, image_flops, vit_shape
from surgdino.config import shipped, shipped_settings
from surgdino.engine.method import Method, open_method
from surgdino.engine.methods.parts import fused
from surgdino.engine.methods.parts.views import Views
from surgdino.engine.optim import apply_gradients, make_optimizer
from surgdino.engine.processes import Pool, ProcessGroup
from surgdino.engine.settings import PretrainSettings

OF_PEAK, OF_BANDWIDTH, SECONDS_A_KERNEL = 0.7, 0.9, 5e-6


@dataclass(frozen=True)
class Card:
    """Dense bf16 FLOP/s with fp32 sums and bytes/s, from the vendor's sheets."""

    name: str
    flops: float
    bandwidth: float


CARDS = [
    Card("H100", 989e12, 3.35e12),
    Card("H200", 989e12, 4.8e12),
    Card("A100", 312e12, 2.04e12),
    Card("4090", 165e12, 1.01e12),
    Card("3060 12 GB", 51e12, 0.36e12),
]


@dataclass
class Work:
    """What a step asks for: floating-point operations, bytes of all else, and kernels, by kind."""

    products: float = 0.0
    attention: float = 0.0
    traffic: float = 0.0
    kernels: int = 0
    by_operator: Counter[str] = field(default_factory=Counter)

    def add(self, other: Work) -> None:
        """Add another's."""
        for name in ("products", "attention", "traffic", "kernels"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.by_operator.update(other.by_operator)

    def seconds(self, card: Card) -> float:
        """The bound; see the head of this file."""
        products = (self.products + self.attention) / (OF_PEAK * card.flops)
        return products + self.traffic / (OF_BANDWIDTH * card.bandwidth) + self.kernels * SECONDS_A_KERNEL


# Attention: what makes two products of a forward pass and four of a backward pass, from its arguments.
_ATTENTION = {
    "torch_attn._varlen_attn.default": (2, 0, 3),
    "torch_attn._varlen_attn_backward.default": (4, 1, 6),
}
_FREE = (
    "prim.",
    "aten.empty",
    "aten.new_empty",
    "aten.detach",
    "aten.alias",
    "aten._unsafe_view",
    "aten._reshape_alias",
)
_TENSORS_A_KERNEL = 40  # of an operator on lists


class Trace(TorchDispatchMode):
    """Adds up the work of every operator that runs by itself, and of every compiled graph that is called."""

    def __init__(self, lengths: tuple[int, int]) -> None:
        """Args:
        lengths: tokens of a global and of a local crop.
        """
        super().__init__()
        self.lengths, self.work, self.paused = lengths, Work(), False

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Compiled functions stay compiled under it."""
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not self.paused:
            self.work.add(self.work_of(func, args, kwargs or {}, out))
        return out

    def work_of(self, func: Any, args: Any, kwargs: Any, out: Any) -> Work:
        """Of one operator."""
        name = str(func)
        if is_arithmetic(func):
            return self.arithmetic(func, args, kwargs, out)
        tensors = {id(leaf): leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, Tensor)}
        if func.is_view or name.startswith(_FREE) or not tensors:
            return Work()
        lists = len(args[0]) if args and isinstance(args[0], list | tuple) else 1
        kernels = math.ceil(lists / _TENSORS_A_KERNEL) if name.startswith(("aten._foreach", "aten._fused")) else 1
        size = _bytes(tensors.values())
        if name.startswith("aten.index_add_"):  # of its target only the rows of its source
            size = 3 * _bytes([args[3]])
        elif not name.endswith("out"):
            written = [v for a, v in zip(func._schema.arguments, args, strict=False) if a.is_write]
            size += _bytes(leaf for leaf in tree_leaves(written) if isinstance(leaf, Tensor))
        return Work(traffic=size, kernels=kernels, by_operator=Counter({name: round(size)}))

    def arithmetic(self, func: Any, args: Any, kwargs: Any, out: Any) -> Work:
        """Of matrix products and attention."""
        if str(func) not in _ATTENTION:
            return Work(products=flop_registry[func._overloadpacket](*args, **kwargs, out_val=out), kernels=1)
        products, query, starts = _ATTENTION[str(func)]
        tokens, heads, width = args[query].shape
        long, short = self.lengths
        sequences = len(args[starts]) - 1
        longer = (tokens - sequences * short) // (long - short)  # so many crops are global ones
        pairs = longer * long**2 + (sequences - longer) * short**2
        return Work(attention=2.0 * products * pairs * heads * width, kernels=1)

    def compile(self, module: torch.fx.GraphModule, inputs: Sequence[Tensor]) -> Callable[..., Any]:
        """A backend of AOTAutograd: inductor's schedule is counted, the graph itself runs on fake tensors."""
        work = self.scheduled(module, inputs)

        def run(arguments: list[Tensor]) -> Any:
            self.work.add(work)
            before, self.paused = self.paused, True
            try:
                given = list(arguments)
                arguments.clear()
                return module(*given)
            finally:
                self.paused = before

        run._boxed_call = True  # type: ignore[attr-defined]
        return run

    def scheduled(self, module: torch.fx.GraphModule, inputs: Sequence[Tensor]) -> Work:
        """What inductor would launch for a graph, its kernels fused as for Triton; nothing is generated."""
        work = Work()
        for node in module.graph.nodes:
            if is_arithmetic(node.target):
                values = tree_map_only(torch.fx.Node, lambda n: n.meta["val"], (node.args, node.kwargs, node))
                work.add(self.arithmetic(node.target, *values))
        mode = torch._guards.detect_fake_mode(inputs)
        graph = GraphLowering(module)
        with V.set_debug_handler(DebugContext()), V.set_graph_handler(graph), V.set_fake_mode(mode):
            graph.run(*inputs)
            for node in Scheduler(graph.operations).nodes:
                if isinstance(node, FusedSchedulerNode | SchedulerNode):
                    size = node.get_read_write_buffers_sizes()
                    work.add(Work(traffic=size, kernels=1, by_operator=Counter({"compiled": size})))
        return work


def is_arithmetic(func: Any) -> bool:
    """Whether an operator is a matrix product or attention."""
    return isinstance(func, torch._ops.OpOverload) and (
        str(func) in _ATTENTION or func._overloadpacket in flop_registry
    )


def _bytes(tensors: Iterable[Tensor]) -> int:
    """What they occupy; an expanded tensor as much as it has of its own."""
    return sum(
        math.prod(n for n, stride in zip(t.shape, t.stride(), strict=True) if stride) * t.element_size()
        for t in tensors
    )


@dataclass(frozen=True)
class Step:
    """Which step is traced."""

    model: str
    method: str
    batch: int
    global_size: int
    local_size: int
    local_count: int
    drop_path: float
    compiled: bool

    @property
    def lengths(self) -> tuple[int, int]:
        """Tokens of a global and of a local crop."""
        patch = shipped_settings("model", self.model)["patch_size"]
        return (self.global_size // patch) ** 2 + 1, (self.local_size // patch) ** 2 + 1

    def model_flops(self) -> float:
        """Of an image, as `surgdino bench step` counts them: nothing is left out, be it dropped or not read."""
        kind, settings = open_method(shipped_settings("method", self.method))
        with torch.device("meta"):
            network = kind(settings, build_backbone(shipped_settings("model", self.model)))
        return image_flops(
            vit_shape(network.backbone),
            head_shape(network.head, network.mask_probability),
            global_size=self.global_size,
            local_size=self.local_size,
            local_count=self.local_count,
            masked_share=network.mask_probability * sum(network.mask_ratio) / 2,
        )


def traced(step: Step) -> Work:
    """The work of one optimiser step, the optimiser's state being there already."""
    torch._dynamo.reset()
    kind, settings = open_method(shipped_settings("method", step.method))
    backbone = build_backbone(shipped_settings("model", step.model), drop_path=step.drop_path)
    student = kind(settings, backbone).train()
    teacher = student.make_teacher()
    trace = Trace(step.lengths)
    with on_a_gpu(trace), FakeTensorMode(allow_non_fake_inputs=True):
        for network in (student, teacher):
            to_fake(network)
        if step.compiled:
            student.backbone.compiles = teacher.backbone.compiles = True
        optimizer = make_optimizer(student, shipped(PretrainSettings, "pretrain", "train"))
        views = views_of(step, student)
        for _ in range(2):  # the first compiles and makes the optimiser's state
            with trace:
                trace.work = Work()
                one_step(student, teacher, optimizer, views)
    return trace.work


def one_step(student: Method, teacher: Method, optimizer: torch.optim.Optimizer, views: Views) -> None:
    """Targets, loss, gradients, AdamW, average."""
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            [targets] = teacher.targets([views], ProcessGroup(), 0.5)
        loss, _ = student(views, targets, Pool())
    loss.backward()
    apply_gradients(optimizer, 3.0)
    teacher.follow(student, 0.99)


@contextlib.contextmanager
def on_a_gpu(trace: Trace) -> Iterator[None]:
    """The choices of a GPU on tensors of the CPU: torch's build for CPUs knows no others, not even fake ones."""
    backend = aot_autograd(
        fw_compiler=trace.compile,
        bw_compiler=trace.compile,
        inference_compiler=trace.compile,
        decompositions=select_decomp_table,
        partition_fn=partial(min_cut_rematerialization_partition, compiler="inductor"),
    )
    compiled = packed.compiled_parts(backend=backend, fullgraph=True)
    compile_function = partial(fused.compiled_function, backend=backend, fullgraph=True)
    with (
        mock.patch.object(attention, "choose", Mock(return_value=attention.varlen_attention)),
        mock.patch.object(linear_on_cpu, "is_quicker", Mock(return_value=False)),
        mock.patch.object(vit, "residual_dtype", Mock(return_value=torch.bfloat16)),
        mock.patch.object(packed, "compiled_parts", Mock(return_value=compiled)),
        mock.patch.object(fused, "compiled_function", compile_function),
        mock.patch.object(torch._dynamo, "maybe_mark_dynamic", Mock()),
        torch._inductor.config.patch(cpu_backend="triton"),
        mock.patch("torch._inductor.scheduler._is_gpu_triton_backend", Mock(return_value=True)),
        mock.patch("torch.nn.utils.clip_grad._has_foreach_support", Mock(return_value=True)),
    ):
        yield


def to_fake(network: nn.Module) -> None:
    """Parameters and buffers without values."""
    for module in network.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    fake = torch.empty(tensor.shape, dtype=tensor.dtype)
                    tensors[name] = nn.Parameter(fake, tensor.requires_grad) if tensors is module._parameters else fake


def views_of(step: Step, student: Method) -> Views:
    """A batch of normalised crops, and masks over as many patches as the method masks on average."""
    patches = step.lengths[0] - 1
    masked = round(2 * step.batch * patches * student.mask_probability * sum(student.mask_ratio) / 2)
    size, small = step.global_size, step.local_size
    return Views(
        global_crops=torch.empty(2 * step.batch, 3, size, size),
        local_crops=torch.empty(step.local_count * step.batch, 3, small, small),
        masks=torch.empty(2 * step.batch, patches, dtype=torch.bool),
        masked=torch.empty(masked, dtype=torch.int64),
        mask_weight=torch.empty(masked),
        images=step.batch,
    )


def main() -> None:
    """Trace and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_base_patch16")
    parser.add_argument("--method", default="simdinov2")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--global-size", type=int, default=224)
    parser.add_argument("--local-size", type=int, default=96)
    parser.add_argument("--local-count", type=int, default=8)
    parser.add_argument("--drop-path", type=float, default=0.1)
    parser.add_argument("--images-a-core", type=float, default=221.0, help="of the loader: surgdino bench data")
    parser.add_argument("--operators", type=int, default=0, help="show so many that move most bytes")
    a = parser.parse_args()
    for compiled in (False, True):
        step = Step(a.model, a.method, a.batch, a.global_size, a.local_size, a.local_count, a.drop_path, compiled)
        work = traced(step)
        print(f"{a.model}, {a.method}, batch {a.batch}, bf16, {'compiled' if compiled else 'eager'}: {described(work)}")
        for name, size in work.by_operator.most_common(a.operators):
            print(f"  {size / 1e9:8.2f} GB  {name}")
        for card in CARDS:
            print(f"  {card.name:12} {bound(work, card, step, a.images_a_core)}")


def described(work: Work) -> str:
    """The counts in one line."""
    return (
        f"products {work.products / 1e12:.1f} TFLOP, attention {work.attention / 1e12:.1f} TFLOP, "
        f"other traffic {work.traffic / 1e9:.0f} GB, {work.kernels:,} kernels"
    )


def bound(work: Work, card: Card, step: Step, images_a_core: float) -> str:
    """Images/s, model FLOPs utilisation and the loader's cores at that rate."""
    rate = step.batch / work.seconds(card)
    return (
        f"{rate:7.0f} images/s   MFU {step.model_flops() * rate / card.flops:4.0%}   {rate / images_a_core:5.1f} cores"
    )


if __name__ == "__main__":
    main()
