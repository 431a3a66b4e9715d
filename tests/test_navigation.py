"""The experiments of 2D navigation, from training to the table."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from fewstep.experiments.experiment import Training
from fewstep.experiments.navigation import ROWS
from fewstep.experiments.reproduction_figures import figures_of
from fewstep.experiments.results import load_results
from fewstep.experiments.runs import Run
from fewstep.experiments.tables import tables_of

SMALL = {"shots": 2, "meta_batch": 2, "test_task_count": 3, "iterations": 1}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("navigation")
    for row in ROWS:
        training = Training(**{**row.training, "validation_tasks": 2})
        run = Run.create(row.name, replace(row.config, **SMALL), training, folder / row.name)
        run.train(progress=False)
        run.evaluate()
        assert all(file.is_file() for file in run.plot())
        shutil.copy(run.folder.results_file, folder / f"{row.name}-seed0.json")
    return folder


def test_results_are_returns_after_every_update(results: Path):
    for row in ROWS:
        found = json.loads((results / f"{row.name}-seed0.json").read_text())
        assert (found["metric"], found["tasks"], found["queries"]) == ("mean_return", 3, None)
        assert len(found["mean"]) == (1 if row.name == "navigation-oracle" else 4)
        assert all(-200 < mean < 0 for mean in found["mean"])
        assert found["adaptation_seconds"] > 0


def test_the_random_policy_is_not_trained(results: Path):
    run = Run(results / "navigation-random")
    fresh, trained = run._fresh_learner(compile=False), run.load_learner()
    assert all((a == b).all() for a, b in zip(fresh.parameters(), trained.parameters(), strict=True))


def test_they_fill_a_table_and_a_figure(results: Path, tmp_path: Path):
    found = load_results(results, "navigation")
    ((_, table),) = tables_of("navigation", found).items()
    assert [row[0] for row in table[1:]] == [row.name for row in ROWS]
    assert table[1][5:9] == ["-40.4", "-11.7", "-3.3", "-3.2"]
    assert table[5][2] == "–", "the oracle is not adapted"
    assert [file.name for file in figures_of("navigation", found, results, tmp_path)] == ["navigation-updates.png"]
