"""Reproducing tables: what is trained and in which order, what stays, and what is written of it."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest

from fewstep.cli import main
from fewstep.experiments import few_shot_tables, plan
from fewstep.experiments.catalogue import EXPERIMENTS
from fewstep.experiments.curves import load_curves, thinned
from fewstep.experiments.reinforcement import Reinforcement
from fewstep.experiments.reproduction_figures import plot_curves, plot_methods
from fewstep.experiments.results import TABLES, RowResults, load_results
from fewstep.experiments.runs import Run
from fewstep.experiments.settings import load_settings, settings_of
from fewstep.experiments.sinusoid import Sinusoid
from fewstep.experiments.tables import error_table, markdown, page, tables_of
from fewstep.experiments.training import Training
from fewstep.training import RunFolder
from fewstep.training.processor import processor

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEWSTEP_TRACEBACK", "")


def reproduce(*words: str, table: str = "sinusoid") -> None:
    main(["reproduce", table, "--no-compile", "--runs", "r", *words, "--allocator", "default"])


def result(name: str, mean: float = 0.9, **other: object) -> dict:
    """What ``results.json`` of a finished run may hold."""
    config = EXPERIMENTS[name].config
    count = config.test_steps + 1
    known = {"experiment": name, "seed": 0, "iterations": config.iterations, "steps": config.test_steps,
             "config": settings_of(config), "mean": [0.2] * (count - 1) + [mean], "ci95": [0.004] * count}  # fmt: skip
    return {**known, **other}


def found(*results: dict) -> dict[str, RowResults]:
    names = dict.fromkeys(one["experiment"] for one in results)
    return {name: RowResults(name, [one for one in results if one["experiment"] == name]) for name in names}


# What is planned


def test_budget_is_in_training_tasks_and_at_most_the_rows_own():
    rows = [
        EXPERIMENTS[f"omniglot-{name}"] for name in ("5way-1shot-maml", "20way-1shot-maml", "5way-1shot-budget-maml")
    ]
    nowhere = Path("nowhere")
    assert [p.iterations for p in plan.missing_runs(rows, (0,), nowhere, nowhere, budget=320_000)] == [
        10_000,
        20_000,
        4_000,
    ]
    assert [p.iterations for p in plan.missing_runs(rows, (0,), nowhere, nowhere, iterations=5)] == [5, 5, 5]
    for wrong in ({"budget": 1, "iterations": 1}, {"budget": 0}, {"iterations": -3}):
        with pytest.raises(ValueError, match="iterations"):
            plan.missing_runs(rows, (0,), nowhere, nowhere, **wrong)


def test_classifiers_count_tasks_by_their_images():
    config = EXPERIMENTS["omniglot-5way-1shot-budget-fine-tuning"].config
    assert config.tasks_per_iteration * config.iterations == 128_000
    assert config.tasks_per_iteration * 10 == config.meta_batch * 64


def test_every_row_at_equal_budget_has_the_same_budget():
    at_budget = [row.config for row in EXPERIMENTS.values() if row.comparison in ("budget", "ablation")]
    assert len(at_budget) == 50
    assert {config.tasks_per_iteration * config.iterations for config in at_budget} == {128_000}


def test_without_a_pattern_the_papers_rows_are_meant():
    for table in ("omniglot", "mini-imagenet"):
        assert all(row.paper for row in plan.rows_of(table))
        assert any(not row.paper for row in plan.rows_of(table, "*"))
    assert len(plan.rows_of("sinusoid")) == len(plan.rows_of("sinusoid", "*"))
    glyphs = [row.config for row in plan.rows_of("glyphs")]
    assert len(set(glyphs)) == len(glyphs)
    assert set(glyphs) == {row.config for row in plan.rows_of("glyphs", "*")}


def test_what_was_begun_goes_first_then_seed_by_seed():
    rows = [EXPERIMENTS["sinusoid-5shot-maml"], EXPERIMENTS["sinusoid-5shot-oracle"]]
    begun = Run.create(rows[1].name, rows[1].config, Training(seed=1, compile=False), "r/sinusoid-5shot-oracle-seed1")
    begun.train(progress=False, until=2)
    planned = plan.missing_runs(rows, (0, 1), Path("r"), Path("r/results"))
    assert [(p.name, p.done) for p in planned] == [
        ("sinusoid-5shot-oracle-seed1", 2), ("sinusoid-5shot-maml-seed0", 0), ("sinusoid-5shot-oracle-seed0", 0),
        ("sinusoid-5shot-maml-seed1", 0),
    ]  # fmt: skip


def test_a_dry_run_says_how_long_and_trains_nothing(capsys: pytest.CaptureFixture[str]):
    reproduce("--rows", "glyphs-5way-1shot-anil", "--budget", "64", "--dry-run", table="glyphs")
    shown = capsys.readouterr().out
    assert "1 run to train and evaluate; training takes about" in shown
    assert "2 of 4,000" in shown
    assert not Path("r").exists()


# Training


def test_a_partial_run_says_so_and_goes_on_as_if_it_had_not_stopped(capsys: pytest.CaptureFixture[str]):
    reproduce("--rows", "sinusoid-5shot-oracle", "--iterations", "3")
    assert "3 of 70,000" in capsys.readouterr().out
    reproduce("--rows", "sinusoid-5shot-oracle", "--budget", "200")
    assert "8 of 70,000" in Path("r/results/table.md").read_text()
    at_once = Run.create(
        "sinusoid-5shot-oracle", EXPERIMENTS["sinusoid-5shot-oracle"].config, Training(compile=False), "whole"
    )
    at_once.train(progress=False, until=8)
    a, b = (RunFolder(folder).load()["learner"] for folder in ("r/sinusoid-5shot-oracle-seed0", "whole"))
    assert all(a[name].equal(b[name]) for name in a)
    assert [row["iteration"] for row in load_curves(Path("r/results"), "sinusoid-5shot-oracle")[0]] == [3, 3, 8, 8]


def test_a_run_that_has_come_far_enough_is_only_tested():
    config = EXPERIMENTS["sinusoid-5shot-oracle"].config
    Run.create("sinusoid-5shot-oracle", config, Training(compile=False), "r/sinusoid-5shot-oracle-seed0").train(
        progress=False, until=4
    )
    other_process = RunFolder("r/sinusoid-5shot-oracle-seed0")
    other_process.log({"iteration": 5, "loss": 1.0})  # is training on
    reproduce("--rows", "sinusoid-5shot-oracle", "--iterations", "2")
    assert json.loads(Path("r/results/sinusoid-5shot-oracle-seed0.json").read_text())["iterations"] == 4
    assert other_process.metrics()[-1]["iteration"] == 5


def test_a_run_goes_on_where_the_command_says(monkeypatch: pytest.MonkeyPatch):
    reproduce("--rows", "sinusoid-5shot-oracle", "--iterations", "2")
    asked = []
    monkeypatch.setattr("fewstep.experiments.runs.torch.set_num_threads", asked.append)
    reproduce("--rows", "sinusoid-5shot-oracle", "--iterations", "4", "--threads", "3")
    assert set(asked) == {3}
    asked.clear()
    main(["evaluate", "r/sinusoid-5shot-oracle-seed0", "--tasks", "5", "--threads", "5", "--allocator", "default"])
    assert set(asked) == {5}


def test_a_row_that_fails_does_not_stop_the_others(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    source = Sinusoid.train_source

    def broken(self: Sinusoid):
        if self.method.name == "maml":
            raise ValueError("the sines are cut")
        return source(self)

    monkeypatch.setattr(Sinusoid, "train_source", broken)
    Run.create(
        "sinusoid-5shot-oracle",
        replace(EXPERIMENTS["sinusoid-5shot-oracle"].config, meta_batch=3),
        Training(),
        "r/sinusoid-5shot-oracle-seed0",
    )
    with pytest.raises(SystemExit) as exit:
        reproduce("--rows", "sinusoid-5shot-[mfo]*a[mc]*l*", "--iterations", "2")
    assert exit.value.code == 1
    shown = capsys.readouterr()
    assert "2 of 70,000" in shown.out, "the table of what went well"
    summary, *reasons = shown.err.strip().splitlines()[-5:]
    assert "4 of 5 runs failed" in summary
    assert "sinusoid-5shot-oracle-seed0: r/sinusoid-5shot-oracle-seed0 holds a run with other settings" in reasons[1]
    assert [i for i, line in enumerate(reasons) if "the sines are cut" in line] == [0, 2, 3]
    assert load_results(Path("r/results"), "sinusoid").keys() == {"sinusoid-5shot-fomaml"}


# Settings of older runs


@pytest.mark.parametrize(
    "file", sorted(ROOT.glob("reproduction/*/unfinished/*/config.json")), ids=lambda f: f.parent.name
)
def test_committed_runs_load_as_the_rows_stand(file: Path):
    run = Run(file.parent)
    config = json.loads(file.read_text())["config"]
    assert config.keys() - settings_of(run.experiment).keys(), "the file has options of other methods"
    if not isinstance(run.experiment, Reinforcement):  # test_goals and test_episodes came later
        assert run.experiment == EXPERIMENTS[run.name].config


def test_settings_are_flat_and_load_again():
    every = [row.config for row in EXPERIMENTS.values()]
    for row in EXPERIMENTS.values():
        settings = json.loads(json.dumps(settings_of(row.config)))
        assert load_settings(row.config, settings, every) == row.config
    imaml, maml = (EXPERIMENTS[f"glyphs-5way-1shot-{name}"].config for name in ("imaml", "maml"))
    assert load_settings(maml, settings_of(imaml), every) == imaml, "a run may have another method than its row"
    assert load_settings(maml, {**settings_of(maml), "damping": 99.0}, every) == maml
    with pytest.raises(ValueError, match=r"FewShot \(maml\) has no setting cheese"):
        load_settings(maml, {**settings_of(maml), "cheese": 1}, every)
    with pytest.raises(ValueError, match="FewShot has no method 'cheese'"):
        load_settings(maml, {**settings_of(maml), "method": "cheese"}, every)


# Tables


def test_accuracies_stand_beside_the_papers_in_percent():
    header, row = few_shot_tables.of_the_papers(found(result("omniglot-5way-1shot-maml", 0.98634)))
    beside = dict(zip(header, row, strict=True))
    assert (beside["ours"], beside["paper"], beside["test steps"]) == ("98.6 ± 0.4", "98.7 ± 0.4", "3")
    assert (beside["iterations"], beside["training tasks"]) == ("60,000", "1,920,000")
    partial = result("mini-imagenet-5way-1shot-maml", 0.4567, iterations=6000)
    header, row = few_shot_tables.of_the_papers(found(partial))
    beside = dict(zip(header, row, strict=True))
    assert (beside["ours"], beside["paper"]) == ("45.67 ± 0.40", "48.70 ± 1.84")
    assert (beside["iterations"], beside["training tasks"]) == ("6,000 of 60,000", "24,000")


def test_papers_and_equal_budgets_are_not_mixed():
    both = found(result("omniglot-5way-1shot-maml"), result("omniglot-5way-1shot-budget-maml", 0.8))
    assert [row[0] for row in few_shot_tables.of_the_papers(both)[1:]] == ["omniglot-5way-1shot-maml"]
    assert [row[0] for row in few_shot_tables.at_equal_budget(both)[1:]] == ["maml"]
    assert not EXPERIMENTS["omniglot-5way-1shot-budget-maml"].paper, "the paper's number is of other settings"


def test_methods_at_equal_budget_are_sorted_with_their_costs():
    name = "omniglot-5way-1shot-budget-"
    header, *rows = few_shot_tables.at_equal_budget(found(
        result(name + "anil", 0.8), result(name + "maml++-rates", 0.99),
        result(name + "maml", 0.9, seconds_per_1000_tasks=4.0, adaptation_seconds=0.012),
        result(name + "maml", 0.96, seed=1, seconds_per_1000_tasks=5.0, adaptation_seconds=0.016),
    ))  # fmt: skip
    assert header[:4] == ["method", "accuracy, %", "s per 1,000 training tasks", "ms per test task"]
    assert rows[0][:6] == ["maml", "93.0 ± 0.4", "4.5", "14", "batch", "0, 1"]
    assert rows[1][:4] == ["anil", "80.0 ± 0.4", "–", "–"], "no costs in older results"
    assert len(rows) == 2


def test_ablation_is_against_no_part():
    name = "omniglot-5way-1shot-budget-maml++"
    rows = few_shot_tables.ablation(found(
        result(name, 0.97), result(f"{name}-none", 0.95), result(f"{name}-cosine", 0.944),
    ))[1:]  # fmt: skip
    assert [row[:3] for row in rows] == [
        ["none", "95.0 ± 0.4", "–"], ["cosine", "94.4 ± 0.4", "−0.6"], ["all", "97.0 ± 0.4", "+2.0"],
    ]  # fmt: skip
    assert len(few_shot_tables.ablation(found(result(name)))) == 1


def test_policies_stand_side_by_side():
    name = "omniglot-5way-1shot-budget-maml"
    tested = {"support": {"mean": [0.2, 0.5], "ci95": [0.0, 0.01]}}
    header, *rows = few_shot_tables.policies(found(
        result(name, other_norms=tested), result(f"{name}-support", 0.88), result("omniglot-5way-1shot-maml"),
    ))  # fmt: skip
    assert header[:4] == ["experiment", "trained under", "tested under batch", "tested under support"]
    assert [row[:4] for row in rows] == [
        [name, "batch", "90.0 ± 0.4", "50.0 ± 1.0"], [f"{name}-support", "support", "–", "88.0 ± 0.4"],
    ]  # fmt: skip


def test_without_results_a_table_says_so():
    assert markdown(few_shot_tables.of_the_papers({})) == "No results yet.\n"
    assert tables_of("omniglot", {}) == {}


def test_several_tables_have_titles():
    text = page(tables_of("omniglot", found(
        result("omniglot-5way-1shot-maml"), result("omniglot-5way-1shot-budget-maml", 0.8)
    )))  # fmt: skip
    assert text.count("## omniglot: ") == 2


@pytest.mark.parametrize("table", TABLES)
def test_committed_results_are_of_the_rows_as_they_stand(table: str):
    for result in load_results(ROOT / "reproduction" / table, table).values():
        every = [row.config for row in EXPERIMENTS.values()]
        for run in result.runs:
            loaded = load_settings(result.row.config, run["config"], every)
            assert replace(loaded, iterations=result.row.config.iterations) == result.row.config, result.name


def test_a_time_that_is_unknown_has_a_reason(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("FEWSTEP_DATA", "nowhere")

    def reason(name: str, training: Training, measure: bool = True) -> float | str:
        (run,) = plan.missing_runs([EXPERIMENTS[name]], (0,), Path("r"), Path("r/results"))
        return plan.seconds_left(run, training, measure)

    assert "compiled" in str(reason("sinusoid-5shot-maml", Training()))
    assert "not measured" in str(reason("glyphs-5way-1shot-anil", Training(), measure=False))
    assert "measuring it failed: " in str(reason("omniglot-5way-1shot-protonet", Training()))
    assert isinstance(reason("sinusoid-5shot-multi-task", Training()), float), "it is never compiled"
    main(["reproduce", "sinusoid", "--rows", "*-5shot-*aml", "--dry-run", "--allocator", "default"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "?: unknown for sinusoid-5shot-maml-seed0, sinusoid-5shot-fomaml-seed0: its meta-step is compiled" in shown


# Curves and figures


def test_thinned_curves_keep_the_mean_and_every_validation():
    metrics = [{"iteration": i, "loss": float(i % 7)} for i in range(1, 1002)]
    metrics.insert(500, {"iteration": 500, "validation": 0.123456789, "validation_ci95": 0.01})
    kept = thinned(metrics)
    losses = [row["loss"] for row in kept if "loss" in row]
    assert 150 < len(losses) <= 200
    weighted = sum(losses[:-1]) * 6 + losses[-1] * (1001 - 6 * (len(losses) - 1))
    assert weighted / 1001 == pytest.approx(sum(i % 7 for i in range(1, 1002)) / 1001, abs=1e-4)
    assert [row for row in kept if "validation" in row] == [
        {"iteration": 500, "validation": 0.123457, "validation_ci95": 0.01}
    ]


def test_figures_are_drawn_of_what_there_is(tmp_path: Path):
    name = "mini-imagenet-5way-1shot-maml"
    assert plot_methods({}, tmp_path / "a.png") is None
    assert plot_curves(found(result(name)), tmp_path, tmp_path / "b.png") is None
    (tmp_path / "curves").mkdir()
    rows = [{"iteration": 10, "loss": 1.0}, {"iteration": 10, "validation": 0.3, "validation_ci95": 0.02}]
    file = tmp_path / f"curves/{name}-seed0.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert plot_curves(found(result(name)), tmp_path, tmp_path / "b.png") is None  # a point is no curve
    rows.append({"iteration": 20, "validation": 0.4, "validation_ci95": 0.02})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert plot_curves(found(result(name)), tmp_path, tmp_path / "b.png").is_file()
    methods = few_shot_tables.methods_at_equal_budget(found(result("glyphs-5way-1shot-maml")))
    assert plot_methods(methods, tmp_path / "a.png").is_file()


def test_pages_are_filled_from_whatever_results_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    spec = importlib.util.spec_from_file_location("generate_tables", ROOT / "docs" / "generate_tables.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    monkeypatch.setattr(generate, "FIGURES", tmp_path)
    docs = (ROOT / "docs" / "reproduction" / "few-shot.md").read_text()
    (tmp_path / "few-shot.md").write_text(docs)
    empty = generate.filled(tmp_path / "few-shot.md")
    assert empty.count("No results yet.") == docs.count("<!-- end -->") > 5
    (tmp_path / "reproduction/omniglot").mkdir(parents=True)
    row = "omniglot-5way-1shot-maml"
    (tmp_path / f"reproduction/omniglot/{row}-seed0.json").write_text(json.dumps(result(row, iterations=7)))
    (tmp_path / "few-shot.md").write_text(empty)
    partial = generate.filled(tmp_path / "few-shot.md")
    assert "| omniglot-5way-1shot-maml | 90.0 ± 0.4 | 98.7 ± 0.4 | 3 | batch | 0 | 7 of 60,000 | 224 |" in partial
    assert partial.count("No results yet.") == empty.count("No results yet.") - 1
    assert error_table({})[1:] == []


# Trained elsewhere


def trained_elsewhere(tmp_path: Path) -> Run:
    """A run whose checkpoint says that another processor has made it, in no time."""
    name = "glyphs-5way-1shot-anil"
    config = replace(EXPERIMENTS[name].config, filters=4, iterations=5, meta_batch=2)
    run = Run.create(name, config, Training(compile=False, validation_tasks=2, log_every=1), tmp_path / "r")
    run.train(progress=False, until=2)
    state = run.folder.load()
    run.folder.save({**state, "processors": ["Abacus"], "paces": [1e-9] * 2, "seconds": 2e-9})
    return run


def test_the_time_of_a_run_that_was_trained_elsewhere_is_measured_here(tmp_path: Path):
    run = trained_elsewhere(tmp_path)
    results = run.evaluate(tasks=2)
    assert results["trained_on"] == ["Abacus"]
    assert results["processor"] == processor()
    assert results["seconds_per_1000_tasks"] > 1e-3
    row = replace(EXPERIMENTS[run.name], config=run.experiment)
    left = plan.seconds_left(plan.PlannedRun(row, 0, 4, 2, run.folder.path), run.training)
    assert left is not None
    assert left > 1e-4


def test_a_run_that_goes_on_elsewhere_forgets_how_fast_it_was(tmp_path: Path):
    run = trained_elsewhere(tmp_path)
    run.train(progress=False)
    state = run.folder.load()
    assert state["processors"] == ["Abacus", processor()]
    assert len(state["paces"]) == 2  # of three iterations: the first one, which may compile, has none
    assert min(state["paces"]) > 1e-6
    assert run.evaluate(tasks=2)["trained_on"] == ["Abacus", processor()]
