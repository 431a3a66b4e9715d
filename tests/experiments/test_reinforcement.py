"""The experiments of reinforcement learning, from training to the table."""

import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

import fewstep as fs
from fewstep import rl
from fewstep.cli.evaluate import Evaluate, evaluate
from fewstep.experiments.catalogue import EXPERIMENTS
from fewstep.experiments.curves import save_curve
from fewstep.experiments.reinforcement.rows import ROWS
from fewstep.experiments.reproduction_figures import figures_of
from fewstep.experiments.results import load_results
from fewstep.experiments.runs import Run
from fewstep.experiments.tables import tables_of
from fewstep.experiments.training import Training
from fewstep.figures.policies import film
from fewstep.rl.environments import PointNavigation, paper_goals
from fewstep.rl.environments.viewer import working_backend

SMALL = {"shots": 2, "meta_batch": 2, "test_task_count": 3, "iterations": 1, "horizon": 20}
NAVIGATION = [row for row in ROWS if row.name.startswith("navigation-")]


def trained(name: str, folder: Path, **settings: object) -> Run:
    row = EXPERIMENTS[name]
    training = Training(**{**row.training, "validation_tasks": 2, "validate_every": 1})
    run = Run.create(row.name, replace(row.config, **{**SMALL, **settings}), training, folder / row.name)
    run.train(progress=False)
    run.evaluate()
    return run


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("navigation")
    for row in NAVIGATION:
        run = trained(row.name, folder, iterations=2 if row.name == "navigation-maml" else 1)
        shutil.copy(run.folder.results_file, folder / f"{row.name}-seed0.json")
        save_curve(run.folder.metrics(), folder / "curves" / f"{row.name}-seed0.jsonl")
    return folder


def test_results_are_returns_after_every_update(results: Path):
    for row in NAVIGATION:
        found = json.loads((results / f"{row.name}-seed0.json").read_text())
        assert (found["metric"], found["tasks"], found["queries"]) == ("mean_return", 3, None)
        assert len(found["mean"]) == (1 if row.name == "navigation-oracle" else 4)
        assert all(-40 < mean < 0 for mean in found["mean"])
        assert found["adaptation_seconds"] > 0


def test_every_method_is_another(results: Path):
    found = {row.name: json.loads((results / f"{row.name}-seed0.json").read_text()) for row in NAVIGATION}
    untrained = found["navigation-random"]["mean"]
    of_other_policies = ("navigation-context", "navigation-oracle")
    for name, one in found.items():
        if name not in ("navigation-random", *of_other_policies):
            assert one["mean"] != untrained, name
    adapted = [tuple(one["mean"]) for name, one in found.items() if name not in of_other_policies]
    assert len(set(adapted)) == len(adapted)


def test_the_random_policy_is_not_trained(results: Path):
    run = Run(results / "navigation-random")
    fresh, trained = run._fresh_learner(compile=False), run.load_learner()
    assert all((a == b).all() for a, b in zip(fresh.parameters(), trained.parameters(), strict=True))


def test_they_fill_a_table_and_figures(results: Path, tmp_path: Path):
    found = load_results(results, "navigation")
    ((_, table),) = tables_of("navigation", found).items()
    assert [row[0] for row in table[1:]] == [row.name for row in NAVIGATION]
    rows = {row[0]: row for row in table[1:]}
    assert rows["navigation-maml"][5:9] == ["-40.4", "-11.7", "-3.3", "-3.2"]
    assert rows["navigation-oracle"][2] == "–", "the oracle is not adapted"
    drawn = figures_of("navigation", found, results, tmp_path)
    assert [file.name for file in drawn] == ["navigation-updates.png", "navigation-curves.png"]


def test_navigation_is_tested_as_the_paper_tests_it():
    for row in NAVIGATION:
        assert (row.config.shots, row.config.test_episodes, row.config.world.test_goals) == (20, 40, "paper")
        source = row.config.test_source()
        assert torch.equal(source.sample(40).support.numbers, paper_goals())
        assert source.sample(2).support.episodes == 40
        assert row.config.train_source().sample(2).support.episodes == 20
    names = {row.name: row for row in NAVIGATION}
    ours, authors = names["navigation-random"].config, names["navigation-random-tanh"].config
    assert (ours.activation, ours.method.inner_lr) == ("relu", 0.1)
    assert (authors.activation, authors.method.inner_lr) == ("tanh", 0.5)
    policy = names["navigation-random-tanh"].config.learner(compile=False).model
    assert [type(layer) for layer in policy.network] == [
        torch.nn.Linear, torch.nn.Tanh, torch.nn.Linear, torch.nn.Tanh, torch.nn.Linear
    ]  # fmt: skip


def test_episodes_and_goals_at_test_can_be_chosen(results: Path):
    run = Run(results / "navigation-random")
    learner, few = run.load_learner(), {"tasks": 3, "steps": 1}
    found = {
        (episodes, goals): run.evaluate(**few, episodes=episodes, goals=goals)
        for episodes, goals in ((None, None), (2, "paper"), (2, "drawn"))
    }
    for (episodes, goals), one in found.items():
        config = one["config"]
        assert (config["test_episodes"], config["test_goals"]) == (episodes or 40, goals or "paper")
        environment = PointNavigation(6, horizon=20)
        source = rl.EnvironmentTasks(environment, episodes or 40, tasks=None if goals == "drawn" else paper_goals())
        again = fs.evaluate(learner, source, steps=1, num_tasks=3)
        torch.testing.assert_close(torch.tensor(again.mean), torch.tensor(one["mean"]), rtol=1e-4, atol=1e-4)
    evaluate(Evaluate(results / "navigation-random", **few, episodes=3, goals="drawn"))
    file = run.folder.path / "results-steps-1-episodes-3-goals-drawn.json"
    written = json.loads(file.read_text())
    assert (written["config"]["test_episodes"], written["config"]["test_goals"]) == (3, "drawn")


def test_what_has_no_such_goals_or_episodes_says_so(tmp_path: Path):
    robot = EXPERIMENTS["cheetah-direction-maml"].config
    with pytest.raises(ValueError, match="applies only to 2D navigation; got cheetah-direction"):
        robot.tested_with(None, "paper")
    with pytest.raises(ValueError, match="Use --episodes"):
        robot.test_source(shots=5)
    row = EXPERIMENTS["sinusoid-5shot-maml"]
    run = Run.create(row.name, replace(row.config, iterations=1), Training(compile=False), tmp_path / "run")
    run.train(progress=False)
    with pytest.raises(ValueError, match="--episodes and --goals are for experiments of reinforcement learning"):
        run.evaluate(tasks=2, episodes=40)


@pytest.mark.parametrize("table", ["navigation", "cheetah", "ant"])
def test_no_row_averages_over_seeds_that_were_tested_differently(table: str):
    found = load_results(Path(__file__).parents[2] / "reproduction" / table, table)
    assert found
    assert all(";" not in result.tested_on for result in found.values())


def test_a_run_of_navigation_draws_paths(results: Path):
    files = Run(results / "navigation-maml").plot()
    assert [file.name for file in files] == ["learning-curve.png", "steps.png", "paths.png"]


def test_a_run_of_a_robot_draws_a_film_or_says_what_is_missing(tmp_path: Path):
    run = trained("ant-velocity-oracle", tmp_path, horizon=5)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        files = [file.name for file in run.plot()]
    if "film.gif" in files:
        assert "film.png" in files
        with Image.open(run.folder.path / "film.gif") as drawn:
            assert drawn.n_frames > 1
    else:
        assert any("No film was drawn" in str(one.message) for one in warned)


def test_a_film_shows_two_tasks_before_and_after_adaptation(tmp_path: Path):
    if working_backend(None) is None:
        pytest.skip("there is no OpenGL renderer here")
    config = replace(EXPERIMENTS["cheetah-direction-maml"].config, **SMALL)
    files = film(config.learner(compile=False), config.environment(1, render_mode="rgb_array"), tmp_path, 1, seconds=1)
    with Image.open(files[0]) as drawn:
        assert (drawn.n_frames, drawn.size) == (10, (640, 2 * (180 + 16)))


def test_without_a_renderer_there_is_a_clear_word(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fewstep.rl.environments.viewer.working_backend", lambda asked_for: None)
    environment = EXPERIMENTS["cheetah-direction-maml"].config.environment(1, render_mode="rgb_array")
    environment.set_tasks(environment.sample_tasks(1, torch.Generator().manual_seed(0)))
    environment.reset(seed=0)
    with pytest.raises(RuntimeError, match="libosmesa6"):
        environment.render()


def test_a_renderer_that_does_not_exist_does_not_work():
    assert working_backend("nothing") is None


def test_robots_are_trained_on_the_papers_rewards():
    for name in ("cheetah-direction-maml", "cheetah-velocity-maml", "ant-direction-maml", "ant-velocity-maml"):
        config = EXPERIMENTS[name].config
        environment = config.environment(1)
        assert (config.horizon, config.meta_batch, config.world.rewards) == (200, 40, "paper")
        assert type(environment).__name__.lower() == name.replace("-maml", "").replace("-", "").replace(
            "cheetah", "halfcheetah"
        )
