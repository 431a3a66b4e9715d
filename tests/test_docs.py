"""The documentation's code runs as it stands, page by page (with fewer iterations and tasks)."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
BLOCK = re.compile(r"```python\n(.*?)```", flags=re.DOTALL)
PAGES = [page for page in sorted(DOCS.glob("*.md")) if BLOCK.search(page.read_text())]


def smaller(code: str) -> str:
    code = re.sub(r"\biterations=[\d_]+", "iterations=2, progress=False", code)
    return re.sub(r"\btasks=[\d_]+", "tasks=2", code)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": page.stem}
    for code in BLOCK.findall(page.read_text()):
        exec(compile(smaller(code), str(page), "exec"), names)


def test_there_are_pages():
    assert "feature-reuse" in {page.stem for page in PAGES}
