"""The documentation: its code runs (with fewer iterations and tasks), and it names everything that is public."""

import ast
import importlib
import importlib.util
import re
import textwrap
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import fewstep

ROOT = Path(__file__).parents[2]
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
    code = re.sub(r"\bnum_envs=[\d_]{3,}", "num_envs=8", code)
    code = re.sub(r"\bmeta_batch=[\d_]{2,}", "meta_batch=2", code)
    code = re.sub(r"\bepisodes=[\d_]{2,}", "episodes=2", code)
    code = re.sub(r"\brange\([\d_]{3,}\)", "range(2)", code)
    return re.sub(r"\btasks=[\d_]+|\bnum_tasks=[\d_]+", lambda found: found[0].split("=")[0] + "=2", code)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": page.stem}
    for _, code in BLOCK.findall(page.read_text()):
        if "import pandas" in code:
            pytest.importorskip("pandas")
        exec(compile(smaller(textwrap.dedent(code)), str(page), "exec"), names)


def test_there_are_pages():
    assert DOCS / "reproduction" / "feature-reuse.md" in PAGES
    assert len(PAGES) > 15


MODULES = ("", "tasks", "models", "datasets", "baselines", "evaluation", "parallel", "rl", "rl.environments")


def found(path: str) -> object:
    """The object at a dotted path whose first parts are a module."""
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError as error:
            if error.name is None or not path.startswith(error.name):
                raise
            continue
        for name in parts[length:]:
            value = getattr(value, name)
        return value
    raise AssertionError(path)


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_is_in_the_reference(name: str):
    pytest.importorskip("gymnasium")
    pages = (page.read_text() for page in (DOCS / "reference").glob("*.md"))
    directives = {path for page in pages for path in re.findall(r"^::: (\S+)", page, flags=re.MULTILINE)}
    documented = {id(found(path)) for path in directives}
    module = importlib.import_module(f"fewstep.{name}" if name else "fewstep")
    submodules = {module.split(".")[-1] for module in MODULES if module}
    assert [n for n in module.__all__ if id(getattr(module, n)) not in documented and n not in submodules] == []


def test_the_overviews_name_everything_that_is_public():
    classes = {"Evaluation", "GradientCheck"}  # results, which no one makes
    assert [name for name in set(fewstep.__all__) - classes if not re.search(rf"\b{name}\b", fewstep.__doc__)] == []
    assert dir(fewstep) == sorted([*fewstep.__all__, "__version__"])


def test_every_page_and_tutorial_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text()
    pages = [page.relative_to(DOCS) for page in [*DOCS.rglob("*.md"), *DOCS.rglob("*.ipynb")]]
    assert [str(page) for page in pages if f" {page.with_suffix('.md')}\n" not in navigation] == []


def test_links_of_the_readme_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)", (ROOT / "README.md").read_text())
    repository = "https://github.com/fewstep/fewstep/blob/main/"
    files = [link.removeprefix(repository) for link in links if not link.startswith("http") or repository in link]
    assert files
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_links_from_the_pages_into_the_repository_lead_somewhere():
    pattern = r"https://github.com/fewstep/fewstep/(?:blob|tree)/main/([^)#\s]+)"
    files = {file for page in DOCS.rglob("*.md") for file in re.findall(pattern, page.read_text())}
    assert files
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_the_rows_of_the_papers_exist():
    from fewstep.experiments.catalogue import EXPERIMENTS

    page = (DOCS / "reproduction" / "papers.md").read_text()
    patterns = [p for line in re.findall(r"Rows: (.*)", page) for p in re.findall(r"`([^`]+)`", line)]
    assert len(patterns) > 20
    assert [p for p in patterns if not any(fnmatchcase(name, p) for name in EXPERIMENTS)] == []


def messages() -> list[str]:
    """The string literals of the source, with … for what is filled in."""
    files = (ROOT / "src").rglob("*.py")
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text()))]
    filled = [
        "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
        for node in nodes
        if isinstance(node, ast.JoinedStr)
    ]
    return filled + [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def test_the_messages_of_the_troubleshooting_page_are_those_of_the_source():
    known = messages()
    page = (DOCS / "guides" / "troubleshooting.md").read_text()
    quotes = re.findall(r"^`(.*)`$", page, flags=re.MULTILINE)
    assert len(quotes) > 30
    unknown = [q for q in quotes if not any(all(part in message for part in q.split("…")) for message in known)]
    assert unknown == []


def script(name: str) -> ModuleType:
    """A script of docs/, which is not part of the package."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_formulas_have_subscripts_and_code_has_none():
    shown = script("subscripts").on_page_content
    assert shown("<p>φ_{k+1} = φ_k − α·g_k</p>") == "<p>φ<sub>k+1</sub> = φ<sub>k</sub> − α·g<sub>k</sub></p>"
    for unchanged in ("<p>cg_steps</p>", "<code>x_k</code>", '<a href="#x_k">', "<pre>a <b>x_i</b></pre>"):
        assert shown(unchanged) == unchanged


def test_the_diagrams_are_as_the_script_draws_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    diagrams = script("draw_diagrams")
    monkeypatch.setattr(diagrams, "IMAGES", tmp_path)
    diagrams.main()
    drawn = sorted(tmp_path.iterdir())
    assert len(drawn) == 7
    assert [file.name for file in drawn if file.read_text() != (DOCS / "images" / file.name).read_text()] == []


@pytest.mark.parametrize(
    "loaded",
    [
        '<script src="https://cdn.example/x.js">',
        "<img alt='x' src='//example.org/x.png'>",
        '<link href="https://fonts.example/f.css" rel="stylesheet">',
    ],
)
def test_a_page_that_loads_something_from_elsewhere_fails_the_build(loaded: str):
    errors = pytest.importorskip("mkdocs.exceptions")
    check, page = script("offline").on_post_page, SimpleNamespace(file=SimpleNamespace(src_uri="index.md"))
    with pytest.raises(errors.PluginError, match="index.md loads something from another server"):
        check(f"<p>{loaded}</p>", page=page)


def test_links_and_local_files_may_be_on_a_page():
    page = (
        '<a href="https://arxiv.org/abs/1703.03400">x</a><img src="../a.png"><link rel="canonical" href="https://x/">'
    )
    assert script("offline").on_post_page(page, page=None) == page
