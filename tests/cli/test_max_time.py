"""Reproducing within a time limit: what is trained first, what is left behind, and how it goes on."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import fewstep as fs
from fewstep.cli import main
from fewstep.cli.reproduce import Reproduce, reproduce
from fewstep.experiments import plan
from fewstep.experiments.catalogue import EXPERIMENTS
from fewstep.experiments.runs import Run
from fewstep.experiments.schedule import EstimatedRun, by_paper_and_time, by_paper_and_work, seconds_to_start, what_fits
from fewstep.experiments.training import Training
from fewstep.training import RunFolder
from fewstep.training.deadline import Deadline, seconds_of_test
from fewstep.training.processor import processor
from fewstep.training.progress import seconds_of

ROW = "sinusoid-5shot-oracle"
NAME = f"{ROW}-seed0"
GLYPHS = ("glyphs-5way-1shot-anil", "glyphs-5way-1shot-protonet")
OPTIONS = Reproduce(rows=ROW, runs=Path("r"), to=Path("out"), compile=False, max_time="1h")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEWSTEP_TRACEBACK", "")
    monkeypatch.setattr("fewstep.experiments.reproduce.seconds_to_start", lambda *_: 0.0)
    monkeypatch.setattr("fewstep.cli.reproduce.SAVING", 0.5)


@pytest.fixture
def small_glyphs(monkeypatch):
    for name in GLYPHS:
        config = replace(
            EXPERIMENTS[name].config,
            filters=4,
            iterations=4,
            meta_batch=2,
        )
        training = {"compile": False, "validate_every": 2, "validation_tasks": 4, "log_every": 1}
        monkeypatch.setitem(EXPERIMENTS, name, replace(EXPERIMENTS[name], config=config, training=training))


def with_seconds_left(seconds, **options):
    reproduce(replace(OPTIONS, **options), time.monotonic() - 3600 + seconds)


def begun(folder, iterations, name=ROW):
    row = EXPERIMENTS[name]
    run = Run.create(name, row.config, replace(Training(compile=False), **row.training), folder)
    run.train(progress=False, until=iterations)
    return run.folder.load()


def shorter(monkeypatch, iterations=4):
    row = EXPERIMENTS[ROW]
    monkeypatch.setitem(EXPERIMENTS, ROW, replace(row, config=replace(row.config, iterations=iterations)))


def files_of(folder):
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in Path(folder).rglob("*") if path.is_file()}


def assert_same(state, expected):
    for part in ("learner", "optimizer", "random"):
        torch.testing.assert_close(state[part], expected[part], rtol=0, atol=0)


# Durations


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("9m", 540), ("1.5h", 5400), ("540", 540), (" .5 m", 30)])
def test_durations(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-5m", "0", "5 days", "1h30m", "nan"])
def test_what_is_no_duration_is_refused_before_anything_is_made(text, capsys):
    with pytest.raises(SystemExit):
        main(["reproduce", "sinusoid", f"--max-time={text}", "--runs", "r", "--allocator", "default"])
    expected = f"--max-time: expected a duration such as 90s, 9m, 1.5h, or a number of seconds; got {text!r}"
    assert expected in capsys.readouterr().err
    assert not Path("r").exists()


# The deadline of training


class Clock:
    """In place of ``time`` where the deadline is kept."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr("fewstep.training.deadline.time", self)

    def monotonic(self):
        return self.now

    def pass_by(self, seconds):
        self.now += seconds


def iterate(clock, limit, seconds):
    limit.iteration_begins()
    clock.pass_by(seconds)
    limit.iteration_ends(lambda: None)


def test_an_iteration_that_would_end_late_is_not_begun(monkeypatch):
    clock = Clock(monkeypatch)
    limit = Deadline(100.0)
    iterate(clock, limit, 60.0)  # compiles
    assert not limit.leaves_time(0, clock.pass_by, 1), "the first iteration is all that is known"
    iterate(clock, limit, 10.0)
    assert limit.leaves_time(0, clock.pass_by, 1)
    iterate(clock, limit, 18.0)  # the slowest counts
    assert not limit.leaves_time(0, clock.pass_by, 1)
    assert Deadline(None).leaves_time(9, clock.pass_by, 400)


def test_a_validation_that_would_end_late_stops_training_before_it(monkeypatch):
    clock = Clock(monkeypatch)
    limit = Deadline(90.0)
    for _ in range(2):
        iterate(clock, limit, 1.0)
    tried = []

    def validate(tasks):
        tried.append(tasks)
        clock.pass_by(0.1 * tasks)

    assert limit.leaves_time(1, validate, 400)
    assert tried == [2]
    assert limit.leaves_time(1, validate, 400)
    assert tried == [2], "looked at once"
    assert not limit.leaves_time(2, validate, 400), "this one, and the next after one more iteration"
    limit.validation_took(80.0)
    assert not limit.leaves_time(1, validate, 400)
    assert limit.leaves_time(0, validate, 400)


def test_more_tasks_are_tried_where_a_few_say_no(monkeypatch):
    clock, tried = Clock(monkeypatch), []

    def test(tasks):
        tried.append(tasks)
        clock.pass_by(1.0 + 0.01 * tasks)  # of which most is not the tasks'

    assert seconds_of_test(test, 600, 30.0) == pytest.approx(1.2 * 600 * 2.0 / 100)
    assert tried == [2, 10, 100]
    clock.now = 0.0
    assert seconds_of_test(test, 600, 4.0) > 4.0, "no time to try more"
    assert tried == [2, 10, 100, 2]


@pytest.mark.parametrize("stops", [{1}, {3, 9}, {4, 5, 10, 11}])
def test_a_run_that_is_cut_ends_as_if_it_had_not_been(stops, monkeypatch):
    def trained(folder, deadline):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 1))
        learner = fs.maml(model, fs.mse, inner_lr=0.01)
        optimizer = torch.optim.Adam(learner.parameters(), 1e-3)
        fs.fit(
            learner, fs.tasks.Sinusoids(), optimizer, iterations=12, run=folder, resume=True, deadline=deadline,
            validation=fs.tasks.Sinusoids(), validate_every=5, num_validation_tasks=3, log_every=4, progress=False,
        )  # fmt: skip
        return RunFolder(folder).load()["iteration"]

    asked = iter(range(1, 100))
    leaves_time = Deadline.leaves_time

    def some_do_not(self, validations, test, tasks):
        return leaves_time(self, validations, test, tasks) and next(asked) not in stops

    ends = []
    with monkeypatch.context() as patch:
        patch.setattr(Deadline, "leaves_time", some_do_not)
        while not ends or ends[-1] < 12:
            ends.append(trained("parts", time.monotonic() + 3600))
    assert ends == [*sorted(stops), 12]
    trained("whole", None)
    for which in ("last", "best"):
        a, b = RunFolder("parts").load(which), RunFolder("whole").load(which)
        parts = ("learner", "optimizer", "random") if which == "last" else ("learner",)
        for part in parts:
            torch.testing.assert_close(a[part], b[part], rtol=0, atol=0)
        assert a["iteration"] == b["iteration"]
    of_validations = [[row for row in RunFolder(run).metrics() if "validation" in row] for run in ("parts", "whole")]
    assert of_validations[0] == of_validations[1]


def test_no_iteration_is_begun_after_the_deadline():
    learner = fs.maml(fs.models.MLP(1, [4], 1), fs.mse, inner_lr=0.01)
    optimizer = torch.optim.Adam(learner.parameters(), 1e-3)
    options = {"iterations": 3, "progress": False, "run": "here", "resume": True}
    assert fs.fit(learner, fs.tasks.Sinusoids(), optimizer, deadline=time.monotonic(), **options) == []
    assert not RunFolder("here").has_checkpoint()
    assert len(fs.fit(learner, fs.tasks.Sinusoids(), optimizer, deadline=time.monotonic() + 600, **options)) == 1


# A row that is cut, one that ends, one that cannot be tested any more


def test_a_run_that_is_cut_goes_on_elsewhere_bit_for_bit(capsys):
    ends = time.monotonic() + 2.0
    with_seconds_left(2.0)
    assert time.monotonic() < ends
    shown = capsys.readouterr().out
    done = RunFolder(f"out/unfinished/{NAME}").load()["iteration"]
    assert 0 < done < 70_000
    assert "1 run is left" in shown
    assert f"{done:,}" in shown
    assert Path(f"out/curves/{NAME}.jsonl").is_file()
    assert not Path(f"out/{NAME}.json").exists()
    assert sorted(p.name for p in Path(f"out/unfinished/{NAME}").iterdir()) == [
        "checkpoints", "config.json", "metrics.jsonl",
    ]  # fmt: skip
    before = files_of("out/unfinished")
    goes_on = replace(OPTIONS, runs=Path("other"), to=Path("there"), unfinished=Path("out/unfinished"), max_time=None)
    reproduce(replace(goes_on, iterations=done + 3), time.monotonic())
    assert_same(RunFolder(f"other/{NAME}").load(), begun("whole", done + 3))
    assert json.loads(Path(f"there/{NAME}.json").read_text())["iterations"] == done + 3
    assert files_of("out/unfinished") == before


def test_rows_of_glyphs_end_one_after_the_other_within_the_time(small_glyphs, capsys):
    words = ["reproduce", "glyphs", "--rows", "glyphs-5way-1shot-[ap][nr]*", "--max-time", "2m", "--runs", "r",
             "--to", "out", "--allocator", "default"]  # fmt: skip
    main([*words, "--dry-run"])
    assert capsys.readouterr().out.count("whole") == 2
    assert not Path("r").exists()
    main(words)
    assert "All requested results exist." in capsys.readouterr().out
    assert sorted(path.name for path in Path("out").glob("*.json")) == [
        "glyphs-5way-1shot-anil-seed0.json", "glyphs-5way-1shot-protonet-seed0.json",
    ]  # fmt: skip
    assert not Path("out/unfinished").exists()


def test_what_reaches_its_end_is_tested_and_no_longer_unfinished(monkeypatch):
    shorter(monkeypatch)
    begun(f"out/unfinished/{NAME}", 2)
    with_seconds_left(3600)
    assert json.loads(Path(f"out/{NAME}.json").read_text())["iterations"] == 4
    assert not Path(f"out/unfinished/{NAME}").exists()


def test_what_cannot_be_tested_any_more_is_left_at_its_end_for_the_next_call(monkeypatch, capsys):
    shorter(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr("fewstep.experiments.reproduce._seconds_of_test", lambda *_: 7200.0)
        with_seconds_left(3600)
    shown = capsys.readouterr().out
    assert f"{NAME} is at its end, and there is no time left to test it" in shown
    assert "evaluation only" in shown
    assert not Path(f"out/{NAME}.json").exists()
    assert RunFolder(f"out/unfinished/{NAME}").load()["iteration"] == 4
    with_seconds_left(3600, runs=Path("another"))
    assert json.loads(Path(f"out/{NAME}.json").read_text())["iterations"] == 4
    assert not Path(f"out/unfinished/{NAME}").exists()


def test_nothing_is_begun_when_the_time_is_over(capsys):
    with_seconds_left(-1)
    assert "1 run is left" in capsys.readouterr().out
    assert not Path("r").exists()
    assert not Path("out").exists()


def test_a_row_that_fails_leaves_what_it_has_and_the_others_go_on(monkeypatch, capsys):
    train = Run.train

    def breaks(self, progress, until, deadline):
        train(self, progress, 2, deadline)
        if self.name.endswith("maml"):
            raise ValueError("the sines are cut")

    monkeypatch.setattr(Run, "train", breaks)
    with pytest.raises(
        RuntimeError, match=r"1 of 2 runs failed:\n.*-fomaml-seed0: unexpected ValueError: the sines are cut"
    ):
        with_seconds_left(3600, rows="sinusoid-5shot-[fo]*", iterations=2)
    assert RunFolder("out/unfinished/sinusoid-5shot-fomaml-seed0").load()["iteration"] == 2
    assert json.loads(Path(f"out/{NAME}.json").read_text())["iterations"] == 2


# Where runs are taken up from, and what counts as done


def test_a_run_of_more_iterations_is_not_replaced_by_an_unfinished_one():
    for folder, iterations in (("r", 3), ("u", 2), ("v", 4)):
        begun(f"{folder}/{NAME}", iterations)

    def planned(runs, *unfinished):
        (one,) = plan.missing_runs(
            [EXPERIMENTS[ROW]], (0,), Path(runs), Path("out"), unfinished=[Path(p) for p in unfinished]
        )
        return one.done, one.copied_from

    assert planned("r", "u") == (3, None)
    assert planned("nowhere", "u") == (2, Path("u") / NAME)
    assert planned("r", "u", "v") == (4, Path("v") / NAME)


def test_committed_runs_are_taken_up_by_themselves_and_only_read(monkeypatch, capsys):
    shorter(monkeypatch)
    begun(f"reproduction/sinusoid/unfinished/{NAME}", 2)
    before = files_of("reproduction")
    reproduce(replace(OPTIONS, dry_run=True), time.monotonic())
    shown = capsys.readouterr().out
    assert "Runs are copied from reproduction/sinusoid/unfinished" in shown
    assert "whole" in shown
    with pytest.raises(ValueError, match="--to: unfinished runs would be written to reproduction/sinusoid/unfinished"):
        with_seconds_left(3600, to=Path("reproduction/sinusoid"))
    with_seconds_left(3600)
    assert_same(RunFolder(f"r/{NAME}").load(), begun("whole", 4))
    assert files_of("reproduction") == before
    reproduce(replace(OPTIONS, runs=Path("s"), to=Path("reproduction/sinusoid"), max_time=None), time.monotonic())
    assert {path: content for path, content in files_of("reproduction").items() if path in before} == before


def test_results_that_are_there_are_not_made_again(monkeypatch, capsys):
    shorter(monkeypatch)
    with_seconds_left(3600)
    capsys.readouterr()
    with_seconds_left(3600, to=Path("here"), runs=Path("s"), results=Path("out"))
    assert "All requested results exist." in capsys.readouterr().out
    assert not Path("s").exists()
    before = files_of("out")
    reproduce(replace(OPTIONS, train=False, results=Path("out"), to=Path("shown"), max_time=None), 0.0)
    assert files_of("out") == before
    assert "sinusoid-5shot-oracle" in Path("shown/table.md").read_text()


@pytest.mark.parametrize("option", ["unfinished", "results"])
def test_folders_to_read_must_be_there(option):
    with pytest.raises(ValueError, match=f"--{option}: expected an existing folder; got nowhere"):
        reproduce(replace(OPTIONS, **{option: Path("nowhere")}), time.monotonic())


def test_a_run_with_other_settings_is_not_overwritten():
    row = EXPERIMENTS[ROW]
    Run.create(ROW, replace(row.config, meta_batch=3), Training(compile=False), f"r/{NAME}")
    before = files_of("r")
    begun(f"u/{NAME}", 2)
    with pytest.raises(RuntimeError, match=f"r/{NAME} holds a run with other settings"):
        with_seconds_left(3600, unfinished=Path("u"))
    assert files_of("r") == before


# Order and times


def planned_rows(*names):
    return plan.missing_runs([EXPERIMENTS[name] for name in names], (0,), Path("r"), Path("out"))


def test_papers_numbers_first_then_the_least_work():
    names = ("omniglot-5way-1shot-budget-maml", "omniglot-20way-5shot-maml", "omniglot-5way-5shot-maml")
    ordered = [one.row.name for one in by_paper_and_work(planned_rows(*names))]
    assert ordered == ["omniglot-5way-5shot-maml", "omniglot-20way-5shot-maml", "omniglot-5way-1shot-budget-maml"]


def test_papers_numbers_first_then_the_least_time():
    names = ("omniglot-5way-1shot-budget-maml", "omniglot-5way-5shot-maml", "omniglot-20way-5shot-maml")
    ours, long, unknown = planned_rows(*names)
    runs = [EstimatedRun(ours, 1.0, 0.0), EstimatedRun(unknown, None, 0.0), EstimatedRun(long, 900.0, 0.0)]
    assert [one.run for one in by_paper_and_time(runs)] == [long, unknown, ours], "by its work it takes longer"
    short = EstimatedRun(unknown, 10.0, 0.0)
    assert by_paper_and_time([*runs[::2], short])[0] == short


def test_what_fits_is_told_row_by_row():
    one, other = planned_rows("omniglot-5way-1shot-maml", "omniglot-5way-5shot-maml")
    runs = [EstimatedRun(one, 100.0, 10.0), EstimatedRun(other, 600.0, 40.0), EstimatedRun(other, 1.0, 0.0)]
    assert what_fits(runs, 300.0) == ["whole", "to about 15,000", "no"]
    assert what_fits([runs[1], runs[0]], 30.0) == ["no", "to about 12,000"], "what is begun sooner may still fit"
    assert what_fits([EstimatedRun(one, None, 10.0), runs[0]], 300.0) == ["?", "?"]
    assert what_fits(runs, -5.0) == ["no", "no", "no"]


def test_how_long_a_run_takes_to_start_is_remembered():
    (new,) = planned_rows(ROW)
    assert seconds_to_start(new, Training()) > seconds_to_start(new, Training(compile=False))
    begun(f"r/{NAME}", 2)
    run = RunFolder(f"r/{NAME}")
    state = run.load()
    assert state["starting_seconds"] > 0
    run.save({**state, "starting_seconds": 50.0})
    (one,) = planned_rows(ROW)
    assert seconds_to_start(one, Training()) == 5.0 + 1.2 * 50.0
    run.save({**state, "starting_seconds": 50.0, "processors": [processor(), "Abacus"]})
    assert seconds_to_start(one, Training()) == seconds_to_start(new, Training())


def test_a_dry_run_says_what_fits(capsys):
    words = {"table": "glyphs", "rows": "glyphs-5way-1shot-anil", "dry_run": True, "max_time": "60s"}
    reproduce(replace(OPTIONS, **words), time.monotonic())
    shown = capsys.readouterr().out
    assert "before the limit" in shown
    assert "to about" in shown
    assert not Path("r").exists()


def test_committed_results_are_not_made_again():
    Path("reproduction/sinusoid").mkdir(parents=True)
    done = {"experiment": ROW, "seed": 0, "iterations": EXPERIMENTS[ROW].config.iterations, "config": {}}
    done |= {"steps": 0, "mean": [0.1], "ci95": [0.1]}
    Path(f"reproduction/sinusoid/{NAME}.json").write_text(json.dumps(done))
    with_seconds_left(3600)
    assert not Path("r").exists()
