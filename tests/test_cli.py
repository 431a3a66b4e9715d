"""The command line as a user meets it."""

import json
import os
import re
from pathlib import Path

import pytest
import torch

from fewstep.cli import main
from fewstep.datasets import LabelledImages
from fewstep.experiments.few_shot import FewShot
from fewstep.experiments.results import load_results
from fewstep.experiments.runs import EXPERIMENTS, Run
from fewstep.experiments.tables import error_table, markdown

DATA = Path(os.environ["FEWSTEP_DATA"]).resolve() if "FEWSTEP_DATA" in os.environ else None
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


NO_DOWNLOAD = [name for name in EXPERIMENTS if name.startswith(("sinusoid-", "glyphs-"))]
OF_EVERY_METHOD = list(
    {(type(EXPERIMENTS[name].config), EXPERIMENTS[name].config.method): name for name in reversed(NO_DOWNLOAD)}.values()
)
"""The first row of every method that needs no data."""


@pytest.mark.parametrize("name", OF_EVERY_METHOD)
def test_every_method_trains_and_is_tested(name: str):
    config = EXPERIMENTS[name].config
    small = ["--meta-batch", "2", "--iterations", "2", "--no-compile", "--validation-tasks", "2", "--run", "a"]
    if isinstance(config, FewShot):
        few = ["--steps", str(min(config.steps, 4)), "--test-steps", str(min(config.test_steps, 4))]
        small = [*small, *few, "--filters", "4"]
    run("train", name, *small)
    found = Run("a").evaluate(tasks=2)
    assert len(found["mean"]) == len(found["ci95"]) == Run("a").experiment.test_steps + 1
    assert (found["iterations"], found["training_tasks"]) == (2, round(2 * Run("a").experiment.tasks_per_iteration))
    assert found["seconds_per_1000_tasks"] > 0


def test_the_rows_without_a_download_have_every_method():
    methods = {row.config.method for row in EXPERIMENTS.values() if isinstance(row.config, FewShot)}
    assert methods == {EXPERIMENTS[name].config.method for name in OF_EVERY_METHOD if name.startswith("glyphs-")}


def blank_images(experiment: FewShot, split: str) -> LabelledImages:
    """As many classes and images, and as large, as the data set has; they take no memory."""
    classes, each, shape = {
        "glyphs": ({"train": 1144, "validation": 163, "test": 326}, 20, (1, 28, 28)),
        "omniglot": ({"train": 1028, "validation": 172, "test": 423}, 20, (1, 28, 28)),
        "mini-imagenet": ({"train": 64, "validation": 16, "test": 20}, 600, (3, 84, 84)),
    }[experiment.data]
    count = classes[split]
    images = torch.zeros(1, *shape, dtype=torch.uint8).expand(count * each, *shape)
    return LabelledImages(images, torch.arange(count + 1) * each, [str(i) for i in range(count)])


@pytest.mark.parametrize("name", [name for name, row in EXPERIMENTS.items() if isinstance(row.config, FewShot)])
def test_every_row_of_images_fits_its_data(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(FewShot, "_images", blank_images)
    config = EXPERIMENTS[name].config
    learner = config.learner(compile=False)
    assert len(config.outer_optimizer(learner).param_groups[0]["params"]) > 0
    assert config.train_source().sample(1).query.x.shape[2:] == blank_images(config, "train").images.shape[1:]
    shots = config.test_shots or config.shots
    for source in (config.validation_source(), config.test_source()):
        task = source.sample(1)[0]
        assert task.support.y.bincount().tolist() == [shots] * config.ways
        assert task.query.y.bincount().tolist() == [config.test_queries or shots] * config.ways
    model = learner.adapt(task.support, steps=0) if config.test_steps == 0 else learner.eval().adapt(task.support, 1)
    with torch.no_grad():
        assert model(task.query.x[:2]).shape == (2, config.ways)


@pytest.mark.skipif(DATA is None or not (DATA / "omniglot").is_dir(), reason="FEWSTEP_DATA has no Omniglot")
def test_a_row_on_the_real_omniglot(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FEWSTEP_DATA", str(DATA))
    run("train", "omniglot-5way-1shot-budget-protonet", "--iterations", "20", "--meta-batch", "4", "--filters", "16",
        "--validation-tasks", "10", "--run", "a")  # fmt: skip
    assert Run("a").evaluate(tasks=50)["mean"][0] > 0.4


def test_list_shows_names_and_the_papers_numbers(capsys: pytest.CaptureFixture[str]):
    run("list")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(EXPERIMENTS)
    assert any("sinusoid-5shot-maml " in line and "0.67 after 1" in line for line in lines)
    run("list", "*-20shot-*")
    assert all("20shot" in line for line in capsys.readouterr().out.splitlines())


def test_mistakes_are_told_with_the_way_out(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    assert "Did you mean sinusoid-5shot-maml" in fails(capsys, "train", "sinusoid-5shot-mmal")
    assert "Did you mean train" in fails(capsys, "trian")
    assert "no run folder" in fails(capsys, "evaluate", "nowhere")
    assert "no run folder" in fails(capsys, "train", "--resume", "nowhere")
    assert "no experiment matches" in fails(capsys, "list", "cheese*")
    assert "there is no table" in fails(capsys, "reproduce", "cheese")
    assert "no results" in fails(capsys, "reproduce", "sinusoid", "--no-train")
    assert "--iterations" in fails(capsys, "train", "sinusoid-5shot-maml", "--iterations", "many")
    assert "dtype must be" in fails(capsys, "train", "sinusoid-5shot-maml", "--dtype", "float8")
    assert "schedule must be" in fails(capsys, "train", "sinusoid-5shot-maml", "--schedule", "cheese")
    assert "auto" in fails(capsys, "train", "sinusoid-5shot-maml", "--allocator", "cheese")
    for command in (("train", "sinusoid-5shot-maml"), ("reproduce", "sinusoid", "--dry-run")):
        for device in ("cheese", "cuda:99"):
            assert f"no device '{device}' here" in fails(capsys, *command, "--device", device)
    assert "4000" in fails(capsys, "train", "glyphs-5way-1shot", "--ways", "4000")
    monkeypatch.setenv("FEWSTEP_DATA", "nowhere")
    assert "fewstep data download omniglot" in fails(capsys, "train", "omniglot-5way-1shot-maml")
    assert not Path("runs").exists()


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
    assert files == ["curves", "figure-3.png", *results, "table.md"]
    found = load_results(Path("r/results"), "sinusoid")
    assert {name: result.seeds for name, result in found.items()} == {
        "sinusoid-10shot-pretrained": [0, 1],
        "sinusoid-10shot-oracle": [0, 1],
    }
    table = markdown(error_table(found))
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
