"""notebooks/distill.ipynb runs from top to bottom, and is kept without what it printed."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from .commands import ROOT

NOTEBOOK = ROOT / "notebooks/distill.ipynb"


@pytest.fixture(scope="module")
def notebook() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_the_notebook_is_kept_without_outputs(notebook: nbformat.NotebookNode) -> None:
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.outputs for cell in code] == [[]] * len(code)
    assert {cell.execution_count for cell in code} == {None}


@pytest.mark.slow
def test_the_notebook_runs_and_shows_tables_and_curves(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-m", "tests.docs.run_notebook", str(NOTEBOOK), str(tmp_path / "out.ipynb")]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    outputs = outputs_of(nbformat.read(tmp_path / "out.ipynb", as_version=4))
    shown = [out["data"]["text/html"] for out in outputs if "text/html" in out.get("data", {})]
    assert [text.strip()[:7] for text in shown] == ["<table>", "<iframe", "<iframe", "<table>"]
    assert "passed" in shown[-1]


def outputs_of(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [out for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]
