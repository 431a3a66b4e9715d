"""Reproducing within a time limit: what is trained first, what is left behind, and how it goes on."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import fewstep as fs
from fewstep.cli import main
from fewstep.command_options import Reproduce
from fewstep.experiments import plan
from fewstep.experiments.experiment import Training
from fewstep.experiments.runs import EXPERIMENTS, Run
from fewstep.reproduce_command import reproduce
from fewstep.training import RunFolder
from fewstep.training.progress import seconds_of

ROW = "sinusoid-5shot-oracle"
NAME = f"{ROW}-seed0"
OPTIONS = Reproduce(rows=ROW, runs=Path("r"), to=Path("out"), compile=False, max_time="1h")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fewstep.experiments.reproduce.SAVING", 0.0)
    monkeypatch.setattr("fewstep.experiments.reproduce.STARTING", 0.0)


def with_seconds_left(seconds, **options):
    reproduce(replace(OPTIONS, **options), time.monotonic() - 3600 + seconds)


def trained_at_once(iterations):
    run = Run.create(ROW, EXPERIMENTS[ROW].config, Training(compile=False), "whole")
    run.train(progress=False, until=iterations)
    return run.folder.load()


def assert_same(state, expected):
    for part in ("learner", "optimizer"):
        torch.testing.assert_close(state[part], expected[part], rtol=0, atol=0)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("9m", 540), ("1.5h", 5400), ("540", 540), (" .5 m", 30)])
def test_durations(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-5m", "0", "5 days", "1h30m", "nan"])
def test_what_is_no_duration_is_refused_before_anything_is_made(text, capsys):
    with pytest.raises(SystemExit):
        main(["reproduce", "sinusoid", f"--max-time={text}", "--runs", "r", "--allocator", "default"])
    assert f"expected a duration such as 90s, 9m, 1.5h, or a number of seconds; got {text!r}" in capsys.readouterr().err
    assert not Path("r").exists()


def test_fit_stops_at_the_deadline_and_goes_on_as_if_it_had_not():
    def trained(folder, deadline, iterations=6):
        torch.manual_seed(0)
        learner = fs.maml(fs.models.MLP(1, [4], 1), fs.mse, inner_lr=0.01)
        optimizer = torch.optim.Adam(learner.parameters(), 1e-3)
        fs.fit(
            learner, fs.tasks.Sinusoids(), optimizer, iterations=iterations, run=folder, resume=True,
            deadline=deadline, progress=False,
        )  # fmt: skip
        return RunFolder(folder).load()

    assert trained("parts", time.monotonic())["iteration"] == 1
    assert trained("parts", time.monotonic() + 60)["iteration"] == 6
    assert_same(RunFolder("parts").load(), trained("whole", None))


def test_a_run_that_is_cut_goes_on_elsewhere_bit_for_bit(capsys):
    with_seconds_left(1.5)
    shown = capsys.readouterr().out
    done = RunFolder(f"out/unfinished/{NAME}").load()["iteration"]
    assert 0 < done < 70_000
    assert "What is left:" in shown
    assert f"{done:,}" in shown
    assert Path(f"out/curves/{NAME}.jsonl").is_file()
    assert not Path(f"out/{NAME}.json").exists()
    assert sorted(p.name for p in Path(f"out/unfinished/{NAME}").iterdir()) == [
        "checkpoints", "config.json", "metrics.jsonl",
    ]  # fmt: skip
    before = Path(f"out/unfinished/{NAME}/checkpoints/last.safetensors").read_bytes()
    goes_on = replace(OPTIONS, runs=Path("other"), to=Path("there"), unfinished=Path("out/unfinished"), max_time=None)
    reproduce(replace(goes_on, iterations=done + 3), time.monotonic())
    assert_same(RunFolder(f"other/{NAME}").load(), trained_at_once(done + 3))
    assert json.loads(Path(f"there/{NAME}.json").read_text())["iterations"] == done + 3
    assert Path(f"out/unfinished/{NAME}/checkpoints/last.safetensors").read_bytes() == before


def test_what_reaches_its_end_is_tested_and_no_longer_unfinished(monkeypatch):
    row = EXPERIMENTS[ROW]
    monkeypatch.setitem(EXPERIMENTS, ROW, replace(row, config=replace(row.config, iterations=4)))
    Run.create(ROW, EXPERIMENTS[ROW].config, Training(compile=False), f"out/unfinished/{NAME}").train(
        progress=False, until=2
    )
    with_seconds_left(3600, unfinished=Path("out/unfinished"))
    assert json.loads(Path(f"out/{NAME}.json").read_text())["iterations"] == 4
    assert not Path(f"out/unfinished/{NAME}").exists()


def test_what_cannot_be_tested_any_more_is_left_at_its_end(monkeypatch):
    row = EXPERIMENTS[ROW]
    monkeypatch.setitem(EXPERIMENTS, ROW, replace(row, config=replace(row.config, iterations=4)))
    monkeypatch.setattr("fewstep.experiments.reproduce._seconds_of_test", lambda *_: 7200.0)
    with_seconds_left(3600)
    assert not Path(f"out/{NAME}.json").exists()
    assert RunFolder(f"out/unfinished/{NAME}").load()["iteration"] == 4


def test_nothing_is_begun_when_the_time_is_over():
    with_seconds_left(-1)
    assert not Path("r").exists()
    assert not Path("out").exists()


def test_a_run_of_more_iterations_is_not_replaced_by_an_unfinished_one():
    for folder, iterations in ((f"r/{NAME}", 3), (f"u/{NAME}", 2)):
        Run.create(ROW, EXPERIMENTS[ROW].config, Training(compile=False), folder).train(
            progress=False, until=iterations
        )
    (planned,) = plan.plan([EXPERIMENTS[ROW]], (0,), Path("r"), Path("out"), unfinished=Path("u"))
    assert (planned.done, planned.taken_from) == (3, None)
    (planned,) = plan.plan([EXPERIMENTS[ROW]], (0,), Path("nowhere"), Path("out"), unfinished=Path("u"))
    assert (planned.done, planned.taken_from) == (2, Path("u") / NAME)


def test_papers_numbers_first_then_the_least_work():
    names = ["omniglot-5way-1shot-budget-maml", "omniglot-20way-5shot-maml", "omniglot-5way-5shot-maml"]
    planned = plan.plan([EXPERIMENTS[name] for name in names], (0,), Path("r"), Path("out"))
    ordered = [one.row.name for one in plan.by_paper_and_work(planned)]
    assert ordered == ["omniglot-5way-5shot-maml", "omniglot-20way-5shot-maml", "omniglot-5way-1shot-budget-maml"]


def test_a_dry_run_says_what_fits(capsys):
    reproduce(replace(OPTIONS, table="glyphs", rows="glyphs-5way-1shot-*maml", dry_run=True, max_time="1s"), 0.0)
    shown = capsys.readouterr().out
    assert "fits" in shown
    assert "in part" in shown
    assert not Path("r").exists()
