"""Every tutorial runs as a notebook from its first cell to its last, ends with a picture, and prints no warning."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[2] / "docs"
TUTORIALS = sorted((DOCS / "tutorials").glob("*.ipynb"))
NEEDS = {"from fewstep import rl": "gymnasium", "import pandas": "pandas"}
"""What the library itself does not need, by the line that imports it."""

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")


def loaded() -> Any:
    spec = importlib.util.spec_from_file_location("notebooks", DOCS / "notebooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


notebooks = loaded()


def code(notebook: Any) -> str:
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    written = code(nbformat.read(path, as_version=4))
    for line, package in NEEDS.items():
        if line in written:
            pytest.importorskip(package)
    if "from_folder" in written:  # its images are new in every run
        monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path))
    executed = notebooks.execute(path)
    outputs = [output for cell in executed.cells if cell.cell_type == "code" for output in cell.outputs]
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []
    assert "image/png" in executed.cells[-1].outputs[-1].data


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_is_stored_without_outputs_and_opens_with_a_question(path: Path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.outputs or cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    assert notebook.cells[0].source.startswith("# ")
    assert "?" in notebook.cells[0].source
    assert notebook.cells[-1].cell_type == "code"


def test_there_are_tutorials():
    assert "sine-waves" in {path.stem for path in TUTORIALS}


def test_a_page_of_the_site_has_code_output_and_pictures():
    new = nbformat.v4
    picture = new.new_output("display_data", {"image/png": "aGVsbG8=", "text/plain": "<Figure>"})
    cells = [
        new.new_markdown_cell("# Title\n\nWhy?"),
        new.new_code_cell("print(1)", outputs=[new.new_output("stream", text="1\n")]),
        new.new_markdown_cell("## A figure"),
        new.new_code_cell("draw()", outputs=[picture]),
    ]
    page, pictures = notebooks.as_markdown(new.new_notebook(cells=cells), "name")
    assert page.startswith("# Title\n\n[Download this page as a Jupyter notebook](name.ipynb){ download }\n\nWhy?\n\n")
    assert "````python\nprint(1)\n````\n\n````text\n1\n````" in page
    assert "![A figure](name-1.png)" in page
    assert pictures == {"name-1.png": b"hello"}
