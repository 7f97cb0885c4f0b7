"""notebooks/distill.ipynb runs from top to bottom, and is kept without what it printed."""

import os
import sys

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
@pytest.mark.filterwarnings("default")
def test_the_notebook_runs_and_shows_tables_and_curves(
    notebook: nbformat.NotebookNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    manager = AsyncKernelManager(kernel_name="python3")
    manager.kernel_spec.argv[0] = sys.executable
    NotebookClient(notebook, timeout=300, km=manager).execute()
    shown = [out["data"]["text/html"] for out in outputs_of(notebook) if "text/html" in out.get("data", {})]
    assert [text[:7] for text in shown] == ["<table>", "<iframe", "<iframe", "<table>"]
    assert "passed" in shown[-1]


def outputs_of(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [out for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]
