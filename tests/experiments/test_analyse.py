"""``fewstep analyse``, ``evaluate`` under other protocols, and ``plot``, for small runs."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import fewstep as fs
from fewstep.cli import main
from fewstep.experiments.analysis import analyse
from fewstep.experiments.catalogue import find
from fewstep.experiments.few_shot import FewShot
from fewstep.experiments.runs import Run
from fewstep.experiments.settings import with_settings
from fewstep.experiments.training import Training
from fewstep.tasks import generator
from fewstep.training import RunFolder

SMALL = {"filters": 4, "meta_batch": 2, "iterations": 2}


def made(path: Path, name: str, train: bool = True, **settings: Any) -> Run:
    config = find(name).config
    size = SMALL if isinstance(config, FewShot) else {"meta_batch": 2, "iterations": 2}
    config = with_settings(config, **size, **settings)
    run = Run.create(name, config, Training(compile=False, validation_tasks=2, validate_every=2, log_every=1), path)
    if train:
        run.train(progress=False)
    return run


@pytest.fixture(scope="module")
def glyphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return made(tmp_path_factory.mktemp("runs") / "glyphs", "glyphs-5way-1shot").folder.path


def run(*words: str) -> None:
    main([*words, "--allocator", "default"])


@pytest.mark.parametrize("command", ["evaluate", "analyse", "plot"])
def test_a_run_of_another_machine(glyphs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str):
    moved = RunFolder(shutil.copytree(glyphs, tmp_path / "moved"))
    config = json.loads(moved.config_file.read_text())
    config["training"]["device"] = "cuda:99"
    moved.config_file.write_text(json.dumps(config))
    words = [command, str(moved.path), *(["--tasks", "2"] if command != "plot" else [])]
    with pytest.raises(SystemExit):
        run(*words)
    assert "--device cpu" in capsys.readouterr().err
    run(*words, "--device", "cpu", "--threads", "1")
    assert f"Wrote {moved.path}" in capsys.readouterr().out


def test_analysis_of_a_run(glyphs: Path, capsys: pytest.CaptureFixture[str]):
    run("analyse", str(glyphs), "--tasks", "6", "--queries", "4")
    shown = capsys.readouterr().out
    found = json.loads((glyphs / "analysis.json").read_text())
    assert (found["tasks"], found["steps"], found["queries"], found["queries_of_similarity"]) == (6, 3, 1, 4)
    blocks = ["body.0", "body.1", "body.2", "body.3", "head"]
    frozen = found["freezing"]
    assert frozen["names"] == ["none", *blocks]
    whole = Run(glyphs)
    own = fs.evaluate(whole.load_learner(), whole.experiment.test_source(), 6, 3, fs.accuracy)
    assert frozen["mean"][0] == pytest.approx(own.mean[-1])
    assert frozen["mean"][-1] == pytest.approx(own.mean[0])
    assert found["similarity"].keys() == {"CKA", "CCA", "CCA by chance"}
    assert found["similarity"]["CKA"]["names"] == blocks
    assert 0 <= found["nil"]["mean"] <= 1
    assert f"{100 * frozen['mean'][0]:.2f}% ± {100 * frozen['ci95'][0]:.2f}" in shown
    assert "iteration 2" in shown
    for line in re.findall("Wrote (.*)", shown):
        assert Path(line).is_file()
    assert (glyphs / "feature-reuse.png").read_bytes().startswith(b"\x89PNG")


def test_nil_is_that_of_the_features_before_the_head(glyphs: Path):
    whole = Run(glyphs)
    found = analyse(whole, tasks=4, queries=2)
    learner, source = whole.load_learner().eval(), whole.experiment.test_source()
    tasks = source.sample(4, generator(0, 0, stream=2))
    right = []
    for i in range(4):
        support, query = tasks[i].support, tasks[i].query
        model = learner.adapt(support, steps=0)
        with torch.no_grad():
            known, z = (torch.nn.functional.normalize(model.embed(x)) for x in (support.x, query.x))
        right.append(((z @ known.T).argmax(1) == query.y).double().mean())
    assert found["nil"]["mean"] == pytest.approx(torch.stack(right).mean().item())


def test_chance_lies_below_what_is_alike(tmp_path: Path):
    found = analyse(made(tmp_path / "a", "glyphs-5way-1shot-anil"), tasks=3)
    for name in ("CKA", "CCA"):
        assert found["similarity"][name]["mean"][:4] == pytest.approx([1.0] * 4)
    assert max(found["similarity"]["CCA by chance"]["mean"][:4]) < 0.6
    assert found["queries_of_similarity"] == 19  # all but the shot, of 20 images
    assert found["freezing"]["mean"][0] == found["freezing"]["mean"][4]


def test_sine_waves_have_no_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    made(tmp_path / "a", "sinusoid-5shot-maml")
    run("analyse", str(tmp_path / "a"), "--tasks", "5", "--steps", "2")
    found = json.loads((tmp_path / "a" / "analysis.json").read_text())
    assert (found["metric"], found["steps"], found["nil"]) == ("mse", 2, None)
    assert found["freezing"]["names"] == ["none", "0", "2", "4"]
    assert "NIL" not in capsys.readouterr().out
    whole = Run(tmp_path / "a")
    after_relu = fs.evaluation.layer_similarity(
        whole.load_learner(), whole.experiment.test_source(queries=500), 5, 2, ["1", "3", "4"], meta_batch=20
    )
    assert found["similarity"]["CKA"]["names"] == ["0", "2", "4"]
    assert found["similarity"]["CKA"]["mean"] == pytest.approx(after_relu["CKA"].mean)


@pytest.mark.parametrize("method", ["cavia", "maml++", "reptile", "meta-lstm"])
def test_analysis_of_other_gradient_methods(tmp_path: Path, method: str):
    whole = made(tmp_path / "a", f"glyphs-5way-1shot-{method}", steps=2, test_steps=2)
    found = analyse(whole, tasks=3, queries=2)
    own = fs.evaluate(whole.load_learner(), whole.experiment.test_source(), 3, 2, fs.accuracy)
    assert found["freezing"]["mean"][0] == pytest.approx(own.mean[-1])
    rows = 1 if method == "cavia" else 6
    assert len(found["freezing"]["names"]) == rows
    assert len(found["similarity"]["CKA"]["names"]) == 5
    assert found["nil"]["mean"] > 0


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("glyphs-5way-1shot-protonet", "PrototypicalNetwork, whose features are the same for every task"),
        ("glyphs-5way-1shot-fine-tuning", "PretrainedClassifier, whose features are the same for every task"),
        ("sinusoid-5shot-oracle", "not adapted at test"),
        ("sinusoid-5shot-multi-task", "MultiTask, which is none"),
    ],
)
def test_what_cannot_be_analysed_says_why(tmp_path: Path, name: str, words: str):
    with pytest.raises(ValueError, match=words):
        analyse(made(tmp_path / "a", name))


def test_freezing_under_support_norms_takes_each_tasks_own_statistics(tmp_path: Path):
    whole = made(tmp_path / "a", "glyphs-5way-1shot", norm="support")
    learner, source = whole.load_learner(), whole.experiment.test_source()
    frozen = fs.evaluation.freezing(learner, source, num_tasks=8, blocks={"body.0": "body.0.*"})
    adapts = [name for name in learner.adapts if not name.startswith("body.0")]
    own = fs.maml(learner.model, fs.cross_entropy, whole.experiment.method.inner_lr, adapts=adapts)
    expected = fs.evaluate(own, source, 8, metric=fs.accuracy)
    torch.testing.assert_close(frozen.values[:, 1], expected.values[:, -1])


def test_evaluation_reads_in_percent_and_says_where_training_stands(glyphs: Path, capsys: pytest.CaptureFixture[str]):
    run("evaluate", str(glyphs), "--tasks", "8", "--steps", "1", "--queries", "3", "--norm", "support", "batch")
    shown = " ".join(capsys.readouterr().out.split())
    results = json.loads((glyphs / "results-tasks-8-steps-1-queries-3.json").read_text())
    assert (results["queries"], list(results["other_norms"])) == (3, ["support"])
    for found in (results, results["other_norms"]["support"]):
        assert f"{100 * found['mean'][1]:.2f}% ± {100 * found['ci95'][1]:.2f}" in shown
        assert (found["mean"][1] * 8 * 15) == pytest.approx(round(found["mean"][1] * 8 * 15), abs=1e-3)
    assert "best checkpoint (iteration 2; trained for 2)" in shown
    assert "3 query examples of each class" in shown


def test_the_support_norm_is_not_transductive_on_the_same_weights(glyphs: Path):
    whole = Run(glyphs)
    found = whole.evaluate(tasks=5, steps=2, queries=2, norms=("support",))["other_norms"]["support"]
    learner = whole.load_learner(norm="support").eval()
    for name, value in whole.load_learner().named_parameters():
        assert torch.equal(value, dict(learner.named_parameters())[name])
    tasks = whole.experiment.test_source(queries=2).sample(5, generator(0, 0, stream=2))
    right = []
    for i in range(5):
        model = learner.adapt(tasks[i].support, steps=2)
        alone = torch.cat([model(x[None]) for x in tasks[i].query.x])
        right.append((alone.argmax(1) == tasks[i].query.y).double().mean())
    assert found["mean"][-1] == pytest.approx(torch.stack(right).mean().item())


def test_running_norms_give_their_weights_to_others(tmp_path: Path):
    found = made(tmp_path / "a", "glyphs-5way-1shot", norm="running").evaluate(tasks=3, norms=("batch", "support"))
    assert found["other_norms"].keys() == {"batch", "support"}


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("glyphs-5way-1shot", {"norm": "group"}, "trained under the norm 'group', whose parameters are of another"),
        ("glyphs-5way-1shot-protonet", {}, "PrototypicalNetwork puts support and query images through"),
        ("sinusoid-5shot-maml", {}, "has no normalisation to change"),
    ],
)
def test_norms_that_the_parameters_do_not_allow(tmp_path: Path, name: str, settings: dict[str, Any], words: str):
    whole = made(tmp_path / "a", name, **settings)
    with pytest.raises(ValueError, match=words):
        whole.evaluate(tasks=2, norms=("support",))


def test_a_run_that_is_still_training_is_tested(tmp_path: Path):
    whole = made(tmp_path / "a", "glyphs-5way-1shot", train=False)
    with pytest.raises(FileNotFoundError, match="has no checkpoint yet: training saves the last every 1,000"):
        whole.evaluate(tasks=2)
    learner = whole.experiment.learner(False)
    whole.folder.save({"learner": learner.state_dict(), "iteration": 1, "seconds": 2.0})
    found = whole.evaluate(tasks=2)
    assert (found["checkpoint"], found["checkpoint_iteration"], found["iterations"]) == ("last", 1, 1)
    with pytest.raises(FileNotFoundError, match="no best checkpoint yet"):
        whole.evaluate(tasks=2, checkpoint="best")
    whole.folder.save({"learner": learner.state_dict(), "iteration": 2}, "best")
    found = whole.evaluate(tasks=2)
    assert (found["checkpoint"], found["checkpoint_iteration"], found["iterations"]) == ("best", 2, 2)


def test_memory_does_not_grow_with_the_tasks(glyphs: Path):
    class Counted:
        def __init__(self, source: Any) -> None:
            self.source, self.sizes = source, []

        def sample(self, n: int, generator: Any = None) -> Any:
            self.sizes.append(n)
            return self.source.sample(n, generator)

    source = Counted(Run(glyphs).experiment.test_source())
    fs.evaluate(Run(glyphs).load_learner(), source, num_tasks=25, steps=0, metric=fs.accuracy, meta_batch=10)
    assert source.sizes == [2, 2, 10, 10, 5]  # two draws of two tasks check the source


def test_plots_of_a_run(glyphs: Path, capsys: pytest.CaptureFixture[str]):
    (glyphs / "results.json").unlink(missing_ok=True)
    run("plot", str(glyphs))
    shown = capsys.readouterr().out
    assert f"fewstep evaluate {glyphs}" in shown
    assert not (glyphs / "steps.png").exists()
    Run(glyphs).evaluate()
    run("plot", str(glyphs))
    files = [Path(line) for line in re.findall("Wrote (.*)", capsys.readouterr().out)]
    assert [file.name for file in files] == ["learning-curve.png", "steps.png", "episode.png"]
    for file in files:
        assert file.read_bytes().startswith(b"\x89PNG")
        assert 10_000 < file.stat().st_size < 200_000


def test_episode_of_a_learner_without_steps(tmp_path: Path):
    whole = made(tmp_path / "a", "glyphs-5way-1shot-protonet", ways=12)
    assert [file.name for file in whole.plot()] == ["learning-curve.png", "episode.png"]
