"""The wheel is one top-level package with all it needs; the checkout's `datasets/` shadows nobody's package."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    pytest.importorskip(
        "hatchling", reason="the wheel is built without network, so its build backend must be installed"
    )
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.whl"))


def test_surgdino_is_the_only_top_level_name(wheel):
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {t for t in tops if not t.endswith(".dist-info")} == {"surgdino"}


@pytest.mark.slow
def test_an_unpacked_wheel_composes_every_config_and_lists_everything(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = (
        "import surgdino, sys\n"
        "from surgdino.discovery import files\n"
        "from surgdino.paths import share\n"
        "from surgdino.cli.compose import compose\n"
        f"assert str(share('configs')).startswith({str(tmp_path)!r}), share('configs')\n"
        "for verb in ('pretrain', 'verify', 'show'):\n"
        "    compose(verb, ['data.root=x'])\n"
        "for recipe in files('recipes'):\n"
        "    compose('pretrain', ['data.root=x', f'recipe={recipe}'])\n"
        "print(len(files('datasets')), len(files('recipes')))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shipped = [len(list((ROOT / folder).glob("*.yaml"))) for folder in ("datasets", "recipes")]
    assert [int(n) for n in done.stdout.split()] == shipped


def test_the_checkout_does_not_shadow_a_package_named_datasets(tmp_path):
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "__init__.py").write_text("whose = 'hugging face'\n")
    code = f"import sys; sys.path.append({str(tmp_path)!r}); import datasets; print(datasets.whose)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "hugging face", done.stderr
