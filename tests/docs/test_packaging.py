"""What is published: pins for every Python, a README for package indexes, a source distribution with its tests."""

import importlib.util
import re
import tarfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONSTRAINTS = [
    Requirement(line)
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]
NAMED = [found[1] for c in PROJECT["classifiers"] if (found := re.fullmatch(r".*Python :: (3\.\d+)", c))]
LINK = re.compile(r"!?\[[^\[\]]*\]\(([^)\s]+)\)")


def module(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_every_python_that_is_named_is_allowed():
    assert NAMED[0] == "3.10"
    assert [python for python in NAMED if python not in SpecifierSet(PROJECT["requires-python"])] == []
    assert "3.9" not in SpecifierSet(PROJECT["requires-python"])


@pytest.mark.parametrize("python", [*NAMED, "3.14"])
def test_every_dependency_has_one_pin_that_it_allows(python: str):
    applies = {"python_version": python, "python_full_version": f"{python}.0"}
    pins: dict[str, list[str]] = {}
    for pin in CONSTRAINTS:
        if pin.marker is None or pin.marker.evaluate(applies):
            pins.setdefault(canonicalize_name(pin.name), []).append(str(pin.specifier).removeprefix("=="))
    assert {name: versions for name, versions in pins.items() if len(versions) > 1} == {}
    wanted = [*PROJECT["dependencies"], *(r for extra in PROJECT["optional-dependencies"].values() for r in extra)]
    for requirement in map(Requirement, wanted):
        (version,) = pins.get(canonicalize_name(requirement.name), [None])
        assert version is not None, f"{requirement.name} has no pin for Python {python}"
        assert version in requirement.specifier, f"{requirement} and its pin {version}"


def test_readme_of_an_index_has_absolute_links_to_files_that_exist():
    pytest.importorskip("hatchling")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    hook = module("hatch_build")
    absolute = LINK.findall(hook.for_an_index(readme, "https://example.org/fewstep/"))
    assert [link for link in absolute if not link.startswith(("https://", "#"))] == []
    ours = [link.removeprefix("https://example.org/fewstep/") for link in absolute if "example.org" in link]
    assert any(link.startswith("raw/main/") and link.endswith(".png") for link in ours)
    files = [re.sub("^(raw|blob)/main/", "", link).partition("#")[0] for link in ours]
    assert [file for file in files if not (ROOT / file).exists()] == []
    assert len(files) == len([link for link in LINK.findall(readme) if not link.startswith(("https://", "#"))]) > 5


def test_readme_of_an_index_without_an_address_has_no_dead_links():
    pytest.importorskip("hatchling")
    text = module("hatch_build").for_an_index(
        "![a wave](wave.png)\nsee [the page](docs/page.md), [PyTorch](https://x.y)", None
    )
    assert text == "\nsee the page, [PyTorch](https://x.y)"


def test_the_source_distribution_carries_what_its_tests_read(tmp_path: Path):
    builder = pytest.importorskip("hatchling.builders.sdist").SdistBuilder(str(ROOT))
    (archive,) = builder.build(directory=str(tmp_path), versions=["standard"])
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
        about = opened.extractfile(f"{Path(archive).name.removesuffix('.tar.gz')}/PKG-INFO").read().decode()
    folders = ["src/**/*.py", "tests/**/*.py", "docs/**/*.md", "docs/**/*.ipynb", "docs/**/*.png", "benchmarks/**/*.py"]
    found = [path for pattern in [*folders, "reproduction/**/*.json*"] for path in ROOT.glob(pattern)]
    files = ["README.md", "CHANGELOG.md", "LICENSE", "Makefile", "constraints.txt", "hatch_build.py", "mkdocs.yml"]
    expected = {*files, *(path.relative_to(ROOT).as_posix() for path in found if "unfinished" not in path.parts)}
    assert expected - names == set()
    assert [name for name in names if name.endswith(".safetensors")] == []
    assert [link for link in LINK.findall(about) if not link.startswith(("https://", "#"))] == []
