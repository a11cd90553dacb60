"""docs/notebook.ipynb: every cell runs, and the outputs that it keeps are small and name no path."""

from __future__ import annotations

import json
import re
import shutil
from typing import Any

import pytest

from surgdino.runs.names import ABSOLUTE
from tests import ROOT

NOTEBOOK = ROOT / "docs" / "notebook.ipynb"


def outputs(cells: list[Any]) -> list[Any]:
    return [output for cell in cells if cell["cell_type"] == "code" for output in cell["outputs"]]


def test_its_stored_outputs_are_small_whole_and_name_no_place():
    stored = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert NOTEBOOK.stat().st_size < 300_000
    code = [cell for cell in stored["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    kinds = [output["output_type"] for output in outputs(code)]
    assert "error" not in kinds
    assert kinds.count("display_data") == 3
    texts = [re.sub(r"image/png|[A-Za-z0-9+/=\\n]{200,}", "", json.dumps(output)) for output in outputs(code)]
    assert not [text for text in texts if ABSOLUTE.search(text) or "stderr" in text]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_cell_runs(tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    shutil.copy(NOTEBOOK, tmp_path)
    notebook = nbformat.read(tmp_path / NOTEBOOK.name, 4)
    before = [cell.get("outputs", []) for cell in notebook.cells]
    client = nbclient.NotebookClient(notebook, timeout=800, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()  # raises where a cell does
    kinds = [[output.output_type for output in cell.get("outputs", [])] for cell in notebook.cells]
    assert kinds == [[output.output_type for output in cell] for cell in before]
