"""The worked example of docs/contributing.md: a method and its rows in one file."""

import json
import re
import sys
from pathlib import Path

import pytest

from fewstep.cli import main
from fewstep.experiments.catalogue import EXPERIMENTS
from fewstep.experiments.few_shot import methods
from fewstep.experiments.few_shot_tables import at_equal_budget, of_the_papers
from fewstep.experiments.results import RowResults
from fewstep.experiments.runs import Run

PAGE = (Path(__file__).parents[2] / "docs" / "contributing.md").read_text()


@pytest.fixture
def tortoise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The file of the example beside those of the other methods."""
    ((path, code),) = re.findall(r'```python title="(\S+)"\n(.*?)```', PAGE, flags=re.DOTALL)
    assert Path(path).parent == Path("src", *methods.__name__.split("."))
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / Path(path).name).write_text(code)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path / "methods")])
    monkeypatch.chdir(tmp_path)
    yield [row for row in methods.rows() if row.name not in EXPERIMENTS]
    sys.modules.pop(f"{methods.__name__}.tortoise")


def test_one_file_adds_a_method_with_its_rows(
    tortoise, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert [row.name for row in methods.rows() if row not in tortoise] == [
        name for name, row in EXPERIMENTS.items() if row.table in ("omniglot", "mini-imagenet", "glyphs")
    ], "the other rows stay in their order"
    for row in tortoise:
        monkeypatch.setitem(EXPERIMENTS, row.name, row)
    main(["list", "tortoise"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "omniglot-5way-1shot-tortoise", "omniglot-5way-5shot-tortoise", "omniglot-20way-1shot-tortoise",
        "omniglot-20way-5shot-tortoise", "omniglot-5way-1shot-budget-tortoise", "glyphs-5way-1shot-tortoise",
    ]  # fmt: skip
    assert "Tortoise: MAML with shorter steps  [paper: 90.1% after 3 steps]" in lines[0]

    small = ["--filters", "4", "--meta-batch", "2", "--iterations", "2", "--validation-tasks", "2", "--run", "a"]
    main(["train", "glyphs-5way-1shot-tortoise", "--patience", "5", *small, "--allocator", "default"])
    run = Run("a")
    assert (run.experiment.method.patience, run.training.clip_norm) == (5.0, 1.0)
    assert run.load_learner().rule.lr == pytest.approx(0.1)
    assert json.loads(Path("a/config.json").read_text())["config"]["patience"] == 5.0
    results = run.evaluate(tasks=4)
    found = {run.name: RowResults(run.name, [results])}
    assert [line[0] for line in at_equal_budget(found)[1:]] == ["tortoise"]
    assert of_the_papers(found)[1:] == []
    with pytest.raises(SystemExit):
        main(["train", "glyphs-5way-1shot-tortoise", "--patience", "0", "--allocator", "default"])
    assert "expected a number greater than 0" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["train", "glyphs-5way-1shot-maml", "--patience", "5", "--allocator", "default"])
    assert "--patience does not apply to glyphs-5way-1shot-maml" in capsys.readouterr().err
