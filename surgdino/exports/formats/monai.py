"""A MONAI bundle: `python -m monai.bundle run --config_file configs/inference.json` on a folder of pictures.

Its networks are TorchScript, so neither timm nor surgdino is needed. The configuration is MONAI's transforms and
inferers and a few expressions, without the engines that need ignite.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from surgdino.errors import SurgdinoError
from surgdino.exports.format import Format, Program, one_after_another
from surgdino.exports.formats.torch_export import as_program
from surgdino.exports.graph import Graph, Subject
from surgdino.paths import write_text

_SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
_PICTURES = "('.png', '.jpg', '.jpeg', '.bmp')"
_BATCH = 16
_CONFIG = "configs/inference.json"
_NO_TABLE = ("instances", "vqa")  # what they say of a picture is no row of a table


class Monai(Format):
    """`configs/metadata.json`, `configs/inference.json`, `models/NAME.ts`, `docs/README.md`."""

    LIBRARY, HEADS = "monai", True

    def write(self, subject: Subject, folder: Path) -> None:
        """The bundle; refuses what a folder of pictures is not enough for."""
        head = subject.head
        if head and (head.task in _NO_TABLE or subject.graphs[0].in_order):
            several = " over several frames" * (head.task not in _NO_TABLE)
            what = f"format=monai has no way to run task={head.task}{several}"
            raise SurgdinoError(what, fix="use format=onnx or torch_export")
        (folder / "models").mkdir()
        for graph in subject.graphs:
            scripted(graph).save(str(folder / "models" / f"{graph.name}.ts"))
        write_text(folder / "configs" / "metadata.json", json.dumps(_metadata(subject), indent=2) + "\n")
        write_text(folder / _CONFIG, json.dumps(_inference(subject), indent=2) + "\n")
        write_text(folder / "docs" / "README.md", "What this is, with licences and figures: README.md one folder up.\n")

    def read(self, subject: Subject, folder: Path) -> Mapping[str, Program]:
        """The networks as MONAI's parser makes them of the configuration."""
        from monai.bundle import ConfigParser

        parser = ConfigParser()
        parser.read_config(str(folder / _CONFIG))
        parser.read_meta(str(folder / "configs" / "metadata.json"))
        parser.update({"bundle_root": str(folder), "device": "cpu"})
        named = {graph.name: _NETWORK if place == 0 else graph.name for place, graph in enumerate(subject.graphs)}
        return {name: _tuples(parser.get_parsed_content(key)) for name, key in named.items()}

    def use(self, subject: Subject, folder: str) -> str:
        """See `Format`."""
        lines = ["# in a terminal, with `pip install monai fire pillow`; PICTURES is a folder of them:"]
        lines.append(f"# cd {folder} && python -m monai.bundle run --config_file {_CONFIG} --dataset_dir PICTURES")

        def of(graph: Graph, outputs: str, given: str) -> list[str]:
            opened = f'torch.jit.load("{folder}/models/{graph.name}.ts")'
            return [f"{graph.name} = {opened}", f"{outputs} = {graph.name}({given})"]

        return "\n".join([*lines, "import torch", "", *one_after_another(subject.graphs, of)])


_NETWORK = "network"


class _Bare(nn.Module):
    """A lone output without its tuple, as MONAI's inferers want it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, given: Tensor) -> Any:
        outputs = self.module(given)
        return outputs if len(outputs) > 1 else outputs[0]


def scripted(graph: Graph) -> torch.jit.ScriptModule:
    """TorchScript of a graph, whose first dimension is free."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sizes that stay as they are
        return as_program(
            graph, lambda example: torch.jit.trace(_Bare(graph.module).eval(), example, check_trace=False)
        )


def _tuples(network: Any) -> Program:
    def run(given: Tensor) -> tuple[Tensor, ...]:
        outputs = network(given)
        return outputs if isinstance(outputs, tuple) else (outputs,)

    return run


def _inference(subject: Subject) -> dict[str, Any]:
    """configs/inference.json."""
    head, graphs = subject.head, subject.graphs
    where = {graph.name: "'cpu'" if place else "@device" for place, graph in enumerate(graphs)}  # a video's is small
    load = {
        name: f"$torch.jit.load(@bundle_root + '/models/{name}.ts', {device}).eval()" for name, device in where.items()
    }
    config: dict[str, Any] = {
        "imports": ["$import os", "$import numpy", "$import torch", "$import monai"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/pictures'",
        "output_dir": "$@bundle_root + '/eval'",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": load.pop(graphs[0].name),
        _NETWORK: "@network_def",
        **load,
        "files": f"$sorted(n for n in os.listdir(@dataset_dir) if n.lower().endswith({_PICTURES}))",
        "preprocessing": {"_target_": "Compose", "transforms": _preprocessing(subject)},
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': os.path.join(@dataset_dir, n)} for n in @files]",
            "transform": "@preprocessing",
        },
        "inferer": {"_target_": "SimpleInferer"},
        "initialize": ["$torch.set_grad_enabled(False)", "$os.makedirs(@output_dir, exist_ok=True)"],
    }
    masks = head is not None and head.task == "segmentation"
    return {**config, **(_masks_written(subject) if masks else _tables_written(subject))}


def _masks_written(subject: Subject) -> dict[str, Any]:
    """Of the configuration: each picture's logits, brought to its own size, as files of masks."""
    config: dict[str, Any] = {}
    if subject.head and subject.head.window:
        side, overlap = subject.head.window
        sliding = {"roi_size": [side, side], "sw_batch_size": _BATCH, "overlap": overlap, "mode": "gaussian"}
        config["inferer"] = {"_target_": "SlidingWindowInferer", **sliding}
        grown = f"torch.nn.functional.interpolate(@network(x), ({side}, {side}), mode='bilinear')"
        config["enlarged"] = f"$lambda x: {grown}"
    asked = "@enlarged" if config else "@network"
    resized = "torch.nn.functional.interpolate(logits, x.shape[1:], mode='bilinear')[0]"
    said = f"@resized(@inferer(x['image'].as_tensor()[None].to(@device), {asked}).cpu(), x['picture'])"
    item = f"{{'pred': monai.data.MetaTensor({said}, meta=x['image'].meta)}}"
    return {
        **config,
        "resized": f"$lambda logits, x: {resized}",
        "postprocessing": {"_target_": "Compose", "transforms": _masks(subject)},
        "run": [f"$[@postprocessing({item}) and None for x in @dataset]"],
    }


def _tables_written(subject: Subject) -> dict[str, Any]:
    """Of the configuration: a table for each output; of several programs, over the pictures as frames of one video."""
    graphs, last = subject.graphs, subject.graphs[-1]
    outputs = [name for name in last.outputs if name != "patches"]  # far too many numbers for a table
    call = "@inferer(x['image'].as_tensor().to(@device), @network)"
    if len(graphs) > 1:
        first = "[0]" if len(graphs[0].outputs) > 1 else ""
        found = f"$@{last.name}(torch.cat([{call}{first}.cpu() for x in @dataloader]))"
        values = {outputs[0]: "$@found"}
    else:
        single = len(last.outputs) == 1
        found = f"$[{call}{'' if single else f'[:{len(outputs)}]'} for x in @dataloader]"
        picked = {name: "o" if single else f"o[{place}]" for place, name in enumerate(outputs)}
        values = {name: f"$torch.cat([{at} for o in @found])" for name, at in picked.items()}
    features = [str(k) for k in range(subject.model.backbone.embed_dim)]
    return {
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": _BATCH, "num_workers": 0},
        "found": found,
        "values": values,
        "run": [_table(name, last.classes.get(name, features)) for name in values],
    }


def _table(name: str, classes: Sequence[str]) -> str:
    """An expression that writes a CSV: a row a picture, a column a class."""
    columns = ",".join(["picture", *(re.sub(r'[",\n\']', " ", each) for each in classes)])
    table = f"numpy.column_stack([@files, @values#{name}.cpu().numpy().astype(str)])"
    how = f"fmt='%s', delimiter=',', header='{columns}', comments=''"
    return f"$numpy.savetxt(@output_dir + '/{name}.csv', {table}, {how})"


def _preprocessing(subject: Subject) -> list[dict[str, Any]]:
    """As our own: the whole picture by area averages, then normalised."""
    info, head = subject.model.info, subject.head
    side = info["image_size"]
    if head and head.window:
        scale = f"min(1.0, {head.short_side} / min(x.shape[1:]))"
        shrunk = f"$lambda x: torch.nn.functional.interpolate(x[None], scale_factor={scale}, mode='area')[0]"
        resize: dict[str, Any] = {"_target_": "Lambdad", "keys": "image", "func": shrunk}
    else:
        resize = {"_target_": "Resized", "keys": "image", "spatial_size": [side, side], "mode": "area"}
    reader = {"reader": "PILReader", "converter": "$lambda picture: picture.convert('RGB')"}
    scaled: dict[str, Any] = {"a_min": 0, "a_max": 255, "b_min": 0.0, "b_max": 1.0}
    normalised = {"subtrahend": info["mean"], "divisor": info["std"], "channel_wise": True}
    return [
        {"_target_": "LoadImaged", "keys": "image", **reader},
        {"_target_": "EnsureChannelFirstd", "keys": "image", "channel_dim": -1},
        {"_target_": "Transposed", "keys": "image", "indices": [0, 2, 1]},  # MONAI reads width before height
        *(
            [{"_target_": "CopyItemsd", "keys": "image", "names": "picture"}]
            if head and head.task == "segmentation"
            else []
        ),
        resize,
        {"_target_": "ScaleIntensityRanged", "keys": "image", **scaled},
        {"_target_": "NormalizeIntensityd", "keys": "image", **normalised},
    ]


def _masks(subject: Subject) -> list[dict[str, Any]]:
    """From logits to PNG files of the pictures' own size: one of class ids, or one a class."""
    head = subject.head
    assert head is not None
    exclusive = head.exclusive
    decided = {"argmax": True} if exclusive else {"threshold": 0.0}
    steps: list[dict[str, Any]] = [
        {"_target_": "AsDiscreted", "keys": "pred", **decided},
        {"_target_": "Transposed", "keys": "pred", "indices": [0, 2, 1]},
    ]
    save = {"_target_": "SaveImaged", "output_dir": "@output_dir", "output_ext": ".png", "separate_folder": False}
    save |= {"resample": False, "output_dtype": "$numpy.uint8", "print_log": False, "writer": "PILWriter"}
    if exclusive:
        return [*steps, {**save, "keys": "pred", "output_postfix": "classes"}]
    names = [re.sub(r"[^\w.-]+", "-", name) for name in head.classes]
    split = {"_target_": "SplitDimd", "keys": "pred", "dim": 0, "output_postfixes": names}
    files = ({**save, "keys": f"pred_{name}", "output_postfix": name, "scale": 255} for name in names)
    return [*steps, split, *files]


def _metadata(subject: Subject) -> dict[str, Any]:
    """configs/metadata.json, by MONAI's specification of a bundle."""
    info, head, graph = subject.model.info, subject.head, subject.graphs[0]
    task = "features" if head is None else head.task
    name, shape = next(iter(graph.outputs)), list(graph.row[1:])
    names = graph.classes.get(name) or [f"feature {k}" for k in range(subject.model.backbone.embed_dim)]
    channels = {"0": "R", "1": "G", "2": "B"}
    image: dict[str, Any] = {
        "type": "image",
        "format": "RGB",
        "modality": "endoscopy",
        "num_channels": 3,
        "spatial_shape": shape,
    }
    image |= {
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": bool(head and head.window),
        "channel_def": channels,
    }
    of = "image" if task == "segmentation" else "feature" if head is None else "probabilities"
    kind = "segmentation" if task == "segmentation" else "classification"
    out = {"type": of, "format": kind, "num_channels": len(names), "spatial_shape": [], "dtype": "float32"}
    out |= {"value_range": [], "is_patch_data": bool(head and head.window)}
    out |= {"channel_def": {str(k): each for k, each in enumerate(names)} if graph.classes.get(name) else {}}
    return {
        "schema": _SCHEMA,
        "version": "0.1.0",
        "changelog": {"0.1.0": f"exported by surgdino {version('surgdino')}"},
        "monai_version": version("monai"),
        "pytorch_version": torch.__version__.partition("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {"pillow": version("pillow")},
        "name": f"{info['name']} {task}",
        "task": f"surgical {task}",
        "description": f"{task} of surgical video by {info['timm']}; README.md has data, licences, figures and limits",
        "authors": "not recorded; ask whoever gave you this folder",
        "copyright": "see Licences in README.md",
        "data_source": str(info.get("dataset") or "not recorded"),
        "data_type": "png",
        "intended_use": "Research on surgical video. Not a medical device.",
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": out}},
    }
