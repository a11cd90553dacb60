"""A checkpoint from elsewhere is data: nothing in it runs, opens another file, or takes more than it holds."""

from __future__ import annotations

import argparse
import io
import json
import os
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import surgdino
from surgdino.backbone.checkpoint import MODEL_JSON, save_backbone
from surgdino.backbone.model_json import WEIGHTS
from surgdino.backbone.vit import Backbone, build_backbone
from surgdino.backbone.weights import load_weights
from surgdino.config import shipped_settings
from surgdino.errors import SurgdinoError

TOY = shipped_settings("model", "vit_toy")


def toy(seed: int = 0) -> Backbone:
    torch.manual_seed(seed)
    return build_backbone(TOY)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_backbone(tmp_path_factory.mktemp("sound"), toy(), {"operations": ["a/1"], "steps": 3})


def describe(sound: Path, folder: Path, text: str) -> Path:
    """A copy of the checkpoint with another description, in both places that hold it."""
    folder.mkdir(exist_ok=True)
    save_file(load_file(sound / WEIGHTS), folder / WEIGHTS, {"format": "pt", "surgdino": text})
    (folder / MODEL_JSON).write_text(text)
    return folder


def refused(call: Callable[[], object], *words: str) -> None:
    with pytest.raises(SurgdinoError) as caught:
        call()
    line = caught.value.line()
    assert "\n" not in line
    assert len(line) < 2100
    for word in words:
        assert word in line


DELETE = object()
CHANGES: list[tuple[str, object, str]] = [
    *[("format", value, "format") for value in ("x", None, 0, [1], 1.5, True, DELETE)],
    *[("timm", value, "timm") for value in (5, DELETE)],
    *[("timm", value, "no architecture") for value in ("hf-hub:a/b", "local-dir:/x", "../x", "vit_x.hf-hub:a/b", "")],
    ("timm", "vit_tiny_patch16_224.local-dir:/x", "no architecture"),
    ("timm", "resnet18", "not a vision transformer"),
    ("timm", "vit_7b_patch16_dinov3", "not those that model.json describes"),
    *[("timm_kwargs", value, "timm_kwargs") for value in ("x", [], None, DELETE, 1e30)],
    *[("patch_size", value, "patch_size") for value in (0, -8, "8", 2**70, 8.5)],
    ("patch_size", 16, "patch_size"),
    *[("mean", value, "mean") for value in ([], [0, 0], "x", [1e30] * 3, [None] * 3, {"a": 1}, DELETE)],
    *[("std", value, "std") for value in ([0, 0, 0], [-1, 1, 1], [1e-30] * 3, ["a", "b", "c"])],
    *[("image_size", value, "image_size") for value in (-32, 0, "x", 33, 10**9, [32, 32], DELETE)],
    *[("name", value, "name") for value in (5, ["a"], "x" * 5000)],
    *[(key, value, key) for key in ("operations", "chosen_on") for value in (5, "x", None, [1], [["a"]], {"a": 1})],
    *[("seen", value, "seen") for value in (5, "x", None, [5], [{}], [{"by": "x", "how": "y", "operations": 5}])],
    *[("datasets", value, "datasets") for value in ("x", [1], [{"operations": []}], [{"name": "a", "operations": 1}])],
    *[("initial_weights", value, "initial_weights") for value in ("x", [], {"operations": 5}, {"path": 1})],
    *[(key, [1], key) for key in ("dataset", "dataset_licence", "method", "steps", "versions", "started_from")],
]


@pytest.mark.parametrize(("key", "value", "word"), CHANGES)
def test_a_description_with_a_wrong_field_is_refused_by_file_and_field(key, value, word, sound, tmp_path) -> None:
    info = json.loads((sound / MODEL_JSON).read_text())
    info[key] = value
    info = {key: value for key, value in info.items() if value is not DELETE}
    folder = describe(sound, tmp_path / "c", json.dumps(info))
    refused(lambda: surgdino.load(folder), word)


OPTIONS: list[tuple[dict, str]] = [
    *[({key: "/etc/passwd"}, key) for key in ("checkpoint_path", "pretrained", "pretrained_cfg", "cache_dir", "url")],
    *[({key: True}, key) for key in ("scriptable", "exportable", "features_only", "pruned", "pretrained_strict")],
    *[({key: "os.system"}, key) for key in ("norm_layer", "act_layer", "block_fn", "embed_layer", "device")],
    *[({"depth": value}, "depth") for value in (0, -1, 65, 100_000, "x", 1e30, True)],
    *[({"img_size": value}, "img_size") for value in (0, 400_000, [1], [32, 10**6], "x")],
    *[({"embed_dim": value}, "embed_dim") for value in (0, 10**6, 63.5)],
    *[({"num_heads": value}, "num_heads") for value in (0, -2, 10**4)],
    ({"patch_size": 0}, "patch_size"),
    *[({"mlp_ratio": value}, "mlp_ratio") for value in (0, -1, 1e9)],
    ({"num_heads": 7}, "timm refuses"),
    ({"num_reg_tokens": 4}, "timm refuses"),
    ({"class_token": False, "global_pool": "avg"}, "not a vision transformer with a class token"),
    # In range, and still not what the file holds: held against its tensors before memory is taken.
    ({"depth": 4, "embed_dim": 8192, "num_heads": 2, "img_size": 4096}, "not those that model.json describes"),
    ({"depth": 3}, "blocks.2."),
]


@pytest.mark.parametrize(("options", "word"), OPTIONS)
def test_options_are_those_of_an_architecture_and_fit_the_tensors(options: dict, word: str, sound, tmp_path) -> None:
    info = json.loads((sound / MODEL_JSON).read_text())
    info["timm_kwargs"] |= options
    folder = describe(sound, tmp_path / "c", json.dumps(info))
    refused(lambda: surgdino.load(folder), word)
    if word in options:  # the user's own model=... passes the same gate
        refused(lambda: build_backbone({**TOY, "timm_kwargs": {**TOY["timm_kwargs"], **options}}), word)


def test_no_other_file_is_opened_whatever_the_options_name(sound: Path, tmp_path: Path) -> None:
    info = json.loads((sound / MODEL_JSON).read_text())
    (tmp_path / "secret").write_text("x")
    info["timm_kwargs"]["checkpoint_path"] = str(tmp_path / "secret")
    folder, opened = describe(sound, tmp_path / "c", json.dumps(info)), set()
    watching = [True]  # a hook cannot be taken away again
    sys.addaudithook(lambda event, args: opened.add(str(args[0])) if watching and event == "open" else None)
    refused(lambda: surgdino.load(folder), "checkpoint_path")
    watching.clear()
    assert str(folder / MODEL_JSON) in opened
    assert str(tmp_path / "secret") not in opened


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "[]", "5", "null", '"x"', "NaN", '{"format": NaN}', "{}", ""])
def test_a_description_that_is_none_is_refused(text: str, sound: Path, tmp_path: Path) -> None:
    folder = describe(sound, tmp_path / "c", text)
    refused(lambda: surgdino.load(folder), "c/")
    refused(lambda: load_weights(toy(), folder / WEIGHTS), WEIGHTS)


def test_a_description_of_gigabytes_is_refused_by_its_length(sound: Path, tmp_path: Path) -> None:
    refused(lambda: surgdino.load(describe(sound, tmp_path / "c", " " * (17 << 20))), "c/model.json: too large")
    (tmp_path / "c" / MODEL_JSON).unlink()
    refused(lambda: surgdino.load(tmp_path / "c"), WEIGHTS, "more than it can hold")


def test_a_damaged_model_json_is_not_opened_where_it_is_a_pipe(sound: Path, tmp_path: Path) -> None:
    folder = describe(sound, tmp_path / "c", (sound / MODEL_JSON).read_text())
    (folder / MODEL_JSON).unlink()
    os.mkfifo(folder / MODEL_JSON)
    assert surgdino.load(folder).info["steps"] == 3
    (folder / WEIGHTS).unlink()
    os.mkfifo(folder / WEIGHTS)
    refused(lambda: surgdino.load(folder), "no checkpoint here")
    refused(lambda: load_weights(toy(), folder / WEIGHTS), "a named pipe")


def forge(file: Path, pickled: bytes | None = None, extra: dict[str, bytes] | None = None, kind: int = 0) -> None:
    """A file as torch.save writes it, with another pickle or more entries in it."""
    whole = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(file, "w", kind) as target:
        for name in source.namelist():
            new = pickled is not None and name.endswith("data.pkl")
            target.writestr(name, pickled if new else source.read(name))
        for name, content in (extra or {}).items():
            target.writestr(name, content)


class Call:
    def __init__(self, function: Callable, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


def text(word: str) -> bytes:
    return b"X" + len(word).to_bytes(4, "little") + word.encode()


def _capitals(file: Path) -> None:
    """torch finds its pickle in an archive whatever the case of its name."""
    torch.save({"a": Call(bytearray, 8 << 30)}, file)
    file.write_bytes(file.read_bytes().replace(b"data.pkl", b"DATA.PKL"))


def _overlap(file: Path) -> None:
    """Every entry of the list points to the same content, as in a zip bomb without compression."""
    forge(file, extra={f"archive/data/{k}": b"0" * 50_000 for k in range(1, 3)})
    content = file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        entry = archive.infolist()[-1]
    start = content.index(b"PK\1\2")
    end = content.rindex(b"PK\5\6")
    last = content.rindex(b"PK\1\2", start, end)
    listed = content[start:last] + content[last:end] * 50
    tail = bytearray(content[end:])
    tail[8:12] = (entry.header_offset and 54).to_bytes(2, "little") * 2
    tail[12:16] = len(listed).to_bytes(4, "little")
    file.write_bytes(content[:start] + listed + bytes(tail))


BAD_PICKLES: dict[str, tuple[Callable[[Path], object], str]] = {
    "code": (lambda f: torch.save({"a": Call(os.mkdir, "ran")}, f), "contains code"),
    "code, old": (lambda f: torch.save({"a": Call(os.mkdir, "ran")}, f, _use_new_zipfile_serialization=False), "code"),
    "code, plain": (lambda f: f.write_bytes(pickle.dumps(Call(os.mkdir, "ran"), 2)), "f.pth"),
    "eval": (lambda f: torch.save({"a": Call(eval, "1")}, f), "contains code"),
    "8 GB": (lambda f: torch.save({"a": Call(bytearray, 8 << 30)}, f), "bytearray"),
    "8 GB, old": (
        lambda f: torch.save({"a": Call(bytearray, 8 << 30)}, f, _use_new_zipfile_serialization=False),
        "bytearray",
    ),
    "8 GB, capitals": (lambda f: _capitals(f), "bytearray"),
    "compressed": (lambda f: forge(f, extra={"archive/data/1": bytes(5 << 20)}, kind=8), "compressed"),
    "overlapping": (_overlap, "more than it can hold"),
    "TorchScript": (lambda f: forge(f, extra={"archive/constants.pkl": b"x"}), "TorchScript"),
    "deep key": (lambda f: forge(f, b"\x80\x02}(" + b")" + b"\x85" * 200_000 + b"K\x01u."), "nested too deeply"),
    "deep list": (lambda f: forge(f, b"\x80\x02}(" + text("a") + b"]" * 20_000 + b"a" * 19_999 + b"u."), "f.pth"),
    "holds itself": (lambda f: forge(f, b"\x80\x02}q\x00" + text("model") + b"h\x00s."), "no vision transformer"),
    "no pickle": (lambda f: forge(f, b"\xff\xfe"), "damaged"),
    "empty pickle": (lambda f: forge(f, b""), "damaged"),
    "no tensors": (lambda f: torch.save({"epoch": 3, 5: torch.zeros(1)}, f), "no vision transformer"),
    "numbers as names": (lambda f: torch.save({k: torch.zeros(1) for k in range(3)}, f), "no vision transformer"),
    "text": (lambda f: f.write_text("<html>not found</html>"), "damaged"),
    "empty": (lambda f: f.write_bytes(b""), "damaged"),
    "git lfs": (lambda f: f.write_text("version https://git-lfs.github.com/spec/v1\n"), "damaged"),
    "zip of nothing": (lambda f: zipfile.ZipFile(f, "w").close(), "damaged"),
    "folder": (lambda f: f.mkdir(), "f.pth"),
    "pipe": (lambda f: os.mkfifo(f), "a named pipe"),
}


@pytest.mark.parametrize("name", BAD_PICKLES)
def test_a_torch_file_that_is_no_weights_is_refused_in_one_line(name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    spoil, word = BAD_PICKLES[name]
    spoil(tmp_path / "f.pth")
    refused(lambda: load_weights(toy(), tmp_path / "f.pth"), "f.pth", word)
    assert not Path("ran").exists()


def good() -> dict[str, torch.Tensor]:
    return dict(toy(1).vit.state_dict())


def prefixed(prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in good().items()}


MAE = {name: torch.ones(1, 1, 64) for name in ("mask_token", "decoder_embed.weight", "decoder_pos_embed")}
BROUGHT: dict[str, tuple[Callable[[], dict], str]] = {
    "masked autoencoder": (lambda: {"model": {**good(), **MAE}, "epoch": 3}, "left out 3"),
    "SimMIM": (lambda: {"model": {**prefixed("encoder."), "decoder.0.weight": torch.ones(3)}}, "left out 1"),
    "lightning": (lambda: {"state_dict": prefixed("model.backbone."), "hyper_parameters": {"lr": 1e-3}}, "backbone"),
    "lightning teacher": (
        lambda: {"state_dict": {**prefixed("teacher.backbone."), "student.x": torch.ones(1)}, "loss": torch.ones(1)},
        "teacher.backbone",
    ),
    "ddp": (lambda: {"model": prefixed("module."), "args": argparse.Namespace(lr=1)}, "model.module"),
    "compiled in ddp": (lambda: prefixed("module._orig_mod."), "module._orig_mod"),
    "deepspeed": (lambda: {"module": prefixed("backbone."), "optimizer": {}}, "module.backbone"),
    "parameters": (lambda: {k: torch.nn.Parameter(v) for k, v in good().items()}, "tensors"),
    "double": (lambda: {k: v.double() for k, v in good().items()}, "tensors"),
    "integers beside": (lambda: {**good(), "position_ids": torch.zeros(1, 17, dtype=torch.int64)}, "tensors"),
}


@pytest.mark.parametrize("name", BROUGHT)
def test_checkpoints_that_people_bring_give_their_backbone(name: str, tmp_path: Path) -> None:
    made, said = BROUGHT[name]
    torch.save(made(), tmp_path / "last.ckpt", _use_new_zipfile_serialization="teacher" not in name)
    backbone = toy(2)
    report = load_weights(backbone, tmp_path / "last.ckpt")
    assert said in report.line()
    assert not report.mask_token
    for key, tensor in good().items():
        assert torch.equal(backbone.vit.state_dict()[key], tensor.float())


ODD = {
    "int8": lambda t: t.to(torch.int8),
    "int64": lambda t: t.long(),
    "bool": lambda t: t.bool(),
    "float8_e4m3fn": lambda t: t.to(torch.float8_e4m3fn),
    "float8_e5m2": lambda t: t.to(torch.float8_e5m2),
    "complex64": lambda t: t.to(torch.complex64),
    "uint16": lambda t: t.to(torch.uint16),
    "qint8": lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
    "sparse": lambda t: t.to_sparse(),
    "meta": lambda t: t.to("meta"),
    "not finite": lambda t: t.fill_(float("nan")),
    "not finite, half": lambda t: t.half().fill_(float("inf")),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_tensors_that_are_no_plain_numbers_are_refused_by_name_and_type(name: str, suffix: str, tmp_path: Path) -> None:
    if suffix == ".safetensors" and name in ("qint8", "sparse", "meta"):
        pytest.skip("safetensors has none")
    state, file = good(), tmp_path / f"w{suffix}"
    state["blocks.1.attn.qkv.weight"] = ODD[name](state["blocks.1.attn.qkv.weight"].clone())
    save_file(state, file) if suffix == ".safetensors" else torch.save(state, file)
    refused(lambda: load_weights(toy(), file), "blocks.1.attn.qkv.weight", name.split(",")[0])


@pytest.mark.parametrize("name", ["int8", "float8_e4m3fn", "not finite"])
def test_a_checkpoint_of_ours_with_such_tensors_is_refused_too(name: str, sound: Path, tmp_path: Path) -> None:
    folder = describe(sound, tmp_path / "c", (sound / MODEL_JSON).read_text())
    tensors = {key: ODD[name](tensor) for key, tensor in load_file(folder / WEIGHTS).items()}
    save_file(tensors, folder / WEIGHTS, {"surgdino": (sound / MODEL_JSON).read_text()})
    refused(lambda: surgdino.load(folder), WEIGHTS, name)


SHAPES = {
    "pos_embed": [(0, 17, 64), (2, 17, 64), (1, 17), (), (1, 0, 64), (1, 17, 8)],
    "cls_token": [(), (3,), (1, 1, 8)],
    "patch_embed.proj.weight": [(), (64, 3, 8)],
}


@pytest.mark.parametrize(("name", "shape"), [(name, shape) for name, shapes in SHAPES.items() for shape in shapes])
def test_tensors_of_odd_shapes_are_refused_by_name(name, shape, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("surgdino.backbone.weights.models_that_fit", lambda _: [])
    torch.save({**good(), name: torch.zeros(shape)}, tmp_path / "w.pth")
    refused(lambda: load_weights(toy(), tmp_path / "w.pth"), name)


@pytest.mark.parametrize("shape", [(), (3,), (0,), (64, 8)])
def test_hugging_face_tensors_of_odd_shapes_are_refused(shape: tuple, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("surgdino.backbone.weights.models_that_fit", lambda _: [])
    layer = "encoder.layer.0.attention.attention"
    state = {f"{layer}.{part}.weight": torch.zeros(64, 64) for part in ("query", "key", "value")}
    state |= {f"{layer}.key.weight": torch.zeros(shape), "embeddings.patch_embeddings.projection.weight": torch.ones(1)}
    torch.save(state, tmp_path / "w.bin")
    refused(lambda: load_weights(toy(), tmp_path / "w.bin"), "w.bin", "another architecture")


@pytest.mark.parametrize("size", [8, 100, 2**40, 2**63])
def test_the_header_of_safetensors_may_claim_what_it_likes(size: int, sound: Path, tmp_path: Path) -> None:
    content = (sound / WEIGHTS).read_bytes()
    (tmp_path / WEIGHTS).write_bytes(size.to_bytes(8, "little") + content[8:])
    refused(lambda: load_weights(toy(), tmp_path / WEIGHTS), "damaged")
    refused(lambda: surgdino.load(tmp_path), "damaged")
