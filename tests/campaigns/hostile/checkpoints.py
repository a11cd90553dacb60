"""Checkpoints of strangers: every field of their descriptions, weights of other kinds, files that would run code."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.campaigns.hostile.case import Case, done, either, refused, refused_or_done
from tests.campaigns.hostile.making import PRETRAIN

WEIGHTS = Path("run/checkpoint/backbone.safetensors")
BAD: dict[str, Any] = {
    "text": "x",
    "negative": -1,
    "zero": 0,
    "huge": 10**9,
    "list": [],
    "nothing": None,
    "NaN": float("nan"),
    "mapping": {"a": {"b": 1}},
}
FIELDS = ("format", "name", "timm", "timm_kwargs", "image_size", "mean", "std", "operations")
ARGUMENTS = ("embed_dim", "depth", "num_heads", "patch_size", "img_size", "mlp_ratio")
FOREIGN = {
    "checkpoint_path": "secret.pth",
    "pretrained": True,
    "pretrained_cfg": {"url": "http://127.0.0.1:9/x", "file": "secret.pth"},
    "pretrained_cfg_overlay": {"file": "secret.pth"},
    "cache_dir": "cache",
    "block_fn": "os.system",
    "norm_layer": "os.system",
    "act_layer": "__import__('os')",
    "drop_path_rate": 1e30,
    "unknown": 1,
}


def cases() -> Iterator[Case]:
    for field in FIELDS:
        for name, value in BAD.items():
            if (field, name) == ("operations", "list"):
                continue
            right = refused("model|checkpoint|backbone|run")
            if (field, name) in _HARMLESS:
                right = either(right, done())
            yield _load("model.json", f"{field} is {name}", lambda i, f=field, v=value: i.update({f: v}), right)
    for argument in ARGUMENTS:
        for name in ("text", "negative", "zero", "huge", "list"):
            change = partial(_set, "timm_kwargs", argument, BAD[name])
            yield _load("model.json", f"timm_kwargs.{argument} is {name}", change, refused("model|backbone"))
    for argument, value in FOREIGN.items():
        yield _load("foreign arguments", argument, partial(_set, "timm_kwargs", argument, value), refused(argument))
    for name in ("hf-hub:some/model", "local-dir:/etc", "resnet50", "../x", "vit_huge", ""):
        yield _load("foreign arguments", f"timm={name}", lambda i, n=name: i.update(timm=n), refused())
    for name in ("../../x", "/tmp/x", "a/b", "x\x1b[31m", "x" * 5000, "..."):
        change = partial(lambda n, i: i.update(name=n), name)
        yield _load("model names", repr(name[:20]), change, either(refused(), done()))
    for name, text in {"nested": "[" * 200_000, "cut": '{"format": 1', "not UTF-8": "\udcff", "empty": ""}.items():
        yield Case("model.json", name, partial(_rewrite, text), _loaded, refused(), base="pretrained")
    for name, write in _weights().items():
        words = (*PRETRAIN, "run.dir=r2", f"model.weights={name.partition(' ')[0]}")
        right = _RIGHT.get(name, refused(name.partition(" ")[0].replace(".", r"\.")))
        yield Case("weights", name.replace(" ", ": ", 1), write, words, right, base="pretrained", sound=name in _RIGHT)


_HARMLESS = {
    ("name", "nothing"),
    ("operations", "nothing"),
    ("image_size", "huge"),
    ("name", "text"),
    ("operations", "mapping"),
}


def _load(kind: str, name: str, change: Callable[[dict], object], right: Callable) -> Case:
    return Case(kind, name, partial(_described, change), _loaded, right, base="pretrained")


def _loaded(folder: Path) -> None:
    import surgdino

    (folder / "secret.pth").write_bytes(b"")
    print(type(surgdino.load(str(folder / "run"))).__name__)


def _described(change: Callable[[dict], object], folder: Path) -> None:
    """Change the description in both places that hold it: the header of the weights, and model.json."""
    with safe_open(folder / WEIGHTS, "pt") as stream:
        info = json.loads(stream.metadata()["surgdino"])
    change(info)
    _rewrite(json.dumps(info), folder)


def _rewrite(text: str, folder: Path) -> None:
    header = text.encode("utf-8", "replace").decode()
    save_file(load_file(folder / WEIGHTS), folder / WEIGHTS, metadata={"format": "pt", "surgdino": header})
    (folder / "run/checkpoint/model.json").write_bytes(text.encode("utf-8", "surrogateescape"))


def _set(section: str, key: str, value: Any, info: dict) -> None:
    info[section][key] = value


class _Code:
    def __reduce__(self) -> tuple:
        return os.system, ("touch EXECUTED",)


def _weights() -> dict[str, Callable[[Path], object]]:
    """File name and what is the matter with it -> how it is written beside a sound run."""

    def saved(name: str, change: Callable[[dict], Any]) -> Callable[[Path], object]:
        def write(folder: Path) -> None:
            content = change(load_file(folder / WEIGHTS))
            save_file(content, folder / name) if name.endswith("safetensors") else torch.save(content, folder / name)

        return write

    def bomb(folder: Path) -> None:
        torch.save({"blocks.0.x": torch.zeros(4)}, folder / "plain.pth")
        with (
            zipfile.ZipFile(folder / "plain.pth") as read,
            zipfile.ZipFile(folder / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as out,
        ):
            for entry in read.namelist():
                if entry.endswith("data/0"):
                    with out.open(entry, "w", force_zip64=True) as stream:
                        for _ in range(2000):
                            stream.write(bytes(1 << 20))
                else:
                    out.writestr(entry, read.read(entry))

    def cast(kind: torch.dtype) -> Callable[[dict], dict]:
        return lambda state: {name: value.to(kind) for name, value in state.items()}

    def prefixed(prefix: str) -> Callable[[dict], dict]:
        return lambda state: {f"{prefix}{name}": value for name, value in state.items()}

    def decoder(state: dict) -> dict:
        extra = {"mask_token": (1, 1, 512), "decoder_embed.weight": (512, 64), "decoder_blocks.0.norm1.weight": (512,)}
        return {"model": state | {name: torch.zeros(shape) for name, shape in extra.items()}, "epoch": 3}

    made: dict[str, Callable[[Path], object]] = {
        "code.pth runs code": lambda d: (d / "code.pth").write_bytes(pickle.dumps({"a": _Code()})),
        "zipped.pth runs code": lambda d: torch.save({"a": _Code()}, d / "zipped.pth"),
        "bomb.pth unpacks to 2 GB": bomb,
        "pipe.pth named pipe": lambda d: os.mkfifo(d / "pipe.pth"),
        "empty.pth": lambda d: (d / "empty.pth").touch(),
        "empty.safetensors": lambda d: (d / "empty.safetensors").touch(),
        "text.pth": lambda d: (d / "text.pth").write_text("no weights"),
        "folder.pth": lambda d: (d / "folder.pth").mkdir(),
        "missing.pth": lambda d: None,
        "header.safetensors claims 1 EB": lambda d: (d / "header.safetensors").write_bytes(b"\xff" * 7 + b"\x0f{}"),
        "list.pth": saved("list.pth", lambda state: list(state.values())),
        "number.pth": saved("number.pth", lambda state: 5),
        "none.pth no tensors": saved("none.pth", lambda state: {}),
        "deep.pth": saved("deep.pth", lambda state: _nested(50)),
        "other.pth other names": saved("other.pth", prefixed("conv.")),
        "shapes.pth": saved("shapes.pth", lambda state: {k: torch.zeros(3, 5) for k in state}),
        "int8.safetensors": saved("int8.safetensors", cast(torch.int8)),
        "float8.safetensors": saved("float8.safetensors", cast(torch.float8_e4m3fn)),
        "bool.pth": saved("bool.pth", cast(torch.bool)),
        "complex.pth": saved("complex.pth", cast(torch.complex64)),
        "nan.pth": saved("nan.pth", lambda state: {k: v * float("nan") for k, v in state.items()}),
        "sound.pth": saved("sound.pth", lambda state: state),
        "half.pth": saved("half.pth", cast(torch.float16)),
        "bf16.safetensors": saved("bf16.safetensors", cast(torch.bfloat16)),
        "double.pth": saved("double.pth", cast(torch.float64)),
        "mae.pth with its decoder": saved("mae.pth", decoder),
        "last.ckpt of Lightning": saved(
            "last.ckpt", lambda s: {"state_dict": prefixed("model.backbone.")(s), "epoch": 1}
        ),
        "ddp.pth": saved("ddp.pth", lambda s: {"state_dict": prefixed("module.")(s)}),
        "compiled.pth": saved("compiled.pth", lambda s: {"state_dict": prefixed("_orig_mod.module.backbone.")(s)}),
        "teacher.pth": saved("teacher.pth", lambda s: {"teacher": prefixed("backbone.")(s), "args": {"lr": 1}}),
    }
    for part in (1, 4, 7):
        made[f"cut{part}.pth"] = partial(_cut, part, "sound.pth", f"cut{part}.pth")
        made[f"cut{part}.safetensors"] = partial(_cut, part, str(WEIGHTS), f"cut{part}.safetensors")
    return made


_TAKEN = ("sound.pth", "half.pth", "bf16.safetensors", "double.pth", "ddp.pth", "compiled.pth", "teacher.pth")
_RIGHT: dict[str, Callable] = dict.fromkeys(_TAKEN, done())
_RIGHT |= {
    "mae.pth with its decoder": done("decoder"),
    "last.ckpt of Lightning": done(),
    "nan.pth": refused_or_done("nan"),
    "other.pth other names": refused_or_done("other"),
}


def _nested(depth: int) -> dict:
    return {"a": _nested(depth - 1)} if depth else {"b": torch.zeros(1)}


def _cut(part: int, source: str, target: str, folder: Path) -> None:
    if source == "sound.pth":
        torch.save(load_file(folder / WEIGHTS), folder / source)
    content = (folder / source).read_bytes()
    (folder / target).write_bytes(content[: len(content) * part // 8])
