"""The tutorials of docs/tutorials: executed, and turned into pages of the site.

MkDocs calls ``on_files`` (see ``hooks`` in mkdocs.yml). An executed notebook is kept in ``build/notebooks`` for as long
as the notebook, the library and the installed versions stay the same, so that after the tests the site is built
without another execution.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
NOTEBOOKS = ROOT / "docs" / "tutorials"
KEPT = ROOT / "build" / "notebooks"
LIMIT = 600
"""Seconds for a cell. They take seconds each; this ends one that hangs."""


def on_files(files: Any, config: Any) -> Any:
    """Adds a Markdown page and its pictures for every notebook."""
    from mkdocs.structure.files import File

    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        page, pictures = as_markdown(kept(path) or execute(path), path.stem)
        for name, content in {f"{path.stem}.md": page, **pictures}.items():
            files.append(File.generated(config, f"tutorials/{name}", content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links to a notebook go to its page. (In the repository they go to the notebook itself.)"""
    return re.sub(r"\.ipynb\)(?!\{)", ".md)", markdown)


def execute(path: Path) -> Any:
    """The notebook with its outputs, executed in a folder of its own with one thread, and kept.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    import nbformat
    from nbclient import NotebookClient

    key = _key(path)
    notebook = nbformat.read(path, as_version=4)
    threads = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"  # the same numbers on every machine, to rounding
    try:
        with tempfile.TemporaryDirectory() as folder:
            NotebookClient(
                notebook, timeout=LIMIT, kernel_name="python3", resources={"metadata": {"path": folder}}
            ).execute()
    finally:
        if threads is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = threads
    KEPT.mkdir(parents=True, exist_ok=True)
    for old in KEPT.glob(f"{path.stem}.*.ipynb"):
        old.unlink()
    nbformat.write(notebook, KEPT / f"{path.stem}.{key}.ipynb")
    return notebook


def kept(path: Path) -> Any | None:
    """The executed notebook, if it was executed as it is now."""
    import nbformat

    file = KEPT / f"{path.stem}.{_key(path)}.ipynb"
    return nbformat.read(file, as_version=4) if file.exists() else None


def as_markdown(notebook: Any, name: str) -> tuple[str, dict[str, bytes]]:
    """The page, and its pictures by file name."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    heading = name
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            found = re.findall(r"^#+ (.*)$", cell.source, flags=re.MULTILINE)
            heading = found[-1] if found else heading
            parts.append(cell.source)
            continue
        parts.append(_fenced("python", cell.source))
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/png" in data:
                picture = f"{name}-{len(pictures) + 1}.png"
                pictures[picture] = base64.b64decode(data["image/png"])
                parts.append(f"![{heading}]({picture})")
            elif text := output.get("text") or data.get("text/plain"):
                parts.append(_fenced("text", text))
    title, _, rest = parts[0].partition("\n")
    download = f"[Download this page as a Jupyter notebook]({name}.ipynb){{ download }}"
    return "\n\n".join([title, download, rest.strip(), *parts[1:]]) + "\n", pictures


def _fenced(language: str, text: str) -> str:
    return f"````{language}\n{text.rstrip()}\n````"


def _key(path: Path) -> str:
    """Of everything that decides what a notebook prints."""
    told = [sys.version, *(f"{name} {version(name)}" for name in ("torch", "numpy", "matplotlib"))]
    known = hashlib.sha256("\n".join(told).encode())
    for file in [path, *sorted((ROOT / "src").rglob("*.py"))]:
        known.update(file.read_bytes())
    return known.hexdigest()[:16]
