"""What a fixed program is made of: a network from a batch of any length to named tensors, and what these are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from surgdino.backbone.checkpoint import LoadedBackbone
from surgdino.backbone.timm_import import timm
from surgdino.backbone.vit import Backbone, Features

BACKBONE = "backbone"


@dataclass(frozen=True)
class Graph:
    """A network as one program.

    Attributes:
        name: of its file.
        module: float32 [n, *row] -> a tensor for each output; on the CPU, in evaluation mode.
        row: shape of what it takes, without the first dimension, which is free.
        outputs: name -> shape and meaning, for people.
        takes: what its input is called, and `taking` what it is.
        classes: output -> the names of its classes, in their order.
        least: rows that it needs.
        in_order: whether rows are the frames of one video, and one is judged by those before it.
        lists: more names that its outputs are read by, such as the questions that it answers.
    """

    name: str
    module: nn.Module
    row: tuple[int, ...]
    outputs: Mapping[str, str]
    takes: str = "images"
    taking: str = "[B, 3, S, S], normalised pictures"
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    least: int = 1
    in_order: bool = False
    lists: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Head:
    """A trained task, of which a graph is made.

    Attributes:
        task: its name.
        classes: in the order of their ids.
        facts: more, for the card: dataset, split, how much of the backbone learned.
        remarks: what a user of the outputs has to know.
        results: what results.json says of it; None where nothing was tested.
        window: side and overlap of a sliding window, where it looks through one.
        exclusive: of masks, whether a pixel has one class or none; the first plane is then the background.
        short_side: pixels of the shorter side of the frames that a window moves over.
    """

    task: str
    classes: tuple[str, ...]
    facts: Mapping[str, str]
    remarks: Sequence[str] = ()
    results: Mapping[str, Any] | None = None
    window: tuple[int, float] | None = None
    exclusive: bool = False
    short_side: int = 0


@dataclass(frozen=True)
class Subject:
    """What is exported: a backbone, or one with the head of a task over it.

    Attributes:
        graphs: the first takes pictures; another takes the first output of the one before it.
    """

    model: LoadedBackbone
    graphs: tuple[Graph, ...]
    head: Head | None = None

    def facts(self) -> dict[str, str]:
        """What a file says of itself to programs, each value a text; lists and numbers as JSON."""
        info, head = self.model.info, self.head
        told: dict[str, Any] = {"image_size": info["image_size"], "mean": info["mean"], "std": info["std"]}
        told |= {"backbone": info["timm"], "task": head.task if head else "features"}
        told |= {"classes": list(head.classes)} if head else {}
        told |= {f"classes.{name}": list(names) for graph in self.graphs for name, names in graph.classes.items()}
        told |= {name: list(names) for graph in self.graphs for name, names in graph.lists.items()}
        told |= {"window": list(head.window)} if head and head.window else {}
        told |= {"exclusive": head.exclusive} if head and head.task == "segmentation" else {}
        return {key: value if isinstance(value, str) else json.dumps(value) for key, value in told.items()}


class Plain(nn.Module):
    """timm's own model, strict in its weights and without anything of ours: images -> class and patch tokens."""

    def __init__(self, model: LoadedBackbone) -> None:
        super().__init__()
        self.vit: Any = timm.create_model(model.info["timm"], num_classes=0, **timm_options(model)).eval()
        self.vit.load_state_dict({name: value.cpu() for name, value in model.backbone.vit.state_dict().items()})

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 3, S, S] -> [B, D], [B, N, D]."""
        cls, patches = features_of(self.vit, images)
        return cls, patches


class Unpacked(nn.Module):
    """A backbone whose blocks run one after another on [B, 1 + N, D], as timm calls them, so that B stays free."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone, self.vit = backbone, backbone.vit
        self.patch_size, self.depth, self.embedded = backbone.patch_size, backbone.depth, backbone.embedded

    def forward(self, images: Tensor) -> Features:
        """As the backbone's."""
        return self.backbone.intermediate(images, (-1,))[0]


def timm_options(model: LoadedBackbone) -> dict[str, Any]:
    """What timm makes the model with, so that it takes pictures of any size as ours does."""
    return {**model.info["timm_kwargs"], "dynamic_img_size": True}


def features_of(vit: Any, images: Tensor) -> Features:
    """Class and patch tokens of a timm model."""
    tokens = vit.forward_features(images)
    return Features(tokens[:, 0], tokens[:, vit.num_prefix_tokens :])


def of_backbone(model: LoadedBackbone) -> Subject:
    """The features of a backbone."""
    side, patch = model.info["image_size"], model.backbone.patch_size
    width, patches = model.backbone.embed_dim, (side // patch) ** 2
    outputs = {
        "cls": f"[B, {width}], the class token",
        "patches": f"[B, {patches}, {width}], the patch tokens, row by row",
    }
    return Subject(model, (Graph(BACKBONE, Plain(model), (3, side, side), outputs),))
