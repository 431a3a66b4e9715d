"""The documentation's code runs as it stands, page by page (with fewer iterations and tasks)."""

import re
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
TESTED_ELSEWHERE = {"tutorials", "coming-from"}
BLOCK = re.compile(r"^( *)```python\n(.*?)^\1```$", flags=re.DOTALL | re.MULTILINE)
PAGES = [
    page
    for page in sorted(DOCS.rglob("*.md"))
    if BLOCK.search(page.read_text()) and page.relative_to(DOCS).parts[0] not in TESTED_ELSEWHERE
]


def smaller(code: str) -> str:
    code = re.sub(r"\biterations=[\d_]{3,}", "iterations=2, progress=False", code)
    code = re.sub(r"\bnum_envs=[\d_]{3,}", "num_envs=40", code)
    code = re.sub(r"\bepisodes=[\d_]{2,}", "episodes=2", code)
    code = re.sub(r"\brange\([\d_]{3,}\)", "range(2)", code)
    return re.sub(r"\btasks=[\d_]+|\bnum_tasks=[\d_]+", lambda found: found[0].split("=")[0] + "=2", code)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": page.stem}
    for _, code in BLOCK.findall(page.read_text()):
        exec(compile(smaller(textwrap.dedent(code)), str(page), "exec"), names)


def test_there_are_pages():
    assert DOCS / "reproduction" / "feature-reuse.md" in PAGES
