"""`surgdino weights`: listed without torch; what is fetched is whole and checked, or not there at all."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from surgdino.backbone.catalogue import Entry, catalogue
from surgdino.discovery import files
from surgdino.errors import SurgdinoError
from surgdino.verbs import weights

CONTENT = os.urandom(3_000_000)
MODELS = files("configs/model")


class Publisher(BaseHTTPRequestHandler):
    """Serves one file well and in every way in which a server can fail."""

    def do_GET(self) -> None:
        if self.path == "/gone.pth":
            return self.send_error(404)
        if self.path == "/silent.pth":
            time.sleep(3)
            return None
        body = b"<html>please log in</html>" if self.path == "/login.pth" else CONTENT
        self.send_response(200)
        self.send_header("Content-Type", "text/html" if self.path == "/login.pth" else "application/octet-stream")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:1_000_000] if self.path == "/cut.pth" else body)
        return None

    def log_message(self, *_) -> None:
        pass


@pytest.fixture(scope="module")
def publisher() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Publisher)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def known(url: str | None, **changes) -> Entry:
    facts = {
        "name": "toy",
        "family": "DINO",
        "trained_on": "nothing",
        "model": "vit_small_patch16",
        "licence": "Apache-2.0",
        "file": "toy.pth",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "megabytes": 3,
        "page": "https://example.org",
        "url": url,
    }
    return Entry(**{**facts, **changes})


def get(monkeypatch, folder: Path, url: str | None, **changes) -> int:
    monkeypatch.setattr(weights, "entry", lambda name: known(url, **changes))
    return weights.main(["get", "toy", f"to={folder}"])


@pytest.mark.parametrize("entry", catalogue(), ids=lambda e: e.name)
def test_every_entry_is_complete_and_fits_a_model_that_we_have(entry: Entry) -> None:
    assert entry.model in MODELS
    assert entry.licence
    assert entry.megabytes > 0
    assert Path(entry.file).suffix in (".safetensors", ".pth")
    assert entry.page.startswith("https://")
    assert (entry.url is None) == (entry.by_hand is not None), "fetched directly, or told how"
    assert entry.url is None or entry.url.startswith("https://")
    assert entry.sha256 is None or (len(entry.sha256) == 64 and entry.bytes)


def test_the_families_that_users_ask_for_are_there() -> None:
    assert {e.family for e in catalogue()} == {"AugReg", "DINO", "DINOv2", "DINOv2 + registers", "DINOv3", "SimDINOv2"}


def test_list_names_everything_and_needs_no_torch() -> None:
    code = "import sys; from surgdino.cli.main import main; main(['weights', 'list']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for entry in catalogue():
        assert f" {entry.name} " in done.stdout
        assert f" {entry.model} " in done.stdout
    for word in ("Apache-2.0", "DINOv3 (gated)", "1218", "0.485, 0.456, 0.406", "by hand"):
        assert word in done.stdout


def test_get_brings_the_file_whole_and_says_how_to_use_it(publisher, tmp_path, monkeypatch, capsys) -> None:
    sha = hashlib.sha256(CONTENT).hexdigest()
    assert get(monkeypatch, tmp_path / "weights", f"{publisher}/toy.pth", sha256=sha, bytes=len(CONTENT)) == 0
    assert (tmp_path / "weights" / "toy.pth").read_bytes() == CONTENT
    said = capsys.readouterr().out
    assert "the only thing that surgdino ever uses the network for" in said
    assert f"model=vit_small_patch16 model.weights={tmp_path / 'weights' / 'toy.pth'}" in said
    assert sha in said


def test_what_is_already_there_is_not_fetched_again(publisher, tmp_path, monkeypatch, capsys) -> None:
    facts = {"sha256": hashlib.sha256(CONTENT).hexdigest(), "bytes": len(CONTENT)}
    (tmp_path / "toy.pth").write_bytes(CONTENT)
    assert get(monkeypatch, tmp_path, f"{publisher}/gone.pth", **facts) == 0
    assert "already there" in capsys.readouterr().out
    (tmp_path / "toy.pth").write_bytes(CONTENT[:-1])
    assert get(monkeypatch, tmp_path, f"{publisher}/toy.pth", **facts) == 0
    assert (tmp_path / "toy.pth").read_bytes() == CONTENT


def test_weights_with_another_normalisation_say_so_in_the_command(publisher, tmp_path, monkeypatch, capsys) -> None:
    get(monkeypatch, tmp_path, f"{publisher}/toy.pth", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    assert "'model.mean=[0.5, 0.5, 0.5]' 'model.std=[0.5, 0.5, 0.5]'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("path", "changes", "words"),
    [
        ("gone.pth", {}, "404"),
        ("login.pth", {}, "web page"),
        ("cut.pth", {}, "size|broke off"),
        ("toy.pth", {"bytes": 5}, "known size; expected 5, found 3000000"),
        ("toy.pth", {"sha256": "0" * 64}, "not the file that we know"),
    ],
)
def test_a_file_that_is_not_right_is_not_kept(path, changes, words, publisher, tmp_path, monkeypatch) -> None:
    with pytest.raises(SurgdinoError, match=words) as caught:
        get(monkeypatch, tmp_path, f"{publisher}/{path}", **changes)
    assert "\n" not in caught.value.line()
    assert list(tmp_path.iterdir()) == []


def test_offline_is_told_at_once_with_the_way_by_hand(tmp_path, monkeypatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/toy.pth"
        begun = time.monotonic()
        with pytest.raises(SurgdinoError, match="cannot be reached") as caught:
            get(monkeypatch, tmp_path, url)
    line = caught.value.line()
    assert time.monotonic() - begun < 5
    assert url in line
    assert f"copy the file to {tmp_path / 'toy.pth'}" in line
    assert f"model.weights={tmp_path / 'toy.pth'}" in line


def test_a_network_that_never_answers_is_given_up(publisher, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(weights, "CONNECT_SECONDS", 0.3)
    with pytest.raises(SurgdinoError, match=r"no answer within 0\.3 s"):
        get(monkeypatch, tmp_path, f"{publisher}/silent.pth")


def test_a_gated_file_is_told_how_to_be_had(tmp_path) -> None:
    with pytest.raises(SurgdinoError, match="accept the DINOv3 License") as caught:
        weights.main(["get", "dinov3_small16", f"to={tmp_path}"])
    assert "model.weights=" in caught.value.line()


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["get", "dinov2_smal14"], "did you mean 'dinov2_small14'"),
        (["lst"], "did you mean 'list'"),
        (["get"], "which weights"),
        (["get", "dinov2_small14", "too=/tmp"], "did you mean 'to'"),
    ],
)
def test_a_mistyped_word_gets_the_nearest(words: list[str], answer: str) -> None:
    with pytest.raises(SurgdinoError, match="(?i)" + answer):
        weights.main(words)
