"""Every notebook runs from top to bottom at small size, is stored with its outputs, and can be copied from."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.pages import private_names

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


@pytest.mark.long
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs(path, monkeypatch):
    # As in the quick figures: at small size the compiler takes most of the time.
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    notebook = nbformat.read(path, as_version=4)
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert "QUICK = False" in parameters.source
    parameters.source = parameters.source.replace("QUICK = False", "QUICK = True")
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute(cwd=path.parent)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_stored_with_outputs_and_without_errors(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells)
    outputs = [output for cell in cells for output in cell.outputs]
    assert not any(output.output_type == "error" for output in outputs)
    assert any("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_opens_anywhere_and_shows_what_a_reader_would_copy(path):
    """It names its kernel, imports nothing private, and plots in its own cells, not by a figure's hidden ``draw``."""
    notebook = nbformat.read(path, as_version=4)
    assert notebook.metadata.kernelspec == {"display_name": "Python 3", "language": "python", "name": "python3"}
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    assert not private_names(re.sub(r"^%.*$", "", code, flags=re.MULTILINE))
    assert not re.findall(r"\w\.draw\(", code)
