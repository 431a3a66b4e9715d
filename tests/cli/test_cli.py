"""The command line as a user meets it."""

import contextlib
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import pytest
import torch

import fewstep
from fewstep.cli import main
from fewstep.cli.option_values import Argument
from fewstep.cli.parsing import parse
from fewstep.datasets import LabelledImages
from fewstep.experiments.catalogue import EXPERIMENTS
from fewstep.experiments.few_shot import FewShot
from fewstep.experiments.option_types import Count, NonNegative, NotAnOption
from fewstep.experiments.results import load_results
from fewstep.experiments.runs import Run
from fewstep.experiments.tables import error_table, markdown
from fewstep.experiments.training import Training

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
    file = folder / "results-tasks-12-steps-4.json"
    assert str(file) in shown
    assert not (folder / "results.json").exists()
    results = json.loads(file.read_text())
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
    run("evaluate", str(folder))
    assert f"Wrote {folder}/results.json" in capsys.readouterr().out
    run("plot", str(folder))
    for line in capsys.readouterr().out.splitlines():
        assert Path(line.removeprefix("Wrote ")).is_file()


def test_overrides_reach_the_run():
    overrides = "--inner-lr 0.05 --steps 2 --dtype float64 --schedule cosine --clip-norm 1.0 --run a"
    run("train", "sinusoid-5shot-maml", *QUICK, *overrides.split())
    made = Run("a")
    assert (made.experiment.method.inner_lr, made.experiment.method.steps, made.training.clip_norm) == (0.05, 2, 1.0)
    learner = made.load_learner()
    assert (learner.rule.lr, learner.steps, next(learner.parameters()).dtype.itemsize) == (0.05, 2, 8)
    rates = made.folder.load()["optimizer"]["param_groups"][0]["lr"]
    assert rates == pytest.approx(1e-5)


NO_DOWNLOAD = [name for name in EXPERIMENTS if name.startswith(("sinusoid-", "glyphs-"))]
OF_EVERY_METHOD = list({type(EXPERIMENTS[name].config.method): name for name in reversed(NO_DOWNLOAD)}.values())
"""The first row of every method that needs no data."""


@pytest.mark.parametrize("name", OF_EVERY_METHOD)
def test_every_method_trains_and_is_tested(name: str):
    config = EXPERIMENTS[name].config
    small = ["--meta-batch", "2", "--iterations", "2", "--no-compile", "--validation-tasks", "2", "--run", "a"]
    if isinstance(config, FewShot):
        options = {"steps": config.method.steps, "test-steps": config.test_steps}
        few = [word for name, value in options.items() if value for word in (f"--{name}", str(min(value, 4)))]
        small = [*small, *few, "--filters", "4"]
    run("train", name, *small)
    found = Run("a").evaluate(tasks=2)
    assert len(found["mean"]) == len(found["ci95"]) == Run("a").experiment.test_steps + 1
    assert (found["iterations"], found["training_tasks"]) == (2, round(2 * Run("a").experiment.tasks_per_iteration))
    assert found["seconds_per_1000_tasks"] > 0


def test_the_rows_without_a_download_have_every_method():
    methods = {row.config.method.name for row in EXPERIMENTS.values() if isinstance(row.config, FewShot)}
    assert methods == {EXPERIMENTS[name].config.method.name for name in OF_EVERY_METHOD if name.startswith("glyphs-")}


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
    monkeypatch.setattr(FewShot, "images", blank_images)
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
    assert "not a run folder" in fails(capsys, "evaluate", "nowhere")
    assert "not a run folder" in fails(capsys, "train", "--resume", "nowhere")
    assert "no experiment matches" in fails(capsys, "list", "cheese*")
    assert "there is no table" in fails(capsys, "reproduce", "cheese")
    assert "no results" in fails(capsys, "reproduce", "sinusoid", "--no-train")
    assert "--iterations" in fails(capsys, "train", "sinusoid-5shot-maml", "--iterations", "many")
    said = fails(capsys, "train", "sinusoid-5shot-maml", "--dtype", "float8")
    assert "--dtype: expected float32 or float64; got float8" in said
    said = fails(capsys, "train", "sinusoid-5shot-maml", "--schedule", "cheese")
    assert "--schedule: expected constant or linear or cosine" in said
    assert "Did you mean --iterations" in fails(capsys, "train", "sinusoid-5shot-maml", "--itertions", "3")
    assert "experiment comes first" in fails(capsys, "train", "--threads", "1", "sinusoid-5shot-maml")
    Path("damaged").mkdir()
    Path("damaged/config.json").write_text("{")
    assert "damaged/config.json is damaged: Expecting" in fails(capsys, "train", "--resume", "damaged")
    assert "--to: expected a file; damaged is a folder" in fails(capsys, "report", "damaged", "--to", "damaged")
    for command in (("train", "sinusoid-5shot-maml"), ("list",), ("data",)):
        assert "--allocator must be one of auto" in fails(capsys, *command, "--allocator", "cheese")
    for command in (("train", "sinusoid-5shot-maml"), ("reproduce", "sinusoid", "--dry-run")):
        for device in ("cheese", "cuda:99"):
            assert f"no device '{device}' on this machine" in fails(capsys, *command, "--device", device)
    assert "4000" in fails(capsys, "train", "glyphs-5way-1shot", "--ways", "4000")
    monkeypatch.setenv("FEWSTEP_DATA", "nowhere")
    assert "fewstep data download omniglot" in fails(capsys, "train", "omniglot-5way-1shot-maml")
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("--meta-batch", "0"), ("--iterations", "-3"), ("--iterations", "0"), ("--shots", "0"), ("--steps", "-1"),
        ("--inner-lr", "-0.1"), ("--inner-lr", "nan"), ("--validate-every", "0"), ("--clip-norm", "0"),
        ("--threads", "-2"), ("--test-queries", "0"),
    ],
)  # fmt: skip
def test_options_out_of_bounds_leave_no_folder(capsys: pytest.CaptureFixture[str], words: tuple[str, str]):
    said = fails(capsys, "train", "sinusoid-5shot-maml", *words)
    assert f"{words[0]}: expected a number" in said
    assert said.splitlines()[0].endswith(f"got {words[1]}.")
    assert not Path("runs").exists()


def test_options_of_a_program_are_checked_too():
    config = replace(EXPERIMENTS["sinusoid-5shot-maml"].config, meta_batch=0)
    with pytest.raises(ValueError, match=r"meta_batch: expected a number of at least 1; got 0\."):
        Run.create("sinusoid-5shot-maml", config, Training(), "a")
    assert not Path("a").exists()


def test_a_start_that_fails_does_not_block_the_next_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object):
        raise RuntimeError("no compiler")

    with monkeypatch.context() as patch:
        patch.setattr(fewstep.MetaLearner, "meta_gradient", fail)
        assert "no compiler" in fails(capsys, "train", "sinusoid-5shot-maml", *QUICK, "--run", "a")
    assert not Path("a").exists()
    run("train", "sinusoid-5shot-maml", *QUICK, "--inner-lr", "0.02", "--run", "a")
    assert Run("a").experiment.method.inner_lr == 0.02


def test_switches_and_groups_of_options():
    @dataclass(frozen=True)
    class Inner:
        """Within."""

        rate: NonNegative = 0.5
        """A rate."""
        hidden: Annotated[int, NotAnOption] = 7

    @dataclass(frozen=True)
    class Outer:
        """Outside."""

        folder: Annotated[Path, Argument]
        """A folder."""
        inner: Inner = Inner()
        compile: bool = True
        """Whether to compile."""
        dry_run: bool = False
        """Whether to run dry."""
        shots: tuple[Count, ...] = ()
        """Numbers of shots."""
        kind: Literal["a", "b"] | None = None
        """A kind."""
        chunk: Count | None = 5
        """Tasks at a time."""

    assert parse(Outer, "x", ["here"]) == Outer(Path("here"))
    words = ["here", "--no-compile", "--dry-run", "--rate", "1e-3", "--shots", "1", "5", "--kind", "b"]
    assert parse(Outer, "x", words) == Outer(Path("here"), Inner(0.001), False, True, (1, 5), "b")
    assert parse(Outer, "x", ["here", "--chunk", "none"]).chunk is None
    defaults = Outer(Path("there"), Inner(2.0, 8), compile=False)
    assert parse(Outer, "x", ["here", "--compile"], defaults) == Outer(Path("here"), Inner(2.0, 8))
    for wrong in (["here", "--hidden", "3"], ["here", "there"], ["here", "--shots", "1", "0"], []):
        with pytest.raises(SystemExit):
            parse(Outer, "x", wrong)


def test_help_has_no_colours_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]):
    for words in (["--help"], ["evaluate", "--help"]):
        with contextlib.suppress(SystemExit):
            main(words)
        assert "\033" not in capsys.readouterr().out


def test_help_does_not_load_torch():
    for words in ("", "evaluate", "analyse", "plot", "report", "demo", "data", "data download"):
        code = f"import sys, fewstep.cli as c\ntry: c.main({[*words.split(), '--help']})\nexcept SystemExit: pass\n"
        subprocess.run([sys.executable, "-c", f"{code}assert 'torch' not in sys.modules, {words!r}"], check=True)


def test_list_finds_names_that_contain_a_word(capsys: pytest.CaptureFixture[str]):
    run("list", "sinusoid")
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == [name for name in EXPERIMENTS if "sinusoid" in name]


def test_a_run_of_fit_is_plotted_and_pointed_to_python(capsys: pytest.CaptureFixture[str]):
    def make():
        torch.manual_seed(0)
        return fewstep.maml(fewstep.models.MLP(1, [8], 1), fewstep.mse, inner_lr=0.01)

    tasks = fewstep.tasks.Sinusoids()
    options = {"iterations": 6, "log_every": 2, "validate_every": 3, "num_validation_tasks": 4, "progress": False}
    fewstep.fit(make(), tasks, validation=tasks, run="mine", **options)
    run("plot", "mine")
    assert capsys.readouterr().out == "Wrote mine/learning-curve.png\n"
    assert Path("mine/learning-curve.png").is_file()
    for command in (["evaluate", "mine"], ["analyse", "mine"], ["train", "--resume", "mine"]):
        said = fails(capsys, *command)
        assert "no experiment" in said
        assert 'fs.load("mine", learner, which="best")' in said
        assert 'run="mine", resume=True' in said
    assert "holds a run of fewstep.fit" in fails(capsys, "train", "sinusoid-5shot-maml", *QUICK, "--run", "mine")


def test_a_run_is_not_trained_over(capsys: pytest.CaptureFixture[str]):
    run("train", "sinusoid-5shot-maml", *QUICK, "--run", "a")
    assert "--resume a" in fails(capsys, "train", "sinusoid-5shot-maml", *QUICK, "--run", "a")
    run("train", "--resume", "a")  # finished: nothing left to do


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("glyphs-5way-1shot-maml", ["--damping", "99"], "--damping does not apply to glyphs-5way-1shot-maml"),
        ("glyphs-5way-1shot-anil", ["--adapts-norms"], "--adapts-norms does not apply"),
        ("glyphs-5way-1shot-protonet", ["--steps=5"], "--steps does not apply"),
        ("glyphs-5way-1shot-protonet", ["--compile"], "the learner of the method 'protonet' is not compiled"),
        ("glyphs-5way-1shot", ["--network", "no-conv", "--filters", "8"], "the network 'no-conv' are fixed"),
        ("sinusoid-5shot-maml", ["--penalty", "1"], "--penalty does not apply"),
        ("navigation-maml", ["--rewards", "gymnasium"], "--rewards does not apply"),
        ("cheetah-direction-promp", ["--max-kl", "1"], "--max-kl does not apply"),
    ],
)
def test_options_that_do_not_apply_do_not_exist(
    name: str, options: list[str], reason: str, capsys: pytest.CaptureFixture[str]
):
    assert reason in fails(capsys, "train", name, *options)
    assert not Path("runs").exists()


def test_only_the_standard_test_is_in_results_json(capsys: pytest.CaptureFixture[str]):
    run("train", "sinusoid-5shot-maml", *QUICK, "--run", "a")
    whole = Run("a")
    standard = whole.evaluate()
    assert (standard["file"], standard["options"]) == (Path("a/results.json"), {})
    assert (standard["tasks"], standard["steps"], standard["queries"]) == (600, 10, 100)
    assert standard["other_shots"].keys() == {"10", "20"}
    before = Path("a/results.json").read_bytes()
    for options, name in {
        ("--tasks", "7"): "results-tasks-7",
        ("--steps", "1", "--queries", "9"): "results-steps-1-queries-9",
        ("--seed", "3"): "results-seed-3",
        ("--checkpoint", "last"): "results-checkpoint-last",
        ("--shots", "10"): "results-shots-10",
    }.items():
        run("evaluate", "a", *options)
        assert f"Wrote a/{name}.json" in capsys.readouterr().out
        assert json.loads(Path(f"a/{name}.json").read_text())["options"]
    assert Path("a/results.json").read_bytes() == before
    run("evaluate", "a", "--tasks", "600", "--steps", "10", "--shots", "5", "10", "20")
    assert "Wrote a/results.json" in capsys.readouterr().out, "these are the row's own options"
    assert json.loads(Path("a/results.json").read_text())["mean"] == standard["mean"]


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
        shown = capsys.readouterr().out
        options = re.findall(r"^  (-.*(?:\n {8,}.*)*)", shown, re.MULTILINE)
        assert options
        for option in options:  # the names, a value, and a sentence
            assert re.search(r"(  |\n) *[A-Z2][^\n]* ", option), f"{words}: {option} has no help"
            assert option.rstrip().endswith((".", "!")), f"{words}: {option} is not a sentence"
        assert not {"None", "INT", "STR", "{None}"} & set(re.split(r"[\s|,]+", shown))
    main(["--help"])
    assert "--allocator" in capsys.readouterr().out


def test_reproduce_trains_tests_and_sets_beside_the_paper(capsys: pytest.CaptureFixture[str]):
    words = ["reproduce", "sinusoid", "--rows", "sinusoid-10shot-[po]*", "--seeds", "0", "1", "--iterations", "3",
             "--no-compile", "--runs", "r"]  # fmt: skip
    run(*words)
    files = sorted(path.name for path in Path("r/results").iterdir())
    results = [f"sinusoid-10shot-{method}-seed{seed}.json" for method in ("oracle", "pretrained") for seed in (0, 1)]
    assert files == ["curves", "figure-3.png", "report.html", *results, "table.md"]
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
    assert "holds other files" in fails(capsys, "demo", "--iterations", "5", "--run", "other")
    assert Path("other/thesis.txt").is_file()
