"""The wheel has all it needs and no more, and works from any folder; what an image copies makes the same wheel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests import ROOT

SHARED = ("configs", "datasets", "recipes")
_LEFT = shutil.ignore_patterns("__pycache__")


def build(source: Path, out: Path, *kinds: str) -> None:
    """Build without network; without a kind the sdist, and the wheel from it."""
    pytest.importorskip(
        "hatchling", reason="the wheel is built without network, so its build backend must be installed"
    )
    command = [sys.executable, "-m", "build", *kinds, "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr


def content(wheel: Path) -> dict[str, bytes]:
    archive = zipfile.ZipFile(wheel)
    return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    build(ROOT, out, "--wheel")
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory) -> Path:
    """The wheel installed into a folder of its own."""
    site = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--target",
        str(site),
        str(wheel),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return site


def run(site: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command in `folder` with the installed wheel in the place of the checkout."""
    environment = {**os.environ, "PYTHONPATH": str(site)}
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=folder, env=environment)


def test_the_wheel_holds_the_package_and_what_it_reads_and_nothing_else(wheel):
    package = [path for path in (ROOT / "surgdino").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    expected = {str(path.relative_to(ROOT)) for path in package}
    expected |= {
        f"surgdino/share/{path.relative_to(ROOT)}" for name in SHARED for path in (ROOT / name).rglob("*.yaml")
    }
    found = {name for name in content(wheel) if ".dist-info/" not in name}
    assert found == expected
    assert "surgdino/py.typed" in found
    assert {Path(name).suffix for name in found} <= {".py", ".yaml", ".html", ".css", ".js", ".typed", ".j2"}
    assert wheel.stat().st_size < 5e6


@pytest.mark.slow
def test_the_sdist_builds_an_equal_wheel_and_holds_no_data(wheel, tmp_path):
    build(ROOT, tmp_path)
    assert content(next(tmp_path.glob("*.whl"))) == content(wheel)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        members = {member.name.partition("/")[2]: member.size for member in archive.getmembers()}
    assert {"README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "Makefile", "pyproject.toml"} <= set(members)
    media = {".mp4", ".jpg", ".safetensors", ".pth", ".zip", ".npy"}
    assert not [name for name, size in members.items() if Path(name).suffix in media or size > 1e6]


@pytest.mark.slow
def test_an_installed_wheel_composes_every_config_and_lists_everything(site, tmp_path):
    code = (
        "import surgdino, sys\n"
        "from surgdino.discovery import files\n"
        "from surgdino.paths import share\n"
        "from surgdino.cli.compose import compose\n"
        f"assert str(share('configs')).startswith({str(site)!r}), share('configs')\n"
        "for verb in ('pretrain', 'verify', 'show'):\n"
        "    compose(verb, ['data.root=x'])\n"
        "for recipe in files('recipes'):\n"
        "    compose('pretrain', ['data.root=x', f'recipe={recipe}'])\n"
        "print(len(files('datasets')), len(files('recipes')))\n"
    )
    done = run(site, tmp_path, "-c", code)
    assert done.returncode == 0, done.stderr
    shipped = [len(list((ROOT / folder).glob("*.yaml"))) for folder in ("datasets", "recipes")]
    assert [int(n) for n in done.stdout.split()] == shipped


@pytest.mark.slow
def test_the_demo_runs_from_an_installed_wheel_in_any_folder(site, tmp_path):
    done = run(site, tmp_path, str(site / "bin" / "surgdino"), "demo", "videos=2", "seconds=8", "steps=4")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "demo" / "run" / "report.html").is_file()
    assert str(ROOT) not in done.stdout + done.stderr


def copied(recipe: str) -> list[str]:
    """What a Dockerfile or an Apptainer definition takes from the checkout."""
    text = (ROOT / recipe).read_text()
    if recipe == "Dockerfile":
        return [source for line in re.findall(r"^COPY (?!--)(.+)$", text, re.MULTILINE) for source in line.split()[:-1]]
    return [line.split()[0] for line in re.search(r"^%files\n((?:    .+\n)+)", text, re.MULTILINE)[1].splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["Dockerfile", "apptainer.def"])
def test_what_an_image_copies_makes_the_same_wheel(recipe, wheel, tmp_path):
    for name in copied(recipe):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tmp_path / "source" / name, ignore=_LEFT)
        else:
            (tmp_path / "source").mkdir(exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / "source" / name)
    build(tmp_path / "source", tmp_path / "out", "--wheel")
    assert content(next((tmp_path / "out").glob("*.whl"))) == content(wheel)


def test_images_take_what_the_ignore_file_lets_in_and_run_as_no_root():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored, "everything is left out that is not named"
    assert (
        {line[1:] for line in ignored if line.startswith("!")}
        == set(copied("Dockerfile"))
        == set(copied("apptainer.def"))
    )
    docker, apptainer = ((ROOT / name).read_text() for name in ("Dockerfile", "apptainer.def"))
    users = re.findall(r"^USER (\d+):\d+$", docker, re.MULTILINE)
    assert users
    assert int(users[-1]) > 0
    assert re.findall(r"^FROM (\S+)", docker, re.MULTILINE)[0] == re.search(r"^From: (\S+)", apptainer, re.MULTILINE)[1]
    steps = re.compile(r"/opt/surgdino/bin/pip install .+?(?=; \\|$)", re.MULTILINE)
    assert steps.findall(docker) == steps.findall(apptainer)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = re.search(r"pip install '\.\[(.+)\]'", docker)[1].split(",")
    assert set(extras) <= set(project["optional-dependencies"])
    script = re.search(r"""sed -n '(.+?)' pyproject\.toml""", docker)[1]
    found = subprocess.run(["sed", "-n", script, "pyproject.toml"], cwd=ROOT, capture_output=True, text=True).stdout
    assert found.split() == [line for line in project["dependencies"] if line.startswith("torch")]


def test_the_checkout_does_not_shadow_a_package_named_datasets(tmp_path):
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "__init__.py").write_text("whose = 'hugging face'\n")
    code = f"import sys; sys.path.append({str(tmp_path)!r}); import datasets; print(datasets.whose)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "hugging face", done.stderr
