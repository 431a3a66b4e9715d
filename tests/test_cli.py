"""The command line as a user meets it."""

import json
import re
from pathlib import Path

import pytest

from fewstep.cli import main
from fewstep.experiments.reproduce import load_results, markdown, table_rows
from fewstep.experiments.runs import EXPERIMENTS, Run

QUICK = ["--iterations", "20", "--no-compile", "--validation-tasks", "4", "--meta-batch", "4"]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEWSTEP_TRACEBACK", "")


def run(*words: str) -> None:
    main([*words, "--allocator", "default"])


def fails(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as exit:
        run(*words)
    assert exit.value.code not in (0, None)
    return capsys.readouterr().err


def test_train_evaluate_plot(capsys: pytest.CaptureFixture[str]):
    run("train", "sinusoid-10shot-maml", *QUICK, "--seed", "3")
    folder = Path("runs/sinusoid-10shot-maml-seed3")
    assert f"fewstep evaluate {folder}" in capsys.readouterr().out
    run("evaluate", str(folder), "--tasks", "12", "--steps", "4", "--shots", "5", "20")
    shown = capsys.readouterr().out
    assert "12 test tasks" in shown
    assert str(folder / "results.json") in shown
    results = json.loads((folder / "results.json").read_text())
    wanted = {
        "experiment",
        "metric",
        "tasks",
        "steps",
        "mean",
        "ci95",
        "seed",
        "iterations",
        "fewstep",
        "torch",
        "commit",
    }
    assert wanted <= results.keys()
    assert (results["experiment"], results["metric"], results["tasks"]) == ("sinusoid-10shot-maml", "mse", 12)
    assert (results["steps"], results["seed"], results["iterations"]) == (4, 3, 20)
    assert len(results["mean"]) == len(results["ci95"]) == 5
    assert results["other_shots"].keys() == {"5", "20"}
    run("plot", str(folder))
    for line in capsys.readouterr().out.splitlines():
        assert Path(line.removeprefix("Wrote ")).is_file()


def test_overrides_reach_the_run():
    overrides = "--inner-lr 0.05 --steps 2 --dtype float64 --schedule cosine --clip-norm 1.0 --run a"
    run("train", "sinusoid-5shot-maml", *QUICK, *overrides.split())
    made = Run("a")
    assert (made.experiment.inner_lr, made.experiment.steps, made.training.clip_norm) == (0.05, 2, 1.0)
    learner = made.load_learner()
    assert (learner.rule.lr, learner.steps, next(learner.parameters()).dtype.itemsize) == (0.05, 2, 8)
    rates = made.folder.load()["optimizer"]["param_groups"][0]["lr"]
    assert rates == pytest.approx(1e-5)


@pytest.mark.parametrize("name", list(EXPERIMENTS))
def test_every_experiment_trains_and_is_tested(name: str):
    small = ["--meta-batch", "4", "--iterations", "2", "--no-compile", "--validation-tasks", "2", "--run", "a"]
    run("train", name, *small)
    found = Run("a").evaluate(tasks=3)
    assert len(found["mean"]) == (1 if name.endswith("oracle") else 11)


def test_list_shows_names_and_the_papers_numbers(capsys: pytest.CaptureFixture[str]):
    run("list")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(EXPERIMENTS)
    assert any("sinusoid-5shot-maml " in line and "0.67 after 1" in line for line in lines)
    run("list", "*-20shot-*")
    assert all("20shot" in line for line in capsys.readouterr().out.splitlines())


def test_mistakes_are_told_with_the_way_out(capsys: pytest.CaptureFixture[str]):
    assert "Did you mean sinusoid-5shot-maml" in fails(capsys, "train", "sinusoid-5shot-mmal")
    assert "Did you mean train" in fails(capsys, "trian")
    assert "no run folder" in fails(capsys, "evaluate", "nowhere")
    assert "no run folder" in fails(capsys, "train", "--resume", "nowhere")
    assert "no experiment matches" in fails(capsys, "list", "cheese*")
    assert "there is no table" in fails(capsys, "reproduce", "cheese")
    assert "no results" in fails(capsys, "reproduce", "sinusoid", "--no-train")
    assert "--iterations" in fails(capsys, "train", "sinusoid-5shot-maml", "--iterations", "many")
    assert "dtype must be" in fails(capsys, "train", "sinusoid-5shot-maml", "--dtype", "float8")
    assert "auto" in fails(capsys, "train", "sinusoid-5shot-maml", "--allocator", "cheese")


def test_a_run_is_not_trained_over(capsys: pytest.CaptureFixture[str]):
    run("train", "sinusoid-5shot-maml", *QUICK, "--run", "a")
    assert "--resume a" in fails(capsys, "train", "sinusoid-5shot-maml", *QUICK, "--run", "a")
    run("train", "--resume", "a")  # finished: nothing left to do


def test_damaged_checkpoint_is_named(capsys: pytest.CaptureFixture[str]):
    run("train", "sinusoid-5shot-maml", *QUICK, "--run", "a")
    file = Run("a").folder.checkpoint_file()
    file.write_bytes(file.read_bytes()[:100])
    assert f"{file} is damaged" in fails(capsys, "evaluate", "a")


def test_help_explains_every_option(capsys: pytest.CaptureFixture[str]):
    for words in (
        ["train", "sinusoid-5shot-maml"],
        ["evaluate"],
        ["analyse"],
        ["plot"],
        ["reproduce"],
        ["demo"],
        ["list"],
        ["train"],
    ):
        with pytest.raises(SystemExit) as exit:
            main([*words, "--help"])
        assert exit.value.code == 0
        # An option's line, "--name VALUE   Help text. (default: ...)", may be broken after the value.
        text = " ".join(re.sub("[│╭╮╰╯─]+", " ", capsys.readouterr().out).split())
        for option in re.findall(r"(?<= )--[a-z](?:[^.]|\.\.\.)*", text):
            assert len(option.split()) > 3, f"{words}: {option} has no help"
    main(["--help"])
    assert "--allocator" in capsys.readouterr().out


def test_reproduce_trains_tests_and_sets_beside_the_paper(capsys: pytest.CaptureFixture[str]):
    words = ["reproduce", "sinusoid", "--rows", "sinusoid-10shot-[po]*", "--seeds", "0", "1", "--iterations", "3",
             "--no-compile", "--runs", "r"]  # fmt: skip
    run(*words)
    files = sorted(path.name for path in Path("r/results").iterdir())
    results = [f"sinusoid-10shot-{method}-seed{seed}.json" for method in ("oracle", "pretrained") for seed in (0, 1)]
    assert files == ["figure-3.png", *results, "table.md"]
    found = load_results(Path("r/results"), "sinusoid")
    assert {name: result.seeds for name, result in found.items()} == {
        "sinusoid-10shot-pretrained": [0, 1],
        "sinusoid-10shot-oracle": [0, 1],
    }
    table = markdown(table_rows(found))
    assert table == Path("r/results/table.md").read_text()
    runs = [json.loads(Path(f"r/results/sinusoid-10shot-pretrained-seed{s}.json").read_text()) for s in (0, 1)]
    assert f"{(runs[0]['mean'][10] + runs[1]['mean'][10]) / 2:.2f} ±" in table
    stamps = {path: path.stat().st_mtime_ns for path in Path("r/results").glob("*.json")}
    capsys.readouterr()
    run(*words)  # all is there: nothing is trained again
    assert {path: path.stat().st_mtime_ns for path in Path("r/results").glob("*.json")} == stamps


def test_demo_writes_what_it_names(capsys: pytest.CaptureFixture[str]):
    run("demo", "--iterations", "5", "--no-compile")
    shown = capsys.readouterr().out
    assert "10 steps" in shown
    for name in ("figure-2.png", "learning-curve.png"):
        assert f"runs/demo/{name}" in shown
        assert (Path("runs/demo") / name).is_file()
    run("demo", "--iterations", "5", "--no-compile")  # again, over its own files
    Path("other").mkdir()
    Path("other/thesis.txt").write_text("precious")
    assert "holds something else" in fails(capsys, "demo", "--iterations", "5", "--run", "other")
    assert Path("other/thesis.txt").is_file()
